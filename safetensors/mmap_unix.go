//go:build unix

package safetensors

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mapping is a whole file, read-only.
type mapping struct {
	bytes []byte
}

func mapFile(f *os.File, size int64) (*mapping, error) {
	if size > int64(maxInt) {
		return nil, fmt.Errorf("more than the address space of %d bytes", maxInt)
	}
	// Private, because some network and FUSE file systems have no shared mappings; for reading it is the same.
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	return &mapping{b}, nil
}

// release drops the pages that hold [begin, end). Pages shared with a neighbour go too; it reads them again at no harm.
func (m *mapping) release(begin, end int64) {
	if begin == end {
		return
	}
	page := int64(os.Getpagesize())
	begin -= begin % page
	_ = unix.Madvise(m.bytes[begin:end], unix.MADV_DONTNEED) // a hint: without it memory is merely freed later
}

func (m *mapping) unmap() error { return unix.Munmap(m.bytes) }

// syncDir makes a rename in the folder survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems cannot sync a folder, and say so with these.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}
