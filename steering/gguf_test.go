package steering

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGGUF(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.gguf")
	v := testVector()
	require.NoError(t, v.SaveGGUF(path))
	got, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, "some/model", got.Model)
	require.Equal(t, v.Indices(), got.Indices())
	for i, l := range got.Layers {
		require.Nil(t, l.Statistics)
		require.InDelta(t, v.Layers[i].DeltaMu, l.DeltaMu, 1e-6)
		require.InDeltaSlice(t, v.Layers[i].Direction, l.Direction, 1e-7)
	}
	none := mustScale(t, v, 0)
	require.ErrorContains(t, none.SaveGGUF(path), "layer 1 has length 0")
}

// TestGGUFBytes holds the writer to the format: a file that the gguf package 0.19.0 wrote for the same vector, byte for byte.
func TestGGUFBytes(t *testing.T) {
	want, err := os.ReadFile("testdata/control_vector.gguf")
	require.NoError(t, err)
	got, err := testVector().encodeGGUF()
	require.NoError(t, err)
	require.Equal(t, want, got)
}

var update = flag.Bool("update", false, "write testdata/llamacpp.gguf anew")

// TestGGUFForLlamaCpp: the file that reference/llamacpp.py gave to llama.cpp is what SaveGGUF writes. What llama.cpp did with it, package
// engine compares.
func TestGGUFForLlamaCpp(t *testing.T) {
	const committed = "testdata/llamacpp.gguf"
	v := llamacppVector()
	if *update {
		require.NoError(t, v.SaveGGUF(committed))
	}
	path := filepath.Join(t.TempDir(), "v.gguf")
	require.NoError(t, v.SaveGGUF(path))
	want, err := os.ReadFile(committed)
	require.NoError(t, err)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// TestGGUFFromLlamaCpp reads a file of llama.cpp's cvector-generator (--method mean, on the demo's model; source of llama-cpp-python
// 0.3.36), whose layer_count is an int32 and whose directions are unit vectors.
func TestGGUFFromLlamaCpp(t *testing.T) {
	v, err := Load("testdata/cvector_generator.gguf")
	require.NoError(t, err)
	require.Equal(t, "llama", v.Model)
	require.Equal(t, 64, v.Hidden)
	require.Equal(t, []int{1, 2, 3, 4}, v.Indices())
	for _, l := range v.Layers {
		require.InDelta(t, 1, l.DeltaMu, 1e-6)
	}
	require.InDeltaSlice(t, []float32{-0.104873, -0.097328, -0.133447}, v.Layers[0].Direction[:3], 1e-6)
	require.InDeltaSlice(t, []float32{0.011745, -0.030109, -0.106760}, v.Layers[3].Direction[:3], 1e-6)
}

// llamacppVector fits the demo's model of 5 layers. It has a gap at layer 3, a layer of negative length, and elements ±length/8, which
// are exact in float32, so that the file has the same bytes on every machine.
func llamacppVector() *Vector {
	v := &Vector{Hidden: 64, Provenance: Provenance{Model: "stories260k", NumHiddenLayers: 5}}
	signs := rand.New(rand.NewPCG(260, 4))
	for _, l := range []Layer{{Index: 1, DeltaMu: 3}, {Index: 2, DeltaMu: -4}, {Index: 4, DeltaMu: 6}} {
		for bits := signs.Uint64(); len(l.Direction) < v.Hidden; bits >>= 1 {
			l.Direction = append(l.Direction, 0.125-0.25*float32(bits&1))
		}
		v.Layers = append(v.Layers, l)
	}
	return v
}

func ggufText(s string) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(s)))) + s
}

func ggufHead(version uint32, tensors, pairs uint64) string {
	b := binary.LittleEndian.AppendUint32([]byte("GGUF"), version)
	return string(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, tensors), pairs))
}

func u32(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
func u64(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }

// hostileGGUF are files and what is said about them.
var hostileGGUF = map[string]string{
	"GGUF":                                  "version needs 4 bytes",
	"GGML....":                              "does not begin with GGUF",
	ggufHead(1, 0, 0):                       "version 1 is not 2 or 3",
	ggufHead(0x03000000, 0, 0):              "is not 2 or 3, little endian",
	ggufHead(3, 1<<40, 0):                   "are more than",
	ggufHead(3, 0, 1<<63):                   "are more than",
	ggufHead(3, 0, 0):                       `general.architecture is ""`,
	ggufHead(3, 0, 1):                       "length of a key needs 8 bytes",
	ggufHead(3, 0, 1) + u64(math.MaxUint64): "the file has 0 left",
	ggufHead(3, 0, 1) + ggufText("\xff"):    "is not UTF-8",
	ggufHead(3, 0, 1) + ggufText(strings.Repeat("k", 1<<17)):                                      "more than 65536",
	ggufHead(3, 0, 1) + ggufText("k") + u32(99):                                                   "unknown type 99",
	ggufHead(3, 0, 1) + ggufText("k") + u32(9) + u32(9) + u64(1):                                  "array of type 9",
	ggufHead(3, 0, 1) + ggufText("k") + u32(9) + u32(10) + u64(math.MaxUint64/8+2):                "elements",
	ggufHead(3, 0, 1) + ggufText("k") + u32(9) + u32(8) + u64(1<<62):                              "needs 8 bytes",
	ggufHead(3, 0, 1) + ggufText("k") + u32(9) + u32(4) + u64(1<<59):                              "needs 2305843009213693952 bytes",
	ggufHead(3, 0, 2) + ggufText("k") + u32(7) + "\x01" + ggufText("k") + u32(7) + "\x01":         `key "k" is there twice`,
	ggufHead(3, 1, 1) + ggufText("general.alignment") + u32(4) + u32(0):                           "general.alignment 0",
	ggufHead(3, 1, 1) + ggufText("general.alignment") + u32(4) + u32(24):                          "general.alignment 24",
	control(direction("direction.1", 2, 4, 0, 0), 64):                                             "has 2 dimensions, want 1",
	control(direction("direction.1", 1, 1<<40, 0, 0), 64):                                         "elements, not between",
	control(direction("direction.1", 1, 0, 0, 0), 64):                                             "has 0 elements",
	control(direction("direction.1", 1, 4, 1, 0), 64):                                             "has type 1, want 0 (F32)",
	control(direction("direction.1", 1, 4, 0, 8), 64):                                             "not a multiple of 32",
	control(direction("direction.1", 1, 4, 0, 1<<40), 64):                                         "of the data, which has 64",
	control(direction("direction.1", 1, 4, 0, math.MaxUint64-31), 64):                             "of the data, which has 64",
	control(direction("direction.1", 1, 4, 0, 0), 15):                                             "needs bytes 0 to 16",
	control(direction("direction.1", 1, 4, 0, 0)+direction("direction.1", 1, 4, 0, 32), 64):       "is there twice",
	control(direction("direction.1", 1, 4, 0, 0)+direction("direction.2", 1, 4, 0, 0), 64):        "share the data",
	control(direction("direction.1", 1, 4, 0, 0)+direction("direction.2", 1, 2, 0, 32), 64):       "has 2 elements, direction.1 has 4",
	control(direction("direction.-1", 1, 4, 0, 0), 64):                                            "is not direction.N",
	control(direction("direction.01", 1, 4, 0, 0), 64):                                            "is not direction.N",
	control(direction("direction.99999", 1, 4, 0, 0), 64):                                         "is not direction.N",
	control(direction("layer.1", 1, 4, 0, 0), 64):                                                 "is not direction.N",
	strings.TrimRight(control(direction("direction.1", 1, 4, 0, 0), 64), "\x01") + zeros(64):      "the vector is zero",
	strings.ReplaceAll(control(direction("direction.1", 1, 1, 0, 0), 4), "\x01\x01\x01\x01", nan): "is NaN",
	control("", 0): "no layers",
}

const nan = "\x00\x00\xc0\x7f"

func zeros(n int) string { return strings.Repeat("\x00", n) }

// direction is an entry of the list of tensors, with dimensions that are all dim.
func direction(name string, rank uint32, dim uint64, kind uint32, offset uint64) string {
	return ggufText(name) + u32(rank) + strings.Repeat(u64(dim), int(rank)) + u32(kind) + u64(offset)
}

// control is a control vector with those tensors and some bytes of data, all 1.
func control(tensors string, data int) string {
	n := strings.Count(tensors, "direction.") + strings.Count(tensors, "layer.")
	file := ggufHead(3, uint64(n), 1) + ggufText("general.architecture") + u32(8) + ggufText("controlvector") + tensors
	file += zeros((32 - len(file)%32) % 32)
	return file + strings.Repeat("\x01", data)
}

func TestGGUFHostile(t *testing.T) {
	for file, want := range hostileGGUF {
		_, err := decodeControlVector([]byte(file))
		require.ErrorContains(t, err, want, "%q", file[:min(len(file), 200)])
	}
	good, err := testVector().encodeGGUF()
	require.NoError(t, err)
	for n := range len(good) - 16 { // the last tensor has 16 bytes, and as many of padding
		_, err := decodeControlVector(good[:n])
		require.Error(t, err, "truncated to %d bytes", n)
	}
	_, err = decodeControlVector([]byte(control(direction("direction.0", 1, 4, 0, 0), 64)))
	require.NoError(t, err, "block 0 has an output too")
}

// FuzzGGUF: no file panics; what is accepted is valid, and is written and read with the same directions.
func FuzzGGUF(f *testing.F) {
	for file := range hostileGGUF {
		f.Add([]byte(file))
	}
	good, err := testVector().encodeGGUF()
	require.NoError(f, err)
	f.Add(good)
	f.Fuzz(func(t *testing.T, file []byte) {
		v, err := decodeControlVector(file)
		if err != nil {
			require.Less(t, len(err.Error()), 1000)
			return
		}
		require.NoError(t, v.Validate())
		out, err := v.encodeGGUF()
		require.NoError(t, err)
		again, err := decodeControlVector(out)
		require.NoError(t, err)
		require.Equal(t, v.Indices(), again.Indices())
		require.Equal(t, v.Model, again.Model)
		twice, err := again.encodeGGUF()
		require.NoError(t, err)
		require.Equal(t, len(out), len(twice))
		require.True(t, bytes.HasPrefix(twice, []byte("GGUF")))
	})
}
