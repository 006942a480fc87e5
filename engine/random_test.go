package engine

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/pjrt/pjrttest"
)

// A folder with a configuration alone runs with random weights, in no more memory than a checkpoint, and the same in each run.
func TestRandomWeights(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		for _, from := range []string{small, llamaBF16} {
			for _, dtype := range []string{"", "float32"} {
				t.Run(b+" "+filepath.Base(from)+" "+dtype, func(t *testing.T) {
					dir := t.TempDir()
					data, err := os.ReadFile(filepath.Join(from, "config.json"))
					require.NoError(t, err)
					require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600))
					_, err = Open(context.Background(), dir, Options{Backend: b, DType: dtype})
					require.ErrorContains(t, err, "safetensors", "a checkpoint is missing, and nobody asked for random weights")

					request := Request{IDs: []int32{5, 17, 3}, MaxTokens: 8, IgnoreEOS: true}
					random := open(t, dir, Options{Backend: b, DType: dtype, RandomWeights: true})
					loaded := open(t, from, Options{Backend: b, DType: dtype})
					first := generate(t, random, request)
					require.Len(t, first.IDs, 8)
					require.Equal(t, loaded.Stats().Memory.Weights, random.Stats().Memory.Weights)
					require.NotEqual(t, generate(t, loaded, request).IDs, first.IDs)
					again := open(t, dir, Options{Backend: b, DType: dtype, RandomWeights: true})
					require.Equal(t, first.IDs, generate(t, again, request).IDs)
				})
			}
		}
	}
}

func TestFillRandom(t *testing.T) {
	cfg, err := model.LoadConfig(llamaBF16)
	require.NoError(t, err)
	src := randomWeights(cfg)
	require.Equal(t, dtypes.BFloat16, src.dtype)
	byName := map[string][]float32{}
	for _, w := range cfg.Weights() {
		x := make([]float32, w.Size())
		require.NoError(t, src.fill(layers.Go, w, storedShape(layers.Go, w, dtypes.Float32, dtypes.Float32), x))
		byName[w.Name] = x
		var sum, squares float64
		for _, v := range x {
			sum += float64(v)
			squares += float64(v) * float64(v)
		}
		n := float64(len(x))
		if w.Kind == model.Norm {
			require.Equal(t, n, sum)
			require.Equal(t, n, squares)
			continue
		}
		require.InDelta(t, 0, sum/n, 0.001, w.Name)
		require.InDelta(t, 0.02*0.02, squares/n, 0.02*0.02*0.1, w.Name)
	}
	q, k := byName[model.LayerWeight(0, "mlp.gate_proj")], byName[model.LayerWeight(0, "mlp.up_proj")]
	require.NotEqual(t, q[:8], k[:8])
	require.ErrorContains(t, src.fill(layers.Go, cfg.Weights()[0], storedShape(layers.Go, cfg.Weights()[0], dtypes.Float32, dtypes.Float32), []int8{1}), "[]int8")
}
