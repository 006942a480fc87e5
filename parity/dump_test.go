package parity

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/steerage/steerage/safetensors"
	"github.com/stretchr/testify/require"
)

func TestMalformedDumps(t *testing.T) {
	type tensors = map[string]safetensors.Tensor
	rename := func(old, name string) func(tensors, map[string]any) {
		return func(m tensors, _ map[string]any) {
			x := m[old]
			delete(m, old)
			x.Name = name
			m[name] = x
		}
	}
	set := func(name string, change func(x *safetensors.Tensor)) func(tensors, map[string]any) {
		return func(m tensors, _ map[string]any) {
			x := m[name]
			change(&x)
			m[name] = x
		}
	}
	field := func(key string, value any) func(tensors, map[string]any) {
		return func(_ tensors, info map[string]any) { info[key] = value }
	}
	tests := []struct {
		name   string
		change func(tensors, map[string]any)
		err    []string
	}{
		{"missing ids", rename("prompt.1.ids", "x"), []string{`"prompt.1.ids" is missing`}},
		{"missing logits", rename("f32.prompt.2.logits", "x"), []string{`"f32.prompt.2.logits" is missing`}},
		{"missing bf16", rename("bf16.prompt.0.hidden", "x"), []string{`"bf16.prompt.0.hidden" is missing`}},
		{"missing margin", rename("f32.prompt.0.greedy_margin", "x"), []string{`"f32.prompt.0.greedy_margin" is missing`}},
		{"missing mask", rename("batch.right.mask", "x"), []string{`"batch.right.mask" is missing`}},
		{"missing last logits", rename("f32.batch.left.last_logits", "x"), []string{`"f32.batch.left.last_logits" is missing`}},
		{"surplus prompt", rename("bf16.prompt.0.greedy", "prompt.3.ids"), []string{`"prompt.3.ids"`, "3 prompts"}},
		{"wrong shape", set("f32.prompt.1.hidden", func(x *safetensors.Tensor) { x.Shape = []int{4, 3, 8} }),
			[]string{`"f32.prompt.1.hidden" has shape [4 3 8], want [3 4 8]`}},
		{"wrong dtype", set("f32.prompt.1.logits", func(x *safetensors.Tensor) { x.DType = safetensors.I32 }),
			[]string{`"f32.prompt.1.logits" is I32, want F32 or BF16`}},
		{"float ids", set("prompt.1.ids", func(x *safetensors.Tensor) { x.DType = safetensors.F32 }),
			[]string{`"prompt.1.ids" is F32 [4], want I32`}},
		{"no ids", set("prompt.1.ids", func(x *safetensors.Tensor) { x.Shape, x.Data = []int{0}, nil }),
			[]string{`"prompt.1.ids" is I32 [0]`, "not empty"}},
		{"id outside the vocabulary", set("prompt.1.ids", func(x *safetensors.Tensor) { x.Data[4] = 24 }),
			[]string{`"prompt.1.ids" holds id 24 at 1, the vocabulary has 24`}},
		{"negative id", set("f32.prompt.1.greedy", func(x *safetensors.Tensor) { x.Data[3] = 0xff }), []string{"greedy", "holds id -"}},
		{"mask of another width", set("batch.left.mask", func(x *safetensors.Tensor) { x.Shape, x.Data = []int{3, 1}, x.Data[:12] }),
			[]string{"batch.left.mask has 1 columns, batch.left.ids has 7"}},
		{"a row that is no prompt", set("batch.left.ids", func(x *safetensors.Tensor) { x.Data[len(x.Data)-4] ^= 1 }),
			[]string{"row 2 of tensor batch.left.ids, without padding, is not prompt 2"}},
		{"row_prompt outside", field("batch", map[string]any{"row_prompt": []int{0, 1, 3}}), []string{"is prompt 3, there are 3"}},
		{"row_prompt too short", field("batch", map[string]any{"row_prompt": []int{0}}), []string{"has 3 rows, row_prompt of dump.json has 1"}},
		{"no prompts", field("prompts", nil), []string{"no prompts"}},
		{"no references", field("references", nil), []string{`"f32", which all else is measured by, is missing`}},
		{"unknown reference", field("references", []string{"f32", "f16"}), []string{`["f32" "f16"]`}},
		{"reference twice", field("references", []string{"f32", "f32"}), []string{`["f32" "f32"]`}},
		{"references of a wrong type", field("references", 3), []string{"dump.json", "references"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := toyDump(t, test.change)
			_, err := runToy(t, dir, toy{}, Options{})
			require.Error(t, err)
			for _, want := range test.err {
				require.ErrorContains(t, err, want)
			}
			require.ErrorContains(t, err, dir)
		})
	}
}

func TestMissingFiles(t *testing.T) {
	for _, name := range []string{"config.json", dumpJSON, DumpName} {
		t.Run(name, func(t *testing.T) {
			dir := toyDump(t, nil)
			require.NoError(t, os.Remove(filepath.Join(dir, name)))
			_, err := runToy(t, dir, toy{}, Options{})
			require.ErrorIs(t, err, os.ErrNotExist)
			require.ErrorContains(t, err, name)
		})
	}
	_, err := Run(t.Context(), filepath.Join(t.TempDir(), "nothing"), Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestConfigRow(t *testing.T) {
	dir := toyDump(t, func(_ map[string]safetensors.Tensor, info map[string]any) { info["num_layers"] = 4 })
	twin := `{"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":16,"num_hidden_layers":3,
"num_attention_heads":2,"num_key_value_heads":2,"vocab_size":24,"max_position_embeddings":64,"rms_norm_eps":1e-6,
"rope_parameters":{"rope_type":"default","rope_theta":10000.0},"dtype":"bfloat16","tie_word_embeddings":false,"hidden_act":"silu"}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.transformers5.json"), []byte(twin), 0o644))
	report, err := runToy(t, dir, toy{}, Options{})
	require.NoError(t, err)
	failed := report.Failures()
	require.Len(t, failed, 1)
	require.Equal(t, "config", failed[0].Part)
	require.Equal(t, "num_layers is 4 in dump.json, 3 in config.json; RMSNormEps is 1e-05, in config.transformers5.json 1e-06",
		failed[0].Note)
}

// What DumpDir gets can stand in for the reference: all that was computed, under the dump's names, shapes and dtypes.
func TestDumpDir(t *testing.T) {
	dir, out := toyDump(t, nil), filepath.Join(t.TempDir(), "a", "b")
	_, err := runToy(t, dir, toy{}, Options{DumpDir: out})
	require.NoError(t, err)
	name := filepath.Base(dir)
	reference, err := safetensors.OpenFile(filepath.Join(dir, DumpName))
	require.NoError(t, err)
	defer reference.Close()
	computed, err := safetensors.OpenFile(filepath.Join(out, name+".safetensors"))
	require.NoError(t, err)
	defer computed.Close()
	require.Equal(t, map[string]string{"model": name, "backend": "toy"}, computed.Metadata())
	for _, n := range computed.Names() {
		got, _ := computed.Tensor(n)
		want, ok := reference.Tensor(n)
		require.True(t, ok, n)
		require.Equal(t, want.DType, got.DType, n)
		require.Equal(t, want.Shape, got.Shape, n)
		require.Equal(t, want.Data, got.Data, n)
	}
	require.Len(t, computed.Names(), 3*2*3+2) // logits, hidden, greedy of three prompts in two references; two batches
}

func FuzzDumpJSON(f *testing.F) {
	for _, s := range []string{
		`{"num_layers":3,"references":["f32"],"prompts":[{}],"batch":{"row_prompt":[0,1,2]}}`,
		`{"references":["f32"],"prompts":[{},{},{},{},{}]}`, `{"batch":{"row_prompt":[-1]}}`, `{"batch":{}}`, `[]`, `null`, ``,
		`{"num_layers":1e99}`, `{"references":["f32","bf16"],"prompts":[1,2,3],"batch":{"row_prompt":[9223372036854775807]}}`,
	} {
		f.Add([]byte(s))
	}
	dir := toyDump(f, nil) // a worker's own
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, dumpJSON), text, 0o644))
		if d, err := openDump(dir); err == nil {
			require.NotEmpty(t, d.prompts)
			require.NoError(t, d.Close())
		}
	})
}
