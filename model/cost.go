package model

// Parameters returns the number of parameters that a checkpoint of this model stores (a tied head is not counted twice).
func (c *Config) Parameters() int64 {
	var n int64
	for _, w := range c.Weights() {
		n += w.Size()
	}
	return n
}

// KVElements returns the number of key and value elements that one token occupies in the cache, all layers together.
func (c *Config) KVElements() int64 {
	return 2 * int64(c.NumHiddenLayers) * int64(c.NumKeyValueHeads) * int64(c.HeadDim)
}

// DecodeParameters returns the number of parameters that one decode step reads: every weight but the rows of the
// embedding that were not gathered; a tied embedding is read whole, as the head.
func (c *Config) DecodeParameters() int64 {
	n := c.Parameters()
	if !c.TieWordEmbeddings {
		n -= int64(c.VocabSize-1) * int64(c.HiddenSize)
	}
	return n
}

// FLOPs returns the floating-point operations (a multiply-add counts as two) that one token costs when `context` tokens
// are attended to: the matrix products of blocks and head, and the two attention products.
func (c *Config) FLOPs(context int) int64 {
	var n int64
	for _, w := range c.Weights() {
		if w.Kind == Column || w.Kind == Row {
			n += 2 * w.Size()
		}
	}
	if c.TieWordEmbeddings {
		n += 2 * int64(c.VocabSize) * int64(c.HiddenSize)
	}
	return n + 4*int64(c.NumHiddenLayers)*int64(c.NumAttentionHeads)*int64(c.HeadDim)*int64(context)
}
