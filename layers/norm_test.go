package layers

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

func TestRMSNorm(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	const rows, n, eps = 5, 48, 1e-5
	x := numbers(rng, dtypes.Float32, rows*n)
	for i := range n { // besides ordinary rows: zeros, large numbers, small ones whose eps matters, one outlier
		x[n+i] = 0
		x[2*n+i] *= 1e8
		x[3*n+i] *= 1e-3
	}
	x[4*n+7] = 1e6
	eachForm(t, func(t *testing.T, call caller, _ Platform) {
		for _, dtype := range weightDTypes {
			weight := numbers(rng, dtype, n)
			want, scale := make([]float64, rows*n), make([]float64, rows*n)
			for r := range rows {
				var square float64
				for _, v := range x[r*n : (r+1)*n] {
					square += float64(v) * float64(v)
				}
				for i := range n {
					want[r*n+i] = float64(x[r*n+i]) * float64(weight[i]) / math.Sqrt(square/n+eps)
					scale[r*n+i] = math.Abs(want[r*n+i])
				}
			}
			got := call(one(func(in []*graph.Node) *graph.Node { return RMSNorm(in[0], in[1], eps) }),
				tensor(dtypes.Float32, x, rows, 1, n), tensor(dtype, weight, n))[0]
			requireClose(t, want, scale, got, 1e-6, "%s", dtype)
		}
	})
}

func TestSwiGLU(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	// At the ends silu's exponential under- and overflows; the limits are gate*up and 0.
	gate := append(numbers(rng, dtypes.Float32, 100), 0, 20, 100, 1e6, 3e38, -20, -80, -89, -104, -1e6, -3e38)
	up := append(numbers(rng, dtypes.Float32, len(gate)-1), 1)
	want, scale := make([]float64, len(gate)), make([]float64, len(gate))
	for i, g := range gate {
		want[i] = float64(g) * float64(up[i]) / (1 + math.Exp(-float64(g)))
		scale[i] = math.Abs(want[i]) * max(1, math.Abs(float64(g))/8) // exp's own error grows with its argument
		scale[i] += 1e-30                                             // below float32's normal numbers
	}
	up[104] = 0.5 // 3e38 * up must not overflow
	want[104] = 1.5e38
	eachForm(t, func(t *testing.T, call caller, _ Platform) {
		got := call(one(func(in []*graph.Node) *graph.Node { return SwiGLU(in[0], in[1]) }), gate, up)[0]
		requireClose(t, want, scale, got, 1e-6, "SwiGLU")
	})
}

// The gradient is used to train steering vectors. Where the exponential overflows it must be 0, not 0·Inf.
func TestSwiGLUGradient(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	gate := append(numbers(rng, dtypes.Float32, 100), 0, 20, 100, 1e6, -20, -40, -44, -60, -79, -81, -88, -89, -104, -1e6, -3e38)
	up := numbers(rng, dtypes.Float32, len(gate))
	byGate, byUp, scale := make([]float64, len(gate)), make([]float64, len(gate)), make([]float64, len(gate))
	for i, g := range gate {
		g, u := float64(g), float64(up[i])
		if sigmoid := 1 / (1 + math.Exp(-g)); sigmoid > 0 {
			byGate[i], byUp[i] = u*sigmoid*(1+g*(1-sigmoid)), g*sigmoid
		}
		scale[i] = (math.Abs(u) + math.Abs(g)) * max(math.Exp(min(g, 0)), 1e-16) * max(1, math.Abs(g)/8)
	}
	eachForm(t, func(t *testing.T, call caller, _ Platform) {
		got := call(func(in []*graph.Node) []*graph.Node {
			return graph.Gradient(graph.ReduceAllSum(SwiGLU(in[0], in[1])), in...)
		}, gate, up)
		requireClose(t, byGate, scale, got[0], 1e-5, "by gate")
		requireClose(t, byUp, scale, got[1], 1e-5, "by up")
	})
}
