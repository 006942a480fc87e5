package steering

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// ReadoutSize is the number of values that Apply returns for each slot and row: tokens moved, tokens capped, sum of |delta|.
const ReadoutSize = 3

// Apply steers the output of one block and returns what goes on, and what was done as [S, rows, 3] float32.
//
//	h          [rows, tokens, hidden] float32
//	directions [P, hidden] float32, site [S, rows] int32, gate [S, rows, 4] float32: see the package comment
//	mask       [S, rows, tokens] bool: the tokens at which each slot may act
//
// Slots act in order. A token that is not moved keeps its bits, and so does one whose delta is exactly 0 or not finite (the hidden
// state was not finite before): h + 0·v̂ would turn −0 into 0. The gradient flows through h, directions and gate; the choice of
// tokens is piecewise constant, so it has none.
func Apply(h, directions, site, gate, mask *Node) (steered, readout *Node) {
	slots, rows := site.Shape().Dim(0), site.Shape().Dim(1)
	done := make([]*Node, slots)
	for s := range slots {
		at := func(x *Node) *Node { return Squeeze(Slice(x, AxisRange(s, s+1)), 0) }
		h, done[s] = applySlot(h, directions, at(site), at(gate), at(mask))
	}
	return h, Reshape(Concatenate(done, 0), slots, rows, ReadoutSize)
}

// applySlot is Apply for site [rows], gate [rows, 4], mask [rows, tokens]; it returns [rows, 3].
func applySlot(h, directions, site, gate, mask *Node) (steered, readout *Node) {
	v := InsertAxes(Gather(directions, InsertAxes(site, -1)), 1) // [rows, 1, hidden]
	column := func(i int) *Node { return Slice(gate, AxisRange(), AxisRange(i, i+1)) }
	theta, a, b, limit := column(0), column(1), column(2), column(3) // [rows, 1]

	// A product and a sum, not a matrix product, which a GPU might compute in TF32.
	rho := ReduceSum(Mul(h, v), -1)                    // [rows, tokens]
	free, room := Add(a, Mul(b, rho)), Sub(limit, rho) // the step, and the largest there may be
	delta := Min(free, room)

	moved := LogicalAnd(LogicalAnd(mask, LessThan(rho, theta)), LogicalAnd(IsFinite(delta), NotEqual(delta, ZerosLike(delta))))
	moved = LogicalAnd(moved, BroadcastToShape(InsertAxes(GreaterThan(site, ZerosLike(site)), -1), moved.Shape())) // [rows, tokens]
	capped := LogicalAnd(moved, LessThan(room, free))
	delta = Where(moved, delta, ZerosLike(delta))
	steered = Where(moved, Add(h, Mul(InsertAxes(delta, -1), v)), h)

	count := func(x *Node) *Node { return ReduceSum(ConvertDType(x, dtypes.Float32), -1) }
	return steered, Stack([]*Node{count(moved), count(capped), ReduceSum(Abs(delta), -1)}, -1)
}
