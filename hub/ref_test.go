package hub

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Ref{
		"Qwen/Qwen3-0.6B":                         {Repo: "Qwen/Qwen3-0.6B"},
		"meta-llama/Llama-3.1-8B@main":            {Repo: "meta-llama/Llama-3.1-8B", Revision: "main"},
		"a/b@refs/pr/1":                           {Repo: "a/b", Revision: "refs/pr/1"},
		"a/b@v1.0+fp8@x":                          {Repo: "a/b", Revision: "v1.0+fp8@x"},
		"a_b/c.d@" + commitA:                      {Repo: "a_b/c.d", Revision: commitA},
		"a/b@größe":                               {Repo: "a/b", Revision: "größe"},
		"__DUMMY__/_x_":                           {Repo: "__DUMMY__/_x_"},
		"a/" + strings.Repeat("b", maxRepo-2):     {Repo: "a/" + strings.Repeat("b", maxRepo-2)},
		"a/b@" + strings.Repeat("c", maxRevision): {Repo: "a/b", Revision: strings.Repeat("c", maxRevision)},
	} {
		ref, err := Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, ref)
	}
}

// hostileNames are no models.
var hostileNames = []string{
	"", "/", "a", "a/", "/a", "/etc/passwd", "a/b/c", "../b", "a/..", "./b", "a/.", "a/b.", "-a/b", "a/b-", "a..b/c", "a--b/c", "a/b.git",
	`a\b`, `a/b\..\c`, "a/b\x00", "a\x00/b", "a/b\n", " a/b", "a/b ", "a/b%2e%2e", "a/b?x", "a/b#x", "https://a/b", "ä/b", "C:/b", "~/b",
	"a/b@", "a/b@..", "a/b@../x", "a/b@x/../y", "a/b@/x", "a/b@x/", "a/b@x//y", "a/b@.x", "a/b@x/.y", "a/b@x.lock", "a/b@x.lock/y",
	"a/b@x.", "a/b@x y", "a/b@x\x00", "a/b@x\ny", `a/b@x\y`, "a/b@x:y", "a/b@x~1", "a/b@x^", "a/b@x*", "a/b@x?", "a/b@[x", "a/b@x@{1}",
	"a/b@\xff", "a/b@x\x7f", "a/" + strings.Repeat("b", maxRepo-1), "a/b@" + strings.Repeat("c", maxRevision+1), strings.Repeat("a", 1<<20),
}

func TestParseRefuses(t *testing.T) {
	for _, text := range hostileNames {
		_, err := Parse(text)
		require.Error(t, err, "%q", text)
		require.Less(t, len(err.Error()), 500)
		require.NotContains(t, err.Error(), "\x00")
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range hostileNames {
		f.Add(name)
	}
	f.Add("Qwen/Qwen3-0.6B@refs/pr/1")
	cache := filepath.Join(f.TempDir(), "hub")
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(ref.String())
		require.NoError(t, err)
		require.Equal(t, ref.Repo, again.Repo)
		require.Equal(t, ref.revision(), again.revision())
		c := &Client{Endpoint: "http://127.0.0.1/x", Cache: cache}
		s := c.store(ref)
		require.Equal(t, cache, filepath.Dir(s.path()), "one folder in the cache")
		require.True(t, filepath.IsLocal(filepath.FromSlash(ref.revision())))
		require.True(t, strings.HasPrefix(s.ref(ref.revision()), filepath.Join(s.path(), "refs")+string(filepath.Separator)))
		ses, err := c.session(ref)
		require.NoError(t, err)
		require.Equal(t, 6, strings.Count(ses.repoURL([]string{"api", "models"}, "revision", ref.revision()), "/")-3)
	})
}
