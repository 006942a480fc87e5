// Package layers is the graph maths of a decoder: RMS norm, rotary embedding, grouped-query attention, SwiGLU, the
// write into the key/value cache, and sampling. Every function is pure: it takes and returns GoMLX graph nodes, holds no
// state and knows neither models nor devices. By GoMLX's convention graph functions panic with an error when shapes do not
// fit; package engine turns that into an error at one border.
//
// Activations are float32 throughout. Weights and cache may be float32, bfloat16 or float16: a matrix product rounds the
// activation to the weight's dtype and accumulates in float32. GoMLX's own RMSNorm, Softmax and RoPE compute in the dtype of
// their input, which is not what the models were trained with; that is why they are not used here.
//
// Where XLA and GoMLX's Go backend need different forms of the same maths (they differ in which ops exist and in which form
// is fast), the form is chosen by a [Platform] inside one function: [Linear], [WriteKV], [Attend].
package layers
