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

// entries is a cache on the host: [rows, slots, kv_heads, head_dim].
type entries struct {
	rows, slots, heads, dim int
	flat                    []float32
}

func newEntries(rows, slots, heads, dim int) *entries {
	return &entries{rows, slots, heads, dim, make([]float32, rows*slots*heads*dim)}
}

func (e *entries) at(row, slot, head int) []float32 {
	from := ((row*e.slots+slot)*e.heads + head) * e.dim
	return e.flat[from : from+e.dim]
}

// laid returns the entries in the order of a cache tensor: slots before dimensions, or for keys on XLA behind them.
func (e *entries) laid(p Platform, keys bool) []float32 {
	var flat []float32
	for r := range e.rows {
		for h := range e.heads {
			var head []float32
			for s := range e.slots {
				head = append(head, e.at(r, s, h)...)
			}
			if keys && p != Go {
				head = transposed(head, e.slots, e.dim)
			}
			flat = append(flat, head...)
		}
	}
	return flat
}

func (e *entries) tensor(p Platform, keys bool, dtype dtypes.DType) *tensors.Tensor {
	dims := ValueDims(e.rows, e.heads, e.dim, e.slots)
	if keys {
		dims = KeyDims(p, e.rows, e.heads, e.dim, e.slots)
	}
	return tensor(dtype, e.laid(p, keys), dims...)
}

// attend64 is attention in float64, query head by query head. Scale is the largest |value| seen.
func attend64(q []float32, k, v *entries, heads int, position func(row, token int) int) (out, scale []float64) {
	dim, tokens := k.dim, len(q)/(k.rows*heads*k.dim)
	for r := range k.rows {
		for t := range tokens {
			for h := range heads {
				query := q[((r*tokens+t)*heads+h)*dim:][:dim]
				weights := make([]float64, position(r, t)+1)
				total := 0.0
				for s := range weights {
					for i, x := range k.at(r, s, h/(heads/k.heads)) {
						weights[s] += float64(query[i]) * float64(x)
					}
					weights[s] = math.Exp(weights[s] / math.Sqrt(float64(dim)))
					total += weights[s]
				}
				sum, largest := make([]float64, dim), 0.0
				for s, w := range weights {
					for i, x := range v.at(r, s, h/(heads/k.heads)) {
						sum[i] += w / total * float64(x)
						largest = max(largest, math.Abs(float64(x)))
					}
				}
				for i := range sum {
					out, scale = append(out, sum[i]), append(scale, largest)
				}
			}
		}
	}
	return out, scale
}

func attendTo(p Platform) func(in []*graph.Node) []*graph.Node {
	return one(func(in []*graph.Node) *graph.Node {
		out := Attend(p, in[0], in[1], in[2], in[3])
		d := in[0].Shape().Dimensions
		out.AssertDims(d[0], d[1], d[2]*d[3])
		return out
	})
}

func TestAttend(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 1))
	const dim = 16 // its square root is a power of two, so scaling q keeps it representable
	for _, c := range []struct {
		name                                string
		rows, tokens, heads, kvHeads, slots int
		start                               []int32 // none: prefill, all rows at positions 0, 1, …
	}{
		{"decode grouped", 3, 1, 6, 2, 20, []int32{0, 7, 19}},
		{"decode one row", 1, 1, 4, 2, 24, []int32{12}},
		{"decode multi-query", 2, 1, 4, 1, 9, []int32{3, 8}},
		{"decode multi-head", 2, 1, 3, 3, 9, []int32{8, 0}},
		{"chunk", 1, 5, 4, 2, 32, []int32{11}},
		{"chunk of rows", 2, 3, 4, 2, 16, []int32{0, 13}},
		{"prefill", 2, 7, 6, 2, 7, nil},
		{"prefill multi-query", 1, 7, 4, 1, 7, nil},
		{"prefill multi-head", 1, 7, 3, 3, 7, nil},
		{"prefill in query blocks", 1, 2*queryBlock + 40, 2, 1, 2*queryBlock + 40, nil},
	} {
		position := func(row, token int) int {
			if c.start == nil {
				return token
			}
			return int(c.start[row]) + token
		}
		positionRows := max(1, len(c.start))
		var positions []int32
		for r := range positionRows {
			for token := range c.tokens {
				positions = append(positions, int32(position(r, token)))
			}
		}
		t.Run(c.name, func(t *testing.T) {
			eachForm(t, func(t *testing.T, call caller, p Platform) {
				for _, dtype := range weightDTypes {
					q := numbers(rng, dtype, c.rows*c.tokens*c.heads*dim)
					k, v := newEntries(c.rows, c.slots, c.kvHeads, dim), newEntries(c.rows, c.slots, c.kvHeads, dim)
					k.flat, v.flat = numbers(rng, dtype, len(k.flat)), numbers(rng, dtype, len(v.flat))
					want, scale := attend64(q, k, v, c.heads, position)
					got := call(attendTo(p), tensor(dtypes.Float32, q, c.rows, c.tokens, c.heads, dim),
						k.tensor(p, true, dtype), v.tensor(p, false, dtype),
						tensors.FromFlatDataAndDimensions(positions, positionRows, c.tokens))[0]
					tolerance := 1e-6
					if dtype != dtypes.Float32 {
						tolerance += epsilon(dtype) // of the probabilities, whose sum is one
					}
					requireClose(t, want, scale, got, tolerance, "%s", dtype)
					if c.start != nil {
						continue
					}
					got = call(one(func(in []*graph.Node) *graph.Node { return AttendPrompt(p, in[0], in[1], in[2], dtype) }),
						tensor(dtypes.Float32, q, c.rows, c.tokens, c.heads, dim),
						tensor(dtypes.Float32, k.flat, c.rows, c.tokens, c.kvHeads, dim),
						tensor(dtypes.Float32, v.flat, c.rows, c.tokens, c.kvHeads, dim))[0]
					requireClose(t, want, scale, got, tolerance, "AttendPrompt, %s", dtype)
				}
			})
		})
	}
}

// TestAttendSumsInFloat32 is TestLinearSumsInFloat32 for both products of attention, at a decode step and in a chunk.
func TestAttendSumsInFloat32(t *testing.T) {
	const slots, dim, heads = 2048, 64, 2
	eachForm(t, func(t *testing.T, call caller, p Platform) {
		for _, dtype := range weightDTypes[1:] {
			for _, tokens := range []int{1, 8} {
				small := float32(epsilon(dtype) / 2)
				q := make([]float32, tokens*heads*dim)
				for i := range q {
					q[i] = 1
				}
				// Every key is the same, so all probabilities are equal, exactly, and the result is the mean value.
				k, v := newEntries(1, slots, 1, dim), newEntries(1, slots, 1, dim)
				position := make([]int32, tokens)
				for i := range position {
					position[i] = slots - 1
				}
				for s := range slots {
					for i := range dim {
						k.at(0, s, 0)[i] = 1
						if v.at(0, s, 0)[i] = small; s == 0 {
							v.at(0, s, 0)[i] = 1
						}
					}
				}
				args := func() []any {
					return []any{tensor(dtypes.Float32, q, 1, tokens, heads, dim), k.tensor(p, true, dtype), v.tensor(p, false, dtype),
						tensors.FromFlatDataAndDimensions(position, 1, tokens)}
				}
				for _, x := range call(attendTo(p), args()...)[0] {
					require.InEpsilon(t, (1+(slots-1)*float64(small))/slots, x, 1e-5, "values: %s tokens %d", dtype, tokens)
				}
				// Keys of [1, small, small, …] score a little above keys of [1, 0, 0, …], if their sum is kept.
				for i := range dim {
					k.at(0, 0, 0)[i] = 1
					for s := 1; s < slots; s++ {
						if k.at(0, s, 0)[i] = small; i == 0 {
							k.at(0, s, 0)[i] = 1
						}
					}
				}
				for i := range dim {
					k.at(0, 0, 0)[i] = float32(map[bool]int{true: 1}[i == 0])
				}
				boost := math.Exp((dim - 1) * float64(small) / math.Sqrt(dim))
				want := (1 + (slots-1)*boost*float64(small)) / (1 + (slots-1)*boost)
				for _, x := range call(attendTo(p), args()...)[0] {
					require.InEpsilon(t, want, x, 1e-3*(boost-1)+2*epsilon(dtype), "keys: %s tokens %d", dtype, tokens)
				}
			}
		}
	})
}

// TestWriteKV: rows start at different slots and have different numbers of real tokens; what is real is there, exactly,
// and what lies before and behind is untouched.
func TestWriteKV(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 3))
	const rows, heads, dim, slots = 3, 2, 8, 16
	for _, c := range []struct {
		name         string
		tokens       int
		start, count []int32
	}{
		{"decode", 1, []int32{0, 15, 6}, []int32{1, 1, 1}},
		{"decode with an idle row", 1, []int32{9, 0, 3}, []int32{1, 0, 1}},
		{"chunk", 4, []int32{0, 12, 5}, []int32{4, 4, 4}},
		{"chunk with padding", 4, []int32{2, 12, 0}, []int32{1, 3, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachForm(t, func(t *testing.T, call caller, p Platform) {
				for _, dtype := range weightDTypes {
					oldK, oldV := newEntries(rows, slots, heads, dim), newEntries(rows, slots, heads, dim)
					k, v := newEntries(rows, c.tokens, heads, dim), newEntries(rows, c.tokens, heads, dim)
					k.flat, v.flat = numbers(rng, dtypes.Float32, len(k.flat)), numbers(rng, dtypes.Float32, len(v.flat))
					for r := range rows {
						for s := range int(c.start[r]) {
							for h := range heads {
								copy(oldK.at(r, s, h), numbers(rng, dtype, dim))
								copy(oldV.at(r, s, h), numbers(rng, dtype, dim))
							}
						}
					}
					got := call(func(in []*graph.Node) []*graph.Node {
						k, v := WriteKV(p, in[0], in[1], in[2], in[3], in[4], in[5])
						k.AssertDims(in[0].Shape().Dimensions...)
						v.AssertDims(in[1].Shape().Dimensions...)
						return []*graph.Node{k, v}
					}, oldK.tensor(p, true, dtype), oldV.tensor(p, false, dtype),
						tensor(dtypes.Float32, k.flat, rows, c.tokens, heads, dim), tensor(dtypes.Float32, v.flat, rows, c.tokens, heads, dim),
						c.start, c.count)
					for i, pair := range [][2]*entries{{oldK, k}, {oldV, v}} {
						// ignored marks the slots that padding may have written.
						want, ignored := pair[0], newEntries(rows, slots, heads, dim)
						for r := range rows {
							for token := range c.tokens {
								for h := range heads {
									slot := int(c.start[r]) + token
									for d, x := range pair[1].at(r, token, h) {
										if token < int(c.count[r]) {
											want.at(r, slot, h)[d] = round(dtype, x)
										} else if p != Go {
											ignored.at(r, slot, h)[d] = 1
										}
									}
								}
							}
						}
						skip := ignored.laid(p, i == 0)
						for j, w := range want.laid(p, i == 0) {
							if skip[j] == 0 {
								require.Equal(t, w, got[i][j], "%s output %d element %d", dtype, i, j)
							}
						}
					}
				}
			})
		})
	}
}

// TestLayouts: a fresh prefill's keys and values in cache layout are what writing them into an empty cache gives.
func TestLayouts(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	const rows, tokens, heads, dim = 2, 5, 3, 4
	x := newEntries(rows, tokens, heads, dim)
	x.flat = numbers(rng, dtypes.Float32, len(x.flat))
	eachForm(t, func(t *testing.T, call caller, p Platform) {
		for _, dtype := range weightDTypes {
			got := call(func(in []*graph.Node) []*graph.Node {
				k, v := KeyLayout(p, in[0], dtype), ValueLayout(in[0], dtype)
				k.AssertDims(KeyDims(p, rows, heads, dim, tokens)...)
				v.AssertDims(ValueDims(rows, heads, dim, tokens)...)
				return []*graph.Node{k, v}
			}, tensor(dtypes.Float32, x.flat, rows, tokens, heads, dim))
			for i, keys := range []bool{true, false} {
				want := x.laid(p, keys)
				for j := range want {
					want[j] = round(dtype, want[j])
				}
				require.Equal(t, want, got[i], "%s keys %v", dtype, keys)
			}
		}
	})
}
