// Package engine runs a model on a device: it opens a folder of safetensors, owns device memory, compiles programs, batches
// requests and samples tokens. It is the only package that executes graphs.
//
//	m, err := engine.Open(ctx, "path/to/Qwen3-0.6B", engine.Options{MaxBatch: 16})
//	defer m.Close()
//	gen, err := m.Generate(ctx, engine.Request{Prompt: "Once upon a time", MaxTokens: 64})
//	for piece, err := range gen.Text() { ... }
//
// # How it works
//
// One goroutine per model owns the device. Between two pieces of work it asks the state machine of package
// engine/schedule what to do next, and gets a plan: prefill these prompt tokens, or decode one token for each of these rows. Generate may
// be called from any number of goroutines; their requests meet in one batch.
//
// Shapes are static, from short ladders of sizes, and each combination is one compiled program (programs.go):
//
//	first(R, T)     R prompts of at most T tokens, from position 0; returns their keys and values
//	next(T, S)      the next T tokens of one long prompt, with a private cache of S slots
//	decode(B, S)    one token for each of B rows of the main cache of S slots
//	place, relayout small programs that move rows of keys and values
//	sample          logits to token ids
//
// The cache is donated to each call and aliased to its result (package pjrt), so it is updated in place. Padding, the
// company of other requests and the order of arrival do not change a result beyond the rounding of differently shaped
// matrix products; a sampled
// token is a pure function of logits, the request's parameters and its own seed.
//
// # Steering
//
// A request's Steering is checked once and becomes a row of three small input arrays (package steering). Each program with a forward pass
// exists without steering and with it; the engine takes the one without when nobody in a call is steered, and the other is compiled
// once, whatever vectors, layers, methods and positions the batch holds. What a request's vectors did comes back with its result. A row
// that nobody steers, and one whose steering moves nothing, has the same bits in both.
//
// # Files
//
// In reading order: engine.go (Open, Close, the loop), generate.go (requests and their streams), session.go (conversations), steer.go
// (steering on its way to the device), device.go (plans to device calls), programs.go (graphs), weights.go and random.go (loading),
// plan.go (memory), score.go (log-probabilities and traces), capture.go (pooled hidden states), use.go (graphs of the caller's own).
package engine
