package contrast

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Embeddings are pooled hidden states of two classes of text, at some layers: what a direction is estimated from.
type Embeddings struct {
	Hidden          int         // hidden_size
	NumHiddenLayers int         // of the model; 0 is not known
	Layers          []int       // their indices, ascending
	Positive        [][]float32 // by layer [N+, hidden], row after row
	Negative        [][]float32 // by layer [N-, hidden]
	// Paired says that row i of Positive and row i of Negative belong together, as the answers to one prompt do. PCA needs pairs, and
	// the halves of a split keep them together.
	Paired bool
}

// Append adds one embedding of a class at every layer, values[l] [hidden].
func (e *Embeddings) Append(positive bool, values [][]float32) error {
	if len(values) != len(e.Layers) {
		return fmt.Errorf("contrast: an embedding at %d layers is added to embeddings at %d", len(values), len(e.Layers))
	}
	class := &e.Negative
	if positive {
		class = &e.Positive
	}
	if *class == nil {
		*class = make([][]float32, len(e.Layers))
	}
	for l, v := range values {
		if len(v) != e.Hidden {
			return fmt.Errorf("contrast: an embedding at layer %d has %d elements, hidden_size is %d", e.Layers[l], len(v), e.Hidden)
		}
	}
	for l, v := range values {
		(*class)[l] = append((*class)[l], v...)
	}
	return nil
}

// Options of a fit. The zero value is good.
type Options struct {
	// Splits is the number of random halvings for the split-half stability: 0 is DefaultSplits, negative is none.
	Splits int
	Seed   uint64 // of the halvings
}

// DefaultSplits is the number of random halvings where Options says nothing.
const DefaultSplits = 8

// penalty is C of the logistic regression, as scikit-learn means it: the paper's, and scikit-learn's default.
const penalty = 1

// Gradients of the logistic regression, in float64. gradientGoal is where the solver stops, gradientLimit where Fit says that it did not
// converge; where embeddings are so large that float64 cannot resolve it, the limit is relative to the gradient at w = 0.
const (
	gradientGoal  = 1e-12
	gradientLimit = 1e-8
	gradientSlack = 1e-12
)

// memoryBudget is what the programs of a fit may use, roughly. More layers than fit in are fitted in groups, by the same program.
const memoryBudget = 1 << 30

// Fitter holds the compiled programs of fits, so that the second fit of the same shape compiles nothing. It is for one
// goroutine at a time.
type Fitter struct {
	logistic, pairs, lanczos, project *Exec
}

// NewFitter returns a Fitter for a backend.
func NewFitter(backend compute.Backend) (*Fitter, error) {
	f := new(Fitter)
	for _, p := range []struct {
		exec  **Exec
		build func(in []*Node) []*Node
	}{
		{&f.logistic, func(in []*Node) []*Node { return logistic(in[0], in[1], in[2], in[3]) }},
		{&f.pairs, func(in []*Node) []*Node { return []*Node{pairs(in[0])} }},
		{&f.lanczos, func(in []*Node) []*Node { return lanczos(in[0], in[1], min(in[1].Shape().Dim(2), maxBasis)) }},
		{&f.project, func(in []*Node) []*Node { return project(in[0], in[1], in[2], in[3]) }},
	} {
		exec, err := NewExec(backend, p.build)
		if err != nil {
			return nil, fmt.Errorf("contrast: %w", err)
		}
		*p.exec = exec.SetMaxCache(-1)
	}
	return f, nil
}

// Finalize frees the programs.
func (f *Fitter) Finalize() {
	for _, exec := range []*Exec{f.logistic, f.pairs, f.lanczos, f.project} {
		exec.Finalize()
	}
}

// Fit estimates the direction from the negative to the positive class at all layers by all estimators.
func Fit(ctx context.Context, backend compute.Backend, e Embeddings, opt Options) (*Fitted, error) {
	f, err := NewFitter(backend)
	if err != nil {
		return nil, err
	}
	defer f.Finalize()
	return f.Fit(ctx, e, opt)
}

// Fit is as the function Fit.
func (f *Fitter) Fit(ctx context.Context, e Embeddings, opt Options) (*Fitted, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	j := newJob(&e, opt)
	out := &Fitted{
		Hidden: e.Hidden, NumHiddenLayers: e.NumHiddenLayers, Positive: j.pos, Negative: j.neg, Paired: e.Paired, Splits: j.splits,
	}
	group := j.group(len(e.Layers))
	for first := 0; first < len(e.Layers); first += group {
		layers, err := f.group(ctx, j, first, group)
		if err != nil {
			return nil, err
		}
		out.Layers = append(out.Layers, layers...)
	}
	return out, nil
}

// validate checks that there are two classes of finite vectors of one size at every layer.
func (e *Embeddings) validate() error {
	if len(e.Layers) == 0 || e.Hidden < 1 {
		return fmt.Errorf("contrast: embeddings of hidden_size %d at %d layers", e.Hidden, len(e.Layers))
	}
	classes := []struct {
		name   string
		values [][]float32
		count  int
	}{{"positive", e.Positive, 0}, {"negative", e.Negative, 0}}
	for i := range classes {
		c := &classes[i]
		if len(c.values) == 0 {
			return fmt.Errorf("contrast: the %s class is empty", c.name)
		}
		if len(c.values) != len(e.Layers) {
			return fmt.Errorf("contrast: %s embeddings at %d layers, expected %d", c.name, len(c.values), len(e.Layers))
		}
		c.count = len(c.values[0]) / e.Hidden
		for l, v := range c.values {
			if len(v) != c.count*e.Hidden {
				return fmt.Errorf("contrast: layer %d: %d numbers in the %s class, expected %d embeddings of hidden_size %d",
					e.Layers[l], len(v), c.name, c.count, e.Hidden)
			}
			for k, x := range v {
				if x := float64(x); math.IsNaN(x) || math.IsInf(x, 0) {
					return fmt.Errorf("contrast: layer %d: element %d of %s embedding %d is %v", e.Layers[l], k%e.Hidden, c.name, k/e.Hidden, x)
				}
			}
		}
		if c.count < 2 {
			return fmt.Errorf("contrast: %d %s embeddings: a direction and its spread need at least 2 of each class", c.count, c.name)
		}
	}
	if e.Paired && classes[0].count != classes[1].count {
		return fmt.Errorf("contrast: %d positive and %d negative embeddings are not pairs", classes[0].count, classes[1].count)
	}
	for l, index := range e.Layers {
		if index < 0 || l > 0 && index <= e.Layers[l-1] || e.NumHiddenLayers > 0 && index >= e.NumHiddenLayers {
			return fmt.Errorf("contrast: layers %v: they must ascend, from 0 to less than num_hidden_layers %d", e.Layers, e.NumHiddenLayers)
		}
		if e.constant(l) {
			return fmt.Errorf("contrast: layer %d: all embeddings are equal, so there is no direction", index)
		}
	}
	return nil
}

// constant reports whether all embeddings at a layer are the same.
func (e *Embeddings) constant(l int) bool {
	first := e.Positive[l][:e.Hidden]
	for _, class := range [][]float32{e.Positive[l], e.Negative[l]} {
		for k, x := range class {
			if x != first[k%e.Hidden] {
				return false
			}
		}
	}
	return true
}

// job is what all groups of layers of a fit share.
type job struct {
	e        *Embeddings
	pos, neg int // embeddings of each class
	splits   int
	target   []float64 // [M]: 1 for the positive class
	weight   []float64 // [1 + 2·splits, M]: of the whole, then of the two halves of every split
	contrast []float64 // [1 + 2·splits, M]: the difference of means of each as a dual vector
}

func newJob(e *Embeddings, opt Options) *job {
	j := &job{e: e, pos: len(e.Positive[0]) / e.Hidden, neg: len(e.Negative[0]) / e.Hidden, splits: opt.Splits}
	if j.splits == 0 {
		j.splits = DefaultSplits
	}
	j.splits = max(j.splits, 0)
	m := j.pos + j.neg
	j.target = make([]float64, m)
	for i := range j.pos {
		j.target[i] = 1
	}
	all := make([]bool, m)
	for i := range all {
		all[i] = true
	}
	j.problem(all)
	rng := rand.New(rand.NewPCG(opt.Seed, 0))
	for range j.splits {
		half, other := make([]bool, m), make([]bool, m)
		order := rng.Perm(j.pos)
		for i, at := range order {
			half[at] = i < j.pos/2
		}
		if e.Paired {
			copy(half[j.pos:], half[:j.pos])
		} else {
			for i, at := range rng.Perm(j.neg) {
				half[j.pos+at] = i < j.neg/2
			}
		}
		for i := range half {
			other[i] = !half[i]
		}
		j.problem(half)
		j.problem(other)
	}
	return j
}

// problem adds the fit of some of the embeddings.
func (j *job) problem(in []bool) {
	counts := map[float64]float64{}
	for i, t := range j.target {
		if in[i] {
			counts[t]++
		}
	}
	for i, t := range j.target {
		w, c := 0.0, 0.0
		if in[i] {
			w, c = penalty, (2*t-1)/counts[t]
		}
		j.weight, j.contrast = append(j.weight, w), append(j.contrast, c)
	}
}

// group returns how many layers are fitted at once.
func (j *job) group(layers int) int {
	m, problems := j.pos+j.neg, 1+2*j.splits
	// float32 and float64 embeddings, a copy of the latter for a product, two Gram matrices, and the vectors of the loop.
	bytes := m*j.e.Hidden*(4+8+8) + 2*8*m*m + 40*8*problems*m + 2*8*maxBasis*j.pos
	groups := (layers*bytes + memoryBudget - 1) / memoryBudget
	groups = min(max(groups, 1), layers)
	return (layers + groups - 1) / groups
}

// group fits the layers from index first of the list on. A group beyond the end is filled with its last layer again, so that all
// groups have the same program.
func (f *Fitter) group(ctx context.Context, j *job, first, size int) ([]LayerFit, error) {
	e, m, problems := j.e, j.pos+j.neg, 1+2*j.splits
	flat := make([]float32, 0, size*m*e.Hidden)
	for l := range size {
		at := min(first+l, len(e.Layers)-1)
		flat = append(append(flat, e.Positive[at]...), e.Negative[at]...)
	}
	x := tensors.FromFlatDataAndDimensions(flat, size, m, e.Hidden)
	defer finalize(x)
	target := tensors.FromFlatDataAndDimensions(j.target, m)
	defer finalize(target)

	lr, err := call(ctx, f.logistic, x, target, tensors.FromFlatDataAndDimensions(j.weight, problems, m),
		tensors.FromFlatDataAndDimensions(j.contrast, problems, m))
	if err != nil {
		return nil, err
	}
	defer finalize(lr...)
	alpha, b, steps := values[float64](lr[0]), values[float64](lr[1]), values[int32](lr[2])
	grams := map[Estimator][]float64{LogisticRegression: values[float64](lr[4]), DiffMeans: values[float64](lr[5])}

	var axes []ritz // [size, 2]
	if e.Paired {
		if axes, err = f.axes(ctx, x, size, j.pos); err != nil {
			return nil, err
		}
	}
	// The dual vectors of the estimators, in their order.
	dual := make([]float64, 0, size*numEstimators*m)
	intercept := make([]float64, size)
	for l := range size {
		intercept[l] = b[l*problems]
		dual = append(dual, alpha[l*problems*m:][:m]...)
		dual = append(dual, j.contrast[:m]...)
		for kind := range 2 {
			pair := make([]float64, m)
			if e.Paired {
				for i, u := range axes[2*l+kind].vectors[0] {
					pair[i], pair[j.pos+i] = u, -u
				}
			}
			dual = append(dual, pair...)
		}
	}
	done, err := call(ctx, f.project, x, target, tensors.FromFlatDataAndDimensions(dual, size, numEstimators, m),
		tensors.FromFlatDataAndDimensions(intercept, size))
	if err != nil {
		return nil, err
	}
	defer finalize(done...)
	w, z, bias, gradient := values[float64](done[0]), values[float64](done[1]), values[float64](done[2]), values[float64](done[3])

	var out []LayerFit
	for l := range min(size, len(e.Layers)-first) {
		layer := LayerFit{
			Index: e.Layers[first+l], Norm: rootMeanSquareNorm(flat[l*m*e.Hidden:][:m*e.Hidden], m),
			B: bias[l], Gradient: gradient[2*l], NewtonSteps: int(steps[l*problems]),
		}
		if limit := max(gradientLimit, gradientSlack*gradient[2*l+1]); !(layer.Gradient <= limit) {
			return nil, fmt.Errorf("contrast: layer %d: the logistic regression did not converge: its gradient is %g after %d steps, more than %g",
				layer.Index, layer.Gradient, layer.NewtonSteps, limit)
		}
		for _, kind := range Estimators {
			at := l*numEstimators + int(kind)
			in := measured{
				kind: kind, vector: w[at*e.Hidden:][:e.Hidden], projections: z[at*m:][:m], positives: j.pos, intercept: bias[l],
			}
			if gram := grams[kind]; gram != nil {
				in.stability = stability(gram[l*problems*problems:][:problems*problems], j.splits)
			}
			if kind == PCADiff || kind == PCACenter {
				if !e.Paired {
					continue
				}
				in.variances = variances(kind, axes[2*l+int(kind-PCADiff)].values, j.pos)
			}
			estimate, err := in.estimate(layer.Norm)
			if err != nil {
				return nil, fmt.Errorf("contrast: layer %d: %s: %w", layer.Index, kind, err)
			}
			layer.estimates[kind] = estimate
		}
		out = append(out, layer)
	}
	return out, nil
}

// variances returns the explained variances of the first two axes, as scikit-learn's PCA gives them, from the eigenvalues of the
// differences' Gram matrix.
func variances(kind Estimator, lambdas [2]float64, pairs int) [2]float64 {
	scale := 1 / float64(pairs-1)
	if kind == PCACenter { // 2·N rows ±d/2
		scale = 0.5 / float64(2*pairs-1)
	}
	return [2]float64{lambdas[0] * scale, lambdas[1] * scale}
}

// axes returns the first principal axes of the n pairs' differences at each layer in their dual form: [size, 2], pca_diff and
// pca_center. The axis is the sum of u_i·d_i, u the first vector.
func (f *Fitter) axes(ctx context.Context, x *tensors.Tensor, size, n int) ([]ritz, error) {
	gram, err := call(ctx, f.pairs, x)
	if err != nil {
		return nil, err
	}
	defer finalize(gram...)
	m := min(n, maxBasis)
	rng := rand.New(rand.NewPCG(1, 0)) // any start that is not orthogonal to the answer
	start := make([]float64, size*2*n)
	for i := range start {
		start[i] = rng.NormFloat64()
	}
	out := make([]ritz, size*2)
	for restart := 0; ; restart++ {
		result, err := call(ctx, f.lanczos, gram[0], tensors.FromFlatDataAndDimensions(start, size, 2, n))
		if err != nil {
			return nil, err
		}
		basis, matrix, next := values[float64](result[0]), values[float64](result[1]), values[float64](result[2])
		finalize(result...)
		exact := true
		for i := range out {
			r, ok := newRitz(basis[i*m*n:][:m*n], matrix[i*m*m:][:m*m], m, n, next[i])
			if !ok {
				return nil, errors.New("contrast: PCA: the eigenvalues were not found")
			}
			out[i] = r
			r.restart(start[i*n:][:n])
			exact = exact && r.residual <= residualGoal*r.values[0]
		}
		if exact || m == n || restart == maxRestarts {
			return out, nil
		}
	}
}

// project turns dual vectors into directions and measures along them. x [L, M, H] float32; target [M]; dual [L, E, M], that of
// the logistic regression first; intercept [L], for centred embeddings. It returns, all float64,
//
//	w         [L, E, H]   Xᵀα
//	z         [L, E, M]   <w, x> of every embedding
//	b         [L]         the intercept for embeddings as they are
//	gradient  [L, 2]      the largest element of the objective's gradient by (w, b), and what it is at w = 0, b = 0
func project(x, target, dual, intercept *Node) []*Node {
	g := x.Graph()
	layers, m := x.Shape().Dim(0), x.Shape().Dim(1)
	centred, mean := centre(x)
	w := Dot(dual, centred).General([]int{2}, []int{0}, []int{1}, []int{0})                                                  // [L, E, H]
	z := Dot(w, ConvertDType(x, dtypes.Float64)).General([]int{2}, []int{0}, []int{2}, []int{0})                             // [L, E, M]
	w0 := Reshape(Slice(w, AxisRange(), AxisRange(0, 1)), layers, x.Shape().Dim(2))                                          // [L, H]
	b := Sub(intercept, ReduceSum(Mul(w0, mean), -1))                                                                        // [L]
	margin := Add(Reshape(Slice(z, AxisRange(), AxisRange(0, 1)), layers, m), BroadcastToDims(ExpandDims(b, -1), layers, m)) // [L, M]
	t := BroadcastToDims(Reshape(target, 1, m), layers, m)
	size := func(p, w *Node) *Node { // max |gradient| at probabilities p [L, M]
		r := MulScalar(Sub(t, p), penalty)
		back := Sub(w, Dot(r, ConvertDType(x, dtypes.Float64)).General([]int{1}, []int{0}, []int{1}, []int{0})) // [L, H]
		return Max(ReduceMax(Abs(back), -1), Abs(ReduceSum(r, -1)))
	}
	half := BroadcastToShape(Const(g, 0.5), t.Shape())
	return []*Node{w, z, b, Stack([]*Node{size(Sigmoid(margin), w0), size(half, ZerosLike(w0))}, -1)}
}

// call runs a program. Tensors that are made for the call are freed with it by the garbage collector.
func call(ctx context.Context, exec *Exec, args ...any) (out []*tensors.Tensor, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if caught := exceptions.TryCatch[error](func() { out, err = exec.Call(args...) }); caught != nil {
		err = caught
	}
	if err != nil {
		return nil, fmt.Errorf("contrast: %w", err)
	}
	return out, nil
}

func values[T float64 | int32](t *tensors.Tensor) []T {
	return tensors.MustCopyFlatData[T](t)
}

func finalize(ts ...*tensors.Tensor) {
	for _, t := range ts {
		t.MustFinalizeAll()
	}
}
