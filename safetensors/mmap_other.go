//go:build !unix

package safetensors

import (
	"fmt"
	"io"
	"os"
)

// mapping is a whole file, read into memory: here there is no mmap.
type mapping struct {
	bytes []byte
}

func mapFile(f *os.File, size int64) (*mapping, error) {
	if size > int64(maxInt) {
		return nil, fmt.Errorf("more than the address space of %d bytes", maxInt)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), b); err != nil {
		return nil, err
	}
	return &mapping{b}, nil
}

func (m *mapping) release(begin, end int64) {}

// unmap leaves the memory to the garbage collector, which knows who still uses it.
func (m *mapping) unmap() error { return nil }

func syncDir(string) error { return nil }
