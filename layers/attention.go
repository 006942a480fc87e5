package layers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// KeyDims returns the dimensions of a key cache. On XLA keys lie transposed, [rows*kv_heads, head_dim, slots], so that
// scores are a plain matrix product (1.4 to 1.9 times faster than the untransposed form); the Go backend can only write
// the cache in place when the slot axis comes before the head's: [rows*kv_heads, slots, head_dim].
//
// Rows and heads are one axis because XLA's CPU compiler copies a cache with a row axis of size one at each write.
func KeyDims(p Platform, rows, kvHeads, headDim, slots int) []int {
	if p == Go {
		return []int{rows * kvHeads, slots, headDim}
	}
	return []int{rows * kvHeads, headDim, slots}
}

// ValueDims returns the dimensions of a value cache, [rows*kv_heads, slots, head_dim].
func ValueDims(rows, kvHeads, headDim, slots int) []int {
	return []int{rows * kvHeads, slots, headDim}
}

// KeyLayout and ValueLayout bring keys and values [rows, tokens, kv_heads, head_dim] into the layout and dtype of a
// cache with one slot per token.
func KeyLayout(p Platform, k *Node, dtype dtypes.DType) *Node {
	if p == Go {
		return ValueLayout(k, dtype)
	}
	rows, tokens, heads, dim := dims4(k)
	return ConvertDType(Reshape(TransposeAllAxes(k, 0, 2, 3, 1), rows*heads, dim, tokens), dtype)
}

// ValueLayout is the twin of [KeyLayout] for values.
func ValueLayout(v *Node, dtype dtypes.DType) *Node {
	rows, tokens, heads, dim := dims4(v)
	return ConvertDType(Reshape(TransposeAllAxes(v, 0, 2, 1, 3), rows*heads, tokens, dim), dtype)
}

// WriteKV writes the keys and values of new tokens into the caches, row r from slot start[r] on, and returns the new
// caches.
//
// cacheK, cacheV as [KeyDims] and [ValueDims]; k, v [rows, tokens, kv_heads, head_dim] float32; start and count [rows]
// int32: only the first count[r] tokens of row r are real. start[r]+tokens must not exceed the slots. The padding
// behind count may leave anything in the slots it covers on XLA (it is never attended to and is written over by the
// row's next tokens) and leaves them as they were on the Go backend, whose only in-place write is a scattered addition:
// there, slots not yet written must be zero.
func WriteKV(p Platform, cacheK, cacheV, k, v, start, count *Node) (newK, newV *Node) {
	if p == Go {
		valid := LessThan(tokenIota(k), Reshape(count, -1, 1)) // [rows, tokens]
		return scatterKV(cacheK, k, start, valid), scatterKV(cacheV, v, start, valid)
	}
	tokens, heads := k.Shape().Dim(1), k.Shape().Dim(2)
	write := updateSlots
	if p == XLACPU && cacheK.DType() != dtypes.Float32 {
		// Updating a slice of a bfloat16 array makes XLA's CPU compiler widen all of it and back, in each layer;
		// selecting does not (for 16 rows of 512 slots a hundred times faster).
		write = selectSlots
	}
	newK = write(cacheK, KeyLayout(p, k, dtypes.Float32), start, tokens, heads, 2)
	newV = write(cacheV, ValueLayout(v, dtypes.Float32), start, tokens, heads, 1)
	return newK, newV
}

// updateSlots writes x, in the cache's layout with one slot per token, to the slots of axis slotAxis that follow
// start[row].
func updateSlots(cache, x, start *Node, _, heads, slotAxis int) *Node {
	x = ConvertDType(x, cache.DType())
	zero := Const(x.Graph(), int32(0))
	for r := range start.Shape().Dim(0) {
		at := []*Node{Const(x.Graph(), int32(r*heads)), zero, zero}
		at[slotAxis] = Reshape(Slice(start, AxisElem(r)))
		cache = DynamicUpdateSlice(cache, Slice(x, AxisRange(r*heads, (r+1)*heads)), at)
	}
	return cache
}

// selectSlots does the same with a choice between old and new for each element of the cache.
func selectSlots(cache, x, start *Node, tokens, heads, slotAxis int) *Node {
	g, dims, rows := x.Graph(), cache.Shape().Dimensions, start.Shape().Dim(0)
	if tokens > 1 { // each token at its slot, in float32
		x = updateSlots(Zeros(g, shapes.Make(dtypes.Float32, dims...)), x, start, tokens, heads, slotAxis)
	}
	byRow := shapes.Make(dtypes.Int32, rows, heads, dims[1], dims[2])
	slot := Iota(g, byRow, slotAxis+1)
	first := BroadcastToShape(Reshape(start, rows, 1, 1, 1), byRow)
	written := And(GreaterOrEqual(slot, first), LessThan(slot, AddScalar(first, tokens)))
	return Where(Reshape(written, dims...), BroadcastToDims(ConvertDType(x, cache.DType()), dims...), cache)
}

// tokenIota returns 0, 1, 2, … along the token axis of x [rows, tokens, …]: [rows, tokens] int32.
func tokenIota(x *Node) *Node {
	return Iota(x.Graph(), shapes.Make(dtypes.Int32, x.Shape().Dim(0), x.Shape().Dim(1)), 1)
}

func dims4(x *Node) (rows, tokens, heads, dim int) {
	x.AssertRank(4)
	d := x.Shape().Dimensions
	return d[0], d[1], d[2], d[3]
}

// scatterKV adds the valid tokens of x [rows, tokens, heads, dim] to cache [rows*heads, slots, dim], whose slots are
// zero there.
func scatterKV(cache, x, start, valid *Node) *Node {
	g := x.Graph()
	rows, tokens, heads, dim := dims4(x)
	entries := shapes.Make(dtypes.Int32, rows, tokens, heads)
	slot := BroadcastToShape(InsertAxes(Add(tokenIota(x), Reshape(start, -1, 1)), -1), entries)
	// Padding may reach beyond the last slot; it adds zero, so any slot does.
	slot = MinScalar(slot, cache.Shape().Dim(1)-1)
	head := Add(MulScalar(Iota(g, entries, 0), heads), Iota(g, entries, 2))
	index := Reshape(Stack([]*Node{head, slot}, -1), rows*tokens*heads, 2)
	mask := BroadcastToShape(InsertAxes(valid, -1, -1), x.Shape())
	x = ConvertDType(Reshape(Where(mask, x, ZerosLike(x)), rows*tokens*heads, dim), cache.DType())
	if cache.DType() == dtypes.Float16 { // the Go backend does not scatter float16; this copies the cache
		return ConvertDType(ScatterSum(F32(cache), index, F32(x), false, false), dtypes.Float16)
	}
	return ScatterSum(cache, index, x, false, false)
}

// Attend is causal grouped-query attention; query head h reads key/value head h/(heads/kv_heads), and K and V are never
// repeated.
//
// q [rows, tokens, heads, head_dim] float32; k, v in cache layout with any number of slots; position [rows or 1,
// tokens] int32: a token sees the slots up to and including its own position. Result [rows, tokens, heads*head_dim]
// float32. Scores and softmax are float32; with a half-precision cache, queries and probabilities are rounded to its
// dtype for the two products.
func Attend(p Platform, q, k, v, position *Node) *Node {
	rows, tokens, heads, dim := dims4(q)
	keyAxis := 1
	if p == Go {
		keyAxis = 2
	}
	slots := v.Shape().Dim(1)
	seen := shapes.Make(dtypes.Int32, position.Shape().Dim(0), tokens, slots)
	mask := LessOrEqual(Iota(q.Graph(), seen, 2), BroadcastToShape(InsertAxes(position, -1), seen))
	out := attend(p, groupHeads(q, v.Shape().Dim(0)/rows), k, v, keyAxis, mask) // [rows*kv_heads, group, tokens, dim]
	if tokens == 1 {
		return mergeHeads(p, Reshape(out, rows, heads, dim))
	}
	return joinHeads(out, rows)
}

// queryBlock is how many queries of a prompt are attended together: of 64, 128, 256 and all, 256 was fastest for a
// prompt of 512 tokens on XLA's CPU compiler, 1.6 times faster than all at once.
const queryBlock = 256

// AttendPrompt is [Attend] for rows that begin with these tokens and see only each other: q [rows, tokens, heads,
// head_dim], k and v [rows, tokens, kv_heads, head_dim], float32, rounded to dtype as a cache would. It goes in blocks
// of queries, each against the keys up to its own end, which saves up to half of the work.
func AttendPrompt(p Platform, q, k, v *Node, dtype dtypes.DType) *Node {
	rows, tokens, kvHeads, _ := dims4(k)
	k, v = ValueLayout(k, dtype), ValueLayout(v, dtype) // [rows*kv_heads, tokens, dim]: keys need no transposing here
	q = groupHeads(q, kvHeads)
	var blocks []*Node
	for at := 0; at < tokens; at += queryBlock {
		end := min(at+queryBlock, tokens)
		square := shapes.Make(dtypes.Int32, 1, end-at, end)
		mask := LessOrEqual(Iota(q.Graph(), square, 2), AddScalar(Iota(q.Graph(), square, 1), at))
		upTo := func(x *Node) *Node { return SliceAxis(x, 1, AxisRange(0, end)) }
		blocks = append(blocks, joinHeads(attend(p, SliceAxis(q, 2, AxisRange(at, end)), upTo(k), upTo(v), 2, mask), rows))
	}
	if len(blocks) == 1 {
		return blocks[0]
	}
	return Concatenate(blocks, 1)
}

// groupHeads scales queries [rows, tokens, heads, dim] and sorts them by key/value head: [rows*kv_heads, group, tokens,
// dim].
func groupHeads(q *Node, kvHeads int) *Node {
	rows, tokens, heads, dim := dims4(q)
	group := heads / kvHeads
	q = MulScalar(q, 1/math.Sqrt(float64(dim)))
	q = TransposeAllAxes(Reshape(q, rows, tokens, kvHeads, group, dim), 0, 2, 3, 1, 4)
	return Reshape(q, rows*kvHeads, group, tokens, dim)
}

// joinHeads undoes groupHeads but for the scale: [rows*kv_heads, group, tokens, dim] to [rows, tokens, heads*dim].
func joinHeads(x *Node, rows int) *Node {
	kvHeads, group, tokens, dim := dims4(x)
	kvHeads /= rows
	x = TransposeAllAxes(Reshape(x, rows, kvHeads*group, tokens, dim), 0, 2, 1, 3)
	return Reshape(x, rows, tokens, kvHeads*group*dim)
}

// mergeHeads reshapes [rows, heads, dim] to [rows, 1, heads*dim], as input of the output projection.
func mergeHeads(p Platform, x *Node) *Node {
	rows, heads, dim := x.Shape().Dim(0), x.Shape().Dim(1), x.Shape().Dim(2)
	if p != XLACPU || rows > widenRows || heads%2 != 0 {
		return Reshape(x, rows, 1, heads*dim)
	}
	// XLA's CPU compiler folds a plain reshape into the bfloat16 product with few rows that follows, which then runs at
	// half its speed. It does not fold a concatenation.
	half := func(heads SliceAxisSpec) *Node { return Reshape(SliceAxis(x, 1, heads), rows, 1, -1) }
	return Concatenate([]*Node{half(AxisRange(0, heads/2)), half(AxisRange(heads / 2))}, 2)
}

// attend is attention for each key/value head: q [n, group, tokens, dim], scaled; k with its head dimension on axis
// keyAxis; v [n, slots, dim]; mask [rows or 1, tokens, slots]; result [n, group, tokens, dim].
func attend(p Platform, q, k, v *Node, keyAxis int, mask *Node) *Node {
	n, group, tokens, dim := dims4(q)
	slots, rows := v.Shape().Dim(1), mask.Shape().Dim(0)
	scores := Reshape(batchedDot(p, Reshape(q, n, group*tokens, dim), k, keyAxis), n, group, tokens, slots)
	mask = Reshape(BroadcastToDims(InsertAxes(mask, 1, 1), rows, n/rows, group, tokens, slots), n, group, tokens, slots)
	scores = Where(mask, scores, BroadcastToShape(Const(q.Graph(), float32(math.Inf(-1))), scores.Shape()))
	// Slot 0 is seen by every token, so no row of scores is all -Inf.
	weights := Exp(Sub(scores, StopGradient(ReduceAndKeep(scores, ReduceMax, -1))))
	sum := Reshape(batchedDot(p, Reshape(weights, n, group*tokens, slots), v, 1), n, group, tokens, dim)
	return Div(sum, ReduceAndKeep(weights, ReduceSum, -1)) // dividing last: see RMSNorm
}

// batchedDot contracts the last axis of x [n, m, c] float32 with one axis of a cache tensor [n, …], into float32.
func batchedDot(p Platform, x, cache *Node, axis int) *Node {
	batch := []int{0}
	if cache.DType() == dtypes.Float32 {
		return Dot(x, cache).General([]int{2}, batch, []int{axis}, batch)
	}
	return halfDot(p, ConvertDType(x, cache.DType()), cache, []int{2}, batch, []int{axis}, batch)
}
