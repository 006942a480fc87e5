//go:build !linux && !darwin && !freebsd

package hub

import "context"

// lockFile does nothing here, so fill a cache from one process at a time.
func lockFile(context.Context, string, func()) (unlock func() error, err error) {
	return func() error { return nil }, nil
}

// freeSpace is unknown here.
func freeSpace(string) int64 { return -1 }
