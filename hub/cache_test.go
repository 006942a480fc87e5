package hub

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What huggingface_hub leaves: files and links, with its listing of the commit or without.
func TestCached(t *testing.T) {
	const tree = `{"format_version": 1, "files": {"config.json": {}, "model.safetensors": {}, "chat_template.jinja": {}, "README.md": {}}}`
	for _, tt := range []struct {
		name  string
		files map[string]string // below models--acme--tiny; the snapshot's begin with a dash
		need  Need
		want  string // of the error
	}{
		{"whole", map[string]string{"-config.json": "", "-tokenizer.json": "", "-model.safetensors": ""}, Model, ""},
		{"text", map[string]string{"-config.json": "", "-tokenizer.json": ""}, Text, ""},
		{"no weights", map[string]string{"-config.json": "", "-tokenizer.json": ""}, Model, "missing model.safetensors or"},
		{"no tokenizer", map[string]string{"-config.json": "", "-model.safetensors": ""}, Model, "missing tokenizer.json"},
		{"marked to have none", map[string]string{"-config.json": "", "-model.safetensors": "", ".no_exist/" + commitA + "/tokenizer.json": ""}, Model, ""},
		{"listed to have none", map[string]string{"-config.json": "", "-model.safetensors": "", "-chat_template.jinja": "",
			"trees/" + commitA + ".json": tree}, Model, ""},
		{"listed and not there", map[string]string{"-config.json": "", "-model.safetensors": "", "trees/" + commitA + ".json": tree}, Model,
			"missing chat_template.jinja"},
		{"a broken listing", map[string]string{"-config.json": "", "-tokenizer.json": "", "-model.safetensors": "",
			"trees/" + commitA + ".json": `{"format_version": 1`}, Model, ""},
		{"a later listing", map[string]string{"-config.json": "", "-tokenizer.json": "", "-model.safetensors": "",
			"trees/" + commitA + ".json": `{"format_version": 2, "files": {"chat_template.jinja": {}}}`}, Model, ""},
		{"a broken index", map[string]string{"-config.json": "", "-tokenizer.json": "", "-model.safetensors.index.json": "{"}, Model,
			"missing model.safetensors.index.json"},
		{"an index that climbs", map[string]string{"-config.json": "", "-tokenizer.json": "",
			"-model.safetensors.index.json": `{"weight_map": {"a": "../config.safetensors"}}`, "snapshots/config.safetensors": ""}, Model,
			"missing model.safetensors.index.json"},
		{"a folder for a file", map[string]string{"-config.json/x": "", "-tokenizer.json": ""}, Text, "missing config.json"},
		{"no snapshot", nil, Text, "missing config.json, tokenizer.json"},
		{"a ref that climbs", map[string]string{"refs/main": "../../../../../../../../../../../../../../../etc"}, Text, "want a commit of 40 hexadecimal digits"},
		{"a huge ref", map[string]string{"refs/main": string(make([]byte, 300))}, Text, "larger than 256 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Client{Endpoint: "http://127.0.0.1:0", Cache: t.TempDir(), Offline: true}
			s := c.store(model)
			require.NoError(t, writeFile(s.ref("main"), commitA))
			for name, text := range tt.files {
				path := s.path(name)
				if name[0] == '-' {
					path = filepath.Join(s.snapshot(commitA), name[1:])
				}
				require.NoError(t, writeFile(path, text))
			}
			snapshot, err := c.Pull(t.Context(), model, tt.need)
			if tt.want != "" {
				require.ErrorContains(t, err, tt.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, s.snapshot(commitA), snapshot.Folder)
		})
	}
	_, err := (&Client{Cache: t.TempDir()}).Cached(Ref{Repo: "../x"}, Text)
	require.ErrorContains(t, err, "want org/name")
	_, err = (&Client{Cache: t.TempDir()}).Pull(t.Context(), Ref{Repo: "a/b", Revision: "../x"}, Text)
	require.ErrorContains(t, err, "not a revision")
}

// A cache without links, as huggingface_hub makes where there are none, is used and completed.
func TestCacheOfCopies(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	c := h.client(t)
	dir := c.store(model).snapshot(commitA)
	for _, name := range []string{"config.json", "model.safetensors"} {
		require.NoError(t, writeFile(filepath.Join(dir, name), string(h.commits[commitA][name])))
	}
	s, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	require.Equal(t, int64(len(h.commits[commitA]["tokenizer.json"])), s.Fetched)
	requireWhole(t, c, h, s, wanted...)
	info, err := os.Lstat(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
}
