package layers

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

// TestRotary turns each pair (i, i+half) as a complex number, at positions up to 131071, each row at positions of its own
// or all at the same.
func TestRotary(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	const rows, tokens, heads, dim, half = 2, 3, 2, 8, 4
	x := numbers(rng, dtypes.Float32, rows*tokens*heads*dim)
	for _, positions := range [][]int{{0, 1, 4095, 17, 40_000, 131_071}, {0, 2, 131_071}} {
		tableRows := len(positions) / tokens
		var cos, sin []float32
		for _, p := range positions {
			for i := range half {
				s, c := math.Sincos(float64(p) * math.Pow(500_000, -float64(i)/half))
				cos, sin = append(cos, float32(c)), append(sin, float32(s))
			}
		}
		want, scale := make([]float64, len(x)), make([]float64, len(x))
		for j := range x {
			i, at := j%dim, j/(heads*dim)%(tokens*tableRows)
			c, s := float64(cos[at*half+i%half]), float64(sin[at*half+i%half])
			other, sign := j+half, -1.0
			if i >= half {
				other, sign = j-half, 1
			}
			want[j] = float64(x[j])*c + sign*float64(x[other])*s
			scale[j] = math.Abs(float64(x[j])) + math.Abs(float64(x[other]))
		}
		eachForm(t, func(t *testing.T, call caller, _ Platform) {
			got := call(one(func(in []*graph.Node) *graph.Node { return Rotary(in[0], in[1], in[2]) }),
				tensor(dtypes.Float32, x, rows, tokens, heads, dim),
				tensor(dtypes.Float32, cos, tableRows, tokens, half), tensor(dtypes.Float32, sin, tableRows, tokens, half))[0]
			requireClose(t, want, scale, got, 2e-7, "positions %v", positions)
		})
	}
}
