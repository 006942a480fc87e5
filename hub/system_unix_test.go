//go:build linux || darwin || freebsd

package hub

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Python's filelock may remove the file that it held. Who waited for it then holds a file without a name.
func TestLockOutlivesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	first, err := lockFile(t.Context(), path, func() { t.Error("nobody holds it") })
	require.NoError(t, err)
	waits, got := make(chan struct{}), make(chan func() error)
	go func() {
		second, err := lockFile(t.Context(), path, func() { close(waits) })
		if err != nil {
			t.Error(err)
		}
		got <- second
	}()
	<-waits
	require.NoError(t, os.Remove(path))
	require.NoError(t, first())
	second := <-got

	ctx, cancel := context.WithCancel(t.Context())
	_, err = lockFile(ctx, path, cancel)
	require.ErrorIs(t, err, context.Canceled, "the second holds the file that has the name")
	require.NoError(t, second())
	third, err := lockFile(t.Context(), path, func() { t.Error("nobody holds it") })
	require.NoError(t, err)
	require.NoError(t, third())
}

func TestFreeSpace(t *testing.T) {
	dir := t.TempDir()
	require.Positive(t, freeSpace(filepath.Join(dir, "not", "yet")), "that of the nearest parent")
}
