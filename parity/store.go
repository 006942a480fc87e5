package parity

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/steerage/steerage/safetensors"
)

// store is an open file of tensors.
type store struct {
	name string // of the file, for messages
	file *safetensors.File
}

func openStore(dir, name string) (*store, error) {
	f, err := safetensors.OpenFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	return &store{name, f}, nil
}

func (s *store) Close() error { return s.file.Close() }

// readJSON reads a file of a dump.
func readJSON(dir, name string, to any) error {
	path := filepath.Join(dir, name)
	if info, err := os.Stat(path); err == nil && info.Size() > maxJSON {
		return fmt.Errorf("%s: %d bytes, the limit is %d", path, info.Size(), maxJSON)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err = json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// has reports whether it holds a tensor whose name starts so.
func (s *store) has(prefix string) bool {
	return slices.ContainsFunc(s.file.Names(), func(name string) bool { return strings.HasPrefix(name, prefix) })
}

func (s *store) tensor(name string) (safetensors.Tensor, error) {
	t, ok := s.file.Tensor(name)
	if !ok {
		return t, fmt.Errorf("%s: tensor %q is missing", s.name, name)
	}
	return t, nil
}

// floats returns a tensor of that shape, F32 or BF16, as float32.
func (s *store) floats(name string, shape ...int) ([]float32, error) {
	t, err := s.shaped(name, shape)
	if err != nil {
		return nil, err
	}
	values := make([]float32, t.Elements())
	switch t.DType {
	case safetensors.F32:
		for i := range values {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		}
	case safetensors.BF16:
		for i := range values {
			values[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16)
		}
	default:
		return nil, fmt.Errorf("%s: tensor %q is %s, want F32 or BF16", s.name, name, t.DType)
	}
	s.file.Release(name)
	return values, nil
}

// doubles returns an F64 tensor of that shape.
func (s *store) doubles(name string, shape ...int) ([]float64, error) {
	t, err := s.shaped(name, shape)
	if err != nil {
		return nil, err
	}
	if t.DType != safetensors.F64 {
		return nil, fmt.Errorf("%s: tensor %q is %s, want F64", s.name, name, t.DType)
	}
	values := make([]float64, t.Elements())
	for i := range values {
		values[i] = math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:]))
	}
	return values, nil
}

func (s *store) shaped(name string, shape []int) (safetensors.Tensor, error) {
	t, err := s.tensor(name)
	if err == nil && !slices.Equal(t.Shape, shape) {
		err = fmt.Errorf("%s: tensor %q has shape %v, want %v", s.name, name, t.Shape, shape)
	}
	return t, err
}

// ints returns an I32 tensor of that rank and its shape.
func (s *store) ints(name string, rank int) ([]int32, []int, error) {
	t, err := s.tensor(name)
	if err != nil {
		return nil, nil, err
	}
	if t.DType != safetensors.I32 || len(t.Shape) != rank || t.Elements() == 0 {
		return nil, nil, fmt.Errorf("%s: tensor %q is %s %v, want I32 with %d dimensions, not empty",
			s.name, name, t.DType, t.Shape, rank)
	}
	values := make([]int32, t.Elements())
	for i := range values {
		values[i] = int32(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return values, t.Shape, nil
}
