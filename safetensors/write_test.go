package safetensors

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// golden is made by the reference implementation: testdata/python.py.
const golden = "testdata/python.safetensors"

func TestReadsTheReferencesFile(t *testing.T) {
	f, err := OpenFile(golden)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, map[string]string{"format": "pt"}, f.Metadata())
	for _, want := range []Tensor{
		{Name: "b.bool", DType: BOOL, Shape: []int{3}, Data: []byte{1, 0, 1}},
		{Name: "f4", DType: F4, Shape: []int{4}, Data: []byte{0x21, 0x43}},
		{Name: "u8", DType: U8, Shape: []int{3}, Data: []byte{0, 1, 2}},
		{Name: "i8", DType: I8, Shape: []int{3}, Data: []byte{0xff, 0, 1}},
		{Name: "f8.e5m2", DType: F8_E5M2, Shape: []int{1}, Data: []byte{0x3c}},
		{Name: "f8.e4m3", DType: F8_E4M3, Shape: []int{1}, Data: []byte{0x38}},
		{Name: "f8.e8m0", DType: F8_E8M0, Shape: []int{1}, Data: []byte{0x7f}},
		{Name: "f8.e4m3fnuz", DType: F8_E4M3FNUZ, Shape: []int{1}, Data: []byte{0x40}},
		{Name: "f8.e5m2fnuz", DType: F8_E5M2FNUZ, Shape: []int{1}, Data: []byte{0x40}},
		{Name: "i16", DType: I16, Shape: []int{2, 1}, Data: []byte{0xfe, 0xff, 2, 0}},
		{Name: "u16", DType: U16, Shape: []int{1}, Data: []byte{0xff, 0xff}},
		{Name: "f16", DType: F16, Shape: []int{2}, Data: []byte{0, 0x3c, 0, 0x38}},
		{Name: "bf16", DType: BF16, Shape: []int{2}, Data: []byte{0x80, 0x3f, 0, 0xc0}},
		{Name: "i32", DType: I32, Shape: []int{1}, Data: []byte{0xfd, 0xff, 0xff, 0xff}},
		{Name: "u32", DType: U32, Shape: []int{1}, Data: []byte{3, 0, 0, 0}},
		{Name: "f32.scalar", DType: F32, Shape: []int{}, Data: []byte{0, 0, 0xc0, 0x3f}},
		{Name: "f32.empty", DType: F32, Shape: []int{2, 0, 3}, Data: []byte{}},
		{Name: "f32", DType: F32, Shape: []int{2, 3},
			Data: []byte("\x00\x00\x00\x00\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40\x00\x00\x80\x40\x00\x00\xa0\x40")},
		{Name: "c64", DType: C64, Shape: []int{1}, Data: []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}},
		{Name: "f64", DType: F64, Shape: []int{1}, Data: []byte{0, 0, 0, 0, 0, 0, 0xd0, 0xbf}},
		{Name: "i64", DType: I64, Shape: []int{1}, Data: []byte{0, 0, 0, 0, 0, 1, 0, 0}},
		{Name: "u64", DType: U64, Shape: []int{1}, Data: []byte("\xff\xff\xff\xff\xff\xff\xff\xff")},
		{Name: "\"\\/\b\f\n\r\t\x01\x7f<>& é \u2028 😀", DType: U8, Shape: []int{1}, Data: []byte{7}},
	} {
		got, ok := f.Tensor(want.Name)
		require.True(t, ok, want.Name)
		want.File = golden
		require.Equal(t, want, got)
	}
	require.Len(t, f.Names(), 23)
}

func TestWritesTheReferencesBytes(t *testing.T) {
	f, err := OpenFile(golden)
	require.NoError(t, err)
	defer f.Close()
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	tensors := tensorsOf(contents(t, f))
	for range 10 {
		rand.Shuffle(len(tensors), func(i, j int) { tensors[i], tensors[j] = tensors[j], tensors[i] })
		order := slices.Clone(tensors)
		var got bytes.Buffer
		require.NoError(t, Write(&got, tensors, f.Metadata()))
		require.Equal(t, string(want), got.String())
		require.Equal(t, order, tensors, "the caller's order is left alone")
	}
}

func TestWriteMetadata(t *testing.T) {
	one := []Tensor{{Name: "a", DType: U8, Data: []byte{1}}}
	for _, c := range []struct {
		metadata map[string]string
		header   string
	}{
		{nil, `{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`},
		{map[string]string{}, `{"__metadata__":{},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`},
		{map[string]string{"z": "1", "a": "\x00<é>"},
			`{"__metadata__":{"a":"\u0000<é>","z":"1"},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`},
	} {
		var b bytes.Buffer
		require.NoError(t, Write(&b, one, c.metadata))
		for len(c.header)%8 != 0 {
			c.header += " "
		}
		require.Equal(t, string(pack(c.header, "\x01")), b.String())
		h, err := ReadHeader(&b, -1, "")
		require.NoError(t, err)
		require.Equal(t, c.metadata, h.Metadata())
	}
	var b bytes.Buffer
	require.NoError(t, Write(&b, nil, nil))
	require.Equal(t, string(pack("{}      ", "")), b.String())
}

func TestWriteRefuses(t *testing.T) {
	ok := Tensor{Name: "a", DType: U8, Shape: []int{2}, Data: []byte{1, 2}}
	with := func(change func(*Tensor)) []Tensor {
		t := ok
		change(&t)
		return []Tensor{{Name: "z", DType: F32, Data: make([]byte, 4)}, t}
	}
	for _, c := range []struct {
		name     string
		tensors  []Tensor
		metadata map[string]string
		want     string
	}{
		{"data too short", with(func(t *Tensor) { t.Data = t.Data[:1] }), nil, `tensor "a": shape [2] of U8 needs 2 bytes, Data has 1`},
		{"headers only", with(func(t *Tensor) { t.Data = nil }), nil, `tensor "a": shape [2] of U8 needs 2 bytes, Data has 0`},
		{"no dtype", with(func(t *Tensor) { t.DType = 0 }), nil, `tensor "a": DType(0) is no dtype`},
		{"unknown dtype", with(func(t *Tensor) { t.DType = 99 }), nil, `tensor "a": DType(99) is no dtype`},
		{"negative", with(func(t *Tensor) { t.Shape = []int{-1, -2} }), nil, `tensor "a": shape [-1 -2] has the negative dimension -1`},
		{"overflow", with(func(t *Tensor) { t.Shape = []int{1 << 30, 1 << 30, 1 << 30} }), nil, "overflows"},
		{"half a byte", with(func(t *Tensor) { t.DType, t.Shape = F4, []int{3} }), nil, "whole number of bytes"},
		{"rank", with(func(t *Tensor) { t.Shape = slices.Repeat([]int{1}, 65); t.Data = []byte{1} }), nil, "65 dimensions, more than 64"},
		{"name", with(func(t *Tensor) { t.Name = "a\xff" }), nil, "name is not UTF-8"},
		{"reserved name", with(func(t *Tensor) { t.Name = "__metadata__" }), nil, "reserved"},
		{"duplicate", []Tensor{ok, ok}, nil, `tensor "a": duplicate name`},
		{"duplicate of another dtype", append(with(func(*Tensor) {}), Tensor{Name: "a", DType: F32, Data: make([]byte, 4)}), nil,
			`tensor "a": duplicate name`},
		{"metadata key", nil, map[string]string{"\xff": ""}, "not UTF-8"},
		{"metadata value", nil, map[string]string{"k": "\xff"}, `metadata "k"`},
		{"header too large", nil, map[string]string{"k": strings.Repeat("v", MaxHeaderSize)}, "larger than the limit of 100000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			require.ErrorContains(t, Write(&b, c.tensors, c.metadata), c.want)
			require.Zero(t, b.Len(), "nothing is written")

			dir := t.TempDir()
			path := filepath.Join(dir, "x.safetensors")
			err := WriteFile(path, c.tensors, c.metadata)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, path)
			requireFiles(t, dir)
		})
	}
}

// requireFiles requires that a folder holds these names and nothing else, like a temporary file.
func requireFiles(t *testing.T, dir string, want ...string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	require.Equal(t, want, got)
}

func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "v.safetensors")
	write := func(b byte) error {
		return WriteFile(path, []Tensor{{Name: "v", DType: U8, Shape: []int{1}, Data: []byte{b}}}, nil)
	}
	require.NoError(t, write(1))
	old, err := OpenFile(path)
	require.NoError(t, err)
	defer old.Close()

	require.NoError(t, write(2))
	requireFiles(t, dir, "v.safetensors")
	v, _ := old.Tensor("v")
	require.Equal(t, []byte{1}, v.Data, "a mapping of the old file stays intact")
	now, err := OpenFile(path)
	require.NoError(t, err)
	defer now.Close()
	v, _ = now.Tensor("v")
	require.Equal(t, []byte{2}, v.Data)

	// A file may be rewritten from its own mapping.
	require.NoError(t, WriteFile(path, []Tensor{v}, nil))

	err = WriteFile(filepath.Join(dir, "no", "v.safetensors"), nil, nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "w"), 0o700))
	require.Error(t, WriteFile(filepath.Join(dir, "w"), nil, nil), "a folder is in the way")
	requireFiles(t, dir, "v.safetensors", "w")
}

type brokenWriter struct{ left int }

var errDiskFull = errors.New("disk full")

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.left == 0 {
		return 0, errDiskFull
	}
	w.left--
	return len(p), nil
}

func TestWriteErrors(t *testing.T) {
	tensors := []Tensor{{Name: "a", DType: U8, Data: []byte{1}}}
	err := Write(&brokenWriter{0}, tensors, nil)
	require.ErrorIs(t, err, errDiskFull)
	require.ErrorContains(t, err, "header")
	err = Write(&brokenWriter{1}, tensors, nil)
	require.ErrorIs(t, err, errDiskFull)
	require.ErrorContains(t, err, `tensor "a"`)
}
