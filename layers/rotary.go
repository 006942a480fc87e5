package layers

import . "github.com/gomlx/gomlx/core/graph"

// Rotary rotates each head of x by the angles of its position, pairing dimension i with i + head_dim/2 (Hugging Face's
// half-split layout; not the interleaved one).
//
// x [rows, tokens, heads, head_dim] float32; cos and sin [rows or 1, tokens, head_dim/2] float32, the tables of
// model.RopeTables at the tokens' positions. They are computed on the host, because a float32 cosine of a large angle is not
// the same on every backend.
func Rotary(x, cos, sin *Node) *Node {
	half := x.Shape().Dim(-1) / 2
	cos, sin = InsertAxes(cos, 2), InsertAxes(sin, 2) // [rows or 1, tokens, 1, head_dim/2]
	dims := x.Shape().Clone()
	dims.Dimensions[3] = half
	cos, sin = BroadcastToShape(cos, dims), BroadcastToShape(sin, dims)
	left := Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, half))
	right := Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(half))
	return Concatenate([]*Node{
		Sub(Mul(left, cos), Mul(right, sin)),
		Add(Mul(right, cos), Mul(left, sin)),
	}, -1)
}
