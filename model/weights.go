package model

import "fmt"

// Kind says what a weight is for, and with it how it is laid out, initialised and sharded.
type Kind int

const (
	// Norm is a vector that scales a normalised activation; always used in float32.
	Norm Kind = iota
	// Embedding is a table [rows, hidden_size] from which rows are gathered; tied models also multiply by it.
	Embedding
	// Column is a matrix [out, in] whose outputs may be split over devices (q, k, v, gate, up, head).
	Column
	// Row is a matrix [out, in] whose inputs may be split over devices (o, down).
	Row
)

// Weight declares one tensor of a checkpoint. Loading, checks, the memory plan, random initialisation and sharding all
// derive from this declaration.
type Weight struct {
	Name  string // Hugging Face's tensor name
	Shape []int  // as stored: matrices are [out, in]
	Kind  Kind
}

// Size returns the number of elements.
func (w Weight) Size() int64 {
	n := int64(1)
	for _, d := range w.Shape {
		n *= int64(d)
	}
	return n
}

// Weights declares every tensor the model needs, in the order in which the forward pass uses them.
func (c *Config) Weights() []Weight {
	h, d := c.HiddenSize, c.HeadDim
	q, kv := c.NumAttentionHeads*d, c.NumKeyValueHeads*d
	ws := []Weight{{EmbedTokens, []int{c.VocabSize, h}, Embedding}}
	for l := range c.NumHiddenLayers {
		add := func(suffix string, kind Kind, shape ...int) {
			ws = append(ws, Weight{LayerWeight(l, suffix), shape, kind})
		}
		add("input_layernorm", Norm, h)
		add("self_attn.q_proj", Column, q, h)
		add("self_attn.k_proj", Column, kv, h)
		add("self_attn.v_proj", Column, kv, h)
		if c.QKNorm {
			add("self_attn.q_norm", Norm, d)
			add("self_attn.k_norm", Norm, d)
		}
		add("self_attn.o_proj", Row, h, q)
		add("post_attention_layernorm", Norm, h)
		add("mlp.gate_proj", Column, c.IntermediateSize, h)
		add("mlp.up_proj", Column, c.IntermediateSize, h)
		add("mlp.down_proj", Row, h, c.IntermediateSize)
	}
	ws = append(ws, Weight{FinalNorm, []int{h}, Norm})
	if !c.TieWordEmbeddings {
		ws = append(ws, Weight{LMHead, []int{c.VocabSize, h}, Column})
	}
	return ws
}

// Names of the tensors outside the blocks.
const (
	EmbedTokens = "model.embed_tokens.weight"
	FinalNorm   = "model.norm.weight"
	LMHead      = "lm_head.weight"
)

// LayerWeight returns the tensor name of a block's weight: LayerWeight(3, "mlp.up_proj") is
// "model.layers.3.mlp.up_proj.weight".
func LayerWeight(layer int, suffix string) string {
	return fmt.Sprintf("model.layers.%d.%s.weight", layer, suffix)
}

// HeadWeight returns the name of the tensor that the head multiplies by: lm_head, or the embedding when tied.
func (c *Config) HeadWeight() string {
	if c.TieWordEmbeddings {
		return EmbedTokens
	}
	return LMHead
}

// Superfluous reports whether a checkpoint may hold the named tensor although the model does not declare it: rotary
// buffers of old checkpoints, which transformers ignores too, and the head's own copy in a tied checkpoint.
func (c *Config) Superfluous(name string) bool {
	if c.TieWordEmbeddings && name == LMHead {
		return true
	}
	for l := range c.NumHiddenLayers {
		if name == fmt.Sprintf("model.layers.%d.self_attn.rotary_emb.inv_freq", l) {
			return true
		}
	}
	return false
}
