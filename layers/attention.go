package layers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// KeyDims returns the dimensions of a key cache. On XLA keys lie transposed, [rows, kv_heads, head_dim, slots], so that
// scores are a plain matrix product (1.4 to 1.9 times faster than the untransposed form); the Go backend can only write the cache in place when
// the slot axis comes before the head's: [rows, kv_heads, slots, head_dim].
func KeyDims(p Platform, rows, kvHeads, headDim, slots int) []int {
	if p == Go {
		return []int{rows, kvHeads, slots, headDim}
	}
	return []int{rows, kvHeads, headDim, slots}
}

// ValueDims returns the dimensions of a value cache, [rows, kv_heads, slots, head_dim].
func ValueDims(rows, kvHeads, headDim, slots int) []int {
	return []int{rows, kvHeads, slots, headDim}
}

// KeyLayout and ValueLayout bring keys and values [rows, tokens, kv_heads, head_dim] into the layout and dtype of a
// cache with one slot per token.
func KeyLayout(p Platform, k *Node, dtype dtypes.DType) *Node {
	if p == Go {
		return ConvertDType(TransposeAllAxes(k, 0, 2, 1, 3), dtype)
	}
	return ConvertDType(TransposeAllAxes(k, 0, 2, 3, 1), dtype)
}

// ValueLayout is the twin of [KeyLayout] for values.
func ValueLayout(v *Node, dtype dtypes.DType) *Node {
	return ConvertDType(TransposeAllAxes(v, 0, 2, 1, 3), dtype)
}

// WriteKV writes the keys and values of new tokens into the caches, row r from slot start[r] on, and returns the new
// caches.
//
// cacheK, cacheV as [KeyDims] and [ValueDims]; k, v [rows, tokens, kv_heads, head_dim] float32; start and count [rows] int32: only
// the first count[r] tokens of row r are real. start[r]+tokens must not exceed the slots. The padding behind count may leave
// anything in the slots it covers on XLA (it is never attended to and is written over by the row's next tokens) and leaves them as they were
// on the Go backend, whose only in-place write is a scattered addition: there, slots not yet written must be zero.
func WriteKV(p Platform, cacheK, cacheV, k, v, start, count *Node) (newK, newV *Node) {
	if p == Go {
		valid := LessThan(tokenIota(k), Reshape(count, -1, 1)) // [rows, tokens]
		return scatterKV(cacheK, k, start, valid), scatterKV(cacheV, v, start, valid)
	}
	k, v = KeyLayout(p, k, cacheK.DType()), ValueLayout(v, cacheV.DType())
	zero := Const(k.Graph(), int32(0))
	for r := range k.Shape().Dim(0) {
		row := Const(k.Graph(), int32(r))
		at := Reshape(Slice(start, AxisElem(r)))
		cacheK = DynamicUpdateSlice(cacheK, Slice(k, AxisRange(r, r+1)), []*Node{row, zero, zero, at})
		cacheV = DynamicUpdateSlice(cacheV, Slice(v, AxisRange(r, r+1)), []*Node{row, zero, at, zero})
	}
	return cacheK, cacheV
}

// tokenIota returns 0, 1, 2, … along the token axis of x [rows, tokens, …]: [rows, tokens] int32.
func tokenIota(x *Node) *Node {
	return Iota(x.Graph(), shapes.Make(dtypes.Int32, x.Shape().Dim(0), x.Shape().Dim(1)), 1)
}

// scatterKV adds the valid tokens of x [rows, tokens, heads, dim] to cache [rows, heads, slots, dim], whose slots are zero there.
func scatterKV(cache, x, start, valid *Node) *Node {
	g := x.Graph()
	rows, tokens, heads, dim := x.Shape().Dim(0), x.Shape().Dim(1), x.Shape().Dim(2), x.Shape().Dim(3)
	entries := shapes.Make(dtypes.Int32, rows, tokens, heads)
	slot := BroadcastToShape(InsertAxes(Add(tokenIota(x), Reshape(start, -1, 1)), -1), entries)
	// Padding may reach beyond the last slot; it adds zero, so any slot does.
	slot = MinScalar(slot, cache.Shape().Dim(2)-1)
	index := Stack([]*Node{Iota(g, entries, 0), Iota(g, entries, 2), slot}, -1) // [rows, tokens, heads, 3]
	mask := BroadcastToShape(InsertAxes(valid, -1, -1), x.Shape())
	x = ConvertDType(Reshape(Where(mask, x, ZerosLike(x)), rows*tokens*heads, dim), cache.DType())
	index = Reshape(index, rows*tokens*heads, 3)
	if cache.DType() == dtypes.Float16 { // the Go backend does not scatter float16; this copies the cache
		return ConvertDType(ScatterSum(F32(cache), index, F32(x), false, false), dtypes.Float16)
	}
	return ScatterSum(cache, index, x, false, false)
}

// Attend is causal grouped-query attention; query head h reads key/value head h/(heads/kv_heads), and K and V are never
// repeated.
//
// q [rows, tokens, heads, head_dim] float32; k, v in cache layout with any number of slots; position [rows or 1, tokens] int32: a token
// sees the slots up to and including its own position. Result [rows, tokens, heads, head_dim] float32. Scores and softmax are
// float32; with a half-precision cache, queries and probabilities are rounded to its dtype for the two products.
func Attend(p Platform, q, k, v, position *Node) *Node {
	rows, tokens, heads, dim := q.Shape().Dim(0), q.Shape().Dim(1), q.Shape().Dim(2), q.Shape().Dim(3)
	kvHeads, slots := v.Shape().Dim(1), v.Shape().Dim(2)
	group := heads / kvHeads

	q = MulScalar(q, 1/math.Sqrt(float64(dim)))
	q = TransposeAllAxes(Reshape(q, rows, tokens, kvHeads, group, dim), 0, 2, 3, 1, 4)
	q = Reshape(q, rows, kvHeads, group*tokens, dim)
	keyAxis := 2
	if p == Go {
		keyAxis = 3
	}
	scores := batchedDot(p, q, k, keyAxis) // [rows, kvHeads, group*tokens, slots]

	slot := Iota(q.Graph(), shapes.Make(dtypes.Int32, 1, 1, slots), 2)
	positions := InsertAxes(position, -1) // [rows or 1, tokens, 1]
	seen := shapes.Make(dtypes.Int32, position.Shape().Dim(0), tokens, slots)
	mask := LessOrEqual(BroadcastToShape(slot, seen), BroadcastToShape(positions, seen))
	mask = BroadcastToDims(InsertAxes(mask, 1, 1), rows, kvHeads, group, tokens, slots)
	scores = Reshape(scores, rows, kvHeads, group, tokens, slots)
	scores = Where(mask, scores, BroadcastToShape(Const(q.Graph(), float32(math.Inf(-1))), scores.Shape()))
	// Slot 0 is seen by every token, so no row of scores is all -Inf.
	weights := Exp(Sub(scores, StopGradient(ReduceAndKeep(scores, ReduceMax, -1))))
	total := ReduceAndKeep(weights, ReduceSum, -1)
	weights = Reshape(weights, rows, kvHeads, group*tokens, slots)
	sum := batchedDot(p, weights, v, 2)                             // [rows, kvHeads, group*tokens, dim]
	out := Div(sum, Reshape(total, rows, kvHeads, group*tokens, 1)) // dividing last: see RMSNorm
	out = TransposeAllAxes(Reshape(out, rows, kvHeads, group, tokens, dim), 0, 3, 1, 2, 4)
	return Reshape(out, rows, tokens, heads, dim)
}

// batchedDot contracts the last axis of x [rows, kv_heads, n, c] float32 with one axis of a cache tensor, into float32.
func batchedDot(p Platform, x, cache *Node, axis int) *Node {
	batch := []int{0, 1}
	if cache.DType() == dtypes.Float32 {
		return Dot(x, cache).General([]int{3}, batch, []int{axis}, batch)
	}
	return halfDot(p, ConvertDType(x, cache.DType()), cache, []int{3}, batch, []int{axis}, batch)
}
