package safetensors

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

const shard1, shard2 = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

// writeIndex writes the index of a model: tensor to shard.
func writeIndex(t testing.TB, dir string, weightMap map[string]string) {
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": 1e3}, "weight_map": weightMap})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, IndexName), text, 0o600))
}

// sharded writes a model of two shards.
func sharded(t testing.TB, dir string) {
	writeFile(t, dir, shard1, "embed", "norm")
	writeFile(t, dir, shard2, "lm_head")
	writeIndex(t, dir, map[string]string{"embed": shard1, "norm": shard1, "lm_head": shard2})
}

func requireSharded(t *testing.T, dir string) {
	for _, headers := range []bool{false, true} {
		open := Open
		if headers {
			open = OpenHeaders
		}
		c, err := open(dir)
		require.NoError(t, err)
		require.Equal(t, []string{"embed", "norm", "lm_head"}, c.Names())
		require.Equal(t, map[string]string{"format": "pt", "file": shard1}, c.Metadata())
		require.Equal(t, []string{filepath.Join(dir, shard1), filepath.Join(dir, shard2)}, c.Files())
		require.EqualValues(t, 16, c.DataSize())
		for i, name := range c.Names() {
			v, ok := c.Tensor(name)
			require.True(t, ok)
			require.Equal(t, []int{len(name)}, v.Shape)
			require.Equal(t, c.Files()[i/2], v.File)
			if headers {
				require.Nil(t, v.Data)
			} else {
				require.Equal(t, name, string(v.Data))
			}
			c.Release(name)
		}
		_, ok := c.Tensor("bias")
		require.False(t, ok)
		c.Release("bias")
		require.NoError(t, c.Close())
		require.NoError(t, c.Close())
		_, ok = c.Tensor("norm")
		require.Equal(t, headers, ok, "a header has nothing to close")
		c.Release("norm")
	}
}

func TestOpenSharded(t *testing.T) {
	dir := t.TempDir()
	sharded(t, dir)
	requireSharded(t, dir)
}

func TestOpenSingle(t *testing.T) {
	dir := t.TempDir()
	sharded(t, dir)
	path := writeFile(t, dir, SingleName, "wte")
	c, err := Open(dir)
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, []string{"wte"}, c.Names(), "the single file wins, as in transformers")
	require.Equal(t, []string{path}, c.Files())
	v, ok := c.Tensor("wte")
	require.True(t, ok)
	require.Equal(t, "wte", string(v.Data))
}

// The layout of the Hugging Face cache: snapshots of links to blobs, which lie outside the folder that is opened.
func TestOpenHubCache(t *testing.T) {
	root := t.TempDir()
	blobs, snapshot := filepath.Join(root, "blobs"), filepath.Join(root, "snapshots", "5ba7c1")
	require.NoError(t, os.MkdirAll(blobs, 0o700))
	require.NoError(t, os.MkdirAll(snapshot, 0o700))
	sharded(t, blobs)
	for i, name := range []string{shard1, shard2, IndexName} {
		blob := string(rune('a'+i)) + "0f3"
		require.NoError(t, os.Rename(filepath.Join(blobs, name), filepath.Join(blobs, blob)))
		link(t, filepath.Join("..", "..", "blobs", blob), filepath.Join(snapshot, name))
	}
	requireSharded(t, snapshot)

	require.NoError(t, os.Remove(filepath.Join(blobs, "b0f3")))
	_, err := Open(snapshot)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, shard2)

	link(t, filepath.Join("..", "..", "blobs", "gone"), filepath.Join(snapshot, SingleName))
	_, err = Open(snapshot)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, filepath.Join(snapshot, SingleName), "a broken link is not passed over")
}

func link(t *testing.T, target, path string) {
	if err := os.Symlink(target, path); err != nil {
		if runtime.GOOS == "windows" {
			t.Skip("this Windows account may not create symbolic links:", err)
		}
		require.NoError(t, err)
	}
}

func TestIndexAndShardsMustAgree(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   []string
	}{
		{"missing in the shard", func(t *testing.T, dir string) {
			writeIndex(t, dir, map[string]string{"embed": shard1, "norm": shard1, "lm_head": shard2, "bias": shard2})
		}, []string{shard2 + `: tensor "bias": missing`, IndexName}},
		{"missing in the index", func(t *testing.T, dir string) {
			writeIndex(t, dir, map[string]string{"embed": shard1, "lm_head": shard2})
		}, []string{shard1 + `: tensor "norm": not in the index`, IndexName}},
		{"in another shard", func(t *testing.T, dir string) {
			writeIndex(t, dir, map[string]string{"embed": shard1, "norm": shard2, "lm_head": shard2})
		}, []string{shard1 + `: tensor "norm"`, `says it is in shard "` + shard2}},
		{"in two shards", func(t *testing.T, dir string) {
			writeFile(t, dir, shard2, "lm_head", "norm")
		}, []string{shard2 + `: tensor "norm": also in `, shard1}},
		{"shard missing", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, shard2)))
		}, []string{IndexName, shard2, `tensor "lm_head"`, "missing"}},
		{"shard is a folder", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, shard2)))
			require.NoError(t, os.Mkdir(filepath.Join(dir, shard2), 0o700))
		}, []string{shard2, "not a regular file"}},
		{"shard is broken", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, shard2), pack(one("U8", "[2]", "[0,3]"), "xxx"), 0o600))
		}, []string{shard2, `tensor "a"`, "needs 2 bytes"}},
		{"no weights", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, IndexName)))
		}, []string{"neither model.safetensors nor model.safetensors.index.json"}},
		{"index is a folder", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, IndexName)))
			require.NoError(t, os.Mkdir(filepath.Join(dir, IndexName), 0o700))
		}, []string{IndexName, "not a regular file"}},
		{"index too large", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, IndexName), MaxHeaderSize+1))
		}, []string{IndexName, "index of 100000001 bytes is larger than the limit of 100000000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			sharded(t, dir)
			c.change(t, dir)
			_, err := Open(dir)
			_, errHeaders := OpenHeaders(dir)
			require.Error(t, err)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			require.EqualError(t, errHeaders, err.Error())
		})
	}
	_, err := Open(filepath.Join(t.TempDir(), "nowhere"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// The file that a bad name leads to exists, and is sound: only the name is at fault.
func TestShardNamesStayInTheFolder(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "model")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700))
	outside := writeFile(t, root, "x.safetensors", "wte")
	writeFile(t, filepath.Join(dir, "sub"), "x.safetensors", "wte")
	for _, name := range []string{
		"../x.safetensors", outside, "sub/../../x.safetensors", "sub/x.safetensors", "./x.safetensors", `..\x.safetensors`,
		`C:\x.safetensors`, "c:x.safetensors", "", ".", "..", "/", "x\x00.safetensors",
	} {
		writeIndex(t, dir, map[string]string{"wte": name})
		_, err := Open(dir)
		require.ErrorContains(t, err, `tensor "wte": shard `+quote(name)+` is not a plain file name`)
		require.ErrorContains(t, err, IndexName)
	}
}

var hostileIndexes = []struct{ name, index, want string }{
	{"empty", ``, "expected '{', found the end"},
	{"list", `[]`, "expected '{'"},
	{"no map", `{"metadata":{}}`, "weight_map is missing"},
	{"empty map", `{"weight_map":{}}`, "weight_map is empty"},
	{"null map", `{"weight_map":null}`, "weight_map: "},
	{"number", `{"weight_map":{"a":1}}`, `weight_map: key "a": at byte 19: expected a string`},
	{"duplicate tensor", `{"weight_map":{"a":"x","a":"y"}}`, `duplicate key "a"`},
	{"duplicate map", `{"weight_map":{"a":"x"},"weight_map":{"a":"y"}}`, `duplicate key "weight_map"`},
	{"duplicate elsewhere", `{"metadata":{"k":1,"k":2},"weight_map":{"a":"x"}}`, `duplicate key "k"`},
	{"garbage after", `{"weight_map":{"a":"x"}}]`, "1 bytes after the end"},
	{"invalid UTF-8", "{\"weight_map\":{\"a\":\"\xff\"}}", "UTF-8 at byte 20"},
	{"cut off", `{"weight_map":{"a":"x`, "has no end"},
	{"bomb", `{"metadata":` + string(slices.Repeat([]byte("["), 1e4)), "deeper than 127"},
}

func TestHostileIndexes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range hostileIndexes {
		require.NoError(t, os.WriteFile(filepath.Join(dir, IndexName), []byte(c.index), 0o600))
		_, err := Open(dir)
		require.ErrorContains(t, err, c.want, c.name)
		require.ErrorContains(t, err, IndexName, c.name)
	}
}
