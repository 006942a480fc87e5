package parity_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/parity"
	"github.com/steerage/steerage/safetensors"
	"github.com/stretchr/testify/require"
)

// A comparison is worth what it catches: the engine runs models that differ a little from the one that was dumped.
func TestMistakesAreCaught(t *testing.T) {
	const source = "testdata/qwen3-yarn-f32"
	config := func(old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, "config.json")
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			changed := bytes.Replace(text, []byte(old), []byte(new), 1)
			require.NotEqual(t, text, changed)
			require.NoError(t, os.WriteFile(path, changed, 0o644))
		}
	}
	tests := []struct {
		name   string
		change func(t *testing.T, dir string)
		layer  string // what the row "hidden" must say; "" if it must pass
		logits string // what the row "logits" must say
		rms    bool   // the rms bound catches it
	}{
		{name: "layer 2", change: scale(model.LayerWeight(2, "mlp.down_proj"), 1.001),
			layer: "first layer that disagrees: 2 ", logits: "first layer that disagrees: 2 "},
		{name: "layer 0", change: scale(model.LayerWeight(0, "self_attn.v_proj"), 1.001),
			layer: "first layer that disagrees: 0 ", logits: "first layer that disagrees: 0 "},
		{name: "final norm", change: scale(model.FinalNorm, 1.001), logits: "all layers agree: the final norm or the head"},
		{name: "NaN", change: scale(model.FinalNorm, math.NaN()), logits: "not finite"},
		{name: "epsilon", change: config(`"rms_norm_eps": 1e-06`, `"rms_norm_eps": 1e-05`),
			layer: "first layer that disagrees: ", logits: "first layer that disagrees: ", rms: true},
		{name: "yarn factor", change: config(`"factor": 4.0`, `"factor": 4.5`),
			layer: "first layer that disagrees: 0 ", logits: "first layer that disagrees: 0 "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "model")
			require.NoError(t, os.CopyFS(dir, os.DirFS(source)))
			test.change(t, dir)
			report, err := parity.Run(t.Context(), dir, parity.Options{Backend: "go"})
			require.NoError(t, err)
			require.False(t, report.OK())
			for part, want := range map[string]string{"hidden": test.layer, "logits": test.logits} {
				at := slices.IndexFunc(report.Rows, func(r parity.Row) bool { return r.Part == part })
				require.GreaterOrEqual(t, at, 0)
				row := report.Rows[at]
				require.Equal(t, want != "", row.Verdict == parity.Fail, row.Note)
				require.Contains(t, row.Note, want)
				if test.rms {
					require.Greater(t, row.Diff.RMS, 2e-5)
				}
			}
		})
	}
}

// scale multiplies a float32 weight of a model in one file.
func scale(name string, factor float64) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, safetensors.SingleName)
		file, err := safetensors.OpenFile(path)
		require.NoError(t, err)
		defer file.Close()
		var tensors []safetensors.Tensor
		for _, n := range file.Names() {
			x, _ := file.Tensor(n)
			x.Data = slices.Clone(x.Data)
			if n == name {
				require.Equal(t, safetensors.F32, x.DType)
				for i := 0; i < len(x.Data); i += 4 {
					v := math.Float32frombits(binary.LittleEndian.Uint32(x.Data[i:]))
					binary.LittleEndian.PutUint32(x.Data[i:], math.Float32bits(float32(float64(v)*factor)))
				}
			}
			tensors = append(tensors, x)
		}
		require.True(t, slices.ContainsFunc(tensors, func(x safetensors.Tensor) bool { return x.Name == name }), name)
		require.NoError(t, safetensors.WriteFile(path, tensors, file.Metadata()))
	}
}
