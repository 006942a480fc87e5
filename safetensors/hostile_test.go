package safetensors

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pack puts a header and data together as a file.
func pack(header, data string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+data...)
}

// u8 is the entry of a U8 vector.
const u8 = `{"dtype":"U8","shape":[2],"data_offsets":[0,2]}`

// one is a header with one tensor that has this shape, which ends at byte end.
func one(dtype, shape, offsets string) string {
	return `{"a":{"dtype":"` + dtype + `","shape":` + shape + `,"data_offsets":` + offsets + `}}`
}

// hostile files, and what the error must say. The verdicts agree with the reference implementation 0.8.0 (Python),
// but for the ones marked lax, which it accepts; the package comment says why we do not.
var hostile = []struct {
	name string
	file []byte
	want []string
	lax  bool
}{
	// The frame.
	{name: "empty file", file: nil, want: []string{"0 bytes", "8 bytes"}},
	{name: "short length", file: []byte("\x01\x00\x00"), want: []string{"3 bytes", "8 bytes"}},
	{name: "99 MiB header in 8 bytes", file: []byte("\x00\x00\x30\x06\x00\x00\x00\x00"), want: []string{"103809024", "100000000"}},
	{name: "99 MB header in 8 bytes", file: []byte("\xc0\x9e\xe6\x05\x00\x00\x00\x00"), want: []string{"99000000", "99000008", "end of the file at 8"}},
	{name: "length 2^64-1", file: []byte("\xff\xff\xff\xff\xff\xff\xff\xff"), want: []string{"18446744073709551615"}},
	{name: "length 2^63", file: []byte("\x00\x00\x00\x00\x00\x00\x00\x80{}"), want: []string{"9223372036854775808"}},
	{name: "header one byte too long", file: []byte("\x03\x00\x00\x00\x00\x00\x00\x00{}"), want: []string{"3 bytes", "at 11", "at 10"}},
	{name: "length 0", file: pack("", ""), want: []string{"begin with '{'", "the end"}},

	// The text.
	{name: "invalid UTF-8 in a name", file: pack(`{"a`+"\xff"+`":`+u8+`}`, "xx"), want: []string{"UTF-8 at byte 3", "0xff"}},
	{name: "overlong UTF-8", file: pack(`{"`+"\xc0\x80"+`":`+u8+`}`, "xx"), want: []string{"UTF-8 at byte 2"}},
	{name: "UTF-8 surrogate", file: pack(`{"`+"\xed\xa0\x80"+`":`+u8+`}`, "xx"), want: []string{"UTF-8 at byte 2"}},
	{name: "byte order mark", file: pack("\ufeff{}", ""), want: []string{"begin with '{'"}},
	{name: "space before", file: pack(` {"a":`+u8+`}`, "xx"), want: []string{"begin with '{'"}, lax: true},
	{name: "array", file: pack(`[]`, ""), want: []string{"begin with '{'", `'['`}},
	{name: "not closed", file: pack(`{`, ""), want: []string{"expected a string", "the end"}},
	{name: "not closed after a tensor", file: pack(`{"a":`+u8, "xx"), want: []string{`expected ',' or '}'`, "the end"}},
	{name: "trailing comma", file: pack(`{"a":`+u8+`,}`, "xx"), want: []string{"expected a string"}},
	{name: "no comma", file: pack(`{"a":`+u8+`"b":`+u8+`}`, "xx"), want: []string{`expected ','`}},
	{name: "no colon", file: pack(`{"a"`+u8+`}`, "xx"), want: []string{`expected ':'`}},
	{name: "second object", file: pack(`{"a":`+u8+`}{}`, "xx"), want: []string{"2 bytes after the end"}},
	{name: "padded with NUL", file: pack(`{"a":`+u8+"}\x00\x00", "xx"), want: []string{"2 bytes after the end", `\x00`}},
	{name: "comment", file: pack(`{/**/"a":`+u8+`}`, "xx"), want: []string{"expected a string"}},
	{name: "single quotes", file: pack(`{'a':`+u8+`}`, "xx"), want: []string{"expected a string"}},
	{name: "control character in a name", file: pack("{\"a\n\":"+u8+`}`, "xx"), want: []string{"control character 0x0a"}},
	{name: "unknown escape", file: pack(`{"\x41":`+u8+`}`, "xx"), want: []string{"unknown escape"}},
	{name: "escape at the end", file: pack(`{"\`, ""), want: []string{"has no end"}},
	{name: "short \\u", file: pack(`{"\u12`, ""), want: []string{"four hex digits"}},
	{name: "bad \\u", file: pack(`{"\u12g4":`+u8+`}`, "xx"), want: []string{"four hex digits"}},
	{name: "lone high surrogate", file: pack(`{"\ud800":`+u8+`}`, "xx"), want: []string{"lone surrogate"}},
	{name: "lone low surrogate", file: pack(`{"\udc00":`+u8+`}`, "xx"), want: []string{"lone surrogate"}},
	{name: "high surrogate and a letter", file: pack(`{"\ud800\u0041":`+u8+`}`, "xx"), want: []string{"lone surrogate"}},

	// Duplicate keys.
	{name: "duplicate tensor", file: pack(`{"a":`+u8+`,"a":`+u8+`}`, "xx"), want: []string{`tensor "a"`, "duplicate"}, lax: true},
	{name: "duplicate by escape", file: pack(`{"a":`+u8+`,"\u0061":`+u8+`}`, "xx"), want: []string{`tensor "a"`, "duplicate"}, lax: true},
	{name: "duplicate metadata", file: pack(`{"__metadata__":{},"__metadata__":{},"a":`+u8+`}`, "xx"), want: []string{"__metadata__", "duplicate"}},
	{name: "duplicate null metadata", file: pack(`{"__metadata__":null,"__metadata__":{},"a":`+u8+`}`, "xx"), want: []string{"__metadata__", "duplicate"}},
	{name: "duplicate metadata key", file: pack(`{"__metadata__":{"k":"1","k":"2"},"a":`+u8+`}`, "xx"), want: []string{"duplicate", `"k"`}, lax: true},
	{name: "duplicate dtype", file: pack(`{"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{`tensor "a"`, `duplicate key "dtype"`}},
	{name: "duplicate shape", file: pack(`{"a":{"dtype":"U8","shape":[2],"shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{`duplicate key "shape"`}},
	{name: "duplicate data_offsets", file: pack(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"data_offsets":[0,2]}}`, "xx"), want: []string{`duplicate key "data_offsets"`}},
	{name: "duplicate unknown field", file: pack(`{"a":{"x":1,"x":1,"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{`duplicate key "x"`}, lax: true},
	{name: "duplicate in an unknown field", file: pack(`{"a":{"x":[{"y":1,"y":1}],"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{`duplicate key "y"`}, lax: true},

	// Metadata.
	{name: "metadata number", file: pack(`{"__metadata__":{"k":1}}`, ""), want: []string{"__metadata__", `"k"`, "expected a string"}},
	{name: "metadata object", file: pack(`{"__metadata__":{"k":{}}}`, ""), want: []string{"expected a string"}},
	{name: "metadata list", file: pack(`{"__metadata__":[]}`, ""), want: []string{"__metadata__", `expected '{'`}},
	{name: "metadata is a tensor", file: pack(`{"__metadata__":`+u8+`}`, "xx"), want: []string{"__metadata__", "expected a string"}},

	// A tensor's fields.
	{name: "entry is null", file: pack(`{"a":null}`, ""), want: []string{`tensor "a"`, `expected '{'`}},
	{name: "entry is an array", file: pack(`{"a":["U8",[2],[0,2]]}`, "xx"), want: []string{`tensor "a"`, `expected '{'`}, lax: true},
	{name: "no dtype", file: pack(`{"a":{"shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{`tensor "a"`, "dtype is missing"}},
	{name: "no shape", file: pack(`{"a":{"dtype":"U8","data_offsets":[0,2]}}`, "xx"), want: []string{`tensor "a"`, "shape is missing"}},
	{name: "no data_offsets", file: pack(`{"a":{"dtype":"U8","shape":[2]}}`, "xx"), want: []string{`tensor "a"`, "data_offsets is missing"}},
	{name: "unknown dtype", file: pack(one("F128", "[2]", "[0,2]"), "xx"), want: []string{`tensor "a"`, `"F128"`}},
	{name: "lower case dtype", file: pack(one("u8", "[2]", "[0,2]"), "xx"), want: []string{`"u8"`}},
	{name: "empty dtype", file: pack(one("", "[2]", "[0,2]"), "xx"), want: []string{`unknown dtype ""`}},
	{name: "dtype number", file: pack(`{"a":{"dtype":1,"shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{"dtype", "expected a string"}},
	{name: "shape null", file: pack(one("U8", "null", "[0,2]"), "xx"), want: []string{`expected '['`}},
	{name: "shape number", file: pack(one("U8", "2", "[0,2]"), "xx"), want: []string{`expected '['`}},
	{name: "nested shape", file: pack(one("U8", "[[2]]", "[0,2]"), "xx"), want: []string{"dimension", "expected a number"}},
	{name: "string dimension", file: pack(one("U8", `["2"]`, "[0,2]"), "xx"), want: []string{"expected a number"}},
	{name: "negative dimension", file: pack(one("U8", "[-2]", "[0,2]"), "xx"), want: []string{`tensor "a"`, "dimension is negative: -2"}},
	{name: "two negative dimensions", file: pack(one("U8", "[-1,-2]", "[0,2]"), "xx"), want: []string{"dimension is negative: -1"}},
	{name: "minus zero", file: pack(one("U8", "[-0]", "[0,0]"), ""), want: []string{"dimension is negative: -0"}},
	{name: "float dimension", file: pack(one("U8", "[2.0]", "[0,2]"), "xx"), want: []string{"not an integer: 2.0"}},
	{name: "exponent dimension", file: pack(one("U8", "[2e0]", "[0,2]"), "xx"), want: []string{"not an integer: 2e0"}},
	{name: "dimension 1e400", file: pack(one("U8", "[1e400]", "[0,2]"), "xx"), want: []string{"not an integer: 1e400"}},
	{name: "dimension 2^64", file: pack(one("U8", "[18446744073709551616,0]", "[0,0]"), ""), want: []string{"too large: 18446744073709551616"}},
	{name: "dimension 2^64-1", file: pack(one("U8", "[18446744073709551615,0]", "[0,0]"), ""), want: []string{"too large: 18446744073709551615"}, lax: true},
	{name: "dimension of 1000 digits", file: pack(one("U8", "[1"+strings.Repeat("0", 1000)+"]", "[0,2]"), "xx"), want: []string{"too large", "1001 digits"}},
	{name: "leading zero", file: pack(one("U8", "[02]", "[0,2]"), "xx"), want: []string{"malformed number"}},
	{name: "plus sign", file: pack(one("U8", "[+2]", "[0,2]"), "xx"), want: []string{"expected a number"}},
	{name: "hexadecimal", file: pack(one("U8", "[0x2]", "[0,2]"), "xx"), want: []string{`expected ','`}},
	{name: "NaN", file: pack(one("U8", "[NaN]", "[0,2]"), "xx"), want: []string{"expected a number"}},
	{name: "[2^62, 4] in no bytes", file: pack(one("U8", "[4611686018427387904,4]", "[0,0]"), ""), want: []string{`tensor "a"`, "overflows", "4611686018427387904 × 4"}},
	{name: "[2^62, 4, 0]", file: pack(one("U8", "[4611686018427387904,4,0]", "[0,0]"), ""), want: []string{"overflows"}},
	{name: "bits overflow", file: pack(one("F32", "[1152921504606846976]", "[0,0]"), ""), want: []string{"overflows", "1152921504606846976 elements × 32 bits"}},
	{name: "rank 65", file: pack(one("U8", "[1"+strings.Repeat(",1", 64)+"]", "[0,1]"), "x"), want: []string{"more than 64 dimensions"}, lax: true},
	{name: "half a byte", file: pack(one("F4", "[3]", "[0,2]"), "xx"), want: []string{"3 elements × 4 bits", "whole number of bytes"}},
	{name: "size too small", file: pack(one("F32", "[1]", "[0,2]"), "xx"), want: []string{"needs 4 bytes", "[0, 2] hold 2"}},
	{name: "size too large", file: pack(one("U8", "[1]", "[0,2]"), "xx"), want: []string{"needs 1 bytes", "[0, 2] hold 2"}},
	{name: "unknown field 1e400", file: pack(`{"a":{"x":1e400,"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{"out of range: 1e400"}},
	{name: "unknown field malformed", file: pack(`{"a":{"x":tru,"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{"expected a value"}},
	{name: "unknown field -", file: pack(`{"a":{"x":-,"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, "xx"), want: []string{"malformed number"}},
	{name: "array bomb", file: pack(`{"a":{"x":`+strings.Repeat("[", 1e4), ""), want: []string{"deeper than 127"}},
	{name: "object bomb", file: pack(`{"a":{"x":`+strings.Repeat(`{"x":`, 1e4), ""), want: []string{"deeper than 127"}},
	{name: "128 levels", file: pack(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"x":`+strings.Repeat("[", 126)+strings.Repeat("]", 126)+`}}`, "xx"), want: []string{"deeper than 127"}},
	{name: "shape bomb", file: pack(`{"a":{"shape":`+strings.Repeat("[", 1e4), ""), want: []string{"expected a number"}},
	{name: "name bomb", file: pack(`{"`+strings.Repeat("a", 1e4)+`":0}`, ""), want: []string{"(10000 bytes)", `expected '{'`}},

	// Where the data is.
	{name: "offsets beyond the end", file: pack(one("U8", "[1000]", "[0,1000]"), "xx"), want: []string{`tensor "a"`, "[0, 1000]", "2 bytes"}},
	{name: "offsets far beyond the end", file: pack(one("U8", "[1152921504606846975]", "[0,1152921504606846975]"), "xx"), want: []string{"[0, 1152921504606846975]", "2 bytes"}},
	{name: "offsets of 2^64-1", file: pack(one("U8", "[0]", "[18446744073709551615,18446744073709551615]"), ""), want: []string{"offset is too large"}},
	{name: "negative offset", file: pack(one("U8", "[2]", "[-2,0]"), "xx"), want: []string{"offset is negative: -2"}},
	{name: "negative offsets", file: pack(one("U8", "[2]", "[-4,-2]"), "xx"), want: []string{"offset is negative: -4"}},
	{name: "reversed offsets", file: pack(one("U8", "[2]", "[2,0]"), "xx"), want: []string{"end before they begin", "[2, 0]"}},
	{name: "float offset", file: pack(one("U8", "[2]", "[0,2.0]"), "xx"), want: []string{"not an integer: 2.0"}},
	{name: "no offset", file: pack(one("U8", "[2]", "[]"), "xx"), want: []string{"0 numbers, not 2"}},
	{name: "one offset", file: pack(one("U8", "[2]", "[0]"), "xx"), want: []string{"1 numbers, not 2"}},
	{name: "three offsets", file: pack(one("U8", "[2]", "[0,2,2]"), "xx"), want: []string{"more than 2"}},
	{name: "hole at the start", file: pack(one("U8", "[2]", "[1,3]"), "xxx"), want: []string{`tensor "a"`, "hole of 1 bytes", "the header"}},
	{name: "hole between", file: pack(`{"a":`+u8+`,"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}`, "xxxx"), want: []string{`tensor "b"`, "hole of 1 bytes", `tensor "a"`}},
	{name: "hole at the end", file: pack(one("U8", "[2]", "[0,2]"), "xxx"), want: []string{"end at byte 2", "ends at byte 3"}},
	{name: "data without tensors", file: pack(`{}`, "x"), want: []string{"end at byte 0", "ends at byte 1"}},
	{name: "overlap", file: pack(`{"a":`+u8+`,"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, "xxx"), want: []string{`tensor "b"`, "overlap", `tensor "a"`}},
	{name: "same bytes twice", file: pack(`{"a":`+u8+`,"b":`+u8+`}`, "xx"), want: []string{`tensor "b"`, "overlap", `tensor "a"`}},
	{name: "empty tensor inside another", file: pack(`{"a":`+u8+`,"b":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, "xx"), want: []string{`tensor "b"`, "overlap"}},
	{name: "empty tensor beyond the end", file: pack(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, ""), want: []string{`tensor "a"`, "hole"}},
	{name: "data cut off", file: pack(one("U8", "[2]", "[0,2]"), "x"), want: []string{"[0, 2]", "1 bytes"}},
}

// odd files that are valid, by the reference too.
var odd = []struct {
	name string
	file []byte
}{
	{"no tensors", pack(`{}`, "")},
	{"metadata only", pack(`{"__metadata__":{"":"","\u00e9\ud83d\ude00":"\"\\\/\b\f\n\r\t"}}`, "")},
	{"null metadata", pack(`{"__metadata__":null,"a":`+u8+`}`, "xx")},
	{"scalar", pack(one("U8", "[]", "[0,1]"), "x")},
	{"empty tensors at the same place", pack(`{"b":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[3,0],"data_offsets":[0,0]}}`, "")},
	{"empty tensor after data", pack(`{"b":{"dtype":"F32","shape":[0],"data_offsets":[2,2]},"a":`+u8+`}`, "xx")},
	{"[0, 2^62, 4] is empty", pack(one("U8", "[0,4611686018427387904,4]", "[0,0]"), "")},
	{"rank 64", pack(one("U8", "[1"+strings.Repeat(",1", 63)+"]", "[0,1]"), "x")},
	{"6-bit floats", pack(one("F6_E2M3", "[4]", "[0,3]"), "xxx")},
	{"white space everywhere", pack("{ \"a\"\t:\n{ \"dtype\" : \"U8\" ,\r\"shape\" : [ 2 ] , \"data_offsets\" : [ 0 , 2 ] } } \n\t\r", "xx")},
	{"unknown fields", pack(`{"a":{"x":{"y":[1,-2.5e-3,true,false,null,"s",{}],"z":[]},"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, "xx")},
	{"127 levels", pack(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"x":`+strings.Repeat("[", 125)+strings.Repeat("]", 125)+`}}`, "xx")},
	{"names that are not nice", pack(`{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0000../é":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, "xx")},
	{"out of order", pack(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},"a":`+u8+`}`, "xxx")},
}

func TestHostileFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hostile.safetensors")
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, c.file, 0o600))
			f, err := OpenFile(path)
			require.Error(t, err)
			require.Nil(t, f)
			var format *FormatError
			require.True(t, errors.As(err, &format), "%T", err)
			require.Equal(t, path, format.File)
			for _, want := range append(c.want, path) {
				require.ErrorContains(t, err, want)
			}
			require.Less(t, len(err.Error()), 600+len(path), "an error must not flood the terminal")
			_, err = OpenHeader(path)
			require.Equal(t, format, err, "header-only mode has the same rules")
		})
	}
}

func TestOddFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd.safetensors")
	for _, c := range odd {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, c.file, 0o600))
			f, err := OpenFile(path)
			require.NoError(t, err)
			defer f.Close()
			requireRoundTrip(t, f)
		})
	}
}
