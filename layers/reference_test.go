package layers

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

// Tests compare each op with plain Go in float64, on every backend in every form that runs there.

// weightDTypes are the dtypes that weights and cache may have.
var weightDTypes = []dtypes.DType{dtypes.Float32, dtypes.BFloat16, dtypes.Float16}

// epsilon is half the spacing of numbers just above 1: the relative error of rounding to dtype.
func epsilon(dtype dtypes.DType) float64 {
	switch dtype {
	case dtypes.BFloat16:
		return 0x1p-9
	case dtypes.Float16:
		return 0x1p-12
	default:
		return 0x1p-25
	}
}

// eachForm runs test as a subtest for every backend and every platform whose forms run on it: XLA's CPU plugin also runs
// the forms meant for GPUs.
func eachForm(t *testing.T, test func(t *testing.T, call caller, p Platform)) {
	for name, backend := range pjrttest.Backends(t) {
		platforms := []Platform{Go}
		if name != "go" {
			platforms = []Platform{XLACPU, XLAGPU}
		}
		for _, p := range platforms {
			t.Run(fmt.Sprintf("%s as %v", name, p), func(t *testing.T) {
				test(t, func(fn func(in []*graph.Node) []*graph.Node, in ...any) [][]float32 {
					t.Helper()
					exec, err := graph.NewExec(backend, fn)
					require.NoError(t, err)
					defer exec.Finalize()
					outs, err := exec.Call(in...)
					require.NoError(t, err)
					var flat [][]float32
					for _, out := range outs {
						flat = append(flat, toFloats(out))
						out.MustFinalizeAll()
					}
					return flat
				}, p)
			})
		}
	}
}

// caller compiles fn, runs it once and returns its results, flat.
type caller func(fn func(in []*graph.Node) []*graph.Node, in ...any) [][]float32

// one adapts a function of one result.
func one(fn func(in []*graph.Node) *graph.Node) func(in []*graph.Node) []*graph.Node {
	return func(in []*graph.Node) []*graph.Node { return []*graph.Node{fn(in)} }
}

// numbers returns n normally distributed numbers that dtype can represent.
func numbers(rng *rand.Rand, dtype dtypes.DType, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = round(dtype, float32(rng.NormFloat64()))
	}
	return x
}

func round(dtype dtypes.DType, x float32) float32 {
	switch dtype {
	case dtypes.BFloat16:
		return bfloat16.FromFloat32(x).Float32()
	case dtypes.Float16:
		return float16.FromFloat32(x).Float32()
	default:
		return x
	}
}

// tensor makes a tensor of dtype. (A conversion inside the graph would not do: XLA may keep the excess precision.)
func tensor(dtype dtypes.DType, flat []float32, dims ...int) *tensors.Tensor {
	switch dtype {
	case dtypes.BFloat16:
		return tensors.FromFlatDataAndDimensions(bfloat16.FromFloat32s(flat...), dims...)
	case dtypes.Float16:
		half := make([]float16.Float16, len(flat))
		for i, x := range flat {
			half[i] = float16.FromFloat32(x)
		}
		return tensors.FromFlatDataAndDimensions(half, dims...)
	default:
		return tensors.FromFlatDataAndDimensions(append([]float32{}, flat...), dims...)
	}
}

func toFloats(t *tensors.Tensor) (flat []float32) {
	switch t.DType() {
	case dtypes.BFloat16:
		for _, x := range tensors.MustCopyFlatData[bfloat16.BFloat16](t) {
			flat = append(flat, x.Float32())
		}
	case dtypes.Float16:
		for _, x := range tensors.MustCopyFlatData[float16.Float16](t) {
			flat = append(flat, x.Float32())
		}
	default:
		flat = tensors.MustCopyFlatData[float32](t)
	}
	return flat
}

// transposed returns the transpose of w [rows, columns].
func transposed(w []float32, rows, columns int) []float32 {
	t := make([]float32, len(w))
	for r := range rows {
		for c := range columns {
			t[c*rows+r] = w[r*columns+c]
		}
	}
	return t
}

// requireClose holds each got[i] against want[i], with tolerance*scale[i] between them.
func requireClose(t *testing.T, want, scale []float64, got []float32, tolerance float64, of string, args ...any) {
	t.Helper()
	require.Len(t, got, len(want), of, args)
	for i, w := range want {
		if !(math.Abs(float64(got[i])-w) <= tolerance*scale[i]) { // NaN fails too
			require.Failf(t, "not close", "%s: element %d of %d is %v, want %v ± %g", fmt.Sprintf(of, args...), i, len(want), got[i], w,
				tolerance*scale[i])
		}
	}
}

func TestPlatformString(t *testing.T) {
	for p, want := range map[Platform]string{XLACPU: "xla:cpu", XLAGPU: "xla:cuda", Go: "go"} {
		require.Equal(t, want, p.String())
	}
}
