package steering

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/steerage/steerage/safetensors"
)

// The metadata that says what a file is.
const (
	fileFormat      = "steerage.vector"
	fileVersion     = "1"
	layerConvention = "block output, 0-based"
)

// maxMetadata bounds the text that a file may carry in one key.
const maxMetadata = 1 << 16

// Load reads a vector from a safetensors file or a GGUF control vector, whichever the file is.
func Load(path string) (*Vector, error) {
	v, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("steering: %s: %w", path, err)
	}
	return v, nil
}

func load(path string) (*Vector, error) {
	magic, err := readMagic(path)
	switch {
	case err != nil:
		return nil, err
	case string(magic) == ggufMagic:
		return loadGGUF(path)
	case bytes.HasPrefix(magic, []byte("PK")) || bytes.HasPrefix(magic, []byte{0x80, 2}):
		return nil, errors.New("this is a PyTorch pickle (.pt), which is a program; save its tensors as safetensors instead")
	}
	f, err := safetensors.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readVector(f)
}

func readMagic(path string) ([]byte, error) {
	info, err := os.Stat(path) // before opening, which would wait for the writer of a pipe
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	magic := make([]byte, 4)
	n, err := io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return magic[:n], nil
}

// readVector copies a vector out of a file and checks it.
func readVector(f *safetensors.File) (*Vector, error) {
	meta := f.Metadata()
	for _, want := range [][2]string{{"format", fileFormat}, {"version", fileVersion}, {"layer_convention", layerConvention}} {
		if got, ok := meta[want[0]]; !ok {
			return nil, fmt.Errorf("metadata has no %s: this is no steering vector", want[0])
		} else if got != want[1] {
			return nil, fmt.Errorf("metadata %s is %s, want %q", want[0], quote(got), want[1])
		}
	}
	v := &Vector{}
	for key, value := range meta {
		if len(value) > maxMetadata || len(key) > maxMetadata {
			return nil, fmt.Errorf("metadata %s has %d bytes, more than %d", quote(key), len(value), maxMetadata)
		}
		if field := v.field(key); field != nil {
			*field = value
			continue
		}
		switch key {
		case "format", "version", "layer_convention":
		case "num_hidden_layers":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("metadata num_hidden_layers is %s, not a positive number", quote(value))
			}
			v.NumHiddenLayers = n
		default:
			if v.Notes == nil {
				v.Notes = make(map[string]string)
			}
			v.Notes[key] = value
		}
	}

	r := &tensorReader{file: f, seen: make(map[string]bool)}
	direction := r.shape("direction", safetensors.F32, -1, -1)
	if r.err != nil {
		return nil, r.err
	}
	k, hidden := direction[0], direction[1]
	if k < 1 || k > maxLayers || hidden < 1 || hidden > maxHidden {
		return nil, fmt.Errorf("direction has shape %v: at most [%d, %d], and not empty", direction, maxLayers, maxHidden)
	}
	v.Hidden, v.Layers = hidden, make([]Layer, k)
	flat := decode(r.bytes("direction", safetensors.F32, k, hidden), func(b []byte) float32 {
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	})
	indices := decode(r.bytes("layers", safetensors.I32, k), func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) })
	deltaMu := r.float64s("delta_mu", k)
	var columns [][]float64
	if r.any() {
		for _, field := range statisticFields {
			columns = append(columns, r.float64s(field.name, k))
		}
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	for i := range v.Layers {
		l := &v.Layers[i]
		l.Index, l.DeltaMu = int(indices[i]), deltaMu[i]
		l.Direction = flat[i*hidden : (i+1)*hidden : (i+1)*hidden]
		if columns != nil {
			l.Statistics = &Statistics{}
			for j, field := range statisticFields {
				*field.of(l.Statistics) = columns[j][i]
			}
		}
	}
	return v, v.Validate()
}

// field returns the field of the provenance that a metadata key fills, or nil.
func (p *Provenance) field(key string) *string {
	switch key {
	case "model":
		return &p.Model
	case "fingerprint":
		return &p.Fingerprint
	case "data":
		return &p.Data
	case "date":
		return &p.Date
	case "method":
		return &p.Method
	}
	return nil
}

// tensorReader takes tensors out of a file by name and keeps the first error.
type tensorReader struct {
	file *safetensors.File
	seen map[string]bool
	err  error
}

// shape checks a tensor against dims, of which -1 is any, and returns its shape.
func (r *tensorReader) shape(name string, dtype safetensors.DType, dims ...int) []int {
	t, ok := r.file.Header.Tensor(name)
	switch {
	case r.err != nil:
		return nil
	case !ok:
		r.err = fmt.Errorf("no tensor %q", name)
		return nil
	case t.DType != dtype:
		r.err = fmt.Errorf("tensor %q has dtype %v, want %v", name, t.DType, dtype)
		return nil
	}
	fits := len(t.Shape) == len(dims)
	for i := 0; fits && i < len(dims); i++ {
		fits = dims[i] == -1 || dims[i] == t.Shape[i]
	}
	if !fits {
		want := strings.ReplaceAll(fmt.Sprint(dims), "-1", "*")
		r.err = fmt.Errorf("tensor %q has shape %v, want %s", name, t.Shape, want)
		return nil
	}
	r.seen[name] = true
	return t.Shape
}

func (r *tensorReader) bytes(name string, dtype safetensors.DType, dims ...int) []byte {
	if r.shape(name, dtype, dims...) == nil {
		return nil
	}
	t, _ := r.file.Tensor(name)
	data := make([]byte, len(t.Data))
	if err := t.CopyTo(data); err != nil {
		r.err = err
		return nil
	}
	return data
}

func (r *tensorReader) float64s(name string, n int) []float64 {
	return decode(r.bytes(name, safetensors.F64, n), func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) })
}

// any reports whether some statistic is in the file, so that all must be.
func (r *tensorReader) any() bool {
	for _, field := range statisticFields {
		if _, ok := r.file.Header.Tensor(field.name); ok {
			return true
		}
	}
	return false
}

// done returns the first error, or names a tensor that nobody asked for.
func (r *tensorReader) done() error {
	if r.err != nil {
		return r.err
	}
	for _, name := range r.file.Names() {
		if !r.seen[name] {
			return fmt.Errorf("tensor %s is not part of a steering vector", quote(name))
		}
	}
	return nil
}

// decode reads little-endian elements of the size of T.
func decode[T int32 | float32 | float64](data []byte, element func([]byte) T) []T {
	size := binary.Size(T(0))
	out := make([]T, 0, len(data)/size)
	for chunk := range slices.Chunk(data, size) {
		out = append(out, element(chunk))
	}
	return out
}

// Save writes the vector to a safetensors file, which appears complete or not at all. Equal vectors give equal bytes.
func (v *Vector) Save(path string) error {
	tensors, metadata, err := v.encode()
	if err == nil {
		err = safetensors.WriteFile(path, tensors, metadata)
	}
	if err != nil {
		return fmt.Errorf("steering: saving %s: %w", path, err)
	}
	return nil
}

func (v *Vector) encode() ([]safetensors.Tensor, map[string]string, error) {
	if err := v.Validate(); err != nil {
		return nil, nil, err
	}
	metadata := map[string]string{"format": fileFormat, "version": fileVersion, "layer_convention": layerConvention}
	for key, value := range v.Notes {
		if _, taken := metadata[key]; taken || key == "num_hidden_layers" || v.field(key) != nil {
			return nil, nil, fmt.Errorf("note %s has the name of a field", quote(key))
		}
		metadata[key] = value
	}
	if v.NumHiddenLayers > 0 {
		metadata["num_hidden_layers"] = strconv.Itoa(v.NumHiddenLayers)
	}
	for _, key := range []string{"model", "fingerprint", "data", "date", "method"} {
		if value := *v.field(key); value != "" {
			metadata[key] = value
		}
	}
	for key, value := range metadata {
		if len(key) > maxMetadata || len(value) > maxMetadata {
			return nil, nil, fmt.Errorf("metadata %s has %d bytes, more than %d", quote(key), len(value), maxMetadata)
		}
	}

	k := len(v.Layers)
	var direction, indices []byte
	for i := range v.Layers {
		indices = binary.LittleEndian.AppendUint32(indices, uint32(v.Layers[i].Index))
		for _, x := range v.Layers[i].Direction {
			direction = binary.LittleEndian.AppendUint32(direction, math.Float32bits(x))
		}
	}
	column := func(name string, of func(l *Layer) float64) safetensors.Tensor {
		var data []byte
		for i := range v.Layers {
			data = binary.LittleEndian.AppendUint64(data, math.Float64bits(of(&v.Layers[i])))
		}
		return safetensors.Tensor{Name: name, DType: safetensors.F64, Shape: []int{k}, Data: data}
	}
	tensors := []safetensors.Tensor{
		{Name: "layers", DType: safetensors.I32, Shape: []int{k}, Data: indices},
		{Name: "direction", DType: safetensors.F32, Shape: []int{k, v.Hidden}, Data: direction},
		column("delta_mu", func(l *Layer) float64 { return l.DeltaMu }),
	}
	if v.Layers[0].Statistics != nil {
		for _, field := range statisticFields {
			tensors = append(tensors, column(field.name, func(l *Layer) float64 { return *field.of(l.Statistics) }))
		}
	}
	return tensors, metadata, nil
}
