//go:build unix

package safetensors

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// big writes a file with one tensor of 32 MiB.
func big(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "big.safetensors")
	const n = 32 << 20
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i>>12) | 1
	}
	require.NoError(t, WriteFile(path, []Tensor{{Name: "big", DType: U8, Shape: []int{n}, Data: data}}, nil))
	return path
}

// A file that shrinks under its mapping is an error, where it is read with CopyTo.
func TestTruncatedWhileMapped(t *testing.T) {
	path := big(t)
	f, err := OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	v, _ := f.Tensor("big")
	dst := make([]byte, len(v.Data))
	require.NoError(t, v.CopyTo(dst))
	require.NoError(t, os.Truncate(path, 1<<20))
	err = v.CopyTo(dst)
	require.ErrorContains(t, err, path+`: tensor "big": reading its 33554432 bytes faulted at address 0x`)
}

func TestCopyToAfterClose(t *testing.T) {
	f, err := OpenFile(big(t))
	require.NoError(t, err)
	v, _ := f.Tensor("big")
	dst := make([]byte, len(v.Data))
	require.NoError(t, f.Close())
	require.ErrorContains(t, v.CopyTo(dst), "or it was closed")
}

func TestPipeDoesNotBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), SingleName)
	require.NoError(t, unix.Mkfifo(path, 0o600))
	_, err := OpenFile(path)
	require.ErrorContains(t, err, "not a regular file (p")
	_, err = Open(filepath.Dir(path))
	require.ErrorContains(t, err, "not a regular file (p")
}
