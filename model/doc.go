// Package model knows what a decoder-only language model is: its configuration (Hugging Face's config.json), the
// weights it needs, and its forward pass as a GoMLX graph. Llama-3 and Qwen3 share one forward pass: they differ in data
// (QK-norm, head_dim, rope scaling, tied head), not in code.
//
// It knows nothing of files (package safetensors), of devices and batches (package engine) or of text (package
// tokenizer). Reading order: config.go (what may be loaded), weights.go (every tensor, declared once), forward.go (the
// network, top to bottom), rope.go (rotary frequencies), cost.go (bytes and flops per token).
//
// Three conventions hold everywhere:
//
//   - Names are Hugging Face's: config keys and tensor names verbatim.
//   - A layer is numbered from 0 and "layer l" means the OUTPUT of decoder block l: the residual stream after attention
//     and MLP were added, before the next block's norm.
//   - The residual stream, norms, rotary embedding, softmax and logits are float32 whatever the weights' dtype; the big
//     matrix products and the key/value cache run in the weights' dtype with float32 accumulation.
//
// What the configuration asks for and this package does not implement (sliding windows, attention bias, quantised
// weights, unknown rope types, experts) is refused by name when the configuration is parsed: see [ParseConfig].
package model
