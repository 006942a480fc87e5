package layers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Sampling is a pure function of (logits, parameters, u): no generator on the device, no sort, and the same token from
// the same three inputs whatever else is in the batch, on every backend and in [SampleHost]. Floating-point sums cannot
// promise that, because each compiler adds in its own order. So probability is held as integer mass, whose sum has no
// order:
//
//	mass(i) = floor(2^40 · exp((logit_i - max)/temperature))
//
// by an exponential in integer arithmetic (relative error below 1e-8 plus that of the float32 argument). The most likely
// token has mass 2^40; a token less likely than it by more than 2^40 has none and is never drawn.
//
// Logits are compared by keys: the int32 with the order of the float32, where -0 equals +0 and NaN lies below -Inf.
// With keys a threshold is exact, found digit by digit instead of by sorting.
const (
	massBits  = 40                     // mass of the most likely token = 1 << massBits
	log2Bits  = 24                     // fraction bits of the fixed-point log2 of a probability
	polyBits  = 30                     // fraction bits of exp2Poly
	ratioBits = 30                     // fraction bits of top_p and min_p
	uBits     = 24                     // bits of u that are used, all that a float32 in [0,1) is sure to have
	maxVocab  = 1 << (62 - massBits)   // so that the sum of all mass stays below 2^62
	log2Floor = -massBits << log2Bits  // below this, no mass
	log2Scale = math.Log2E * (1 << 24) // exp(x) = 2^(x·log2Scale / 2^log2Bits)
	nanKey    = math.MinInt32          // key of any NaN
	negInfKey = -0x7f800000            // key of -Inf
	fanOut    = 64                     // children of a node of the tree of sums in which u is looked up
)

// exp2Poly are the coefficients c_k·2^polyBits of 2^f on [0,1): minimax of degree 6 with both ends exact. In the integer
// arithmetic of exp2 the relative error is at most 4.1e-9 and the result strictly increasing (tested over all 2^24 f).
var exp2Poly = [7]int64{1073741824, 744260959, 257944476, 59575655, 10391742, 1335829, 233163}

// Greedy returns for each row of logits [rows, vocab] the id of the largest, int32 [rows]. On a tie the lowest id wins.
// NaN counts as less than -Inf: it is never chosen unless the whole row is NaN, which gives id 0. (A NaN is a broken model
// or a broken kernel; it shows as a NaN from [LogProb], which is where a caller should look for it.)
func Greedy(logits *Node) *Node {
	return argMax(sampleKeys(logits))
}

// SampleTemperature draws one token per row by inverse CDF, in order of id, from softmax(logits / temperature).
//
//	logits [rows, vocab] float; params [rows, ≥1] float32, see [Params.Row]; u [rows] float32 in [0,1)
//	result [rows] int32
//
// The token is the lowest id whose cumulative mass exceeds floor(u·total), u being cut to 24 bits (and clamped into [0,1)):
// it always has non-zero probability. A row whose temperature is not above 0, or whose logits are all -Inf or NaN, gets
// what [Greedy] gives. The other columns of params are not read: it is for batches in which no row filters.
func SampleTemperature(logits, params, u *Node) *Node {
	s := newSampler(logits, params, u)
	return s.draw(s.mass)
}

// SampleFiltered is [SampleTemperature] after the filters top_k, top_p and min_p, in this order, as Hugging Face
// transformers applies them (GenerationMixin._get_logits_processor); vLLM applies min_p before top_k and top_p, which
// differs only where top_p and min_p are both in use. Params is [rows, ≥4], see [Params.Row].
//
//	top_k  keeps every token whose logit is at least the k-th largest (ties may make it more than k); off if < 1
//	top_p  keeps a token iff the tokens strictly more likely than it, among those left by top_k, hold less than top_p of
//	       what top_k left: the smallest set that holds top_p, with all ties of its last member; off unless in (0,1)
//	min_p  keeps a token iff its probability is at least min_p times that of the most likely; off if ≤ 0
//
// Transformers breaks the ties of top_p by the order of an unstable sort; that is the one difference from it. The most
// likely token passes every filter.
func SampleFiltered(logits, params, u *Node) *Node {
	s := newSampler(logits, params, u)
	if n := params.Shape().Dimensions[1]; n < 4 {
		exceptions.Panicf("sampling with filters needs 4 parameters per row (temperature, top_k, top_p, min_p), params is %s",
			params.Shape())
	}
	g, vocab := logits.Graph(), logits.Shape().Dimensions[1]
	none := Const(g, int64(0))

	// top_k. The count that reaches k also where k is off: the whole row.
	topK := column(params, 1)
	topK = Where(inRange(topK, 1, float64(vocab)), topK, Const(g, float32(vocab)))
	cut := threshold(s.keys, nil, ConvertDType(topK, dtypes.Int32))
	mass := Where(GreaterOrEqual(s.keys, cut), s.mass, none)

	// top_p. limit = ceil(top_p · total) ≥ 1, in two halves since the product needs more than 64 bits.
	topP := column(params, 2)
	on := And(GreaterThan(topP, Const(g, float32(0))), LessThan(topP, Const(g, float32(1))))
	topP = Where(on, ratio(topP), Const(g, int64(1<<ratioBits)))
	total := sumTree(mass).total()
	limit := Add(
		Mul(shiftRight(total, ratioBits), topP),
		shiftRight(Add(Mul(lowBits(total, ratioBits), topP), Const(g, int64(1)<<ratioBits-1)), ratioBits))
	cut = threshold(s.keys, mass, Max(limit, Const(g, int64(1))))
	mass = Where(GreaterOrEqual(s.keys, cut), mass, none)

	// min_p, on the scale where the most likely token has 2^massBits.
	minP := Mul(ratio(column(params, 3)), Const(g, int64(1<<(massBits-ratioBits))))
	mass = Where(GreaterOrEqual(mass, minP), mass, none)
	return s.draw(mass)
}

// LogProb returns the log-probability of one token per row, float32 [rows], under the unfiltered distribution at
// temperature 1, as OpenAI's API and vLLM report it: logits [rows, vocab], ids [rows] int32. It is NaN where the row holds a
// NaN or +Inf or nothing but -Inf, and -Inf for an id outside of the vocabulary.
func LogProb(logits, ids *Node) *Node {
	checkLogits(logits)
	logits = ConvertDType(logits, dtypes.Float32)
	rows, vocab := logits.Shape().Dimensions[0], logits.Shape().Dimensions[1]
	if ids.Rank() != 1 || ids.Shape().Dimensions[0] != rows {
		exceptions.Panicf("LogProb: ids is %s for logits %s, want [%d]", ids.Shape(), logits.Shape(), rows)
	}
	g := logits.Graph()
	negInf := Const(g, float32(math.Inf(-1)))
	here := Equal(Iota(g, shapes.Make(dtypes.Int32, rows, vocab), 1), InsertAxes(ConvertDType(ids, dtypes.Int32), -1))
	chosen := ReduceMax(Where(here, logits, negInf), 1) // [rows]; reduces without a Gather, so that it fuses

	top := StopGradient(ReduceAndKeep(logits, ReduceMax, 1)) // [rows, 1]
	sum := Exp(Sub(logits, top))
	for sum.Shape().Dimensions[1] > 1 { // by blocks: one run of additions over the vocabulary loses 1e-5
		sum = ReduceSum(blocks(sum), -1)
	}
	return Sub(Sub(chosen, Squeeze(top, 1)), Log(Squeeze(sum, 1)))
}

// sampler holds what every form of sampling derives from its inputs.
type sampler struct {
	keys   *Node // [rows, vocab] int32, ordered as the logits
	mass   *Node // [rows, vocab] int64, before any filter
	u      *Node // [rows, 1] int64 in [0, 2^uBits)
	greedy *Node // [rows] int32, the most likely id
	draws  *Node // [rows] bool: false where greedy is the answer
}

func newSampler(logits, params, u *Node) *sampler {
	checkLogits(logits)
	g, rows, vocab := logits.Graph(), logits.Shape().Dimensions[0], logits.Shape().Dimensions[1]
	if params.Rank() != 2 || params.Shape().Dimensions[0] != rows || params.DType() != dtypes.Float32 {
		exceptions.Panicf("sampling: params is %s for logits %s, want float32 [%d, 4]", params.Shape(), logits.Shape(), rows)
	}
	if u.Rank() != 1 || u.Shape().Dimensions[0] != rows || u.DType() != dtypes.Float32 {
		exceptions.Panicf("sampling: u is %s for logits %s, want float32 [%d]", u.Shape(), logits.Shape(), rows)
	}
	if vocab > maxVocab {
		exceptions.Panicf("sampling: vocabulary of %d, at most %d is possible", vocab, maxVocab)
	}
	logits = ConvertDType(logits, dtypes.Float32)
	keys := sampleKeys(logits)
	top := ReduceAndKeep(keys, ReduceMax, 1) // [rows, 1] int32
	temperature := column(params, 0)         // [rows, 1]
	drawn := And(GreaterThan(temperature, Const(g, float32(0))), GreaterThan(top, Const(g, int32(negInfKey))))
	temperature = Where(drawn, temperature, Const(g, float32(1)))

	// log2 of the probability relative to the most likely token, fixed point. The test on y fails for NaN, as it should.
	y := Mul(Sub(logits, keyValue(top)), Div(Const(g, float32(log2Scale)), temperature)) // [rows, vocab] float32
	y = Where(Equal(keys, top), Const(g, float32(0)), y)                                 // also where 0·Inf or Inf-Inf is NaN
	floor := Const(g, float32(log2Floor))
	some := GreaterOrEqual(y, floor)
	mass := exp2(ConvertDType(Where(some, y, floor), dtypes.Int32))

	return &sampler{
		keys:   keys,
		mass:   Where(some, mass, Const(g, int64(0))),
		u:      fixedPoint(InsertAxes(u, -1), uBits, 1<<uBits-1),
		greedy: argMax(keys),
		draws:  Squeeze(drawn, 1),
	}
}

// draw returns the token at u of each row of mass [rows, vocab] int64: int32 [rows].
func (s *sampler) draw(mass *Node) *Node {
	tree := sumTree(mass)
	total := tree.total() // [rows, 1]; at least 2^massBits, since the most likely token passes every filter
	// floor(u·total / 2^uBits), in two halves since the product needs more than 64 bits; below total for any u.
	target := Add(Mul(shiftRight(total, uBits), s.u), shiftRight(Mul(lowBits(total, uBits), s.u), uBits))
	return Where(s.draws, tree.find(target), s.greedy)
}

// massTree holds mass at level 0 and at each further level the sums of fanOut neighbours of the one before; the last
// level has at most fanOut entries. Each level is [rows, entries] int64, padded with zeros to whole blocks but for the last.
type massTree []*Node

func sumTree(mass *Node) massTree {
	var tree massTree
	for mass.Shape().Dimensions[1] > fanOut {
		level := blocks(mass) // [rows, n, fanOut]
		tree = append(tree, level)
		mass = ReduceSum(level, -1) // [rows, n]
	}
	return append(tree, mass)
}

// total returns the sum of all mass, [rows, 1].
func (t massTree) total() *Node {
	return ReduceAndKeep(t[len(t)-1], ReduceSum, 1)
}

// find returns the lowest id whose cumulative mass exceeds target [rows, 1], int32 [rows]. Target must be below the total.
func (t massTree) find(target *Node) *Node {
	g, rows := target.Graph(), target.Shape().Dimensions[0]
	row := Iota(g, shapes.Make(dtypes.Int32, rows, 1), 0)
	id := Const(g, int32(0))
	for l := len(t) - 1; l >= 0; l-- {
		level := t[l] // the root is [rows, n], all else [rows, n, fanOut]
		if level.Rank() == 3 {
			n := level.Shape().Dimensions[1]
			level = Reshape(level, rows*n, fanOut)
			level = Gather(level, Add(Mul(row, Const(g, int32(n))), id)) // [rows, fanOut]
		}
		var child *Node
		child, target = findIn(level, target)
		id = Add(Mul(id, Const(g, int32(fanOut))), child)
	}
	return Squeeze(id, 1)
}

// findIn returns the lowest index of mass [rows, n], n small, whose cumulative mass exceeds target [rows, 1], as int32
// [rows, 1], and what of target lies beyond the mass before that index.
func findIn(mass, target *Node) (index, rest *Node) {
	g, rows, n := mass.Graph(), mass.Shape().Dimensions[0], mass.Shape().Dimensions[1]
	none := Const(g, int64(0))
	// n is at most fanOut: n² additions, all at once, beat a scan of n steps, and no backend lacks the ops.
	upTo := LowerTriangular(g, n) // [n, n] bool: column ≤ row
	terms := Where(BroadcastPrefix(upTo, rows), BroadcastToDims(InsertAxes(mass, 1), rows, n, n), none)
	cumulative := ReduceSum(terms, -1)                                         // [rows, n]
	passed := LessOrEqual(cumulative, target)                                  // true for the indices before the one
	index = ReduceAndKeep(ConvertDType(passed, dtypes.Int32), ReduceSum, 1)    // [rows, 1]
	rest = Sub(target, ReduceAndKeep(Where(passed, mass, none), ReduceSum, 1)) // [rows, 1]
	return index, rest
}

// threshold returns the largest key such that the tokens whose key is at least that weigh at least limit: int32 [rows, 1].
//
//	keys [rows, vocab] int32; weights [rows, vocab] int64 ≥ 0, nil for one each; limit [rows, 1] int64, or int32 for nil
//
// A token is then kept iff the tokens with a larger key weigh less than limit. Bisection, exact after 32 steps since a key
// has 32 bits; unrolled, because GoMLX has no nested closures and a step may run inside a loop. On XLA's CPU compiler two
// or four bits per pass (3 or 15 candidates at once) compile in half the time but run slower; a GPU may favour them.
func threshold(keys, weights, limit *Node) *Node {
	g := keys.Graph()
	if weights == nil {
		weights = Const(g, int32(1))
	}
	zero := zeroOf(weights)
	weights = BroadcastToDims(weights, keys.Shape().Dimensions...)
	cut := BroadcastToDims(Const(g, int32(math.MinInt32)), keys.Shape().Dimensions[0], 1)
	for bit := 31; bit >= 0; bit-- {
		higher := Add(cut, Const(g, int32(uint32(1)<<bit))) // the first step wraps to 0, as two's complement should
		weight := ReduceAndKeep(Where(GreaterOrEqual(keys, higher), weights, zero), ReduceSum, 1)
		cut = Where(GreaterOrEqual(weight, limit), higher, cut)
	}
	return cut
}

// sampleKeys returns the int32 keys of logits [rows, vocab].
func sampleKeys(logits *Node) *Node {
	checkLogits(logits)
	g := logits.Graph()
	bits := Bitcast(ConvertDType(logits, dtypes.Float32), dtypes.Int32)
	magnitude := BitwiseAnd(bits, Const(g, int32(math.MaxInt32)))
	keys := Where(LessThan(bits, Const(g, int32(0))), Neg(magnitude), bits)
	return Where(GreaterThan(magnitude, Const(g, int32(0x7f800000))), Const(g, int32(nanKey)), keys)
}

// keyValue returns the float32 that has this key.
func keyValue(key *Node) *Node {
	g := key.Graph()
	bits := Where(LessThan(key, Const(g, int32(0))), BitwiseOr(Neg(key), Const(g, int32(math.MinInt32))), key)
	return Bitcast(bits, dtypes.Float32)
}

// argMax returns the lowest id of the largest key, int32 [rows].
func argMax(keys *Node) *Node {
	return ArgMax(keys, 1, dtypes.Int32)
}

// exp2 returns floor(2^(y/2^log2Bits + massBits)) as int64, for int32 y in [log2Floor, 0].
func exp2(y *Node) *Node {
	g := y.Graph()
	whole := ConvertDType(BitwiseShiftRightArithmetic(y, Const(g, int32(log2Bits))), dtypes.Int64)
	f := ConvertDType(BitwiseAnd(y, Const(g, int32(1<<log2Bits-1))), dtypes.Int64)
	p := Const(g, exp2Poly[6])
	for k := 5; k >= 0; k-- {
		p = Add(shiftRight(Mul(p, f), log2Bits), Const(g, exp2Poly[k]))
	}
	return BitwiseShiftRightArithmetic(Mul(p, Const(g, int64(1)<<(massBits-polyBits))), Neg(whole))
}

// ratio returns x in [0,1] as int64 with ratioBits fraction bits: exact for a float32 of at least 2^-6.
func ratio(x *Node) *Node {
	return fixedPoint(x, ratioBits, 1<<ratioBits)
}

// fixedPoint returns floor(x·2^bits) clamped into [0, top], int64; 0 for NaN.
func fixedPoint(x *Node, bits int, top int64) *Node {
	g := x.Graph()
	x = Mul(x, Const(g, float32(int64(1)<<bits)))
	x = Where(GreaterThan(x, Const(g, float32(0))), x, Const(g, float32(0)))
	x = Min(x, Const(g, float32(int64(1)<<bits)))
	return Min(ConvertDType(x, dtypes.Int64), Const(g, top))
}

// inRange returns low ≤ x ≤ high: false for NaN.
func inRange(x *Node, low, high float64) *Node {
	g := x.Graph()
	return And(GreaterOrEqual(x, Const(g, float32(low))), LessOrEqual(x, Const(g, float32(high))))
}

// column returns params[:, i:i+1].
func column(params *Node, i int) *Node {
	return SliceAxis(params, 1, AxisRange(i, i+1))
}

// blocks pads x [rows, n] with zeros to whole blocks: [rows, ⌈n/fanOut⌉, fanOut].
func blocks(x *Node) *Node {
	rows, n := x.Shape().Dimensions[0], x.Shape().Dimensions[1]
	count := (n + fanOut - 1) / fanOut
	if pad := count*fanOut - n; pad > 0 {
		x = Pad(x, zeroOf(x), PadAxis{}, PadAxis{End: pad})
	}
	return Reshape(x, rows, count, fanOut)
}

// zeroOf returns a scalar zero of x's dtype. GoMLX's ScalarZero is cached per graph, and breaks when its first user is in
// a loop's body.
func zeroOf(x *Node) *Node {
	return ConvertDType(Const(x.Graph(), int32(0)), x.DType())
}

func shiftRight(x *Node, bits int) *Node {
	return BitwiseShiftRightArithmetic(x, Const(x.Graph(), int64(bits)))
}

func lowBits(x *Node, bits int) *Node {
	return BitwiseAnd(x, Const(x.Graph(), int64(1)<<bits-1))
}

func checkLogits(logits *Node) {
	if logits.Rank() != 2 || logits.Shape().Dimensions[1] < 1 || !logits.DType().IsFloat() {
		exceptions.Panicf("sampling: logits is %s, want float [rows, vocab]", logits.Shape())
	}
}
