package contrast

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"gonum.org/v1/gonum/mat"
)

// This file is the first principal axis of the pairs' differences d_i = x+_i - x-_i, in two ways that repeng names:
//
//	pca_diff    rows d_i less their mean
//	pca_center  rows x+_i - c_i = d_i/2 and x-_i - c_i = -d_i/2, c_i the pair's mean; their own mean is 0
//
// With D the rows d_i, and P removing the mean in the first case, the axis is Dᵀu for the first eigenvector u of P·D·Dᵀ·P. Lanczos' method
// with full reorthogonalisation gives it for all layers at once; it is exact once its basis is as large as the number of pairs, and
// otherwise begins again from what it found until that is an eigenvector.

const (
	maxBasis     = 96    // vectors of a Krylov basis
	maxRestarts  = 40    // beyond, the first two variances are equal for all purposes
	residualGoal = 1e-12 // |G·u - lambda·u| / lambda
)

// pairs returns the Gram matrix D·Dᵀ [L, N, N] float64 of the differences between the first and the second half of the embeddings
// x [L, 2N, H] float32.
func pairs(x *Node) *Node {
	n := x.Shape().Dim(1) / 2
	x = ConvertDType(x, dtypes.Float64)
	d := Sub(Slice(x, AxisRange(), AxisRange(0, n)), Slice(x, AxisRange(), AxisRange(n)))
	return Dot(d, d).General([]int{2}, []int{0}, []int{2}, []int{0})
}

// lanczos builds a Krylov basis of m vectors for each layer and both kinds of PCA. gram [L, N, N] and start [L, 2, N], float64. It
// returns the basis [L, 2, m, N], orthonormal rows or zeros, the matrix [L, 2, m, m] in that basis, and the length of the vector
// that would be next [L, 2].
func lanczos(gram, start *Node, m int) []*Node {
	g := gram.Graph()
	layers, n := gram.Shape().Dim(0), gram.Shape().Dim(1)

	// P for both kinds: x - x·mean
	mean := make([]float64, n*n)
	for i := range mean {
		mean[i] = 1 / float64(n)
	}
	average := Stack([]*Node{
		Reshape(Const(g, mean), n, n), BroadcastToShape(Const(g, float64(0)), shapes.Make(dtypes.Float64, n, n))}, 0) // [2, N, N]
	zero := func(dims ...int) *Node { return BroadcastToDims(Const(g, float64(0)), dims...) }
	final := loop(map[string]*Node{
		"G": gram, "average": average, "v": start, "basis": zero(layers, 2, m, n),
		"norm": zero(layers, 2), "scale": zero(layers, 2), "j": Const(g, int32(0)),
	}, func(s map[string]*Node) *Node {
		return LessThan(s["j"], Const(s["j"].Graph(), int32(m+1))) // the first turn only makes the start a unit vector
	}, lanczosTurn)
	basis := final["basis"]
	product := Dot(Reshape(basis, layers, 2*m, n), gram).General([]int{2}, []int{0}, []int{1}, []int{0})
	inBasis := Dot(basis, Reshape(product, layers, 2, m, n)).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1})
	return []*Node{basis, inBasis, final["norm"]}
}

func lanczosTurn(s map[string]*Node) map[string]*Node {
	gram, average, v, basis, j := s["G"], s["average"], s["v"], s["basis"], s["j"]
	g := j.Graph()
	layers, m, n := basis.Shape().Dim(0), basis.Shape().Dim(2), basis.Shape().Dim(3)
	project := func(v *Node) *Node { // [L, 2, N] less its mean where the kind says so
		means := Dot(v, average).General([]int{2}, []int{1}, []int{1}, []int{0}) // [2, L, N]
		return Sub(v, Transpose(means, 0, 1))
	}
	first := Equal(j, Const(g, int32(0)))
	next := Where(BroadcastToShape(first, v.Shape()), v, Dot(v, gram).General([]int{2}, []int{0}, []int{1}, []int{0}))
	scale := Max(s["scale"], Sqrt(ReduceSum(Mul(next, next), -1)))
	for range 2 { // once leaves rounding errors of the size of what it removed
		along := Dot(basis, next).General([]int{3}, []int{0, 1}, []int{2}, []int{0, 1}) // [L, 2, m]
		next = project(Sub(next, Dot(along, basis).General([]int{2}, []int{0, 1}, []int{2}, []int{0, 1})))
	}
	norm := Sqrt(ReduceSum(Mul(next, next), -1))
	// Nothing but rounding is left once the basis spans all that the matrix reaches; the rest of the basis is zero then.
	left := LogicalOr(BroadcastToShape(first, norm.Shape()), GreaterThan(norm, Mul(Const(g, residualGoal), scale)))
	factor := Where(left, Div(Const(g, float64(1)), Where(left, norm, BroadcastToShape(Const(g, float64(1)), norm.Shape()))),
		BroadcastToShape(Const(g, float64(0)), norm.Shape()))
	next = Mul(next, ExpandDims(factor, -1))
	row := BroadcastToShape(Reshape(Equal(Iota(g, shapes.Make(dtypes.Int32, m), 0), j), 1, 1, m, 1), basis.Shape())
	return map[string]*Node{
		"G": gram, "average": average, "v": next,
		"basis": Where(row, BroadcastToDims(Reshape(next, layers, 2, 1, n), layers, 2, m, n), basis),
		"norm":  Mul(norm, ConvertDType(left, dtypes.Float64)), "j": Add(j, Const(g, int32(1))),
		"scale": Where(BroadcastToShape(first, scale.Shape()), s["scale"], scale),
	}
}

// ritz is what a Krylov basis says of a matrix.
type ritz struct {
	vectors  [2][]float64 // [N]: near the first two eigenvectors; the second may be zero
	values   [2]float64   // near the two largest eigenvalues
	residual float64      // |G·u - lambda·u| of the first
}

// newRitz reads a basis [m, n] and the matrix in it [m, m], given the length of the vector that would be next.
func newRitz(basis, matrix []float64, m, n int, next float64) (r ritz, ok bool) {
	symmetric := mat.NewSymDense(m, nil)
	for i := range m {
		for j := i; j < m; j++ {
			symmetric.SetSym(i, j, (matrix[i*m+j]+matrix[j*m+i])/2)
		}
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(symmetric, true) {
		return ritz{}, false
	}
	values := eigen.Values(nil) // ascending
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	for k := range min(2, m) {
		r.values[k] = max(values[m-1-k], 0)
		r.vectors[k] = make([]float64, n)
		for i := range m {
			y := vectors.At(i, m-1-k)
			for j := range n {
				r.vectors[k][j] += y * basis[i*n+j]
			}
		}
	}
	r.residual = next * math.Abs(vectors.At(m-1, m-1))
	return r, true
}

// restart is where to begin again: along both vectors, since the first alone would be the whole basis once it is an eigenvector.
func (r ritz) restart(start []float64) {
	for j := range start {
		start[j] = r.vectors[0][j] + r.vectors[1][j]
	}
}
