package safetensors

import "fmt"

// DType is the element type of a tensor. The zero value is no type.
// The order is the reference's: ascending alignment. Files are written with the largest first.
type DType uint8

const (
	BOOL        DType = iota + 1 // one byte, 0 or 1
	F4                           // OCP MX float, 2 per byte
	F6_E2M3                      // OCP MX float, 4 in 3 bytes
	F6_E3M2                      // OCP MX float, 4 in 3 bytes
	U8                           //
	I8                           //
	F8_E5M2                      //
	F8_E4M3                      // the "fn" variant: no infinities
	F8_E8M0                      // OCP MX scale: an exponent only
	F8_E4M3FNUZ                  //
	F8_E5M2FNUZ                  //
	I16                          //
	U16                          //
	F16                          // IEEE half
	BF16                         // upper half of a float32
	I32                          //
	U32                          //
	F32                          //
	C64                          // complex of two float32
	F64                          //
	I64                          //
	U64                          //
)

// dtypes holds the format's name and the size of an element in bits.
var dtypes = [...]struct {
	name string
	bits int
}{
	BOOL: {"BOOL", 8}, F4: {"F4", 4}, F6_E2M3: {"F6_E2M3", 6}, F6_E3M2: {"F6_E3M2", 6},
	U8: {"U8", 8}, I8: {"I8", 8}, F8_E5M2: {"F8_E5M2", 8}, F8_E4M3: {"F8_E4M3", 8}, F8_E8M0: {"F8_E8M0", 8},
	F8_E4M3FNUZ: {"F8_E4M3FNUZ", 8}, F8_E5M2FNUZ: {"F8_E5M2FNUZ", 8},
	I16: {"I16", 16}, U16: {"U16", 16}, F16: {"F16", 16}, BF16: {"BF16", 16},
	I32: {"I32", 32}, U32: {"U32", 32}, F32: {"F32", 32},
	C64: {"C64", 64}, F64: {"F64", 64}, I64: {"I64", 64}, U64: {"U64", 64},
}

var dtypeByName = func() map[string]DType {
	m := make(map[string]DType, len(dtypes))
	for d := BOOL; int(d) < len(dtypes); d++ {
		m[dtypes[d].name] = d
	}
	return m
}()

// ParseDType returns the type of that name in the format, which is upper case: "BF16".
func ParseDType(name string) (DType, error) {
	if d, ok := dtypeByName[name]; ok {
		return d, nil
	}
	return 0, fmt.Errorf("unknown dtype %s", quote(name))
}

// String returns the format's name, like "BF16".
func (d DType) String() string {
	if !d.valid() {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Bits returns the size of one element in bits, which is not always a multiple of 8 (F4, F6_E2M3, F6_E3M2).
func (d DType) Bits() int {
	if !d.valid() {
		return 0
	}
	return dtypes[d].bits
}

// Bytes returns the size of one element in bytes, 0 where an element is smaller than a byte.
func (d DType) Bytes() int { return d.Bits() / 8 }

func (d DType) valid() bool { return d != 0 && int(d) < len(dtypes) }
