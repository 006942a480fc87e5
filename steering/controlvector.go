package steering

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A control vector is a GGUF file with
//
//	general.architecture       "controlvector"
//	controlvector.model_hint   the model, for a reader's eyes
//	controlvector.layer_count  uint32
//	direction.N                F32 [hidden]: what is added to the output of block N, counted from 0
//
// as repeng writes it and llama.cpp adds it (TestLlamaCpp in package engine compares). llama.cpp's own cvector-generator measures
// direction.N one block earlier, at the output of block N-1, and llama.cpp still adds it to that of block N; so does this package.

const controlVector = "controlvector"

func loadGGUF(path string) (*Vector, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxGGUFSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxGGUFSize {
		return nil, fmt.Errorf("gguf: more than %d bytes is no control vector", maxGGUFSize)
	}
	return decodeControlVector(data)
}

func decodeControlVector(data []byte) (*Vector, error) {
	f, err := parseGGUF(data)
	if err != nil {
		return nil, err
	}
	if got := f.strings["general.architecture"]; got != controlVector {
		return nil, fmt.Errorf("gguf: general.architecture is %s, want %q", quote(got), controlVector)
	}
	v := &Vector{Provenance: Provenance{Model: f.strings[controlVector+".model_hint"]}}
	for _, t := range f.tensors {
		number, ok := strings.CutPrefix(t.name, "direction.")
		index, err := strconv.Atoi(number)
		if !ok || err != nil || strconv.Itoa(index) != number || index < 0 || index >= maxLayers {
			return nil, fmt.Errorf("gguf: tensor %s is not direction.N with N between 0 and %d", quote(t.name), maxLayers-1)
		}
		x := make([]float64, len(t.data)/4)
		for i := range x {
			x[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(t.data[4*i:])))
		}
		if v.Hidden == 0 {
			v.Hidden = len(x)
		}
		if len(x) != v.Hidden {
			return nil, fmt.Errorf("gguf: tensor %s has %d elements, %s has %d", t.name, len(x), f.tensors[0].name, v.Hidden)
		}
		l, err := NewLayer(index, x)
		if err != nil {
			return nil, fmt.Errorf("gguf: tensor %s: %w", t.name, err)
		}
		v.Layers = append(v.Layers, l)
	}
	slices.SortFunc(v.Layers, func(a, b Layer) int { return a.Index - b.Index })
	return v, v.Validate()
}

// SaveGGUF writes a control vector for repeng and llama.cpp: DeltaMu·v̂ of each layer as direction.N, with N the block whose
// output it is added to, counted from 0. Statistics and provenance other than the model's name are not part of that format.
//
// llama.cpp refuses a file that holds direction.0 (repeng never makes one). The file is valid and this package
// reads it; for llama.cpp, leave layer 0 out with [Vector.Select].
func (v *Vector) SaveGGUF(path string) (err error) {
	data, err := v.encodeGGUF()
	if err == nil {
		err = writeFile(path, data)
	}
	if err != nil {
		return fmt.Errorf("steering: saving %s: %w", path, err)
	}
	return nil
}

func (v *Vector) encodeGGUF() ([]byte, error) {
	if err := v.Validate(); err != nil {
		return nil, err
	}
	if len(v.Model) > maxGGUFText {
		return nil, fmt.Errorf("the model's name has %d bytes, more than %d", len(v.Model), maxGGUFText)
	}
	var tensors []ggufTensor
	for i := range v.Layers {
		l := &v.Layers[i]
		if l.DeltaMu == 0 {
			return nil, fmt.Errorf("layer %d has length 0, and a control vector keeps no direction without one", l.Index)
		}
		var data []byte
		for _, x := range l.Direction {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(l.DeltaMu*float64(x))))
		}
		tensors = append(tensors, ggufTensor{fmt.Sprintf("direction.%d", l.Index), data})
	}
	return appendGGUF(nil, []ggufPair{
		{key: "general.architecture", text: true, value: controlVector},
		{key: controlVector + ".model_hint", text: true, value: v.Model},
		{key: controlVector + ".layer_count", number: uint32(len(v.Layers))},
	}, tensors), nil
}

// writeFile writes a file that appears complete or not at all.
func writeFile(path string, data []byte) error {
	temp := filepath.Join(filepath.Dir(path), ".steering-"+rand.Text()+".tmp")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}
