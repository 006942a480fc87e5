package layers

import . "github.com/gomlx/gomlx/core/graph"

// ZeroPadding zeroes the tokens of x [rows, tokens, heads, dim] that are only padding: those from count[row] on.
func ZeroPadding(x, count *Node) *Node {
	valid := LessThan(tokenIota(x), Reshape(count, -1, 1)) // [rows, tokens]
	return Where(BroadcastToShape(InsertAxes(valid, -1, -1), x.Shape()), x, ZerosLike(x))
}
