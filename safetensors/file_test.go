package safetensors

import (
	"io/fs"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeFile writes U8 vectors, whose bytes are their own name, and returns the path.
func writeFile(t testing.TB, dir, file string, names ...string) string {
	var tensors []Tensor
	for _, name := range names {
		tensors = append(tensors, Tensor{Name: name, DType: U8, Shape: []int{len(name)}, Data: []byte(name)})
	}
	path := filepath.Join(dir, file)
	require.NoError(t, WriteFile(path, tensors, map[string]string{"format": "pt", "file": file}))
	return path
}

func TestFile(t *testing.T) {
	path := writeFile(t, t.TempDir(), "x.safetensors", "wte", "lm_head", "norm")
	f, err := OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, path, f.Path())
	require.Equal(t, []string{"lm_head", "norm", "wte"}, f.Names())
	require.EqualValues(t, 14, f.DataSize())

	v, ok := f.Tensor("norm")
	require.True(t, ok)
	require.Equal(t, Tensor{Name: "norm", DType: U8, Shape: []int{4}, Data: []byte("norm"), File: path}, v)
	require.Equal(t, "norm U8 [4]", v.String())
	require.Equal(t, len(v.Data), cap(v.Data))
	require.Equal(t, "norm!", string(append(v.Data, '!')), "append copies, it does not touch the neighbour")
	copied := make([]byte, 4)
	require.NoError(t, v.CopyTo(copied))
	require.Equal(t, "norm", string(copied))
	require.ErrorContains(t, v.CopyTo(copied[:3]), `tensor "norm": destination has 3 bytes, tensor has 4`)

	_, ok = f.Tensor("bias")
	require.False(t, ok)
	f.Release("norm")
	f.Release("bias")
	require.Equal(t, "norm", string(v.Data), "valid after Release")

	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	_, ok = f.Tensor("norm")
	require.False(t, ok)
	f.Release("norm")
	require.Equal(t, []string{"lm_head", "norm", "wte"}, f.Names())
	require.Equal(t, "pt", f.Metadata()["format"])
}

func TestOpenHeader(t *testing.T) {
	path := writeFile(t, t.TempDir(), "x.safetensors", "norm")
	h, err := OpenHeader(path)
	require.NoError(t, err)
	v, ok := h.Tensor("norm")
	require.True(t, ok)
	require.Equal(t, Tensor{Name: "norm", DType: U8, Shape: []int{4}, File: path}, v)
}

func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenFile(filepath.Join(dir, "x.safetensors"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = OpenFile(dir)
	require.ErrorContains(t, err, dir+": not a regular file (d")
}

// Close while others look up and release: whoever comes late gets false. The race detector and the kernel judge.
func TestCloseIsSafeForOthers(t *testing.T) {
	path := writeFile(t, t.TempDir(), "x.safetensors", "norm")
	for range 50 {
		f, err := OpenFile(path)
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					f.Tensor("norm")
					f.Release("norm")
				}
			})
		}
		wg.Go(func() { f.Close() })
		wg.Wait()
	}
}
