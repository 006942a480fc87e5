package model

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fields are the keys of a config.json.
type fields map[string]any

// with returns the fields with some of them changed: key, value, key, value; a value of absent removes the key.
func (f fields) with(pairs ...any) fields {
	f = maps.Clone(f)
	for i := 0; i < len(pairs); i += 2 {
		if key := pairs[i].(string); pairs[i+1] == absent {
			delete(f, key)
		} else {
			f[key] = pairs[i+1]
		}
	}
	return f
}

const absent = "\x00absent"

func (f fields) json(t testing.TB) []byte {
	data, err := json.Marshal(f)
	require.NoError(t, err)
	return data
}

func (f fields) parse(t testing.TB) *Config {
	c, err := ParseConfig(f.json(t))
	require.NoError(t, err)
	return c
}

var (
	// llama31 is meta-llama/Llama-3.1-8B's config.json.
	llama31 = fields{
		"architectures": []string{Llama}, "model_type": "llama", "attention_bias": false, "attention_dropout": 0.0,
		"bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
		"intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false, "num_attention_heads": 32,
		"num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-5,
		"rope_scaling": fields{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
			"original_max_position_embeddings": 8192, "rope_type": "llama3"},
		"rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 128256,
	}
	// qwen06 is Qwen/Qwen3-0.6B's config.json.
	qwen06 = fields{
		"architectures": []string{Qwen3}, "model_type": "qwen3", "attention_bias": false, "attention_dropout": 0.0,
		"bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
		"initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
		"num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_scaling": nil,
		"rope_theta": 1000000, "sliding_window": nil, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
		"use_sliding_window": false, "vocab_size": 151936,
	}
	// tiny is the least that must be said.
	tiny = fields{"architectures": []string{Llama}, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
		"num_attention_heads": 2, "vocab_size": 10, "max_position_embeddings": 64}
)

func TestParseConfig(t *testing.T) {
	llama := Config{
		Architecture: Llama, HiddenSize: 4096, IntermediateSize: 14336, NumHiddenLayers: 32, NumAttentionHeads: 32,
		NumKeyValueHeads: 8, HeadDim: 128, VocabSize: 128256, MaxPositionEmbeddings: 131072, RMSNormEps: 1e-5,
		Rope: Rope{Type: "llama3", Theta: 500000, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4,
			OriginalMaxPositionEmbeddings: 8192, AttentionFactor: 1},
		DType: "bfloat16", BOSTokenID: []int32{128000}, EOSTokenID: []int32{128001},
	}
	qwen := Config{
		Architecture: Qwen3, HiddenSize: 1024, IntermediateSize: 3072, NumHiddenLayers: 28, NumAttentionHeads: 16,
		NumKeyValueHeads: 8, HeadDim: 128, VocabSize: 151936, MaxPositionEmbeddings: 40960, RMSNormEps: 1e-6,
		TieWordEmbeddings: true, QKNorm: true, Rope: Rope{Type: "default", Theta: 1e6, AttentionFactor: 1},
		DType: "bfloat16", BOSTokenID: []int32{151643}, EOSTokenID: []int32{151645},
	}
	for _, c := range []struct {
		name string
		in   fields
		want Config
	}{
		{"Llama, hub style", llama31, llama},
		{"Llama, transformers 5", llama31.with("rope_scaling", absent, "rope_theta", absent, "torch_dtype", absent, "dtype", "bfloat16",
			"rope_parameters", fields{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
				"original_max_position_embeddings": 8192, "rope_type": "llama3", "rope_theta": 500000.0}), llama},
		{"Qwen3, hub style", qwen06, qwen},
		{"Qwen3, transformers 5", qwen06.with("rope_scaling", absent, "rope_theta", absent, "torch_dtype", absent, "dtype", "bfloat16",
			"layer_types", strings.Split(strings.Repeat("full_attention ", 27)+"full_attention", " "),
			"rope_parameters", fields{"rope_theta": 1000000.0, "rope_type": "default"}), qwen},
		{"model_type alone", qwen06.with("architectures", absent), qwen},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, &c.want, c.in.parse(t)) })
	}
}

// TestDefaults: what a short config leaves out, as LlamaConfig and Qwen3Config of transformers have it.
func TestDefaults(t *testing.T) {
	require.Equal(t, &Config{
		Architecture: Llama, HiddenSize: 8, IntermediateSize: 12, NumHiddenLayers: 2, NumAttentionHeads: 2, NumKeyValueHeads: 2,
		HeadDim: 4, VocabSize: 10, MaxPositionEmbeddings: 64, RMSNormEps: 1e-6, Rope: Rope{Type: "default", Theta: 10000, AttentionFactor: 1},
	}, tiny.parse(t))
	require.Equal(t, 128, tiny.with("architectures", []string{Qwen3}).parse(t).HeadDim)

	require.Equal(t, []int32{1, 2, 9}, tiny.with("eos_token_id", []int{1, 2, 9}).parse(t).EOSTokenID)
	require.Equal(t, []int32{3}, tiny.with("eos_token_id", 3).parse(t).EOSTokenID)
	require.Empty(t, tiny.with("eos_token_id", nil).parse(t).EOSTokenID)
	require.Equal(t, "float16", tiny.with("torch_dtype", "torch.float16").parse(t).DType)

	yarn := tiny.with("rope_scaling", fields{"type": "yarn", "factor": 4}).parse(t).Rope
	require.Equal(t, Rope{Type: "yarn", Theta: 10000, Factor: 4, OriginalMaxPositionEmbeddings: 64, BetaFast: 32, BetaSlow: 1,
		AttentionFactor: 1.138629436111989, Truncate: true}, yarn)
}

func TestRefused(t *testing.T) {
	scaling := func(pairs ...any) fields {
		return llama31.with("rope_scaling", llama31["rope_scaling"].(fields).with(pairs...))
	}
	yarn := func(pairs ...any) fields {
		return tiny.with("rope_parameters", fields{"rope_type": "yarn", "factor": 4}.with(pairs...))
	}
	for _, c := range []struct {
		in   fields
		want string
	}{
		// Features.
		{tiny.with("architectures", []string{"MistralForCausalLM"}), `architecture "MistralForCausalLM" is not supported`},
		{tiny.with("architectures", []string{Llama, Qwen3}), "2 architectures"},
		{tiny.with("architectures", absent), `model_type ""`},
		{tiny.with("architectures", absent, "model_type", "gemma"), `model_type "gemma"`},
		{tiny.with("model_type", "qwen3"), `model_type "qwen3" does not belong to architecture "LlamaForCausalLM"`},
		{tiny.with("quantization_config", fields{"quant_method": "gptq"}), "quantization_config"},
		{tiny.with("num_experts", 8), "num_experts"},
		{tiny.with("num_local_experts", 8), "num_experts"},
		{tiny.with("attention_bias", true), "attention_bias"},
		{tiny.with("mlp_bias", true), "mlp_bias"},
		{tiny.with("hidden_act", "gelu"), `hidden_act "gelu"`},
		{tiny.with("use_sliding_window", true), "use_sliding_window"},
		{tiny.with("sliding_window", 4096), "sliding_window = 4096"},
		{tiny.with("partial_rotary_factor", 0.5), "partial_rotary_factor = 0.5"},
		{tiny.with("layer_types", []string{"full_attention", "sliding_attention"}), `layer_types[1] = "sliding_attention"`},
		{tiny.with("layer_types", []string{"full_attention"}), "layer_types has 1 entries, num_hidden_layers = 2"},
		{tiny.with("dtype", "float8_e4m3fn"), `dtype "float8_e4m3fn"`},
		{tiny.with("dtype", "float32", "torch_dtype", "bfloat16"), "disagree"},
		{tiny.with("rope_scaling", fields{"rope_type": "longrope"}), `rope type "longrope"`},
		{tiny.with("rope_scaling", fields{"type": "dynamic", "factor": 2}), `rope type "dynamic"`},
		{tiny.with("rope_scaling", fields{"factor": 2}), "rope_scaling has no rope_type"},
		{tiny.with("rope_scaling", fields{"rope_type": "default"}, "rope_parameters", fields{"rope_type": "default"}), "both"},
		{tiny.with("rope_parameters", fields{"partial_rotary_factor": 0.5}), "partial_rotary_factor = 0.5"},

		// Numbers.
		{tiny.with("num_key_value_heads", 0), "num_key_value_heads = 0"},
		{tiny.with("num_key_value_heads", -1), "num_key_value_heads = -1"},
		{tiny.with("num_attention_heads", 4, "num_key_value_heads", 3), "num_attention_heads = 4 is not a multiple of num_key_value_heads = 3"},
		{tiny.with("num_key_value_heads", 4), "num_attention_heads = 2 is not a multiple of num_key_value_heads = 4"},
		{tiny.with("hidden_size", 9), "hidden_size = 9 is not a multiple of num_attention_heads = 2"},
		{tiny.with("head_dim", 0), "head_dim = 0"},
		{tiny.with("head_dim", -2), "head_dim = -2"},
		{tiny.with("head_dim", 3), "head_dim = 3"},
		{tiny.with("head_dim", 1<<24), "head_dim = 16777216"},
		{tiny.with("rms_norm_eps", 0), "rms_norm_eps = 0"},
		{tiny.with("rms_norm_eps", -1e-6), "rms_norm_eps = -1e-06"},
		{tiny.with("rms_norm_eps", 1), "rms_norm_eps = 1"},
		{tiny.with("bos_token_id", 10), "bos_token_id = 10 lies outside the vocabulary of 10"},
		{tiny.with("bos_token_id", []int{1, 2}), "bos_token_id has 2 ids"},
		{tiny.with("eos_token_id", []int{1, -1}), "eos_token_id = -1"},
		{tiny.with("eos_token_id", 1<<40), "cannot unmarshal number"},
		{tiny.with("rope_theta", 0), "rope_theta = 0"},
		{tiny.with("rope_theta", -1), "rope_theta = -1"},
		{tiny.with("rope_scaling", fields{"rope_type": "linear"}), `rope type "linear" needs factor`},
		{tiny.with("rope_scaling", fields{"rope_type": "linear", "factor": 0}), "rope_scaling.factor = 0"},
		{scaling("factor", absent), "needs factor"},
		{scaling("low_freq_factor", absent), "needs low_freq_factor"},
		{scaling("high_freq_factor", absent), "needs high_freq_factor"},
		{scaling("high_freq_factor", 1), "high_freq_factor = 1 must exceed low_freq_factor = 1"},
		{scaling("original_max_position_embeddings", 0), "original_max_position_embeddings = 0"},
		{yarn("factor", absent), "needs factor"},
		{yarn("factor", -4), "rope_parameters.factor = -4"},
		{yarn("beta_fast", 1), "beta_fast = 1 must exceed beta_slow = 1"},
		{yarn("beta_slow", -1), "beta_slow = -1"},
		{yarn("attention_factor", -1), "attention_factor = -1"},
		{yarn("original_max_position_embeddings", -5), "original_max_position_embeddings = -5"},
	} {
		t.Run(c.want, func(t *testing.T) {
			_, err := ParseConfig(c.in.json(t))
			require.ErrorContains(t, err, c.want)
		})
	}
	for key, limit := range map[string]int{"hidden_size": maxDim, "intermediate_size": maxDim, "num_hidden_layers": maxLayers,
		"num_attention_heads": maxHeads, "vocab_size": maxDim, "max_position_embeddings": maxPositions} {
		_, err := ParseConfig(tiny.with(key, absent).json(t))
		require.ErrorContains(t, err, key+" is missing")
		for _, value := range []int{0, -1, -1 << 62, limit + 1, 1 << 62} {
			_, err := ParseConfig(tiny.with(key, value).json(t))
			require.ErrorContains(t, err, key+" = ")
		}
		for _, value := range []any{1.5, "8", 1e30, []int{8}} {
			_, err := ParseConfig(tiny.with(key, value).json(t))
			require.ErrorContains(t, err, key)
		}
	}
	for _, data := range []string{"", "null", "[]", "{", "{}", `{"hidden_size": 99999999999999999999}`} {
		_, err := ParseConfig([]byte(data))
		require.ErrorContains(t, err, "config.json: ", "%q", data)
	}
}

func TestLoadConfig(t *testing.T) {
	write := func(config, generation string) string {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
		if generation != "" {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(generation), 0o600))
		}
		return dir
	}
	config := string(tiny.with("bos_token_id", 1, "eos_token_id", 2).json(t))
	for _, c := range []struct {
		generation string
		bos, eos   []int32
		sampling   Generation
	}{
		{"", []int32{1}, []int32{2}, Generation{}},
		{`{}`, []int32{1}, []int32{2}, Generation{}},
		{`{"eos_token_id": null, "bos_token_id": null}`, []int32{1}, []int32{2}, Generation{}},
		{`{"eos_token_id": 5}`, []int32{1}, []int32{5}, Generation{}},
		{`{"eos_token_id": [5, 6], "bos_token_id": 3, "temperature": 0.6}`, []int32{3}, []int32{5, 6}, Generation{Temperature: 0.6}},
		{`{"do_sample": true, "top_k": 20, "top_p": 0.95}`, []int32{1}, []int32{2}, Generation{Temperature: 1, TopK: 20, TopP: 0.95}},
		{`{"do_sample": false, "temperature": 0.6, "top_p": 0.9}`, []int32{1}, []int32{2}, Generation{}},
	} {
		got, err := LoadConfig(write(config, c.generation))
		require.NoError(t, err, c.generation)
		require.Equal(t, c.bos, got.BOSTokenID, c.generation)
		require.Equal(t, c.eos, got.EOSTokenID, c.generation)
		require.Equal(t, c.sampling, got.Generation, c.generation)
	}

	for _, c := range []struct{ config, generation, want string }{
		{"{}", "", "config.json: "},
		{config, "{", "generation_config.json: "},
		{config, `{"eos_token_id": 10}`, "generation_config.json: eos_token_id = 10"},
		{config, `{"temperature": -1}`, "generation_config.json: temperature = -1"},
		{config, `{"do_sample": true, "top_p": 1.5}`, "generation_config.json: top_p = 1.5"},
		{config, `{"do_sample": true, "top_k": -1}`, "generation_config.json: top_k = -1"},
		{config + strings.Repeat(" ", maxConfigBytes), "", "config.json: larger than 4194304 bytes"},
		{config, strings.Repeat(" ", maxConfigBytes+1), "generation_config.json: larger than 4194304 bytes"},
	} {
		_, err := LoadConfig(write(c.config, c.generation))
		require.ErrorContains(t, err, c.want)
	}
	_, err := LoadConfig(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// FuzzParseConfig: whatever parses can be counted, declared and tabulated without a panic or an overflow.
func FuzzParseConfig(f *testing.F) {
	for _, c := range []fields{llama31, qwen06, tiny,
		tiny.with("rope_scaling", fields{"type": "yarn", "factor": 4, "mscale": 2, "mscale_all_dim": 0.5}),
		tiny.with("rope_scaling", fields{"type": "yarn", "factor": 1e308, "mscale": 1e308, "beta_slow": 1e-308}),
		tiny.with("rope_theta", 1.0000001, "rope_scaling", fields{"type": "linear", "factor": 1e-308}),
		tiny.with("eos_token_id", []int{1, 2}), tiny.with("head_dim", 1<<23),
		tiny.with("hidden_size", maxDim, "intermediate_size", maxDim, "vocab_size", maxDim, "num_hidden_layers", maxLayers),
	} {
		f.Add(c.json(f))
	}
	for _, s := range []string{"", "null", "[]", "{}", `{"architectures": [null]}`, `{"architectures": {"a": 1}}`,
		`{"hidden_size": 1e400}`, `{"hidden_size": -0}`, `{"eos_token_id": [[1]]}`, `{"eos_token_id": {}}`, `{"rope_scaling": []}`,
		`{"rope_scaling": "linear"}`, `{"quantization_config": 0}`, "{\"model_type\": \"\xff\"}", strings.Repeat("[", 20_000),
		`{"ARCHITECTURES": ["LlamaForCausalLM"], "Hidden_Size": 8}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			require.Contains(t, err.Error(), "config.json: ")
			return
		}
		if c.NumHiddenLayers > 64 {
			c.NumHiddenLayers = 64 // the declaration is a list; keep the fuzzer quick
		}
		require.Positive(t, c.Parameters())
		require.Positive(t, c.KVElements())
		require.Positive(t, c.DecodeParameters())
		require.Positive(t, c.FLOPs(c.MaxPositionEmbeddings))
		if c.HeadDim <= 1<<10 {
			for _, x := range c.Rope.InverseFrequencies(c.HeadDim) {
				require.False(t, x != x, "a frequency is NaN: %+v", c.Rope)
			}
			c.RopeTables(2)
		}
	})
}
