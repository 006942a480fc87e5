package steering

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// ReadoutSize is the number of values that Edit.Readout has for each slot and row: tokens moved, tokens capped, sum of |delta|.
const ReadoutSize = 3

// Edit is what Apply did, token by token. Each is [S, rows, tokens].
type Edit struct {
	Rho    *Node // float32: the projection that the slot saw, edits of earlier slots included
	Delta  *Node // float32: how far the token was moved along the direction; 0 where it was not
	Moved  *Node // bool
	Capped *Node // bool: moved, and held at the cap
}

// Readout adds up over the tokens, [S, rows, 3] float32: tokens moved, tokens capped, sum of |delta|. Plan.Collect reads it.
func (e Edit) Readout() *Node {
	count := func(x *Node) *Node { return ReduceSum(ConvertDType(x, dtypes.Float32), -1) }
	return Stack([]*Node{count(e.Moved), count(e.Capped), ReduceSum(Abs(e.Delta), -1)}, -1)
}

// Apply steers the output of one block and returns what goes on, and what was done.
//
//	h          [rows, tokens, hidden] float32
//	directions [P, hidden] float32, site [S, rows] int32, gate [S, rows, 4] float32: see the package comment
//	mask       [S, rows, tokens] bool: the tokens at which each slot may act
//
// Slots act in order. A token that is not moved keeps its bits, and so does one whose delta is exactly 0 or not finite (the hidden
// state was not finite before): h + 0·v̂ would turn −0 into 0. The gradient flows through h, directions and gate; the choice of
// tokens is piecewise constant, so it has none.
func Apply(h, directions, site, gate, mask *Node) (steered *Node, edit Edit) {
	slots := site.Shape().Dim(0)
	var rho, delta, moved, capped []*Node
	for s := range slots {
		at := func(x *Node) *Node { return Squeeze(Slice(x, AxisRange(s, s+1)), 0) }
		var e Edit
		h, e = applySlot(h, directions, at(site), at(gate), at(mask))
		rho, delta = append(rho, e.Rho), append(delta, e.Delta)
		moved, capped = append(moved, e.Moved), append(capped, e.Capped)
	}
	return h, Edit{Stack(rho, 0), Stack(delta, 0), Stack(moved, 0), Stack(capped, 0)}
}

// applySlot is Apply for site [rows], gate [rows, 4], mask [rows, tokens]; its Edit is [rows, tokens].
func applySlot(h, directions, site, gate, mask *Node) (steered *Node, edit Edit) {
	v := InsertAxes(Gather(directions, InsertAxes(site, -1)), 1) // [rows, 1, hidden]
	column := func(i int) *Node { return Slice(gate, AxisRange(), AxisRange(i, i+1)) }
	theta, a, b, limit := column(0), column(1), column(2), column(3) // [rows, 1]

	// A product and a sum, not a matrix product, which a GPU might compute in TF32.
	rho := ReduceSum(Mul(h, v), -1)                    // [rows, tokens]
	free, room := Add(a, Mul(b, rho)), Sub(limit, rho) // the step, and the largest there may be
	delta := Min(free, room)

	moved := LogicalAnd(LogicalAnd(mask, LessThan(rho, theta)), LogicalAnd(IsFinite(delta), NotEqual(delta, ZerosLike(delta))))
	moved = LogicalAnd(moved, BroadcastToShape(InsertAxes(GreaterThan(site, ZerosLike(site)), -1), moved.Shape())) // [rows, tokens]
	delta = Where(moved, delta, ZerosLike(delta))
	steered = Where(moved, Add(h, Mul(InsertAxes(delta, -1), v)), h)
	return steered, Edit{rho, delta, moved, LogicalAnd(moved, LessThan(room, free))}
}
