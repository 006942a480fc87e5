package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// headerOf writes the header of n empty tensors, as short as they come.
func headerOf(n int) string {
	b := []byte{'{'}
	for i := range n {
		b = append(strconv.AppendInt(append(b, '"'), int64(i), 36), `":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},`...)
	}
	b[len(b)-1] = '}' // over the last comma
	return string(b)
}

// A header costs a small multiple of its size, whatever it holds. The cases of 100 MB are the worst that each rule lets pass.
func TestHeaderMemory(t *testing.T) {
	fill := func(before, unit, after string, size int) string {
		return before + strings.Repeat(unit, (size-len(before)-len(after))/len(unit)) + after
	}
	keys := func(before, after string, size int) string { // distinct keys with empty values
		b := []byte(before)
		for i := 0; len(b) < size-len(after)-20; i++ {
			b = append(strconv.AppendInt(append(b, '"'), int64(i), 36), `":"",`...)
		}
		return string(b) + after
	}
	const full = MaxHeaderSize
	for _, c := range []struct {
		name   string
		header func() string
		want   string // error; "" for none
	}{
		{"10000 tensors", func() string { return headerOf(10_000) }, ""},
		{"100 MB of tensors", func() string { return headerOf(full/57 - 10) }, ""},
		{"100 MB of white space", func() string { return fill("{}", " ", "", full) }, ""},
		{"100 MB of metadata", func() string { return fill(`{"__metadata__":{"k":"`, "v", `"}}`, full) }, ""},
		{"100 MB of escapes", func() string { return fill(`{"__metadata__":{"k":"`, `\n`, `"}}`, full) }, ""},
		{"100 MB of metadata keys", func() string { return keys(`{"__metadata__":{`, `"":""}}`, full) }, "more than 2000000 keys"},
		{"100 MB of keys in an unknown field", func() string { return keys(`{"a":{"x":{`, `"":""}}}`, full) }, "more than 2000000 keys"},
		{"100 MB of dimensions", func() string { return fill(`{"a":{"shape":[`, "1,", `1]}}`, full) }, "more than 64 dimensions"},
		{"100 MB of one dimension", func() string { return fill(`{"a":{"shape":[`, "1", `]}}`, full) }, "too large"},
		{"100 MB of a number that is skipped", func() string { return fill(`{"a":{"x":`, "1", `}}`, full) }, "out of range"},
		{"100 MB name", func() string { return fill(`{"`, "a", `":0}`, full) }, "expected '{'"},
		{"100 MB of [", func() string { return fill(`{"a":{"x":`, "[", ``, full) }, "deeper than"},
		{"100 MB of false dtypes", func() string { return fill(`{"__metadata__":{"k":`, `"dtype"`, ``, full) }, "expected ','"},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := c.header()
			require.LessOrEqual(t, len(header), MaxHeaderSize)
			file := io.MultiReader(strings.NewReader(lengthOf(header)), strings.NewReader(header))
			size := int64(len(header)) + lengthSize
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			h, err := ReadHeader(file, size, "big")
			runtime.ReadMemStats(&after)
			allocated := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(header))
			runtime.GC()
			runtime.ReadMemStats(&after)
			kept := (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / float64(len(header))
			runtime.KeepAlive(header)
			runtime.KeepAlive(h)
			t.Logf("header %d bytes: %.2f × allocated, %.2f × kept", len(header), allocated, kept)
			require.Less(t, allocated, 6.0, "bytes allocated per byte of header")
			require.Less(t, kept, 3.0, "bytes kept per byte of header")
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
				require.Less(t, len(err.Error()), 1000)
			}
		})
	}
}

// lengthOf returns the bytes before the header.
func lengthOf(header string) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(header))))
}

// A stream that claims a large header and ends costs what it sent, not what it claimed.
func TestReadHeaderStream(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ReadHeader(strings.NewReader("\x00\xe1\xf5\x05\x00\x00\x00\x00{}"), -1, "stream")
	runtime.ReadMemStats(&after)
	require.ErrorContains(t, err, "header of 100000000 bytes ends at 100000008, after the end of the file at 10")
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))

	header := `{"a":` + u8 + `}`
	r := strings.NewReader(string(pack(header, "xx")))
	h, err := ReadHeader(iotest.OneByteReader(r), -1, "stream")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, h.Names())
	require.EqualValues(t, 2, h.DataSize())
	require.Equal(t, 2, r.Len(), "the data is not read")

	broken := errors.New("line is cut")
	_, err = ReadHeader(iotest.ErrReader(broken), -1, "stream")
	require.ErrorIs(t, err, broken)
	_, err = ReadHeader(io.MultiReader(strings.NewReader("\x02\x00\x00\x00\x00\x00\x00\x00"), iotest.ErrReader(broken)), 10, "stream")
	require.ErrorIs(t, err, broken)
}

// What a caller does to what it got changes nothing.
func TestHeaderIsImmutable(t *testing.T) {
	h, err := ReadHeader(bytes.NewReader(pack(`{"__metadata__":{"k":"v"},"a":`+u8+`}`, "")), -1, "x")
	require.NoError(t, err)
	tensor, _ := h.Tensor("a")
	tensor.Shape[0] = 7
	h.Metadata()["k"] = "w"
	h.Names()[0] = "b"
	tensor, ok := h.Tensor("a")
	require.True(t, ok)
	require.Equal(t, Tensor{Name: "a", DType: U8, Shape: []int{2}, File: "x"}, tensor)
	require.Equal(t, map[string]string{"k": "v"}, h.Metadata())
	require.Equal(t, []string{"a"}, h.Names())
}

func TestDTypes(t *testing.T) {
	for d := BOOL; d <= U64; d++ {
		parsed, err := ParseDType(d.String())
		require.NoError(t, err)
		require.Equal(t, d, parsed)
		require.Positive(t, d.Bits())
		require.Equal(t, d.Bits()/8, d.Bytes())
	}
	require.Equal(t, "BF16", BF16.String())
	require.Equal(t, 2, BF16.Bytes())
	require.Equal(t, 4, F4.Bits())
	require.Zero(t, F4.Bytes())
	for _, d := range []DType{0, U64 + 1, 255} {
		require.Equal(t, fmt.Sprintf("DType(%d)", d), d.String())
		require.Zero(t, d.Bits())
	}
	_, err := ParseDType("bf16")
	require.EqualError(t, err, `unknown dtype "bf16"`)
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		tensor   Tensor
		elements int
		size     int64
	}{
		{Tensor{DType: F32, Shape: []int{2, 3}}, 6, 24},
		{Tensor{DType: F32}, 1, 4},
		{Tensor{DType: F6_E2M3, Shape: []int{4}}, 4, 3},
		{Tensor{DType: F32, Shape: []int{2, 0}}, 0, 0},
		{Tensor{DType: F4, Shape: []int{3}}, 3, -1},
		{Tensor{DType: F32, Shape: []int{-1, -1}}, -1, -1},
		{Tensor{DType: U8, Shape: []int{maxInt, maxInt}}, -1, -1},
		{Tensor{DType: F64, Shape: []int{maxInt}}, maxInt, -1},
		{Tensor{Shape: []int{2}}, 2, -1},
	} {
		require.Equal(t, c.elements, c.tensor.Elements(), c.tensor)
		require.Equal(t, c.size, c.tensor.Size(), c.tensor)
	}
}
