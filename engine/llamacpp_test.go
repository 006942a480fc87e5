package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
	"github.com/steerage/steerage/safetensors"
	"github.com/steerage/steerage/steering"
)

// TestLlamaCpp: a control vector written by steering.Vector.SaveGGUF does in llama.cpp what SwFC with coefficient 1 does here, layer by
// layer. `make llamacpp` made the file of llama.cpp's logits; steering/reference/llamacpp.py says what is in it.
func TestLlamaCpp(t *testing.T) {
	// Five times the largest difference seen, 2e-5. Both sides compute in float32; logits reach 17, and
	// the vector moves them by 6 to 14.
	const tolerance = 1e-4
	file, err := safetensors.OpenFile("../steering/testdata/llamacpp.safetensors")
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	v, err := steering.Load("../steering/testdata/llamacpp.gguf")
	require.NoError(t, err)
	layers := tensorOf[int32](t, file, "layers")
	require.Len(t, layers, len(v.Layers))
	for i, l := range v.Layers {
		require.EqualValues(t, l.Index, layers[i])
	}

	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			m := open(t, stories, Options{Backend: b, MaxContext: 64})
			vocab := m.Config().VocabSize
			logits := func(ids []int32, spec steering.Spec) []float32 {
				trace, err := m.Trace(context.Background(), Sequence{Prompt: ids, Steering: spec})
				require.NoError(t, err)
				return trace.Logits
			}
			all := steering.Spec{{Vector: v, Method: steering.SwFC, Coefficient: 1}}
			var ids []int32
			var unsteered, want []float32
			for i := range 3 {
				ids = tensorOf[int32](t, file, fmt.Sprintf("ids.%d", i))
				unsteered = tensorOf[float32](t, file, fmt.Sprintf("unsteered.%d", i))
				want = tensorOf[float32](t, file, fmt.Sprintf("steered.%d", i))
				plain, steered := logits(ids, nil), logits(ids, all)
				near(t, unsteered, plain, tolerance, "unsteered")
				near(t, want, steered, tolerance, "steered")
				near(t, minus(want, unsteered), minus(steered, plain), tolerance, "shift")
				for at := range ids { // at every position
					require.Greater(t, apart(want[at*vocab:][:vocab], unsteered[at*vocab:][:vocab]), 2.0)
				}
			}
			// direction.N acts at the output of block N, counted from 0, and at no other.
			alone := tensorOf[float32](t, file, "alone")
			for i, of := range v.Layers {
				want := alone[i*vocab:][:vocab]
				for l := range m.Config().NumHiddenLayers {
					moved := of
					moved.Index = l
					one := &steering.Vector{Hidden: v.Hidden, Layers: []steering.Layer{moved}}
					got := logits(ids, steering.Spec{{Vector: one, Method: steering.SwFC, Coefficient: 1}})
					got = got[len(got)-vocab:]
					if l == of.Index {
						near(t, want, got, tolerance, fmt.Sprintf("direction.%d", l))
					} else {
						require.Greater(t, apart(want, got), 100*tolerance, "direction.%d at layer %d", of.Index, l)
					}
				}
			}
		})
	}
}

// tensorOf returns a tensor of a safetensors file.
func tensorOf[T int32 | float32](t *testing.T, file *safetensors.File, name string) []T {
	t.Helper()
	tensor, ok := file.Tensor(name)
	require.True(t, ok, name)
	var zero T
	want := safetensors.F32
	if _, isInt := any(zero).(int32); isInt {
		want = safetensors.I32
	}
	require.Equal(t, want, tensor.DType, name)
	out := make([]T, len(tensor.Data)/4)
	_, err := binary.Decode(tensor.Data, binary.LittleEndian, out)
	require.NoError(t, err)
	return out
}

func minus(a, b []float32) []float32 {
	out := make([]float32, len(a))
	for i := range a {
		out[i] = a[i] - b[i]
	}
	return out
}

// apart is the largest difference between elements; NaN if there is one.
func apart(a, b []float32) float64 {
	most := 0.0
	for _, d := range minus(a, b) {
		most = max(most, math.Abs(float64(d)))
	}
	return most
}

func near(t *testing.T, want, got []float32, tolerance float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	d := apart(want, got)
	t.Logf("%s: largest difference %.2g", what, d)
	require.LessOrEqual(t, d, tolerance, what)
}
