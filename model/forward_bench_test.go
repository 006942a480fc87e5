package model

import (
	"fmt"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/pjrt"
)

// BenchmarkForward times eight blocks of Qwen3-0.6B's shape, without a head, on XLA's CPU plugin: decode steps with the cache
// aliased in place, and a prefill. It reports GB/s of weights read, or GFLOP/s.
func BenchmarkForward(b *testing.B) {
	if !pjrt.Enabled {
		b.Skip("built without PJRT")
	}
	xla, _, err := pjrt.Backend("xla:cpu")
	if err != nil {
		b.Skip("no CPU PJRT plugin: ", err)
	}
	c := qwen06.with("num_hidden_layers", 8, "vocab_size", 64, "bos_token_id", nil, "eos_token_id", nil).parse(b)
	for _, types := range [][2]dtypes.DType{{dtypes.Float32, dtypes.Float32}, {dtypes.BFloat16, dtypes.BFloat16}, {dtypes.BFloat16, dtypes.Float32}} {
		weights := randomWeights(b, xla, c, types[0])
		for _, rows := range []int{1, 2, 4, 8, 16} {
			for _, slots := range []int{128, 512, 2048} {
				b.Run(fmt.Sprintf("decode/%s/kv=%s/rows=%d/slots=%d", types[0], types[1], rows, slots), func(b *testing.B) {
					benchmarkForward(b, xla, c, weights, types[1], rows, 1, slots)
					b.ReportMetric(float64(c.DecodeParameters())*float64(types[0].Size())*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
				})
			}
		}
		for _, tokens := range []int{128, 512} {
			b.Run(fmt.Sprintf("prefill/%s/kv=%s/tokens=%d", types[0], types[1], tokens), func(b *testing.B) {
				benchmarkForward(b, xla, c, weights, types[1], 1, tokens, 0)
				b.ReportMetric(float64(c.FLOPs(tokens/2))*float64(tokens*b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
			b.Run(fmt.Sprintf("chunk/%s/kv=%s/tokens=%d", types[0], types[1], tokens), func(b *testing.B) {
				benchmarkForward(b, xla, c, weights, types[1], 1, tokens, 2048)
			})
		}
		for _, w := range weights {
			require.NoError(b, w.Finalize())
		}
	}
}

func randomWeights(b *testing.B, backend compute.Backend, c *Config, dtype dtypes.DType) (weights []compute.Buffer) {
	state := uint32(1)
	for _, w := range c.Weights() {
		flat := make([]float32, w.Size())
		for i := range flat {
			state = state*1664525 + 1013904223
			flat[i] = float32(int32(state)) * 0x1p-36
		}
		shape := shapes.Make(dtype, w.Shape...)
		if len(w.Shape) == 2 && layers.Transposed(layers.XLACPU, dtype) {
			shape.Dimensions[0], shape.Dimensions[1] = shape.Dimensions[1], shape.Dimensions[0]
		}
		var data any = flat
		if dtype == dtypes.BFloat16 {
			data = bfloat16.FromFloat32s(flat...)
		}
		weights = append(weights, upload(b, backend, data, shape))
	}
	return weights
}

func upload(b *testing.B, backend compute.Backend, flat any, shape shapes.Shape) compute.Buffer {
	buffer, err := backend.BufferFromFlatData(0, flat, shape)
	require.NoError(b, err)
	return buffer
}

// benchmarkForward runs tokens of each row, against a cache of that many slots, half full, or none.
func benchmarkForward(b *testing.B, backend compute.Backend, c *Config, weights []compute.Buffer, kv dtypes.DType, rows, tokens, slots int) {
	const p = layers.XLACPU
	g := NewGraph(backend, "benchmark")
	defer g.Finalize()
	params := Params{}
	for i, w := range c.Weights() {
		shape, err := weights[i].Shape()
		require.NoError(b, err)
		params[w.Name] = Parameter(g, "w_"+w.Name, shape)
	}
	var state, fixed []compute.Buffer
	in := Inputs{KV: kv}
	if slots > 0 {
		in.Cache = &Cache{}
		for l := range c.NumHiddenLayers {
			for i, dims := range [][]int{
				layers.KeyDims(p, rows, c.NumKeyValueHeads, c.HeadDim, slots), layers.ValueDims(rows, c.NumKeyValueHeads, c.HeadDim, slots)} {
				shape := shapes.Make(kv, dims...)
				x := Parameter(g, fmt.Sprintf("alias_%d__cache", 2*l+i), shape)
				if i == 0 {
					in.Cache.K = append(in.Cache.K, x)
				} else {
					in.Cache.V = append(in.Cache.V, x)
				}
				var zeros any = make([]float32, shape.Size())
				if kv == dtypes.BFloat16 {
					zeros = make([]bfloat16.BFloat16, shape.Size())
				}
				state = append(state, upload(b, backend, zeros, shape))
			}
		}
	}
	input := func(name string, dtype dtypes.DType, flat any, dims ...int) *Node {
		shape := shapes.Make(dtype, dims...)
		fixed = append(fixed, upload(b, backend, flat, shape))
		return Parameter(g, name, shape)
	}
	ints := func(n, value int) []int32 {
		x := make([]int32, n)
		for i := range x {
			x[i] = int32(value)
		}
		return x
	}
	table := make([]float32, tokens*c.HeadDim/2)
	in.Tokens = input("tokens", dtypes.Int32, ints(rows*tokens, 3), rows, tokens)
	in.Start = input("start", dtypes.Int32, ints(rows, slots/2), rows)
	in.Count = input("count", dtypes.Int32, ints(rows, tokens), rows)
	in.Cos = input("cos", dtypes.Float32, table, 1, tokens, c.HeadDim/2)
	in.Sin = input("sin", dtypes.Float32, table, 1, tokens, c.HeadDim/2)
	in.Position = Iota(g, shapes.Make(dtypes.Int32, 1, tokens), 1)
	if slots > 0 {
		in.Position = Add(BroadcastToDims(in.Position, rows, tokens), BroadcastToDims(Reshape(in.Start, rows, 1), rows, tokens))
	}
	out := c.Forward(p, params, in)
	var results []*Node
	for l := range c.NumHiddenLayers {
		results = append(results, out.Cache.K[l], out.Cache.V[l])
	}
	require.NoError(b, g.Compile(append(results, out.Hidden)...))

	// As the parameters were declared: weights, cache, inputs.
	donate := make([]bool, len(weights)+len(state)+len(fixed))
	for i := range state {
		donate[len(weights)+i] = true
	}
	step := func() {
		outs, err := g.Executable().Execute(append(append(append([]compute.Buffer{}, weights...), state...), fixed...), donate, 0)
		require.NoError(b, err)
		hidden := make([]float32, rows*tokens*c.HiddenSize)
		require.NoError(b, outs[len(outs)-1].ToFlatData(hidden)) // waits
		copy(state, outs)
		for _, x := range outs[len(state):] {
			require.NoError(b, x.Finalize())
		}
	}
	step()
	for b.Loop() {
		step()
	}
	for _, x := range append(state, fixed...) {
		require.NoError(b, x.Finalize())
	}
}
