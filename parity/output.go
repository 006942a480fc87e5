package parity

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/steerage/steerage/safetensors"
)

// output gathers what the engine computed, under the dump's tensor names.
type output struct{ tensors []safetensors.Tensor }

// floats adds values under name: as F32, or as BF16 under a name that starts with "bf16.".
func (o *output) floats(name string, values []float32, shape ...int) {
	t := safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: shape}
	if strings.HasPrefix(name, refBF16+".") {
		t.DType, t.Data = safetensors.BF16, make([]byte, 0, 2*len(values))
		for _, v := range values {
			t.Data = binary.LittleEndian.AppendUint16(t.Data, toBF16(v))
		}
	} else {
		t.Data = make([]byte, 0, 4*len(values))
		for _, v := range values {
			t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
		}
	}
	o.tensors = append(o.tensors, t)
}

// float32s adds values that are F32 in every reference.
func (o *output) float32s(name string, values []float32, shape ...int) {
	o.floats("", values, shape...)
	o.tensors[len(o.tensors)-1].Name = name
}

// doubles adds values as F64.
func (o *output) doubles(name string, values []float64, shape ...int) {
	t := safetensors.Tensor{Name: name, DType: safetensors.F64, Shape: shape, Data: make([]byte, 0, 8*len(values))}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, math.Float64bits(v))
	}
	o.tensors = append(o.tensors, t)
}

// bools adds values as U8.
func (o *output) bools(name string, values []bool, shape ...int) {
	t := safetensors.Tensor{Name: name, DType: safetensors.U8, Shape: shape, Data: make([]byte, len(values))}
	for i, v := range values {
		if v {
			t.Data[i] = 1
		}
	}
	o.tensors = append(o.tensors, t)
}

func (o *output) ints(name string, values []int32) {
	t := safetensors.Tensor{Name: name, DType: safetensors.I32, Shape: []int{len(values)}, Data: make([]byte, 0, 4*len(values))}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, uint32(v))
	}
	o.tensors = append(o.tensors, t)
}

// write writes folder/name.safetensors.
func (o *output) write(folder, name string, metadata map[string]string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return safetensors.WriteFile(filepath.Join(folder, name+".safetensors"), o.tensors, metadata)
}

// toBF16 rounds to the nearest bfloat16, ties to even, and keeps NaN a NaN.
func toBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40 // quiet: the payload may have been in the half that goes
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
