package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/pjrt"
)

// The forward pass is held against transformers by package parity; here against itself, on the Go backend: a prefill, a
// prefill in two chunks and a walk token by token give the same logits, padding and other rows change nothing.

func backend(t testing.TB) compute.Backend {
	b, _, err := pjrt.Backend("go")
	require.NoError(t, err)
	return b
}

// network is a small random model on the Go backend.
type network struct {
	*Config
	backend compute.Backend
	weights []*tensors.Tensor
}

func newNetwork(t testing.TB, c *Config) *network {
	rng := rand.New(rand.NewPCG(5, 6))
	n := &network{Config: c, backend: backend(t)}
	for _, w := range c.Weights() {
		flat := make([]float32, w.Size())
		for i := range flat {
			flat[i] = float32(rng.NormFloat64() * 0.3)
			if w.Kind == Norm {
				flat[i]++
			}
		}
		n.weights = append(n.weights, tensors.FromFlatDataAndDimensions(flat, w.Shape...))
	}
	return n
}

// params makes a weight of each graph input.
func (n *network) params(in []*Node) Params {
	p := Params{}
	for i, w := range n.Weights() {
		p[w.Name] = in[i]
	}
	return p
}

const slots = 12

// step runs tokens [rows][n] from position start[row] on against a cache, and returns the logits [rows*n*vocab] and the new cache.
func (n *network) step(t testing.TB, tokens [][]int32, start, count []int32, cache []*tensors.Tensor) ([]float32, []*tensors.Tensor) {
	rows := len(tokens)
	if cache == nil {
		for range n.NumHiddenLayers {
			cache = append(cache,
				tensors.FromShape(shapes.Make(dtypes.Float32, layers.KeyDims(layers.Go, rows, n.NumKeyValueHeads, n.HeadDim, slots)...)),
				tensors.FromShape(shapes.Make(dtypes.Float32, layers.ValueDims(rows, n.NumKeyValueHeads, n.HeadDim, slots)...)))
		}
	}
	cos, sin := n.RopeTables(slots)
	args := []any{tokens, start, count,
		tensors.FromFlatDataAndDimensions(cos, slots, n.HeadDim/2), tensors.FromFlatDataAndDimensions(sin, slots, n.HeadDim/2)}
	for _, w := range append(append([]*tensors.Tensor{}, cache...), n.weights...) {
		args = append(args, w)
	}
	out, err := MustNewExec(n.backend, func(in []*Node) []*Node {
		p := n.params(in[5+2*n.NumHiddenLayers:])
		position := Add(Iota(in[0].Graph(), in[0].Shape(), 1), BroadcastToShape(Reshape(in[1], rows, 1), in[0].Shape()))
		old := &Cache{}
		for l := range n.NumHiddenLayers {
			old.K, old.V = append(old.K, in[5+2*l]), append(old.V, in[6+2*l])
		}
		at := InsertAxes(position, -1)
		out := n.Forward(layers.Go, p, Inputs{Tokens: in[0], Position: position, Cos: Gather(in[3], at), Sin: Gather(in[4], at),
			Cache: old, Start: in[1], Count: in[2], KV: dtypes.Float32})
		result := []*Node{n.Head(layers.Go, p, out.Hidden)}
		for l := range n.NumHiddenLayers {
			result = append(result, out.Cache.K[l], out.Cache.V[l])
		}
		return result
	}).Call(args...)
	require.NoError(t, err)
	return tensors.MustCopyFlatData[float32](out[0]), out[1:]
}

// prefill runs tokens [rows][n] without a cache and returns the logits, and the output of each block.
func (n *network) prefill(t testing.TB, tokens [][]int32, after func(layer int, hidden *Node) *Node) []float32 {
	length := len(tokens[0])
	cos, sin := n.RopeTables(length)
	count := make([]int32, len(tokens))
	for r := range count {
		count[r] = int32(length)
	}
	args := []any{tokens, count,
		tensors.FromFlatDataAndDimensions(cos, 1, length, n.HeadDim/2), tensors.FromFlatDataAndDimensions(sin, 1, length, n.HeadDim/2)}
	for _, w := range n.weights {
		args = append(args, w)
	}
	out, err := MustNewExec(n.backend, func(in []*Node) []*Node {
		p := n.params(in[4:])
		out := n.Forward(layers.Go, p, Inputs{Tokens: in[0], Position: Iota(in[0].Graph(), shapes.Make(dtypes.Int32, 1, length), 1),
			Cos: in[2], Sin: in[3], Count: in[1], KV: dtypes.Float32, AfterBlock: after})
		return []*Node{n.Head(layers.Go, p, out.Hidden)}
	}).Call(args...)
	require.NoError(t, err)
	return tensors.MustCopyFlatData[float32](out[0])
}

func requireNear(t testing.TB, want, got []float32, of string) {
	t.Helper()
	require.Len(t, got, len(want), of)
	for i := range want {
		require.InDelta(t, want[i], got[i], 2e-5, "%s: logit %d", of, i)
	}
}

func TestForward(t *testing.T) {
	small := tiny.with("head_dim", 6, "num_attention_heads", 4, "num_key_value_heads", 2, "num_hidden_layers", 3)
	for _, c := range []struct {
		name string
		fields
	}{
		{"Llama", small.with("rope_scaling", fields{"rope_type": "llama3", "factor": 4, "low_freq_factor": 1, "high_freq_factor": 4,
			"original_max_position_embeddings": 16})},
		{"Qwen3", small.with("architectures", []string{Qwen3}, "tie_word_embeddings", true)},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, c.parse(t))
			vocab := n.VocabSize
			a, b := []int32{1, 7, 3, 3, 9, 0, 2}, []int32{4, 4, 8, 1, 0, 5, 6}
			want := n.prefill(t, [][]int32{a, b}, nil)
			require.Len(t, want, 2*7*vocab)
			for _, x := range want {
				require.False(t, math.IsNaN(float64(x)) || math.IsInf(float64(x), 0))
			}
			require.NotEqual(t, want[:vocab], want[vocab:2*vocab])
			wantA, wantB := want[:7*vocab], want[7*vocab:]

			requireNear(t, wantA, n.prefill(t, [][]int32{a}, nil), "a alone")
			requireNear(t, wantB[:3*vocab], n.prefill(t, [][]int32{b[:3]}, nil), "later tokens do not reach back")

			got, cache := n.step(t, [][]int32{a[:4], b[:4]}, []int32{0, 0}, []int32{4, 2}, nil) // b's last two are padding
			requireNear(t, wantA[:4*vocab], got[:4*vocab], "first chunk of a")
			requireNear(t, wantB[:2*vocab], got[4*vocab:6*vocab], "first chunk of b")
			got, cache = n.step(t, [][]int32{a[4:], b[2:5]}, []int32{4, 2}, []int32{3, 3}, cache)
			requireNear(t, wantA[4*vocab:], got[:3*vocab], "second chunk of a")
			requireNear(t, wantB[2*vocab:5*vocab], got[3*vocab:], "second chunk of b")
			for i := 5; i < 7; i++ { // b goes on token by token; a's row idles, writing to a slot of its own
				got, cache = n.step(t, [][]int32{{0}, b[i : i+1]}, []int32{7, int32(i)}, []int32{0, 1}, cache)
				requireNear(t, wantB[i*vocab:(i+1)*vocab], got[vocab:], fmt.Sprintf("token %d of b", i))
			}
		})
	}
}

// TestAfterBlock: the hook sees each block's output, in order, and what it returns goes on.
func TestAfterBlock(t *testing.T) {
	n := newNetwork(t, tiny.with("num_hidden_layers", 3).parse(t))
	tokens := [][]int32{{1, 2, 3}}
	plain := n.prefill(t, tokens, nil)
	var seen []int
	same := n.prefill(t, tokens, func(layer int, hidden *Node) *Node {
		seen = append(seen, layer)
		hidden.AssertDims(1, 3, n.HiddenSize)
		return hidden
	})
	require.Equal(t, []int{0, 1, 2}, seen)
	require.Equal(t, plain, same)

	zeroed := n.prefill(t, tokens, func(layer int, hidden *Node) *Node {
		if layer == 2 {
			return ZerosLike(hidden)
		}
		return hidden
	})
	require.Equal(t, make([]float32, len(plain)), zeroed, "no bias: the head of zero is zero")
}

func TestMissingParameter(t *testing.T) {
	c := tiny.parse(t)
	_, err := MustNewExec(backend(t), func(x *Node) *Node {
		return c.Head(layers.Go, Params{FinalNorm: Ones(x.Graph(), shapes.Make(dtypes.Float32, 8))}, x)
	}).Call([][]float32{make([]float32, 8)})
	require.ErrorContains(t, err, `no parameter "lm_head.weight"`)
}
