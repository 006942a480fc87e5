package hub

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/safetensors"
)

// siblings is a listing of one entry more than config.json.
func siblings(entry string) string {
	return `{"sha": "` + commitA + `", "siblings": [
		{"rfilename": "config.json", "size": 2, "blobId": "` + commitB + `"}, ` + entry + `]}`
}

func TestParseListing(t *testing.T) {
	sum := strings.Repeat("0123", 16)
	for _, tt := range []struct {
		name, json string
		want       []file // besides config.json
		err        string
	}{
		{"small", siblings(`{"rfilename": "tokenizer.json", "size": 5, "blobId": "` + commitA + `"}`), []file{{"tokenizer.json", 5, commitA}}, ""},
		{"large", siblings(`{"rfilename": "x.safetensors", "size": 134, "blobId": "` + commitA + `", "lfs": {"sha256": "` + sum + `", "size": 7}}`),
			[]file{{"x.safetensors", 7, sum}}, ""},
		{"names alone", siblings(`{"rfilename": "x.safetensors"}`), []file{{"x.safetensors", -1, ""}}, ""},
		{"no size", siblings(`{"rfilename": "tokenizer.json", "blobId": "` + commitA + `"}`), []file{{"tokenizer.json", -1, ""}}, ""},
		{"hostile names are others", siblings(`{"rfilename": "../x.safetensors"}, {"rfilename": "/x.safetensors"}, {"rfilename": "a/x.safetensors"},
			{"rfilename": "a\\x.safetensors"}, {"rfilename": "..safetensors"}, {"rfilename": ".safetensors"}, {"rfilename": "x\u0000.safetensors"},
			{"rfilename": "config.json/x.safetensors"}, {"rfilename": "-x.safetensors"}, {"rfilename": ""},
			{"rfilename": "` + strings.Repeat("x", 300) + `.safetensors"}`), nil, ""},
		{"twice", siblings(`{"rfilename": "config.json"}`), nil, "config.json is listed twice"},
		{"commit that climbs", `{"sha": "../../../../../../../../../../../../../xx"}`, nil, "want 40 hexadecimal digits"},
		{"commit in capitals", `{"sha": "` + strings.ToUpper(commitA) + `"}`, nil, "want 40 hexadecimal digits"},
		{"hash that climbs", siblings(`{"rfilename": "tokenizer.json", "size": 5, "blobId": "../../x"}`), nil, `tokenizer.json has the blob id "../../x"`},
		{"large hash that climbs", siblings(`{"rfilename": "x.safetensors", "lfs": {"sha256": "../x", "size": 7}}`), nil, `has the SHA-256 "../x"`},
		{"negative", siblings(`{"rfilename": "tokenizer.json", "size": -1, "blobId": "` + commitA + `"}`), nil, "has -1 bytes"},
		{"huge", siblings(`{"rfilename": "tokenizer.json", "size": 9007199254740992, "blobId": "` + commitA + `"}`), nil, "has 9007199254740992 bytes"},
		{"beyond int64", siblings(`{"rfilename": "tokenizer.json", "size": 1e300, "blobId": "` + commitA + `"}`), nil, "cannot unmarshal"},
		{"a page", "<html>", nil, "invalid character"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := parseListing([]byte(tt.json))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			delete(l.files, "config.json")
			require.ElementsMatch(t, tt.want, slices.Collect(maps.Values(l.files)))
		})
	}
	_, err := parseListing(make([]byte, maxListing+1))
	require.ErrorContains(t, err, "larger than")
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(siblings(`{"rfilename": "../x.safetensors", "size": 1, "lfs": {"sha256": "` + strings.Repeat("ab", 32) + `"}}`)))
	f.Add([]byte(siblings(`{"rfilename": "x.safetensors", "size": -5, "lfs": {}}`)))
	f.Add([]byte(`{"sha": "..", "siblings": [null, {}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseListing(data)
		if err != nil {
			return
		}
		require.Regexp(t, commitPattern, l.commit)
		for name, f := range l.files {
			require.Equal(t, name, filepath.Base(name))
			require.True(t, filepath.IsLocal(name) && !strings.ContainsAny(name, `/\`), "%q", name)
			require.True(t, f.hash == "" && f.size == -1 || f.size >= 0 && (commitPattern.MatchString(f.hash) || sha256Pattern.MatchString(f.hash)))
		}
		require.Less(t, len(l.explain()), 500)
	})
}

func FuzzIndex(f *testing.F) {
	for _, name := range []string{"model-00001-of-00002.safetensors", "../x.safetensors", "/x.safetensors", `a\x.safetensors`, ".safetensors", "x.bin"} {
		quoted, _ := json.Marshal(name)
		f.Add([]byte(`{"weight_map": {"a": ` + string(quoted) + `}}`))
	}
	f.Add([]byte(`{"weight_map": null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		shards, err := parseIndex(data)
		if err != nil {
			return
		}
		require.NotEmpty(t, shards)
		for _, name := range shards {
			require.True(t, filepath.IsLocal(name) && filepath.Base(name) == name && !strings.ContainsAny(name, `/\`), "%q", name)
			require.NotEqual(t, safetensors.IndexName, name)
		}
	})
}
