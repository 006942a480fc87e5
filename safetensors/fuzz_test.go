package safetensors

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// contents returns all tensors of a file by name, without the path.
func contents(t require.TestingT, f *File) map[string]Tensor {
	all := make(map[string]Tensor)
	for _, name := range f.Names() {
		tensor, ok := f.Tensor(name)
		require.True(t, ok)
		require.Equal(t, name, tensor.Name)
		require.Len(t, tensor.Data, int(tensor.Size()))
		tensor.File = ""
		all[name] = tensor
	}
	return all
}

// requireRoundTrip writes what an accepted file holds and requires that it reads the same, and writes the same again.
func requireRoundTrip(t testing.TB, f *File) {
	before := contents(t, f)
	var first, second bytes.Buffer
	require.NoError(t, Write(&first, tensorsOf(before), f.Metadata()))
	path := filepath.Join(t.TempDir(), "again.safetensors")
	require.NoError(t, os.WriteFile(path, first.Bytes(), 0o600)) // not WriteFile, whose fsync would slow the fuzzer
	again, err := OpenFile(path)
	require.NoError(t, err)
	defer again.Close()
	require.Equal(t, before, contents(t, again))
	require.Equal(t, f.Metadata(), again.Metadata())
	require.NoError(t, Write(&second, tensorsOf(contents(t, again)), again.Metadata()))
	require.Equal(t, first.Bytes(), second.Bytes())
}

func tensorsOf(m map[string]Tensor) []Tensor {
	var all []Tensor
	for _, tensor := range m { // in random order: Write sorts
		all = append(all, tensor)
	}
	return all
}

// FuzzOpen: no file panics; what is accepted is written and read again unchanged.
func FuzzOpen(f *testing.F) {
	for _, c := range hostile {
		f.Add(c.file)
	}
	for _, c := range odd {
		f.Add(c.file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		path := filepath.Join(t.TempDir(), "fuzz.safetensors")
		require.NoError(t, os.WriteFile(path, file, 0o600))
		opened, err := OpenFile(path)
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		defer opened.Close()
		requireRoundTrip(t, opened)
	})
}

// FuzzHeader is faster than FuzzOpen and asks encoding/json, which is laxer, whether it read the same.
func FuzzHeader(f *testing.F) {
	for _, c := range hostile {
		if len(c.file) > lengthSize {
			f.Add(c.file[lengthSize:], uint16(0))
		}
	}
	for _, c := range odd {
		f.Add(bytes.TrimRight(c.file[lengthSize:], "x"), uint16(len(c.file)-len(bytes.TrimRight(c.file, "x"))))
	}
	f.Fuzz(func(t *testing.T, header []byte, dataSize uint16) {
		file := pack(string(header), "")
		h, err := ReadHeader(bytes.NewReader(file), int64(len(file))+int64(dataSize), "fuzz")
		unknownSize, errUnknown := ReadHeader(bytes.NewReader(file), -1, "fuzz")
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		require.NoError(t, errUnknown)
		require.Equal(t, h, unknownSize)
		require.EqualValues(t, dataSize, h.DataSize())

		var raw map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(header, &raw))
		if metadata, ok := raw[metadataKey]; ok {
			var want map[string]string
			require.NoError(t, json.Unmarshal(metadata, &want))
			require.Equal(t, want, h.Metadata())
			delete(raw, metadataKey)
		}
		require.Len(t, h.Names(), len(raw))
		for name, entry := range raw {
			var (
				fields  map[string]json.RawMessage
				dtype   string
				shape   []int
				offsets [2]int64
			)
			require.NoError(t, json.Unmarshal(entry, &fields))
			require.NoError(t, json.Unmarshal(fields["dtype"], &dtype))
			require.NoError(t, json.Unmarshal(fields["shape"], &shape))
			require.NoError(t, json.Unmarshal(fields["data_offsets"], &offsets))
			tensor, ok := h.Tensor(name)
			require.True(t, ok)
			require.Equal(t, dtype, tensor.DType.String())
			require.Equal(t, shape, tensor.Shape)
			require.Equal(t, offsets[1]-offsets[0], tensor.Size())
		}
	})
}

// FuzzIndex: no index panics; what is accepted is what encoding/json reads.
func FuzzIndex(f *testing.F) {
	for _, c := range hostileIndexes {
		f.Add([]byte(c.index))
	}
	f.Add([]byte(`{"metadata":{"total_size":1e9},"weight_map":{"a":"m-1.safetensors","\u00e9":"m-2.safetensors"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseIndex(text)
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		var raw map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(text, &raw))
		var want map[string]string
		require.NoError(t, json.Unmarshal(raw["weight_map"], &want))
		require.Equal(t, want, got)
	})
}
