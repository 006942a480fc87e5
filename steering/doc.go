// Package steering changes what a model does by editing its residual stream while it runs. It knows vectors, what a request
// asks of them, and the graph operation; it knows no model and no device.
//
// # The idea
//
// A [Vector] holds, for some layers, a unit direction v̂ along which two behaviours differ (honest and dishonest answers,
// say), and where each of the two lies on it. The projection of a hidden state h on the direction is
//
//	rho = <h, v̂>
//
// and Δμ = μ+ − μ- is the distance between the means of rho in the two classes, m the boundary between them. A layer is numbered
// from 0, and "layer l" is the output of block l, everywhere: in files, in messages, in Go.
//
// An [Entry] says how a vector is used and a [Spec], a list of them, is what one request asks for. Methods (α is the
// coefficient; equations 3 to 5 of arXiv 2604.08169):
//
//	SwFC      h' = h + α·Δμ·v̂                        always: α = 1 is the distance between the classes
//	StTP      h' = h + (μ+ + α·σ+ − rho)·v̂           if rho < m: set the projection to a target
//	StMP      h' = h + 2·α·(m − rho)·v̂               if rho < m: mirror it at the boundary, but never beyond μ+ + 40·σ+
//	Ablation  h' = h − α·rho·v̂                       always: α = 1 removes the direction
//
// With [Entry.Negative] a method pushes towards the other class; [Gate] says exactly how. Two more things are chosen: the
// layers, and at which tokens the entry acts ([Positions]). A token that is not edited keeps its bits.
//
// # Asking for it
//
// In Go a Spec is written down; on a command line each entry is one argument, see [ParseArgument]:
//
//	honesty.safetensors:stmp:4@26
//	honesty.safetensors:-sttp:12@20-24:response
//
// and in a request body it is the JSON of [DecodeSpec], in which vectors go by name.
//
// # Running it
//
// [NewPlan] checks a Spec against a model once and works out its numbers. A [Table] holds the plans of the rows of a batch as
// three small arrays, which are inputs of the compiled program, so that the program is the same whatever they hold:
//
//	directions [P, hidden]         float32: the distinct directions in use; row 0 is zero
//	site       [layers, S, rows]   int32: which direction acts here; 0 is none
//	gate       [layers, S, rows, 4] float32: theta, a, b, cap
//
// S is the number of slots: entries that meet on one layer of one row take one each and act in the order given. P and S
// come from short ladders, so that few programs are compiled. [Apply] is the operation, at the output of each block:
//
//	delta = min(a + b·rho, cap − rho)   if rho < theta and the position mask says so, else 0
//	h'    = h + delta·v̂
//
// It returns what it did beside the new hidden state; [Plan.Collect] adds that up into one [Effect] for each entry.
//
// # Files
//
// [Load] reads a vector in this package's own format ([Vector.Save]): a safetensors file with
//
//	layers       I32 [K]      the layers, ascending
//	direction    F32 [K, H]   unit vectors v̂
//	delta_mu     F64 [K]      length of the vector that SwFC adds at coefficient 1
//	m, mu_pos, mu_neg, sigma_pos, sigma_neg, cohens_d   F64 [K], all or none of them
//
// and in its metadata format ("steerage.vector"), version ("1"), layer_convention ("block output, 0-based"), and, where
// known, model, fingerprint, num_hidden_layers, data, date and method; any other metadata is kept.
//
// It also reads and writes GGUF control vectors, the format that repeng and llama.cpp share ([Vector.SaveGGUF]). These
// hold a direction and a length only, so [StTP] and [StMP] cannot use them. PyTorch's .pt files are not read: they are pickles, which are
// programs. A .pt dictionary of v̂ and statistics is a few lines of Python away from the tensors above.
package steering
