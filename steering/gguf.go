package steering

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// GGUF is a file of typed key/value pairs and tensors, little endian:
//
//	"GGUF"  uint32 version  uint64 tensors  uint64 pairs
//	pairs:   string key, uint32 type, value
//	tensors: string name, uint32 dimensions, uint64 dims (fastest first), uint32 type, uint64 offset
//	padding to the alignment, then the data, each tensor aligned
//
// This reader takes what a control vector needs and skips the other values, checking that they end inside the file.
// Version 1, which had 32-bit lengths, is refused.

const (
	ggufMagic     = "GGUF"
	ggufAlignment = 32
	ggufF32       = 0 // the only tensor type that llama.cpp takes in a control vector

	ggufTypeUint32 = 4
	ggufTypeString = 8
	ggufTypeArray  = 9

	maxGGUFKeys = 4096
	maxGGUFText = 1 << 16 // of a key or a name
	maxGGUFSize = 1 << 30 // of a file
)

// ggufSizes are the bytes of a value by its type; strings and arrays have none of their own.
var ggufSizes = map[uint32]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

// ggufFile is the part of a file that this package looks at.
type ggufFile struct {
	strings map[string]string // string values that are short enough
	uint32s map[string]uint32
	tensors []ggufTensor
}

type ggufTensor struct {
	name string
	data []byte // float32, little endian
}

// ggufReader walks over a file held in memory. Nothing is allocated before the bytes it is for are known to exist.
type ggufReader struct {
	data []byte
	pos  int
}

func (r *ggufReader) errorf(format string, args ...any) error {
	return fmt.Errorf("gguf: at byte %d: %s", r.pos, fmt.Sprintf(format, args...))
}

func (r *ggufReader) take(n uint64, what string) ([]byte, error) {
	if left := uint64(len(r.data) - r.pos); n > left {
		return nil, r.errorf("%s needs %d bytes, the file has %d left", what, n, left)
	}
	out := r.data[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return out, nil
}

func (r *ggufReader) uint32(what string) (uint32, error) {
	b, err := r.take(4, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (r *ggufReader) uint64(what string) (uint64, error) {
	b, err := r.take(8, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (r *ggufReader) string(what string) (string, error) {
	n, err := r.uint64("length of " + what)
	if err != nil {
		return "", err
	}
	b, err := r.take(n, what)
	if err != nil {
		return "", err
	}
	if len(b) > maxGGUFText {
		return "", r.errorf("%s has %d bytes, more than %d", what, n, maxGGUFText)
	}
	if !utf8.Valid(b) {
		return "", r.errorf("%s %s is not UTF-8", what, quote(string(b)))
	}
	return string(b), nil
}

// parseGGUF reads a file; tensor data are views of it.
func parseGGUF(data []byte) (*ggufFile, error) {
	r := &ggufReader{data: data}
	if magic, err := r.take(4, "magic"); err != nil || string(magic) != ggufMagic {
		return nil, errors.New("gguf: the file does not begin with GGUF")
	}
	version, err := r.uint32("version")
	if err != nil {
		return nil, err
	}
	if version != 2 && version != 3 {
		return nil, r.errorf("version %d is not 2 or 3, little endian", version)
	}
	tensors, err := r.uint64("number of tensors")
	if err != nil {
		return nil, err
	}
	pairs, err := r.uint64("number of keys")
	if err != nil {
		return nil, err
	}
	if tensors > maxLayers || pairs > maxGGUFKeys {
		return nil, r.errorf("%d tensors and %d keys are more than the %d and %d of any control vector", tensors, pairs, maxLayers, maxGGUFKeys)
	}
	f := &ggufFile{strings: make(map[string]string), uint32s: make(map[string]uint32)}
	if err := r.pairs(f, int(pairs)); err != nil {
		return nil, err
	}
	return f, r.tensors(f, int(tensors))
}

func (r *ggufReader) pairs(f *ggufFile, n int) error {
	seen := make(map[string]bool)
	for range n {
		key, err := r.string("a key")
		if err != nil {
			return err
		}
		if seen[key] {
			return r.errorf("key %s is there twice", quote(key))
		}
		seen[key] = true
		kind, err := r.uint32("type of key " + quote(key))
		if err != nil {
			return err
		}
		switch kind {
		case ggufTypeString:
			if f.strings[key], err = r.string("value of key " + quote(key)); err != nil {
				return err
			}
		case ggufTypeUint32:
			if f.uint32s[key], err = r.uint32("value of key " + quote(key)); err != nil {
				return err
			}
		default:
			if err := r.skip(kind, "value of key "+quote(key)); err != nil {
				return err
			}
		}
	}
	return nil
}

// skip passes over a value.
func (r *ggufReader) skip(kind uint32, what string) error {
	if kind != ggufTypeArray {
		size, ok := ggufSizes[kind]
		if !ok {
			return r.errorf("%s has unknown type %d", what, kind)
		}
		_, err := r.take(uint64(size), what)
		return err
	}
	of, err := r.uint32("element type of " + what)
	if err != nil {
		return err
	}
	n, err := r.uint64("length of " + what)
	if err != nil {
		return err
	}
	if size := ggufSizes[of]; size > 0 {
		if n > math.MaxInt64/8 {
			return r.errorf("%s has %d elements", what, n)
		}
		_, err := r.take(n*uint64(size), what)
		return err
	}
	if of != ggufTypeString {
		return r.errorf("%s is an array of type %d, which is not read", what, of)
	}
	for range n { // ends at the end of the file at the latest: every string takes eight bytes
		if _, err := r.string("an element of " + what); err != nil {
			return err
		}
	}
	return nil
}

func (r *ggufReader) tensors(f *ggufFile, n int) error {
	alignment := uint64(ggufAlignment)
	if a, ok := f.uint32s["general.alignment"]; ok {
		if a == 0 || a&(a-1) != 0 || a > 1<<16 {
			return r.errorf("general.alignment %d is not a power of two up to %d", a, 1<<16)
		}
		alignment = uint64(a)
	}
	type place struct{ begin, size uint64 }
	places := make([]place, 0, n)
	names := make(map[string]bool)
	for range n {
		name, err := r.string("a tensor's name")
		if err != nil {
			return err
		}
		if names[name] {
			return r.errorf("tensor %s is there twice", quote(name))
		}
		names[name] = true
		rank, err := r.uint32("dimensions of tensor " + quote(name))
		if err != nil {
			return err
		}
		if rank != 1 {
			return r.errorf("tensor %s has %d dimensions, want 1", quote(name), rank)
		}
		dim, err := r.uint64("dimension of tensor " + quote(name))
		if err != nil {
			return err
		}
		if dim < 1 || dim > maxHidden {
			return r.errorf("tensor %s has %d elements, not between 1 and %d", quote(name), dim, maxHidden)
		}
		kind, err := r.uint32("type of tensor " + quote(name))
		if err != nil {
			return err
		}
		if kind != ggufF32 {
			return r.errorf("tensor %s has type %d, want %d (F32)", quote(name), kind, ggufF32)
		}
		offset, err := r.uint64("offset of tensor " + quote(name))
		if err != nil {
			return err
		}
		if offset%alignment != 0 {
			return r.errorf("tensor %s begins at %d, which is not a multiple of %d", quote(name), offset, alignment)
		}
		places = append(places, place{offset, 4 * dim})
		f.tensors = append(f.tensors, ggufTensor{name: name})
	}
	begin := (uint64(r.pos) + alignment - 1) / alignment * alignment
	if size := uint64(len(r.data)); begin > size {
		if n == 0 {
			return nil
		}
		return r.errorf("the data begin at %d, the file ends at %d", begin, size)
	}
	body := r.data[begin:]
	for i, p := range places {
		if size := uint64(len(body)); p.begin > size || p.size > size-p.begin {
			return r.errorf("tensor %s needs bytes %d to %d of the data, which has %d", quote(f.tensors[i].name), p.begin, p.begin+p.size, size)
		}
		f.tensors[i].data = body[p.begin : p.begin+p.size : p.begin+p.size]
	}
	// Overlaps would let a small file stand for a large vector.
	slices.SortFunc(places, func(a, b place) int {
		switch {
		case a.begin < b.begin:
			return -1
		case a.begin > b.begin:
			return 1
		}
		return 0
	})
	for i := 1; i < len(places); i++ {
		if end := places[i-1].begin + places[i-1].size; places[i].begin < end {
			return r.errorf("two tensors share the data from byte %d to %d", places[i].begin, end)
		}
	}
	return nil
}

// appendGGUF writes a file of version 3, its keys in the order given.
func appendGGUF(out []byte, pairs []ggufPair, tensors []ggufTensor) []byte {
	order := binary.LittleEndian
	text := func(s string) { out = append(order.AppendUint64(out, uint64(len(s))), s...) }
	out = append(out, ggufMagic...)
	out = order.AppendUint32(out, 3)
	out = order.AppendUint64(out, uint64(len(tensors)))
	out = order.AppendUint64(out, uint64(len(pairs)))
	for _, p := range pairs {
		text(p.key)
		if p.text {
			out = order.AppendUint32(out, ggufTypeString)
			text(p.value)
		} else {
			out = order.AppendUint32(out, ggufTypeUint32)
			out = order.AppendUint32(out, p.number)
		}
	}
	padded := func(n int) int { return (n + ggufAlignment - 1) / ggufAlignment * ggufAlignment }
	offset := 0
	for _, t := range tensors {
		text(t.name)
		out = order.AppendUint32(out, 1)
		out = order.AppendUint64(out, uint64(len(t.data)/4))
		out = order.AppendUint32(out, ggufF32)
		out = order.AppendUint64(out, uint64(offset))
		offset += padded(len(t.data))
	}
	for _, t := range tensors {
		out = append(out, make([]byte, padded(len(out))-len(out))...)
		out = append(out, t.data...)
	}
	return append(out, make([]byte, padded(len(out))-len(out))...)
}

type ggufPair struct {
	key    string
	text   bool
	value  string
	number uint32
}
