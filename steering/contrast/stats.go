package contrast

import (
	"errors"
	"fmt"
	"math"

	"github.com/steerage/steerage/steering"
)

// Estimator is a way to find the direction from one class of embeddings to another.
type Estimator int

const (
	LogisticRegression Estimator = iota // the weights of a logistic regression: the paper's
	DiffMeans                           // the difference of the classes' means
	PCADiff                             // first principal axis of the pairs' differences, less their mean
	PCACenter                           // first principal axis of the pairs about each pair's own centre

	numEstimators = 4
)

// Estimators are all of them.
var Estimators = []Estimator{LogisticRegression, DiffMeans, PCADiff, PCACenter}

var estimatorNames = [numEstimators]string{"logistic", "diff_means", "pca_diff", "pca_center"}

func (k Estimator) String() string { return estimatorNames[k] }

// MarshalText writes the name.
func (k Estimator) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a name.
func (k *Estimator) UnmarshalText(text []byte) (err error) {
	*k, err = ParseEstimator(string(text))
	return err
}

// ParseEstimator reads a name: logistic, diff_means, pca_diff or pca_center.
func ParseEstimator(name string) (Estimator, error) {
	for _, k := range Estimators {
		if name == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("contrast: estimator %.40q: expected one of %q", name, estimatorNames)
}

// Fitted is what Fit found at each layer.
type Fitted struct {
	Hidden             int
	NumHiddenLayers    int // of the model; 0 is not known
	Positive, Negative int // embeddings of each class
	Paired             bool
	Splits             int // halvings that the stabilities are means over
	Layers             []LayerFit
}

// LayerFit is what Fit found at one layer.
type LayerFit struct {
	Index int
	Norm  float64 // root mean square of the embeddings' norms
	// The logistic regression: its intercept (its weights are the LogisticRegression estimate's Vector), the largest element of its
	// gradient by weights and intercept, and how many steps of Newton's method it took.
	B           float64
	Gradient    float64
	NewtonSteps int

	estimates [numEstimators]*Estimate
}

// Estimate returns what an estimator found, or nil: PCA finds nothing without pairs, or where all pairs differ alike.
func (l *LayerFit) Estimate(k Estimator) *Estimate { return l.estimates[k] }

// Cosine returns the cosine between the directions of two estimators, NaN where one has none.
func (l *LayerFit) Cosine(a, b Estimator) float64 {
	x, y := l.estimates[a], l.estimates[b]
	if x == nil || y == nil {
		return math.NaN()
	}
	return dot(x.Vector, y.Vector) / (x.Length * y.Length)
}

// Estimate is a direction and what the data look like along it.
type Estimate struct {
	// Vector [hidden] is what the estimator gives: the weights w, the difference of means, or a unit axis. Length is its
	// norm and v̂ = Vector/Length.
	Vector []float64
	Length float64
	// Of the projections <x, v̂>. M is -b/|w| for the logistic regression and half way between the means for the others.
	steering.Statistics
	DeltaMu  float64 // μ+ − μ-
	Accuracy float64 // share of the data on the right side of M
	// Stability is the mean cosine between the directions of random halves of the data, and LeastStability the smallest. NaN if there
	// were no halvings, and for PCA.
	Stability, LeastStability float64
	Variances                 [2]float64 // of PCA: explained by the first two axes; the closer, the less the axis means
	Votes                     [2]float64 // of PCA: shares of the pairs whose positive is above, and below, its negative along v̂
}

// Shift is the distance between the classes in units of the embeddings' norm.
func (l *LayerFit) Shift(k Estimator) float64 {
	e := l.estimates[k]
	if e == nil || l.Norm == 0 {
		return 0
	}
	return math.Abs(e.DeltaMu) / l.Norm
}

// Vector returns the direction of an estimator at all layers, as a vector to steer with. The hidden size, the model's number of
// layers (unless p has it) and the method are set here, the rest of p is the caller's.
func (f *Fitted) Vector(k Estimator, p steering.Provenance) (*steering.Vector, error) {
	if p.NumHiddenLayers == 0 {
		p.NumHiddenLayers = f.NumHiddenLayers
	}
	p.Method = k.String()
	v := &steering.Vector{Hidden: f.Hidden, Provenance: p}
	for i := range f.Layers {
		layer := &f.Layers[i]
		e := layer.estimates[k]
		if e == nil {
			if !f.Paired {
				return nil, fmt.Errorf("contrast: %s needs pairs: a positive and a negative text for each prompt", k)
			}
			return nil, fmt.Errorf("contrast: layer %d: %s found no direction: all pairs differ alike", layer.Index, k)
		}
		made, err := steering.NewLayer(layer.Index, e.Vector)
		if err != nil {
			return nil, fmt.Errorf("contrast: %w", err)
		}
		statistics := e.Statistics
		made.DeltaMu, made.Statistics = e.DeltaMu, &statistics
		v.Layers = append(v.Layers, made)
	}
	if err := v.Validate(); err != nil {
		return nil, fmt.Errorf("contrast: %w", err)
	}
	return v, nil
}

// measured is what the programs know of one estimator at one layer.
type measured struct {
	kind        Estimator
	vector      []float64 // [hidden]
	projections []float64 // <x, vector> [M], the positives first
	positives   int
	intercept   float64 // of the logistic regression
	stability   [2]float64
	variances   [2]float64
}

// smallest length of a direction, relative to the embeddings (or, for weights, to their inverse): below it is rounding.
const smallest = 1e-10

// estimate returns nil if PCA has no direction, and an error if another has none.
func (in measured) estimate(norm float64) (*Estimate, error) {
	pca := in.kind == PCADiff || in.kind == PCACenter
	length := math.Sqrt(dot(in.vector, in.vector))
	unit := norm
	if in.kind == LogisticRegression {
		unit = 1 / norm
	}
	if !(length > smallest*unit) {
		if pca {
			return nil, nil
		}
		return nil, errors.New("the classes have the same mean, so there is no direction")
	}
	e := &Estimate{Vector: append([]float64(nil), in.vector...), Length: length, Stability: in.stability[0], LeastStability: in.stability[1]}
	rho := make([]float64, len(in.projections))
	for i, z := range in.projections {
		rho[i] = z / length
	}
	pos, neg := rho[:in.positives], rho[in.positives:]
	if pca {
		e.Stability, e.LeastStability, e.Variances = math.NaN(), math.NaN(), in.variances
		above, below, difference := 0, 0, 0.0
		for i := range pos {
			difference += pos[i] - neg[i]
			if pos[i] > neg[i] {
				above++
			} else if pos[i] < neg[i] {
				below++
			}
		}
		// An axis has no sign of its own: it points to where most pairs have the positive above or, if as many have it below, to
		// where the positives' mean is.
		sign := 1.0
		if below > above || below == above && difference < 0 {
			sign, above, below = -1, below, above
		}
		e.Votes = [2]float64{float64(above) / float64(len(pos)), float64(below) / float64(len(pos))}
		for i := range rho {
			rho[i] *= sign
		}
		for i := range e.Vector {
			e.Vector[i] *= sign / length
		}
		e.Length = 1
	}
	var varPos, varNeg float64
	e.MuPos, varPos = moments(pos)
	e.MuNeg, varNeg = moments(neg)
	e.SigmaPos, e.SigmaNeg = math.Sqrt(varPos), math.Sqrt(varNeg)
	e.DeltaMu = e.MuPos - e.MuNeg
	e.M = (e.MuPos + e.MuNeg) / 2
	if in.kind == LogisticRegression {
		e.M = -in.intercept / length
	}
	bessel := func(v float64, n int) float64 { return v * float64(n) / float64(n-1) }
	pooled := math.Sqrt((bessel(varPos, len(pos)) + bessel(varNeg, len(neg))) / 2)
	if !(pooled > 0) {
		return nil, errors.New("neither class has any spread, so Cohen's d is not defined: are all texts of a class the same?")
	}
	e.CohensD = e.DeltaMu / pooled
	for _, r := range pos {
		if r > e.M {
			e.Accuracy++
		}
	}
	for _, r := range neg {
		if r <= e.M {
			e.Accuracy++
		}
	}
	e.Accuracy /= float64(len(rho))
	return e, nil
}

// moments returns the mean and the population variance.
func moments(x []float64) (mean, variance float64) {
	for _, a := range x {
		mean += a
	}
	mean /= float64(len(x))
	for _, a := range x {
		variance += (a - mean) * (a - mean)
	}
	return mean, variance / float64(len(x))
}

// stability returns the mean and the smallest cosine between the halves of each split, from the Gram matrix of the whole and the
// halves of every split.
func stability(gram []float64, splits int) [2]float64 {
	if splits == 0 {
		return [2]float64{math.NaN(), math.NaN()}
	}
	n := 1 + 2*splits
	mean, least := 0.0, math.Inf(1)
	for s := range splits {
		a, b := 1+2*s, 2+2*s
		cosine := 0.0 // a half without a direction agrees with nothing
		if scale := math.Sqrt(gram[a*n+a] * gram[b*n+b]); scale > 0 {
			cosine = gram[a*n+b] / scale
		}
		mean += cosine / float64(splits)
		least = min(least, cosine)
	}
	return [2]float64{mean, least}
}

// rootMeanSquareNorm of the rows of x [m, hidden].
func rootMeanSquareNorm(x []float32, m int) float64 {
	sum := 0.0
	for _, a := range x {
		sum += float64(a) * float64(a)
	}
	return math.Sqrt(sum / float64(m))
}

func dot(x, y []float64) (sum float64) {
	for i := range x {
		sum += x[i] * y[i]
	}
	return sum
}
