package layers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Transposed reports whether a platform multiplies fastest by weight matrices stored as [in, out] rather than Hugging
// Face's [out, in]. It is decided once, at load: there is never a second copy.
//
// XLA's CPU compiler needs [in, out] in float32 from two rows on (2 to 10 times faster than [out, in]) and can be
// brought to full speed at one row; in bfloat16 it is the other way round (docs/log.md, 2026-11-24).
func Transposed(p Platform, dtype dtypes.DType) bool { return p == XLACPU && dtype == dtypes.Float32 }

// Linear multiplies x by a weight matrix: x [..., in] float32, w stored as [Transposed] says, result [..., out]
// float32. A half-precision w rounds x to its dtype (or is itself widened, at one row); sums are float32 always.
func Linear(p Platform, x, w *Node) *Node {
	dims := x.Shape().Dimensions
	in := dims[len(dims)-1]
	rows := x.Shape().Size() / in
	y := linear2D(p, Reshape(x, rows, in), w) // [rows, out]
	out := y.Shape().Dim(1)
	return Reshape(y, append(append([]int{}, dims[:len(dims)-1]...), out)...)
}

// widenRows is the number of rows up to which a bfloat16 weight is widened on XLA's CPU, rather than x rounded.
const widenRows = 3

func linear2D(p Platform, x, w *Node) *Node {
	rows, in := x.Shape().Dim(0), x.Shape().Dim(1)
	if Transposed(p, w.DType()) {
		const parts = 8
		if rows == 1 && in%parts == 0 {
			// One row against [in, out] is slow as a plain dot; as eight partial sums over slices of `in` it reads
			// memory at full speed.
			partial := Dot(Reshape(x, parts, 1, in/parts), Reshape(w, parts, in/parts, w.Shape().Dim(1))).
				General([]int{2}, []int{0}, []int{1}, []int{0}) // [parts, 1, out]
			return ReduceSum(partial, 0)
		}
		return Dot(x, w).General([]int{1}, nil, []int{0}, nil)
	}
	if w.DType() == dtypes.Float32 {
		return Dot(x, w).General([]int{1}, nil, []int{1}, nil)
	}
	if p == XLACPU && w.DType() == dtypes.BFloat16 && rows <= widenRows {
		// Few rows: widening the weight inside the product is twice as fast as rounding x, and exact; but only row by
		// row.
		wide := ConvertDType(w, dtypes.Float32)
		ys := make([]*Node, rows)
		for r := range ys {
			ys[r] = Dot(Slice(x, AxisRange(r, r+1)), wide).General([]int{1}, nil, []int{1}, nil)
		}
		return Concatenate(ys, 0)
	}
	return halfDot(p, ConvertDType(x, w.DType()), w, []int{1}, nil, []int{1}, nil)
}

// halfDot multiplies half-precision operands into a float32 result, summing in float32.
func halfDot(p Platform, lhs, rhs *Node, lhsContract, lhsBatch, rhsContract, rhsBatch []int) *Node {
	dot := Dot(lhs, rhs).WithOutputDType(dtypes.Float32)
	if p == XLACPU && lhs.DType() == dtypes.BFloat16 {
		// Asking for a bfloat16 accumulator selects XLA's native bfloat16 kernel (2 to 10 times faster); it sums in
		// float32 all the same, which TestLinearSumsInFloat32 holds it to.
		dot = dot.WithAccumulatorDType(dtypes.BFloat16)
	}
	return dot.General(lhsContract, lhsBatch, rhsContract, rhsBatch)
}

// Embed gathers the rows of an embedding table: tokens [...] int32, table stored as [Transposed] says ([vocab, hidden]
// or its transpose), result [..., hidden] float32.
func Embed(p Platform, tokens, table *Node) *Node {
	dims := append([]int{}, tokens.Shape().Dimensions...)
	n := tokens.Shape().Size()
	index := Reshape(tokens, n, 1)
	var rows *Node
	var hidden int
	if Transposed(p, table.DType()) {
		hidden = table.Shape().Dim(0)
		rows = GatherSlices(table, []int{1}, index, []int{1}, false) // [n, hidden, 1]
	} else {
		hidden = table.Shape().Dim(1)
		rows = Gather(table, index) // [n, hidden]
	}
	return F32(Reshape(rows, append(dims, hidden)...))
}
