//go:build linux || darwin || freebsd

package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile takes an exclusive lock, which the process's end frees too. waiting is called once if that takes a
// while. It is the lock of Python's filelock, which huggingface_hub takes.
func lockFile(ctx context.Context, path string, waiting func()) (unlock func() error, err error) {
	for tries := 1; ; tries++ {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && samePath(f, path) {
			return f.Close, nil
		}
		_ = f.Close()
		if err == nil {
			continue // whoever had it removed the file, and another may hold its successor
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if tries == 10 { // a second; files of equal bytes wait for each other for less
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// samePath reports whether path still leads to the open file.
func samePath(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// freeSpace is what the file system of a folder, or of its nearest parent that exists, has for this user; -1 if unknown.
func freeSpace(dir string) int64 {
	for {
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if err == nil {
			return int64(s.Bavail) * int64(s.Bsize) //nolint:unconvert // the types differ between systems
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, unix.ENOENT) || parent == dir {
			return -1
		}
		dir = parent
	}
}
