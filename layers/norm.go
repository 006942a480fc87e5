package layers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// RMSNorm normalises the last axis of x by its root mean square and scales it by weight:
//
//	x * weight / sqrt(mean(x^2) + eps)
//
// x [..., n] float32, weight [n] of any float dtype, result [..., n] float32 (LlamaRMSNorm, Qwen3RMSNorm of
// transformers).
//
// The division stands last on purpose: XLA's CPU compiler copies cheap producers such as a multiplication into the
// matrix product that follows and recomputes them for every output row; it does not do so with a division.
func RMSNorm(x, weight *Node, eps float64) *Node {
	meanSquare := ReduceAndKeep(Mul(x, x), ReduceMean, -1)
	weight = ExpandLeftToRank(F32(weight), x.Rank())
	return Div(Mul(x, weight), Sqrt(AddScalar(meanSquare, eps)))
}

// SwiGLU is silu(gate) * up, with gate and up of one shape, float32.
//
// It is written as gate*up / (1+exp(-gate)) for the reason given at [RMSNorm].
func SwiGLU(gate, up *Node) *Node {
	return Div(Mul(gate, up), OnePlus(Exp(Neg(finiteGradient(gate)))))
}

// finiteGradient returns gate unchanged. Where exp(-gate) overflows, the chain rule makes its gradient 0·Inf; it is 0.
func finiteGradient(gate *Node) *Node {
	return IdentityWithCustomGradient(gate, func(gate, v *Node) *Node {
		return Where(LessThan(gate, AddScalar(ZerosLike(gate), -80)), ZerosLike(v), v)
	})
}

// F32 converts x to float32, if it is not float32 already.
func F32(x *Node) *Node { return ConvertDType(x, dtypes.Float32) }
