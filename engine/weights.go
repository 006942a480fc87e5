package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/safetensors"
)

// weightDTypes maps the stored types that a weight may have.
var weightDTypes = map[safetensors.DType]dtypes.DType{
	safetensors.F32: dtypes.Float32, safetensors.BF16: dtypes.BFloat16, safetensors.F16: dtypes.Float16,
}

// checkWeights holds a checkpoint against a model's declaration: each declared tensor there, with its shape and a type that can be
// loaded; none beyond them; all matrices of one type, which is returned.
func checkWeights(cfg *model.Config, ck *safetensors.Checkpoint) (dtypes.DType, error) {
	declared := map[string]bool{}
	var matrix safetensors.Tensor
	for _, w := range cfg.Weights() {
		declared[w.Name] = true
		t, ok := ck.Tensor(w.Name)
		if !ok {
			return 0, fmt.Errorf("tensor %q %v is missing from %v", w.Name, w.Shape, ck.Files())
		}
		if !slices.Equal(t.Shape, w.Shape) {
			return 0, fmt.Errorf("%s: tensor %q has shape %v, the configuration wants %v", t.File, w.Name, t.Shape, w.Shape)
		}
		if _, ok := weightDTypes[t.DType]; !ok {
			return 0, fmt.Errorf("%s: tensor %q has type %s, want F32, BF16 or F16", t.File, w.Name, t.DType)
		}
		if w.Kind == model.Norm {
			continue
		}
		if matrix.Name == "" {
			matrix = t
		}
		if t.DType != matrix.DType {
			return 0, fmt.Errorf("%s: tensor %q has type %s, but %q has type %s: all matrices must have one type",
				t.File, t.Name, t.DType, matrix.Name, matrix.DType)
		}
	}
	for _, name := range ck.Names() {
		if !declared[name] && !cfg.Superfluous(name) {
			t, _ := ck.Tensor(name)
			return 0, fmt.Errorf("%s: tensor %q %v does not belong to %s", t.File, name, t.Shape, cfg.Architecture)
		}
	}
	return weightDTypes[matrix.DType], nil
}

// storedShape is the shape of a weight on the device.
func storedShape(p layers.Platform, w model.Weight, stored, compute dtypes.DType) shapes.Shape {
	if w.Kind == model.Norm {
		return shapes.Make(stored, w.Shape...)
	}
	if layers.Transposed(p, compute) {
		return shapes.Make(compute, w.Shape[1], w.Shape[0])
	}
	return shapes.Make(compute, w.Shape...)
}

// source is where a model's weights come from.
type source struct {
	dtype  dtypes.DType                   // of all matrices
	stored func(name string) dtypes.DType // of one tensor
	// fill writes a weight into flat data of the shape and type that it has on the device.
	fill  func(p layers.Platform, w model.Weight, want shapes.Shape, flat any) error
	close func() error
}

// openCheckpoint is the checkpoint in a folder, checked against the configuration.
func openCheckpoint(cfg *model.Config, dir string) (*source, error) {
	ck, err := safetensors.Open(dir)
	if err != nil {
		return nil, err
	}
	matrix, err := checkWeights(cfg, ck)
	if err != nil {
		_ = ck.Close()
		return nil, err
	}
	return &source{
		dtype:  matrix,
		stored: func(name string) dtypes.DType { t, _ := ck.Tensor(name); return weightDTypes[t.DType] },
		fill: func(p layers.Platform, w model.Weight, want shapes.Shape, flat any) error {
			t, _ := ck.Tensor(w.Name)
			defer ck.Release(w.Name) // gives the mapped file's pages back
			if err := read(t, flat, want.DType, w.Kind != model.Norm && layers.Transposed(p, want.DType)); err != nil {
				return fmt.Errorf("%s: %w", t.File, err)
			}
			return nil
		},
		close: ck.Close,
	}, nil
}

// read copies a stored tensor, converted and transposed where asked to. Reading a mapped file that was cut meanwhile is an error.
func read(t safetensors.Tensor, flat any, dtype dtypes.DType, transpose bool) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	if weightDTypes[t.DType] == dtype && !transpose {
		return t.CopyTo(flatBytes(flat))
	}
	return convert(flat, t, transpose)
}

// loadWeights brings every declared tensor onto the device, in declaration order. No second copy of the weights exists at any time.
func loadWeights(ctx context.Context, b compute.Backend, p layers.Platform, weights []model.Weight, stored []shapes.Shape,
	src *source) ([]compute.Buffer, error) {
	buffers := make([]compute.Buffer, len(weights))
	errs := make([]error, len(weights))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 4) {
		wg.Go(func() {
			for i := range next {
				if buffers[i], errs[i] = loadWeight(b, p, weights[i], stored[i], src); errs[i] != nil {
					errs[i] = fmt.Errorf("tensor %q: %w", weights[i].Name, errs[i])
				}
			}
		})
	}
	var err error
	for i := range weights {
		if err = ctx.Err(); err != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	if err = errors.Join(append(errs, err)...); err != nil {
		finalize(buffers)
		return nil, err
	}
	return buffers, nil
}

// loadWeight uploads one weight; where the device's memory is the host's, it is filled in place.
func loadWeight(b compute.Backend, p layers.Platform, w model.Weight, want shapes.Shape, src *source) (buf compute.Buffer, err error) {
	var flat any
	if b.HasSharedBuffers() {
		buf, flat, err = b.NewSharedBuffer(0, want)
	} else {
		flat = newFlat(want)
	}
	if err == nil {
		err = src.fill(p, w, want, flat)
	}
	if err == nil && buf == nil {
		buf, err = b.BufferFromFlatData(0, flat, want)
	}
	if err != nil && buf != nil {
		_ = buf.Finalize()
		buf = nil
	}
	return buf, err
}

// convert fills flat (a []float32) from a stored tensor of any weight type, transposing a matrix if asked to.
func convert(flat any, t safetensors.Tensor, transpose bool) error {
	dst, ok := flat.([]float32)
	if !ok {
		return fmt.Errorf("cannot convert %s to %T", t.DType, flat)
	}
	var at func(i int) float32
	switch data := t.Data; t.DType {
	case safetensors.F32:
		at = func(i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])) }
	case safetensors.BF16:
		at = func(i int) float32 { return math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16) }
	case safetensors.F16:
		at = func(i int) float32 { return float16.Float16(binary.LittleEndian.Uint16(data[2*i:])).Float32() }
	default:
		return fmt.Errorf("cannot convert %s to F32", t.DType)
	}
	if !transpose {
		for i := range dst {
			dst[i] = at(i)
		}
		return nil
	}
	// Tiles keep both the rows read and the rows written in cache.
	const tile = 64
	rows, cols := t.Shape[0], t.Shape[1]
	for r0 := 0; r0 < rows; r0 += tile {
		for c0 := 0; c0 < cols; c0 += tile {
			for c := c0; c < min(c0+tile, cols); c++ {
				for r := r0; r < min(r0+tile, rows); r++ {
					dst[c*rows+r] = at(r*cols + c)
				}
			}
		}
	}
	return nil
}

func newFlat(s shapes.Shape) any {
	switch s.DType {
	case dtypes.Float32:
		return make([]float32, s.Size())
	case dtypes.BFloat16:
		return make([]bfloat16.BFloat16, s.Size())
	case dtypes.Float16:
		return make([]float16.Float16, s.Size())
	}
	panic(fmt.Errorf("engine: no flat data of type %s", s.DType))
}

// flatBytes views typed flat data as bytes.
func flatBytes(flat any) []byte {
	switch f := flat.(type) {
	case []float32:
		return bytesOf(f)
	case []bfloat16.BFloat16:
		return bytesOf(f)
	case []float16.Float16:
		return bytesOf(f)
	}
	panic(fmt.Errorf("engine: no bytes of %T", flat))
}

func bytesOf[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(*new(T))))
}

func finalize(buffers []compute.Buffer) {
	for _, b := range buffers {
		if b != nil {
			_ = b.Finalize()
		}
	}
}
