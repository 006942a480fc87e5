package layers

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"
)

// stored returns w [out, in] as a weight of dtype in p's layout.
func stored(p Platform, dtype dtypes.DType, w []float32, out, in int) *tensors.Tensor {
	if Transposed(p, dtype) {
		return tensor(dtype, transposed(w, out, in), in, out)
	}
	return tensor(dtype, w, out, in)
}

func linear(p Platform) func(in []*graph.Node) []*graph.Node {
	return one(func(in []*graph.Node) *graph.Node { return Linear(p, in[0], in[1]) })
}

// TestLinear: rows and inner sizes that take each form (one row in eight parts or not, few rows, many rows). Where x is
// representable in the weight's dtype only float32 sums are between the op and float64; where not, rounding x is too.
func TestLinear(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const out = 24
	eachForm(t, func(t *testing.T, call caller, p Platform) {
		for _, dtype := range weightDTypes {
			for _, rows := range []int{1, 2, 3, 4, 7, 16} {
				for _, in := range []int{64, 36} {
					for _, xType := range []dtypes.DType{dtype, dtypes.Float32} {
						x, w := numbers(rng, xType, rows*in), numbers(rng, dtype, out*in)
						want, scale := make([]float64, rows*out), make([]float64, rows*out)
						for r := range rows {
							for o := range out {
								for i := range in {
									product := float64(x[r*in+i]) * float64(w[o*in+i])
									want[r*out+o] += product
									scale[r*out+o] += math.Abs(product)
								}
							}
						}
						tolerance := 1e-6
						if xType != dtype {
							tolerance += epsilon(dtype)
						}
						got := call(linear(p), tensor(dtypes.Float32, x, rows, in), stored(p, dtype, w, out, in))[0]
						requireClose(t, want, scale, got, tolerance, "%s rows %d in %d x %s", dtype, rows, in, xType)
					}
				}
			}
		}
	})
}

// TestLinearKeepsLeadingAxes: any number of axes may precede the last, and they come back.
func TestLinearKeepsLeadingAxes(t *testing.T) {
	eachForm(t, func(t *testing.T, call caller, p Platform) {
		w := stored(p, dtypes.Float32, []float32{1, 2, 3, 4, 5, 6}, 3, 2)
		got := call(func(in []*graph.Node) []*graph.Node {
			y := Linear(p, graph.Reshape(in[0], 2, 1, 2, 2), in[1])
			require.Equal(t, []int{2, 1, 2, 3}, y.Shape().Dimensions)
			return []*graph.Node{y}
		}, tensor(dtypes.Float32, []float32{1, 0, 0, 1, 1, 1, 2, -1}, 4, 2), w)[0]
		require.Equal(t, []float32{1, 3, 5, 2, 4, 6, 3, 7, 11, 0, 2, 4}, got)
	})
}

// TestLinearSumsInFloat32: one weight of 1 and many small ones. A sum kept in the weight's own dtype stays at 1, as each
// small one is less than half its spacing there.
func TestLinearSumsInFloat32(t *testing.T) {
	const in, out = 4096, 8
	eachForm(t, func(t *testing.T, call caller, p Platform) {
		for _, dtype := range weightDTypes[1:] {
			small := float32(epsilon(dtype) / 2)
			for _, rows := range []int{1, 2, 3, 4, 7, 16} {
				x, w := make([]float32, rows*in), make([]float32, out*in)
				for i := range x {
					x[i] = 1
				}
				for i := range w {
					if w[i] = small; i%in == 0 {
						w[i] = 1
					}
				}
				for _, y := range call(linear(p), tensor(dtypes.Float32, x, rows, in), stored(p, dtype, w, out, in))[0] {
					require.InEpsilon(t, 1+(in-1)*float64(small), y, 1e-6, "%s rows %d", dtype, rows)
				}
			}
		}
	})
}

// TestEmbed: rows come back exactly, whatever the layout of the table.
func TestEmbed(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const vocab, hidden = 11, 6
	tokens := []int32{10, 0, 3, 3, 7, 1}
	eachForm(t, func(t *testing.T, call caller, p Platform) {
		for _, dtype := range weightDTypes {
			table := numbers(rng, dtype, vocab*hidden)
			var want []float32
			for _, id := range tokens {
				want = append(want, table[id*hidden:(id+1)*hidden]...)
			}
			got := call(one(func(in []*graph.Node) *graph.Node {
				y := Embed(p, in[0], in[1])
				require.Equal(t, []int{2, 3, hidden}, y.Shape().Dimensions)
				require.Equal(t, dtypes.Float32, y.DType())
				return y
			}), tensors.FromFlatDataAndDimensions(tokens, 2, 3), stored(p, dtype, table, vocab, hidden))[0]
			require.Equal(t, want, got, dtype)
		}
	})
}
