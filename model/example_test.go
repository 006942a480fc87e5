package model_test

import (
	"fmt"

	"github.com/steerage/steerage/model"
)

func ExampleParseConfig() {
	config, err := model.ParseConfig([]byte(`{
		"architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
		"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
		"max_position_embeddings": 40960, "rope_theta": 1000000, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.1f M parameters, %d KiB of cache per token in bfloat16\n",
		float64(config.Parameters())/1e6, 2*config.KVElements()/1024)
	for _, w := range config.Weights()[:3] {
		fmt.Println(w.Name, w.Shape)
	}
	// Output:
	// 596.0 M parameters, 112 KiB of cache per token in bfloat16
	// model.embed_tokens.weight [151936 1024]
	// model.layers.0.input_layernorm.weight [1024]
	// model.layers.0.self_attn.q_proj.weight [2048 1024]
}

// What a configuration asks for and this package does not have is refused by name.
func ExampleParseConfig_refused() {
	_, err := model.ParseConfig([]byte(`{"architectures": ["Qwen3ForCausalLM"], "use_sliding_window": true}`))
	fmt.Println(err)
	// Output:
	// config.json: use_sliding_window = true is not supported
}
