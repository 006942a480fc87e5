package safetensors

import (
	"fmt"
	"sync"
)

// File is an open safetensors file, mapped into memory. Its methods may be called from many goroutines.
type File struct {
	*Header

	mu  sync.RWMutex
	mem *mapping // nil after Close
}

// OpenFile validates the header of a file and maps it. The bytes of a tensor are read when they are touched, not before.
func OpenFile(path string) (*File, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping does not need it
	// The header is read, not mapped: what was validated cannot change afterwards.
	h, err := ReadHeader(f, size, path)
	if err != nil {
		return nil, err
	}
	mem, err := mapFile(f, size)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: mapping %d bytes: %w", path, size, err)
	}
	return &File{Header: h, mem: mem}, nil
}

// Tensor returns the tensor of that name. Its Data is valid until Close; after Close, Tensor reports false.
func (f *File) Tensor(name string) (Tensor, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	t, ok := f.Header.Tensor(name)
	if !ok || f.mem == nil {
		return Tensor{}, false
	}
	begin, end := f.span(name)
	t.Data = f.mem.bytes[begin:end:end] // the capacity keeps append from writing to the mapping
	return t, true
}

// Release tells the system that the tensor's pages are not needed for now: they leave this process's memory at once, and
// its Data stays valid, to be read from the page cache or the disk again. An unknown name does nothing.
func (f *File) Release(name string) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if _, ok := f.index[name]; ok && f.mem != nil {
		f.mem.release(f.span(name))
	}
}

// Close unmaps the file, which ends the life of every Tensor.Data it gave out. A second Close does nothing.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mem == nil {
		return nil
	}
	mem := f.mem
	f.mem = nil
	if err := mem.unmap(); err != nil {
		return fmt.Errorf("safetensors: %s: unmapping: %w", f.file, err)
	}
	return nil
}

// span returns where in the file the data of a tensor that exists begins and ends.
func (h *Header) span(name string) (begin, end int64) {
	e := &h.entries[h.index[name]]
	return h.offset + e.begin, h.offset + e.end
}
