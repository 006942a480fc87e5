package safetensors

import (
	"fmt"
	"math/bits"
	"runtime/debug"
	"strconv"
	"strings"
)

// Tensor is a named array in a file, or one to be written.
type Tensor struct {
	Name  string
	DType DType
	Shape []int // row-major; empty for a scalar

	// Data is little-endian and, in a tensor that was read, a read-only view of the mapped file: writing to it ends
	// the process, and so does reading it after Close. It need not be aligned to its element. It is nil if only headers were read.
	Data []byte

	File string // where it was read from; ignored when writing
}

// Elements returns the product of the dimensions, or -1 if a dimension is negative or the product overflows an int,
// neither of which occurs in a tensor that was read.
func (t Tensor) Elements() int {
	n, err := elements(t.Shape)
	if err != nil || n > uint64(maxInt) {
		return -1
	}
	return int(n)
}

// Size returns the number of bytes that dtype and shape call for, or -1 if they are not valid,
// which does not occur in a tensor that was read.
func (t Tensor) Size() int64 {
	n, err := byteSize(t.DType, t.Shape)
	if err != nil || n > maxInt64 {
		return -1
	}
	return int64(n)
}

// CopyTo copies Data into dst, which must have the same length. Unlike a plain copy it survives a mapping that has lost
// its file (see the package comment) and returns an error that names the tensor.
func (t Tensor) CopyTo(dst []byte) (err error) {
	if len(dst) != len(t.Data) {
		return &FormatError{t.File, t.Name, fmt.Sprintf("destination has %d bytes, tensor has %d", len(dst), len(t.Data))}
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			fault, ok := r.(interface{ Addr() uintptr }) // what the runtime throws for a fault, and nothing else
			if !ok {
				panic(r)
			}
			err = &FormatError{t.File, t.Name, fmt.Sprintf(
				"reading its %d bytes faulted at address %#x: the file was truncated, its disk failed, or it was closed",
				len(t.Data), fault.Addr())}
		}
	}()
	copy(dst, t.Data)
	return nil
}

// String describes the tensor without its data: "lm_head.weight BF16 [32000 4096]".
func (t Tensor) String() string { return fmt.Sprintf("%s %s %v", t.Name, t.DType, t.Shape) }

// FormatError is a file, index or tensor that breaks the rules of the format.
type FormatError struct {
	File   string // "" when writing to an io.Writer
	Tensor string // "" if it is not about one tensor
	Reason string
}

func (e *FormatError) Error() string {
	var b strings.Builder
	b.WriteString("safetensors: ")
	if e.File != "" {
		b.WriteString(e.File + ": ")
	}
	if e.Tensor != "" {
		b.WriteString("tensor " + quote(e.Tensor) + ": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

const (
	maxInt   = int(^uint(0) >> 1)
	maxInt64 = 1<<63 - 1
)

// elements multiplies from the left, as the reference does: [0, 2^62, 4] is empty, [2^62, 4, 0] overflows.
func elements(shape []int) (uint64, error) {
	n := uint64(1)
	for _, dim := range shape {
		if dim < 0 {
			return 0, fmt.Errorf("shape %v has the negative dimension %d", shape, dim)
		}
		hi, lo := bits.Mul64(n, uint64(dim))
		if hi != 0 {
			return 0, fmt.Errorf("shape %v overflows: %d × %d elements", shape, n, dim)
		}
		n = lo
	}
	return n, nil
}

// byteSize returns the length in bytes of a tensor's data.
func byteSize(d DType, shape []int) (uint64, error) {
	if !d.valid() {
		return 0, fmt.Errorf("%v is no dtype", d)
	}
	n, err := elements(shape)
	if err != nil {
		return 0, err
	}
	hi, nbits := bits.Mul64(n, uint64(d.Bits()))
	if hi != 0 {
		return 0, fmt.Errorf("shape %v of %v overflows: %d elements × %d bits", shape, d, n, d.Bits())
	}
	if nbits%8 != 0 {
		return 0, fmt.Errorf("shape %v of %v: %d elements × %d bits is not a whole number of bytes", shape, d, n, d.Bits())
	}
	return nbits / 8, nil
}

// quote quotes a string of the file for an error message, which it must not flood.
func quote(s string) string {
	const most = 120
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return fmt.Sprintf("%s… (%d bytes)", strconv.Quote(strings.ToValidUTF8(s[:most], "")), len(s))
}
