package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

const (
	// MaxHeaderSize is the reference's limit, in bytes.
	MaxHeaderSize = 100_000_000
	// MaxRank is the largest number of dimensions, which is NumPy's.
	MaxRank = 64
	// MaxKeys is the largest number of keys in one JSON object. It bounds memory; no tensor count can reach it in
	// a header of MaxHeaderSize, only metadata could.
	MaxKeys = 2_000_000

	lengthSize  = 8              // of the header's length, at the start of the file
	metadataKey = "__metadata__" // the one name in a header that is not a tensor's
)

// Header is the validated header of one file. It is immutable.
type Header struct {
	file     string
	metadata map[string]string // nil if the file has none
	entries  []entry           // by offset; of the same offset, by place in the header
	index    map[string]int32  // into entries
	offset   int64             // of the data in the file
}

type entry struct {
	name       string
	shape      []int
	begin, end int64 // relative to the data
	dtype      DType
}

// OpenHeader reads and validates the header of a file and reads none of its data.
func OpenHeader(path string) (*Header, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadHeader(f, size, path)
}

// ReadHeader reads and validates a header from r, which it leaves at the first byte of the data. The size is that of the
// whole file, to check that the data ends where the file does, or -1 if it is not known. The name is for errors and Tensor.File.
func ReadHeader(r io.Reader, size int64, name string) (*Header, error) {
	h := &Header{file: name}
	var length [lengthSize]byte
	if n, err := io.ReadFull(r, length[:]); err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, h.errorf("", "file of %d bytes is too short for the header length of %d bytes", n, lengthSize)
	} else if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", name, err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > MaxHeaderSize {
		return nil, h.errorf("", "header of %d bytes is larger than the limit of %d", n, MaxHeaderSize)
	}
	if size >= 0 && int64(n) > size-lengthSize {
		return nil, h.errorf("", "header of %d bytes ends at %d, after the end of the file at %d", n, n+lengthSize, size)
	}
	h.offset = lengthSize + int64(n)

	// A stream of unknown size may claim 100 MB and end: there, memory grows with what has arrived.
	var text bytes.Buffer
	if size >= 0 {
		text.Grow(int(n) + bytes.MinRead)
	}
	if got, err := io.CopyN(&text, r, int64(n)); errors.Is(err, io.EOF) {
		return nil, h.errorf("", "header of %d bytes ends at %d, after the end of the file at %d", n, n+lengthSize, got+lengthSize)
	} else if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", name, err)
	}
	if err := h.parse(text.Bytes()); err != nil {
		return nil, err
	}
	if err := h.layout(size); err != nil {
		return nil, err
	}
	return h, nil
}

// Path returns the path of the file, as it was opened.
func (h *Header) Path() string { return h.file }

// Names returns the names of the tensors in the order of their data.
func (h *Header) Names() []string {
	names := make([]string, len(h.entries))
	for i := range h.entries {
		names[i] = h.entries[i].name
	}
	return names
}

// Tensor returns the tensor of that name, with Data nil.
func (h *Header) Tensor(name string) (Tensor, bool) {
	i, ok := h.index[name]
	if !ok {
		return Tensor{}, false
	}
	e := &h.entries[i]
	return Tensor{Name: e.name, DType: e.dtype, Shape: slices.Clone(e.shape), File: h.file}, true
}

// Metadata returns a copy of the __metadata__ of the file, nil if it has none.
func (h *Header) Metadata() map[string]string { return maps.Clone(h.metadata) }

// DataSize returns the length of all tensors together, in bytes.
func (h *Header) DataSize() int64 {
	if len(h.entries) == 0 {
		return 0
	}
	return h.entries[len(h.entries)-1].end
}

func (h *Header) errorf(tensor, format string, args ...any) error {
	return &FormatError{h.file, tensor, fmt.Sprintf(format, args...)}
}

// parse reads the JSON and checks what concerns a tensor on its own.
func (h *Header) parse(text []byte) error {
	if len(text) == 0 || text[0] != '{' {
		s := &scanner{buf: text}
		return h.errorf("", "header must begin with '{', found %s", s.got())
	}
	s, err := newScanner(text)
	if err != nil {
		return h.errorf("", "header: %v", err)
	}
	// One allocation where the file is honest. No entry is shorter than 49 bytes, so a dishonest one gains nothing.
	h.entries = make([]entry, 0, min(bytes.Count(text, []byte(`"dtype"`)), len(text)/49))
	sawMetadata := false
	err = s.object(func(key []byte) error {
		if string(key) == metadataKey {
			if sawMetadata {
				return s.errorf("duplicate key %q", metadataKey)
			}
			sawMetadata = true
			if s.literal("null") {
				return nil
			}
			m, err := s.stringMap()
			if err != nil {
				return fmt.Errorf("%s: %w", metadataKey, err)
			}
			h.metadata = m
			return nil
		}
		e := entry{name: string(key)}
		if err := e.parse(s); err != nil {
			return h.errorf(e.name, "header: %v", err)
		}
		h.entries = append(h.entries, e)
		return nil
	})
	if err == nil {
		err = s.end()
	}
	if named := (*FormatError)(nil); err != nil && !errors.As(err, &named) {
		return h.errorf("", "header: %v", err)
	}
	return err
}

// parse reads one tensor's object.
func (e *entry) parse(s *scanner) error {
	var (
		hasDType, hasShape, hasOffsets bool
		begin, end                     uint64
		unknown                        keySet
		dims                           [MaxRank]int
		rank                           int
	)
	once := func(has *bool, key string) error {
		if *has {
			return s.errorf("duplicate key %q", key)
		}
		*has = true
		return nil
	}
	err := s.object(func(key []byte) error {
		switch string(key) {
		case "dtype":
			if err := once(&hasDType, "dtype"); err != nil {
				return err
			}
			name, err := s.string()
			if err != nil {
				return fmt.Errorf("dtype: %w", err)
			}
			e.dtype, err = ParseDType(string(name))
			return err
		case "shape":
			if err := once(&hasShape, "shape"); err != nil {
				return err
			}
			return s.array(func(i int) error {
				if i == MaxRank {
					return s.errorf("shape has more than %d dimensions", MaxRank)
				}
				dim, err := s.uint("dimension", uint64(maxInt))
				dims[i], rank = int(dim), i+1
				return err
			})
		case "data_offsets":
			if err := once(&hasOffsets, "data_offsets"); err != nil {
				return err
			}
			n := 0
			err := s.array(func(i int) (err error) {
				switch n++; i {
				case 0:
					begin, err = s.uint("offset", maxInt64)
				case 1:
					end, err = s.uint("offset", maxInt64)
				default:
					err = s.errorf("data_offsets has more than 2 numbers")
				}
				return err
			})
			if err == nil && n != 2 {
				err = s.errorf("data_offsets has %d numbers, not 2", n)
			}
			return err
		}
		if !unknown.add(key) {
			return s.errorf("duplicate key %s", quote(string(key)))
		}
		return s.skip(2)
	})
	switch {
	case err != nil:
		return err
	case !hasDType:
		return s.errorf("dtype is missing")
	case !hasShape:
		return s.errorf("shape is missing")
	case !hasOffsets:
		return s.errorf("data_offsets is missing")
	case end < begin:
		return s.errorf("data_offsets end before they begin: [%d, %d]", begin, end)
	}
	e.shape = slices.Clone(dims[:rank])
	e.begin, e.end = int64(begin), int64(end)
	size, err := byteSize(e.dtype, e.shape)
	if err != nil {
		return err
	}
	if size != end-begin {
		return s.errorf("shape %v of %v needs %d bytes, data_offsets [%d, %d] hold %d",
			e.shape, e.dtype, size, begin, end, end-begin)
	}
	return nil
}

// layout checks what concerns the tensors together: names, holes, overlaps and the end.
func (h *Header) layout(size int64) error {
	slices.SortStableFunc(h.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	h.index = make(map[string]int32, len(h.entries))
	for i := range h.entries {
		name := h.entries[i].name
		if _, ok := h.index[name]; ok {
			return h.errorf(name, "duplicate name in the header")
		}
		h.index[name] = int32(i)
	}
	covered, before := int64(0), "the header"
	for i := range h.entries {
		e := &h.entries[i]
		switch {
		case e.begin > covered:
			return h.errorf(e.name, "data_offsets [%d, %d] leave a hole of %d bytes after %s, which ends at %d",
				e.begin, e.end, e.begin-covered, before, covered)
		case e.begin < covered:
			return h.errorf(e.name, "data_offsets [%d, %d] overlap %s, which ends at %d", e.begin, e.end, before, covered)
		}
		if size >= 0 && e.end > size-h.offset {
			return h.errorf(e.name, "data_offsets [%d, %d] reach beyond the data, which has %d bytes",
				e.begin, e.end, size-h.offset)
		}
		covered, before = e.end, "tensor "+quote(e.name)
	}
	if size >= 0 && covered != size-h.offset {
		return h.errorf("", "the tensors end at byte %d of the data, the file ends at byte %d of it", covered, size-h.offset)
	}
	return nil
}

// openRegular opens a file and returns its size. It looks before it opens, because opening a pipe waits for a writer.
func openRegular(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("safetensors: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &FormatError{File: path, Reason: fmt.Sprintf("not a regular file (%v)", info.Mode().Type())}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("safetensors: %w", err)
	}
	info, err = f.Stat() // again, of what was opened
	if err == nil && !info.Mode().IsRegular() {
		err = &FormatError{File: path, Reason: fmt.Sprintf("not a regular file (%v)", info.Mode().Type())}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
