package contrast

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// This file is the logistic regression: many problems at once, as one loop of one program.
//
// With the M embeddings of a layer centred (the intercept is not penalised, so that w stays the same), the minimiser of
//
//	0.5·|w|² + Σ c_i·(log(1 + exp(z_i)) - t_i·z_i),   z_i = <w, x_i> + b,   t_i = 1 for the positive class, else 0
//
// is w = Xᵀα, and all that Newton's method needs of X is the Gram matrix K = X·Xᵀ. With p = σ(z), r = c·(t-p), W = c·p·(1-p), and b
// eliminated from the Newton system by W̃ = W - W·Wᵀ/ΣW, the step δ of α solves
//
//	δ + W̃·K·δ = r - α + W·g_b/ΣW,   g_b = -Σr,   and then   db = -(g_b + Wᵀ·K·δ)/ΣW
//
// It is solved by conjugate gradients in the geometry of w, <Xᵀu, Xᵀv> = uᵀKv, which need one product with K a step, stop
// early while the optimum is far, and end when the true norm of the gradient is small. A weight c_i = 0 leaves embedding i out, so the
// halves of a split are further problems on the same K.

// logisticLimits bound the loop; well-posed problems need a small part of them.
const (
	maxNewton     = 60      // steps of Newton's method for one problem
	maxIterations = 1 << 16 // turns of the loop, one product with K each
	shortestStep  = 1e-9    // a line search that gets here is at the limit of float64
)

// What a problem does in a turn of the loop. Each goes its own way: one may search while others take CG steps.
const (
	refreshing int32 = iota // recompute z from alpha and begin a Newton step
	solving                 // a step of conjugate gradients
	searching               // the step was too long: try half
	finished
)

// centre returns embeddings x [L, M, H] float32 less their mean over M, as float64, and the mean [L, H].
func centre(x *Node) (centred, mean *Node) {
	x = ConvertDType(x, dtypes.Float64)
	layers, m, hidden := x.Shape().Dim(0), x.Shape().Dim(1), x.Shape().Dim(2)
	// A product with ones and not ReduceSum: on XLA a reduction that the main function has used cannot be used in a loop's body.
	ones := BroadcastToDims(Const(x.Graph(), 1/float64(m)), layers, 1, m)
	row := Dot(ones, x).General([]int{2}, []int{0}, []int{1}, []int{0}) // [L, 1, H]
	return Sub(x, row), Reshape(row, layers, hidden)
}

// logistic fits F problems for each layer. x [L, M, H] float32; target [M] float64, 1 for the positive class, else 0; weight
// [F, M] float64, c above; contrasts [D, M], other dual vectors, each with sum 0. It returns
//
//	alpha  [L, F, M]   float64: w = Xᵀα
//	b      [L, F]      float64: the intercept for centred embeddings
//	steps  [L, F]      int32: steps of Newton's method
//	turns  []          int32: turns of the loop
//	gram   [L, F, F]   float64: the inner products of the w
//	other  [L, D, D]   float64: those of the contrasts
func logistic(x, target, weight, contrasts *Node) []*Node {
	g := x.Graph()
	layers, m, problems := x.Shape().Dim(0), x.Shape().Dim(1), weight.Shape().Dim(0)
	x, _ = centre(x)
	k := Dot(x, x).General([]int{2}, []int{0}, []int{2}, []int{0}) // [L, M, M]

	vector, scalar := shapes.Make(dtypes.Float64, layers, problems, m), shapes.Make(dtypes.Float64, layers, problems)
	counter := shapes.Make(dtypes.Int32, layers, problems)
	zeros := func(s shapes.Shape) *Node { return BroadcastToShape(ConvertDType(Const(g, int32(0)), s.DType), s) }
	ones := func(s shapes.Shape) *Node { return BroadcastToShape(Const(g, float64(1)), s) }
	initial := map[string]*Node{
		"t": BroadcastToShape(Reshape(target, 1, 1, m), vector), "c": BroadcastToShape(Reshape(weight, 1, problems, m), vector), "K": k,
		"alpha": zeros(vector), "z": zeros(vector), "b": zeros(scalar),
		"delta": zeros(vector), "Kdelta": zeros(vector), "rho": zeros(vector), "pi": zeros(vector), "q": zeros(vector),
		"rr": ones(scalar), "stop": zeros(scalar), "first": zeros(scalar), "f": zeros(scalar), "step": ones(scalar),
		"phase": zeros(counter), "cg": zeros(counter), "newton": zeros(counter),
		"turns": Const(g, int32(0)), "active": Const(g, float64(1)),
	}
	final := loop(initial, func(s map[string]*Node) *Node {
		g := s["turns"].Graph()
		return LogicalAnd(GreaterThan(s["active"], Const(g, float64(0))), LessThan(s["turns"], Const(g, int32(maxIterations))))
	}, newtonTurn)

	alpha := final["alpha"]
	product := func(u *Node) *Node { // uᵀKu: [L, n, M] to [L, n, n]
		return Dot(Dot(u, k).General([]int{2}, []int{0}, []int{1}, []int{0}), u).General([]int{2}, []int{0}, []int{2}, []int{0})
	}
	other := BroadcastToDims(Reshape(contrasts, 1, contrasts.Shape().Dim(0), m), layers, contrasts.Shape().Dim(0), m)
	return []*Node{alpha, final["b"], final["newton"], final["turns"], product(alpha), product(other)}
}

// newtonTurn is one turn of the loop for all problems.
func newtonTurn(s map[string]*Node) map[string]*Node {
	g := s["K"].Graph()
	num := func(x float64) *Node { return Const(g, x) }
	sum := func(x *Node) *Node { return ReduceSum(x, -1) } // [L, F, M] to [L, F]
	// [L, F] to [L, F, 1], for the implicit broadcasting of binary operations. An explicit one would be wrong on the Go backend, which
	// fuses it into the operation after it has counted, for a closure, how often each value is used.
	wide := func(x *Node) *Node { return ExpandDims(x, -1) }
	is := func(phase int32) *Node { return Equal(s["phase"], Const(g, phase)) }
	pick := func(cond, a, b *Node) *Node {
		if a.Rank() > cond.Rank() {
			cond = BroadcastToShape(wide(cond), a.Shape())
		}
		return Where(cond, a, b)
	}
	fill := func(x float64, like *Node) *Node { return BroadcastToShape(num(x), like.Shape()) }
	t, c, alpha, b := s["t"], s["c"], s["alpha"], s["b"]
	objective := func(alpha, z, b *Node) *Node {
		softplus := Add(Max(z, num(0)), Log1P(Exp(Neg(Abs(z)))))
		return Add(Mul(num(0.5), sum(Mul(alpha, Sub(z, wide(b))))), sum(Mul(c, Sub(softplus, Mul(t, z)))))
	}

	// The product of this turn: K·alpha to refresh, K·rho in a step of CG.
	refresh := is(refreshing)
	kv := Dot(pick(refresh, alpha, s["rho"]), s["K"]).General([]int{2}, []int{0}, []int{1}, []int{0})
	z := pick(refresh, Add(kv, wide(b)), s["z"])
	p := Sigmoid(z)
	r := Mul(c, Sub(t, p))
	w := Mul(c, Mul(p, Sub(num(1), p)))
	wSum := Add(sum(w), Mul(num(1e-14), sum(c))) // never 0, also where all p are 0 or 1
	gb := Neg(sum(r))

	// Conjugate gradients.
	solve := is(solving)
	rr := sum(Mul(s["rho"], kv))
	begin := LogicalAnd(solve, Equal(s["cg"], Const(g, int32(0))))
	size := Sqrt(Max(rr, num(0)))
	first := pick(LogicalAnd(begin, Equal(s["newton"], Const(g, int32(0)))), size, s["first"])
	// The smallest gradient that float64 can tell from 0 here, from the size of the terms that it is the sum of.
	floor := Max(num(gradientGoal), Mul(num(1e-16), Mul(first, num(math.Sqrt(float64(z.Shape().Dim(2)))))))
	converged := LogicalAnd(begin, LogicalAnd(LessOrEqual(size, floor), LessOrEqual(Abs(gb), num(gradientGoal))))
	// Newton's method converges quadratically if its systems are solved ever more exactly.
	forcing := Min(num(0.1), Div(size, Max(first, num(math.SmallestNonzeroFloat64*0x1p60))))
	stop := pick(begin, Max(Mul(Mul(forcing, forcing), rr), Mul(num(0.01), Mul(floor, floor))), s["stop"])
	beta := pick(begin, fill(0, rr), Div(rr, s["rr"]))
	pi := Add(s["rho"], Mul(wide(beta), s["pi"]))
	q := Add(kv, Mul(wide(beta), s["q"]))
	wq := Mul(w, q)
	wq = Sub(wq, Mul(w, wide(Div(sum(wq), wSum))))
	curvature := Add(sum(Mul(pi, q)), sum(Mul(q, wq)))
	limit := Const(g, int32(2*z.Shape().Dim(2)+20))
	usable := LogicalAnd(GreaterThan(rr, num(0)), GreaterThan(curvature, num(0)))
	solved := LogicalAnd(solve, LogicalOr(LogicalNot(usable), LogicalAnd(LogicalNot(begin),
		LogicalOr(LessOrEqual(rr, stop), GreaterOrEqual(s["cg"], limit)))))
	stepping := LogicalAnd(solve, LogicalNot(LogicalOr(solved, converged)))
	a := wide(Div(rr, pick(usable, curvature, fill(1, rr))))

	// The step of Newton's method, halved until the objective falls (Armijo), with room for rounding.
	trying := LogicalAnd(LogicalOr(solved, is(searching)), LogicalNot(converged))
	kDelta := s["Kdelta"]
	db := Neg(Div(Add(gb, sum(Mul(w, kDelta))), wSum))
	slope := Add(sum(Mul(Sub(alpha, r), kDelta)), Mul(gb, db))
	alphaNew := Add(alpha, Mul(wide(s["step"]), s["delta"]))
	bNew := Add(b, Mul(s["step"], db))
	zNew := Add(z, Mul(wide(s["step"]), Add(kDelta, wide(db))))
	allowed := Add(Add(s["f"], Mul(num(1e-4), Mul(s["step"], slope))), Mul(num(1e-13), Add(num(1), Abs(s["f"]))))
	accepted := LogicalAnd(trying, LessOrEqual(objective(alphaNew, zNew, bNew), allowed))
	halved := LogicalAnd(trying, LogicalNot(accepted))
	step := pick(refresh, fill(1, rr), pick(halved, Mul(num(0.5), s["step"]), s["step"]))
	newton := Add(s["newton"], ConvertDType(accepted, dtypes.Int32))

	phase := s["phase"]
	to := func(when *Node, next int32) {
		phase = pick(when, BroadcastToShape(Const(g, next), phase.Shape()), phase)
	}
	to(refresh, solving)
	to(accepted, refreshing)
	to(halved, searching)
	to(LogicalOr(converged, LogicalAnd(halved, LessThan(step, num(shortestStep)))), finished)
	to(LogicalAnd(accepted, GreaterOrEqual(newton, Const(g, int32(maxNewton)))), finished)

	nothing := fill(0, z)
	rho := Add(Sub(r, alpha), Mul(w, wide(Div(gb, wSum))))
	return map[string]*Node{
		"t": t, "c": c, "K": s["K"], "z": z,
		"alpha": pick(accepted, alphaNew, alpha), "b": pick(accepted, bNew, b),
		"delta":  pick(refresh, nothing, pick(stepping, Add(s["delta"], Mul(a, pi)), s["delta"])),
		"Kdelta": pick(refresh, nothing, pick(stepping, Add(kDelta, Mul(a, q)), kDelta)),
		"rho":    pick(refresh, rho, pick(stepping, Sub(s["rho"], Mul(a, Add(pi, wq))), s["rho"])),
		"pi":     pick(stepping, pi, s["pi"]), "q": pick(stepping, q, s["q"]), "rr": pick(stepping, rr, s["rr"]),
		"stop": stop, "first": first, "f": pick(refresh, objective(alpha, z, b), s["f"]), "step": step,
		"phase": phase, "newton": newton,
		"cg":     pick(refresh, BroadcastToShape(Const(g, int32(0)), phase.Shape()), Add(s["cg"], ConvertDType(stepping, dtypes.Int32))),
		"turns":  Add(s["turns"], Const(g, int32(1))),
		"active": ReduceAllSum(ConvertDType(NotEqual(phase, Const(g, finished)), dtypes.Float64)),
	}
}
