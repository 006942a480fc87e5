package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/safetensors"
)

func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "embeddings.safetensors")
	o := options{dir: "../../parity/testdata/qwen3-yarn-f32", backend: "go", texts: 4, prompt: 3, response: 5, repeats: 2, out: out}
	r := printed(t, o)
	require.Equal(t, 2, r.Capture.Runs)
	require.Positive(t, r.Capture.Min)
	require.Equal(t, 2, r.Fit.Runs)
	require.Positive(t, r.Fit.Min)
	require.Positive(t, r.FitHalvings.Min)
	require.Less(t, r.Gradient, 1e-8)

	f, err := safetensors.OpenFile(out)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.Len(t, f.Names(), 2*r.Layers)
	x, ok := f.Tensor("negative.0")
	require.True(t, ok)
	require.Equal(t, []int{4, len(r.W)}, x.Shape)

	o.texts = 1
	require.ErrorContains(t, run(context.Background(), o), "1 texts")
}

// printed returns what run prints.
func printed(t *testing.T, o options) (r result) {
	t.Helper()
	read, write, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = write
	err = run(context.Background(), o)
	os.Stdout = stdout
	require.NoError(t, err)
	require.NoError(t, write.Close())
	data, err := io.ReadAll(read)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &r))
	return r
}
