package hub

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFromEnv(t *testing.T) {
	home := t.TempDir()
	tokenFile := filepath.Join(home, "elsewhere")
	require.NoError(t, os.WriteFile(tokenFile, []byte("  hf_file\r\n"), 0o600))
	hf := filepath.Join(home, ".cache", "huggingface")
	require.NoError(t, os.MkdirAll(hf, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(hf, "token"), []byte("hf_default\n"), 0o600))
	for _, tt := range []struct {
		name string
		env  map[string]string
		want Client
	}{
		{"nothing", nil, Client{Endpoint: DefaultEndpoint, Cache: filepath.Join(hf, "hub"), Token: "hf_default"}},
		{"XDG_CACHE_HOME", map[string]string{"XDG_CACHE_HOME": "/xdg"}, Client{Endpoint: DefaultEndpoint, Cache: "/xdg/huggingface/hub"}},
		{"HF_HOME", map[string]string{"HF_HOME": "/hf", "XDG_CACHE_HOME": "/xdg"}, Client{Endpoint: DefaultEndpoint, Cache: "/hf/hub"}},
		{"HF_HUB_CACHE", map[string]string{"HF_HUB_CACHE": "~/$NAME/$UNSET", "NAME": "models"},
			Client{Endpoint: DefaultEndpoint, Cache: home + "/models/$UNSET", Token: "hf_default"}},
		{"HF_TOKEN", map[string]string{"HF_TOKEN": " hf_env\n"}, Client{Endpoint: DefaultEndpoint, Cache: filepath.Join(hf, "hub"), Token: "hf_env"}},
		{"HF_TOKEN_PATH", map[string]string{"HF_TOKEN_PATH": tokenFile}, Client{Endpoint: DefaultEndpoint, Cache: filepath.Join(hf, "hub"), Token: "hf_file"}},
		{"no token", map[string]string{"HF_TOKEN": "x", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "yes"},
			Client{Endpoint: DefaultEndpoint, Cache: filepath.Join(hf, "hub")}},
		{"endpoint", map[string]string{"HF_ENDPOINT": "http://127.0.0.1:8080/hf/", "HF_HUB_OFFLINE": "1"},
			Client{Endpoint: "http://127.0.0.1:8080/hf/", Cache: filepath.Join(hf, "hub"), Token: "hf_default", Offline: true}},
		{"not offline", map[string]string{"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
			Client{Endpoint: DefaultEndpoint, Cache: filepath.Join(hf, "hub"), Token: "hf_default"}},
		{"offline as transformers", map[string]string{"TRANSFORMERS_OFFLINE": "TRUE"},
			Client{Endpoint: DefaultEndpoint, Cache: filepath.Join(hf, "hub"), Token: "hf_default", Offline: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("HOME", home)
			for _, name := range []string{"XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT",
				"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"} {
				t.Setenv(name, tt.env[name])
			}
			if name := tt.env["NAME"]; name != "" {
				t.Setenv("NAME", name)
			}
			c, err := FromEnv()
			require.NoError(t, err)
			require.Equal(t, tt.want, *c)
		})
	}
}

func TestEndpoint(t *testing.T) {
	for _, bad := range []string{"", "host", "ftp://host", "https://", "https://host?x", "https://host#x", "https://user:secret@host", "https://a b"} {
		_, err := (&Client{Endpoint: bad}).endpoint()
		require.ErrorContains(t, err, "HF_ENDPOINT", bad)
		if bad != "https://a b" {
			require.NotContains(t, err.Error(), "secret")
		}
	}
	s, err := (&Client{Endpoint: "https://host/hf/"}).session(Ref{Repo: "a/b", Revision: "x/y"})
	require.NoError(t, err)
	require.Equal(t, "https://host/hf/api/models/a/b/revision/x%2Fy", s.repoURL([]string{"api", "models"}, "revision", "x/y"))
}

func parsed(t *testing.T, s string) *url.URL {
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}

func TestSameOrigin(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"https://hub.test", "https://HUB.test:443/x", true},
		{"http://127.0.0.1:80", "http://127.0.0.1", true},
		{"https://hub.test", "https://cdn.hub.test", false},
		{"https://hub.test", "https://hub.test.evil", false},
		{"https://hub.test", "http://hub.test", false},
		{"https://hub.test", "https://hub.test:444", false},
		{"http://127.0.0.1", "http://localhost", false},
	} {
		require.Equal(t, tt.want, sameOrigin(parsed(t, tt.a), parsed(t, tt.b)), "%s %s", tt.a, tt.b)
	}
}

func TestCheckRedirect(t *testing.T) {
	for _, tt := range []struct {
		from, to, want string
	}{
		{"https://hub.test/a", "https://cdn.test/b", ""},
		{"http://hub.test/a", "https://cdn.test/b", ""},
		{"http://hub.test/a", "http://cdn.test/b", ""},
		{"https://hub.test/a", "http://127.0.0.1:8080/b", ""},
		{"https://hub.test/a", "http://[::1]/b", ""},
		{"https://hub.test/a", "http://localhost/b", ""},
		{"https://hub.test/a", "http://cdn.test/b?secret", "redirect refused: from https to http://cdn.test/b"},
		{"https://hub.test/a", "http://127.0.0.1.evil.test/b", "redirect refused: from https"},
		{"https://hub.test/a", "file:///etc/passwd", "redirect refused: to file:///etc/passwd"},
	} {
		err := checkRedirect(&http.Request{URL: parsed(t, tt.to)}, []*http.Request{{URL: parsed(t, tt.from)}})
		if tt.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, errRedirect)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "secret")
		}
	}

	h := newFakeHub(t, tinyModel())
	h.onCDN = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
		return true
	}
	_, err := h.client(t).Pull(t.Context(), model, Model)
	require.ErrorContains(t, err, "redirect refused: more than 10 in a row")
}

func TestPrintable(t *testing.T) {
	require.Equal(t, "a[31mb", printable("a\x1b[31m\xff\u009b\nb", 200))
	require.Equal(t, "ab", printable("abc", 2))
}
