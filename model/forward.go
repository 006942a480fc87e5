package model

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/steerage/steerage/layers"
)

// Params holds the graph node of each declared weight, by tensor name.
type Params map[string]*Node

// Cache holds the keys and values of earlier tokens, one pair per layer, shaped as layers.KeyDims and layers.ValueDims.
type Cache struct{ K, V []*Node }

// Inputs is what one call of the forward pass works on: some tokens of each row, following those already in the cache.
type Inputs struct {
	Tokens *Node // [rows, tokens] int32
	// Position of each token in its row, [rows, tokens] or, when all rows agree, [1, tokens] int32. Read only with a Cache:
	// without one the rows begin at position 0.
	Position *Node
	// Cos and Sin are the rotary tables at those positions, [rows or 1, tokens, head_dim/2] float32 (Config.RopeTables).
	Cos, Sin *Node
	// Cache of earlier tokens; nil when the rows begin with these tokens, which then see only each other.
	Cache *Cache
	// Start [rows] int32 is the number of tokens already in the cache, Count [rows] how many of these tokens are real; the rest
	// is padding behind them. Used only to write the cache.
	Start, Count *Node
	// KV is the dtype in which keys and values are kept.
	KV dtypes.DType
	// AfterBlock, when set, sees the output of each block and returns what goes on: steering changes it, capture keeps
	// it. hidden [rows, tokens, hidden_size] float32.
	AfterBlock func(layer int, hidden *Node) *Node
}

// Outputs is what the forward pass returns.
type Outputs struct {
	Hidden *Node // output of the last block, before the final norm, [rows, tokens, hidden_size] float32
	Cache  Cache // the new cache, or without one these tokens' keys and values in cache layout
}

// Forward builds the decoder without its head: embed, then for each block norm, attention, residual, norm, SwiGLU, residual, and
// AfterBlock. It panics, by GoMLX's convention, when a weight is missing or a shape does not fit.
func (c *Config) Forward(p layers.Platform, w Params, in Inputs) Outputs {
	x := layers.Embed(p, in.Tokens, w.get(EmbedTokens)) // [rows, tokens, hidden]
	var out Outputs
	for l := range c.NumHiddenLayers {
		weight := func(suffix string) *Node { return w.get(LayerWeight(l, suffix)) }
		h := layers.RMSNorm(x, weight("input_layernorm"), c.RMSNormEps)
		x = Add(x, c.attention(p, l, h, weight, in, &out))
		h = layers.RMSNorm(x, weight("post_attention_layernorm"), c.RMSNormEps)
		x = Add(x, mlp(p, h, weight))
		if in.AfterBlock != nil {
			x = in.AfterBlock(l, x)
		}
	}
	out.Hidden = x
	return out
}

// attention returns what block l's attention adds to the residual stream: h [rows, tokens, hidden] is its normalised input.
func (c *Config) attention(p layers.Platform, l int, h *Node, weight func(string) *Node, in Inputs, out *Outputs) *Node {
	rows, tokens := h.Shape().Dim(0), h.Shape().Dim(1)
	heads := func(name string, n int) *Node { // [rows, tokens, n, head_dim]
		return Reshape(layers.Linear(p, h, weight(name)), rows, tokens, n, c.HeadDim)
	}
	q := heads("self_attn.q_proj", c.NumAttentionHeads)
	k := heads("self_attn.k_proj", c.NumKeyValueHeads)
	v := heads("self_attn.v_proj", c.NumKeyValueHeads)
	if c.QKNorm {
		q = layers.RMSNorm(q, weight("self_attn.q_norm"), c.RMSNormEps)
		k = layers.RMSNorm(k, weight("self_attn.k_norm"), c.RMSNormEps)
	}
	q, k = layers.Rotary(q, in.Cos, in.Sin), layers.Rotary(k, in.Cos, in.Sin)
	var keys, values, attended *Node // attended [rows, tokens, heads*head_dim]
	if in.Cache == nil {
		if p == layers.Go { // its later writes into these slots are additions (layers.WriteKV)
			k, v = layers.ZeroPadding(k, in.Count), layers.ZeroPadding(v, in.Count)
		}
		keys, values = layers.KeyLayout(p, k, in.KV), layers.ValueLayout(v, in.KV)
		attended = layers.AttendPrompt(p, q, k, v, in.KV)
	} else {
		// Write first, then attend to what was written: reading the old cache as well would force XLA to copy it.
		keys, values = layers.WriteKV(p, in.Cache.K[l], in.Cache.V[l], k, v, in.Start, in.Count)
		attended = layers.Attend(p, q, keys, values, in.Position)
	}
	out.Cache.K, out.Cache.V = append(out.Cache.K, keys), append(out.Cache.V, values)
	return layers.Linear(p, attended, weight("self_attn.o_proj"))
}

func mlp(p layers.Platform, h *Node, weight func(string) *Node) *Node {
	gate, up := layers.Linear(p, h, weight("mlp.gate_proj")), layers.Linear(p, h, weight("mlp.up_proj"))
	return layers.Linear(p, layers.SwiGLU(gate, up), weight("mlp.down_proj"))
}

// Head turns hidden states of the last block [..., hidden_size] into logits [..., vocab_size] float32.
func (c *Config) Head(p layers.Platform, w Params, hidden *Node) *Node {
	return layers.Linear(p, layers.RMSNorm(hidden, w.get(FinalNorm), c.RMSNormEps), w.get(c.HeadWeight()))
}

func (w Params) get(name string) *Node {
	node := w[name]
	if node == nil {
		panic(fmt.Errorf("model: no parameter %q", name))
	}
	return node
}
