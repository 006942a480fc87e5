package model

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWeights(t *testing.T) {
	small := tiny.with("hidden_size", 8, "head_dim", 6, "num_hidden_layers", 1, "num_attention_heads", 4, "num_key_value_heads", 2)
	list := func(c *Config) (s []string) {
		for _, w := range c.Weights() {
			s = append(s, fmt.Sprint(w.Name, w.Shape, w.Kind))
		}
		return s
	}
	llama := []string{
		fmt.Sprint("model.embed_tokens.weight", []int{10, 8}, Embedding),
		fmt.Sprint("model.layers.0.input_layernorm.weight", []int{8}, Norm),
		fmt.Sprint("model.layers.0.self_attn.q_proj.weight", []int{24, 8}, Column),
		fmt.Sprint("model.layers.0.self_attn.k_proj.weight", []int{12, 8}, Column),
		fmt.Sprint("model.layers.0.self_attn.v_proj.weight", []int{12, 8}, Column),
		fmt.Sprint("model.layers.0.self_attn.o_proj.weight", []int{8, 24}, Row),
		fmt.Sprint("model.layers.0.post_attention_layernorm.weight", []int{8}, Norm),
		fmt.Sprint("model.layers.0.mlp.gate_proj.weight", []int{12, 8}, Column),
		fmt.Sprint("model.layers.0.mlp.up_proj.weight", []int{12, 8}, Column),
		fmt.Sprint("model.layers.0.mlp.down_proj.weight", []int{8, 12}, Row),
		fmt.Sprint("model.norm.weight", []int{8}, Norm),
		fmt.Sprint("lm_head.weight", []int{10, 8}, Column),
	}
	require.Equal(t, llama, list(small.parse(t)))
	require.Equal(t, llama[:11], list(small.with("tie_word_embeddings", true).parse(t)))

	qwen := append(append([]string{}, llama[:5]...),
		fmt.Sprint("model.layers.0.self_attn.q_norm.weight", []int{6}, Norm),
		fmt.Sprint("model.layers.0.self_attn.k_norm.weight", []int{6}, Norm))
	qwen = append(qwen, llama[5:]...)
	require.Equal(t, qwen, list(small.with("architectures", []string{Qwen3}).parse(t)))

	many := tiny.with("num_hidden_layers", 12).parse(t)
	names := map[string]bool{}
	for _, w := range many.Weights() {
		require.False(t, names[w.Name], w.Name)
		names[w.Name] = true
	}
	require.Len(t, names, 12*9+3)
	require.True(t, names["model.layers.11.mlp.down_proj.weight"])
}

func TestHeadAndSuperfluous(t *testing.T) {
	tied, untied := tiny.with("tie_word_embeddings", true).parse(t), tiny.parse(t)
	require.Equal(t, "model.embed_tokens.weight", tied.HeadWeight())
	require.Equal(t, "lm_head.weight", untied.HeadWeight())
	require.True(t, tied.Superfluous("lm_head.weight"))
	require.False(t, untied.Superfluous("lm_head.weight"))
	require.True(t, untied.Superfluous("model.layers.1.self_attn.rotary_emb.inv_freq"))
	require.False(t, untied.Superfluous("model.layers.2.self_attn.rotary_emb.inv_freq"))
	require.False(t, untied.Superfluous("model.layers.0.self_attn.q_proj.bias"))
}

// TestCost: the parameter counts that the model cards' checkpoints have, and costs counted by hand.
func TestCost(t *testing.T) {
	llama, qwen := llama31.parse(t), qwen06.parse(t)
	require.EqualValues(t, 8_030_261_248, llama.Parameters())
	require.EqualValues(t, 596_049_920, qwen.Parameters())

	require.EqualValues(t, 2*32*8*128, llama.KVElements())
	require.EqualValues(t, 2*28*8*128, qwen.KVElements())

	require.EqualValues(t, 8_030_261_248-128_255*4096, llama.DecodeParameters()) // one row of the embedding
	require.EqualValues(t, 596_049_920, qwen.DecodeParameters())                 // the tied head is read whole

	const norms = 28*(1024+1024+128+128) + 1024
	require.EqualValues(t, 2*(596_049_920-norms), qwen.FLOPs(0))
	require.EqualValues(t, 4*28*16*128*1000, qwen.FLOPs(1000)-qwen.FLOPs(0))
	const llamaNorms = 32*2*4096 + 4096
	require.EqualValues(t, 2*(8_030_261_248-128_256*4096-llamaNorms), llama.FLOPs(0))
}
