package contrast

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"

	"github.com/steerage/steerage/pjrt/pjrttest"
	"github.com/steerage/steerage/safetensors"
	"github.com/steerage/steerage/steering"
)

func onBackends(t *testing.T, test func(t *testing.T, backend compute.Backend)) {
	for name, backend := range pjrttest.Backends(t) {
		t.Run(name, func(t *testing.T) { test(t, backend) })
	}
}

// reference is what scikit-learn (and Newton steps after it) made of the embeddings of one layer or case.
type reference struct {
	Layer         int
	Name          string
	M             float64    `json:"m"`
	MuPos         float64    `json:"mu_pos"`
	MuNeg         float64    `json:"mu_neg"`
	SigmaPos      float64    `json:"sigma_pos"`
	SigmaNeg      float64    `json:"sigma_neg"`
	DeltaMu       float64    `json:"delta_mu"`
	CohensD       float64    `json:"cohens_d"`
	Cosine        float64    `json:"cosine_lr_diff_means"`
	DiffVariances [2]float64 `json:"pca_diff_explained_variance"`
	CentVariances [2]float64 `json:"pca_center_explained_variance"`
	DiffVote      vote       `json:"pca_diff_sign_vote"`
	CentVote      vote       `json:"pca_center_sign_vote"`
	LR            struct {
		Accuracy float64 `json:"train_accuracy"`
	} `json:"lr"`
	tensors map[string][]float64
}

type vote struct {
	Smaller float64 `json:"pos_smaller"`
	Larger  float64 `json:"pos_larger"`
}

// dataset is embeddings and what they must give, by layer.
type dataset struct {
	name string
	Embeddings
	want []reference
}

// datasets reads all dumps below a folder of reference data: logistic/, and contrastive.* in model folders.
func datasets(t *testing.T, dir string) (out []dataset) {
	t.Helper()
	read := func(path string) (map[string][]float64, map[string][]int) {
		f, err := safetensors.OpenFile(path)
		require.NoError(t, err)
		defer f.Close()
		values, dims := map[string][]float64{}, map[string][]int{}
		for _, name := range f.Names() {
			tensor, _ := f.Tensor(name)
			dims[name] = tensor.Shape
			for b := tensor.Data; len(b) > 0; {
				if tensor.DType == safetensors.F64 {
					values[name], b = append(values[name], math.Float64frombits(binary.LittleEndian.Uint64(b))), b[8:]
				} else {
					require.Equal(t, safetensors.F32, tensor.DType)
					values[name], b = append(values[name], float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))), b[4:]
				}
			}
		}
		return values, dims
	}
	narrow := func(x []float64) []float32 {
		out := make([]float32, len(x))
		for i := range x {
			out[i] = float32(x[i])
		}
		return out
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "logistic", "logistic.json")); err == nil {
		var cases []reference
		require.NoError(t, json.Unmarshal(raw, &cases))
		values, dims := read(filepath.Join(dir, "logistic", "logistic.safetensors"))
		for _, c := range cases {
			c.tensors = map[string][]float64{}
			for name, v := range values {
				if len(name) > len(c.Name) && name[:len(c.Name)+1] == c.Name+"." {
					c.tensors[name[len(c.Name)+1:]] = v
				}
			}
			out = append(out, dataset{"logistic/" + c.Name, Embeddings{
				Hidden: dims[c.Name+".emb.pos"][1], Layers: []int{0}, Paired: c.tensors["pca_diff"] != nil,
				Positive: [][]float32{narrow(c.tensors["emb.pos"])}, Negative: [][]float32{narrow(c.tensors["emb.neg"])},
			}, []reference{c}})
		}
	}
	for _, pattern := range []string{"*", "models/*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern, "contrastive.json"))
		require.NoError(t, err)
		for _, file := range files {
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			var dump struct{ Layers []reference }
			require.NoError(t, json.Unmarshal(raw, &dump))
			values, dims := read(file[:len(file)-len("json")] + "safetensors")
			d := dataset{name: filepath.Base(filepath.Dir(file)), Embeddings: Embeddings{Hidden: dims["emb.pos"][2], Paired: true}, want: dump.Layers}
			for l := range d.want {
				d.want[l].tensors = map[string][]float64{}
				for name, v := range values {
					n := len(v) / len(d.want)
					d.want[l].tensors[name] = v[l*n:][:n]
				}
				d.Layers = append(d.Layers, d.want[l].Layer)
				d.Positive = append(d.Positive, narrow(d.want[l].tensors["emb.pos"]))
				d.Negative = append(d.Negative, narrow(d.want[l].tensors["emb.neg"]))
			}
			out = append(out, d)
		}
	}
	require.NotEmpty(t, out, "no reference data below %s", dir)
	return out
}

func difference(x, y []float64) float64 { // |x - y| / |y|
	sum := 0.0
	for i := range y {
		sum += (x[i] - y[i]) * (x[i] - y[i])
	}
	return math.Sqrt(sum) / math.Sqrt(dot(y, y))
}

func cosine(x, y []float64) float64 { return dot(x, y) / math.Sqrt(dot(x, x)*dot(y, y)) }

// The tolerances are those that the makers of the dumps recommend for a float64 trainer, or sharper.
func TestFitAgainstReference(t *testing.T) {
	dir := os.Getenv("STEERAGE_REFERENCE")
	if dir == "" {
		dir = "../../parity/testdata"
	}
	onBackends(t, func(t *testing.T, backend compute.Backend) {
		worst := map[string]float64{}
		for _, d := range datasets(t, dir) {
			t.Run(d.name, func(t *testing.T) {
				fitted, err := Fit(context.Background(), backend, d.Embeddings, Options{Splits: 2})
				require.NoError(t, err)
				require.Len(t, fitted.Layers, len(d.want))
				for l, want := range d.want {
					layer := &fitted.Layers[l]
					within := func(what string, off, limit float64) {
						worst[what] = max(worst[what], off)
						require.LessOrEqual(t, off, limit, "layer %d: %s", d.Layers[l], what)
					}
					near := func(what string, have, want, scale, limit float64) {
						within(what, math.Abs(have-want)/max(math.Abs(want), scale), limit)
					}
					lr := layer.Estimate(LogisticRegression)
					within("gradient", layer.Gradient, gradientLimit)
					within("w", difference(lr.Vector, want.tensors["w"]), 1e-9)
					near("b", layer.B, want.tensors["b"][0], 0, 1e-9)
					scale := want.SigmaPos
					near("m", lr.M, want.M, scale, 1e-9)
					near("mu_pos", lr.MuPos, want.MuPos, scale, 1e-9)
					near("mu_neg", lr.MuNeg, want.MuNeg, scale, 1e-9)
					near("sigma_pos", lr.SigmaPos, want.SigmaPos, 0, 1e-9)
					near("sigma_neg", lr.SigmaNeg, want.SigmaNeg, 0, 1e-9)
					near("delta_mu", lr.DeltaMu, want.DeltaMu, 0, 1e-9)
					near("cohens_d", lr.CohensD, want.CohensD, 0, 1e-9)
					require.Equal(t, want.LR.Accuracy, lr.Accuracy)
					within("diff_means", difference(layer.Estimate(DiffMeans).Vector, want.tensors["diff_means"]), 1e-12)
					near("cosine", layer.Cosine(LogisticRegression, DiffMeans), want.Cosine, 0, 1e-9)
					for _, pca := range []struct {
						kind      Estimator
						variances [2]float64
						vote      vote
					}{{PCADiff, want.DiffVariances, want.DiffVote}, {PCACenter, want.CentVariances, want.CentVote}} {
						e := layer.Estimate(pca.kind)
						if !d.Paired {
							require.Nil(t, e)
							continue
						}
						c := cosine(e.Vector, want.tensors[pca.kind.String()])
						if pca.vote.Smaller == pca.vote.Larger { // a tie says nothing of the sign
							c = math.Abs(c)
						} else {
							require.InDelta(t, max(pca.vote.Smaller, pca.vote.Larger), e.Votes[0], 1e-12)
							require.InDelta(t, min(pca.vote.Smaller, pca.vote.Larger), e.Votes[1], 1e-12)
						}
						gap := 1 - pca.variances[1]/pca.variances[0]
						within(pca.kind.String(), (1-c)*gap, 1e-12)
						within(pca.kind.String()+" variance", math.Abs(e.Variances[0]/pca.variances[0]-1), 1e-9)
						near(pca.kind.String()+" variance 2", e.Variances[1], pca.variances[1], 1e-3*pca.variances[0], 1e-6)
					}
				}
			})
		}
		t.Logf("largest differences: %v", worst)
	})
}

func TestVector(t *testing.T) {
	d := datasets(t, "../../parity/testdata")
	for _, backend := range pjrttest.Backends(t) {
		last := d[len(d)-1]
		last.NumHiddenLayers = len(last.Layers)
		fitted, err := Fit(context.Background(), backend, last.Embeddings, Options{})
		require.NoError(t, err)
		for _, k := range Estimators {
			v, err := fitted.Vector(k, steering.Provenance{Model: "tiny", Data: "responses.jsonl"})
			require.NoError(t, err)
			require.Equal(t, last.Layers, v.Indices())
			require.Equal(t, k.String(), v.Method)
			require.Equal(t, "tiny", v.Model)
			require.Equal(t, len(last.Layers), v.NumHiddenLayers)
			for i, l := range v.Layers {
				e := fitted.Layers[i].Estimate(k)
				require.Equal(t, e.DeltaMu, l.DeltaMu)
				require.Equal(t, e.Statistics, *l.Statistics)
				for j, x := range l.Direction {
					require.InDelta(t, e.Vector[j]/e.Length, x, 1e-7)
				}
			}
		}
		break // what Vector does is the same on every backend
	}
}

func TestFitErrors(t *testing.T) {
	good := func() Embeddings {
		return Embeddings{
			Hidden: 2, Layers: []int{3, 5}, Paired: true,
			Positive: [][]float32{{1, 2, 2, 2}, {1, 0, 2, 1}}, Negative: [][]float32{{-1, 2, -2, 1}, {0, 0, 0, 1}},
		}
	}
	backend := pjrttest.Backends(t)["go"]
	_, err := Fit(context.Background(), backend, good(), Options{})
	require.NoError(t, err)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name   string
		damage func(e *Embeddings)
		want   string
	}{
		{"no layers", func(e *Embeddings) { e.Layers = nil }, "hidden_size 2 at 0 layers"},
		{"no hidden size", func(e *Embeddings) { e.Hidden = 0 }, "hidden_size 0 at 2 layers"},
		{"empty class", func(e *Embeddings) { e.Negative = nil }, "the negative class is empty"},
		{"layers of no embeddings", func(e *Embeddings) { e.Negative = [][]float32{{}, {}} }, "0 negative embeddings: a direction and its spread need at least 2"},
		{"one layer too few", func(e *Embeddings) { e.Positive = e.Positive[:1] }, "positive embeddings at 1 layers, expected 2"},
		{"hidden size", func(e *Embeddings) { e.Positive[1] = e.Positive[1][:3] }, "layer 5: 3 numbers in the positive class, expected 2 embeddings of hidden_size 2"},
		{"one text", func(e *Embeddings) { e.Positive = [][]float32{{1, 2}, {3, 4}} }, "1 positive embeddings: a direction and its spread need at least 2"},
		{"no pairs", func(e *Embeddings) {
			for l := range e.Negative {
				e.Negative[l] = append(e.Negative[l], 1, 1)
			}
		}, "2 positive and 3 negative embeddings are not pairs"},
		{"NaN", func(e *Embeddings) { e.Negative[0][3] = nan }, "layer 3: element 1 of negative embedding 1 is NaN"},
		{"Inf", func(e *Embeddings) { e.Positive[1][0] = inf }, "layer 5: element 0 of positive embedding 0 is +Inf"},
		{"order", func(e *Embeddings) { e.Layers = []int{5, 3} }, "layers [5 3]: they must ascend"},
		{"layer beyond the model", func(e *Embeddings) { e.NumHiddenLayers = 5 }, "less than num_hidden_layers 5"},
		{"all equal", func(e *Embeddings) {
			e.Positive[1], e.Negative[1] = []float32{1, 2, 1, 2}, []float32{1, 2, 1, 2}
		}, "layer 5: all embeddings are equal, so there is no direction"},
		{"equal means", func(e *Embeddings) {
			e.Positive[1], e.Negative[1] = []float32{1, 2, 3, 4}, []float32{3, 4, 1, 2}
		}, "layer 5: logistic: the classes have the same mean, so there is no direction"},
		{"no spread", func(e *Embeddings) {
			e.Positive[1], e.Negative[1] = []float32{1, 2, 1, 2}, []float32{3, 4, 3, 4}
		}, "neither class has any spread"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := good()
			c.damage(&e)
			_, err := Fit(context.Background(), backend, e, Options{})
			require.ErrorContains(t, err, c.want)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Fit(ctx, backend, good(), Options{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestPCANeedsPairs(t *testing.T) {
	e := Embeddings{Hidden: 2, Layers: []int{1}, Positive: [][]float32{{1, 2, 2, 2}}, Negative: [][]float32{{-1, 2, -2, 1, 0, 0}}}
	fitted, err := Fit(context.Background(), pjrttest.Backends(t)["go"], e, Options{})
	require.NoError(t, err)
	require.True(t, math.IsNaN(fitted.Layers[0].Cosine(LogisticRegression, PCADiff)))
	_, err = fitted.Vector(PCADiff, steering.Provenance{})
	require.ErrorContains(t, err, "pca_diff needs pairs")

	// All pairs differ by (2, 0) here, so there is an axis about the pairs' centres, but none about the mean difference.
	e = Embeddings{Hidden: 2, Layers: []int{1}, Paired: true, Positive: [][]float32{{1, 2, 2, 2}}, Negative: [][]float32{{-1, 2, 0, 2}}}
	fitted, err = Fit(context.Background(), pjrttest.Backends(t)["go"], e, Options{})
	require.NoError(t, err)
	require.InDeltaSlice(t, []float64{1, 0}, fitted.Layers[0].Estimate(PCACenter).Vector, 1e-12)
	_, err = fitted.Vector(PCADiff, steering.Provenance{})
	require.ErrorContains(t, err, "layer 1: pca_diff found no direction: all pairs differ alike")
}

// With more pairs than a basis holds, PCA begins again from what it found. The answer is the eigenvectors of the same matrix
// made here another way, [hidden, hidden].
func TestPCAOfManyPairs(t *testing.T) {
	const n, hidden = maxBasis + 30, 110
	e := synthetic(1, n, n, hidden, 6)
	onBackends(t, func(t *testing.T, backend compute.Backend) {
		fitted, err := Fit(context.Background(), backend, e, Options{Splits: -1})
		require.NoError(t, err)
		for l := range e.Layers {
			for _, kind := range []Estimator{PCADiff, PCACenter} {
				rows := mat.NewDense(n, hidden, nil)
				for i := range n {
					for k := range hidden {
						rows.Set(i, k, float64(e.Positive[l][i*hidden+k])-float64(e.Negative[l][i*hidden+k]))
					}
				}
				if kind == PCADiff {
					for k := range hidden {
						mean := mat.Sum(rows.ColView(k)) / n
						for i := range n {
							rows.Set(i, k, rows.At(i, k)-mean)
						}
					}
				}
				var second mat.SymDense
				second.SymOuterK(1, rows.T())
				var eigen mat.EigenSym
				require.True(t, eigen.Factorize(&second, true))
				var vectors mat.Dense
				eigen.VectorsTo(&vectors)
				values := eigen.Values(nil)
				want := variances(kind, [2]float64{values[hidden-1], values[hidden-2]}, n)
				have := fitted.Layers[l].Estimate(kind)
				require.InEpsilon(t, want[0], have.Variances[0], 1e-10)
				require.InEpsilon(t, want[1], have.Variances[1], 1e-2, "the second is only near")
				require.InDelta(t, 1, math.Abs(cosine(mat.Col(nil, hidden-1, &vectors), have.Vector)), 1e-10)
			}
		}
	})
}

// Fitting in groups of layers, which the budget of memory asks for with large models, gives what fitting at once gives.
func TestGroups(t *testing.T) {
	e := synthetic(7, 8, 8, 12, 1)
	f, err := NewFitter(pjrttest.Backends(t)["go"])
	require.NoError(t, err)
	defer f.Finalize()
	whole, err := f.Fit(context.Background(), e, Options{Splits: 2})
	require.NoError(t, err)
	j := newJob(&e, Options{Splits: 2})
	require.Equal(t, 7, j.group(7))
	for first := 0; first < 7; first += 3 {
		part, err := f.group(context.Background(), j, first, 3)
		require.NoError(t, err)
		for i, layer := range part {
			want := whole.Layers[first+i]
			require.Equal(t, want.Index, layer.Index)
			require.InDelta(t, want.B, layer.B, 1e-9)
			for _, k := range Estimators {
				require.InDeltaSlice(t, want.Estimate(k).Vector, layer.Estimate(k).Vector, 1e-9)
				require.InDelta(t, want.Estimate(k).CohensD, layer.Estimate(k).CohensD, 1e-9)
			}
			require.InDelta(t, want.Estimate(LogisticRegression).Stability, layer.Estimate(LogisticRegression).Stability, 1e-9)
		}
	}
	large := newJob(&Embeddings{Hidden: 8192, Positive: [][]float32{make([]float32, 1000*8192)}, Negative: [][]float32{make([]float32, 1000*8192)}}, Options{})
	require.Less(t, large.group(80), 5)
}

// The halves of a split are fits of their own: the same as of these embeddings alone.
func TestStability(t *testing.T) {
	e := synthetic(1, 10, 10, 6, 2)
	onBackends(t, func(t *testing.T, backend compute.Backend) {
		fitted, err := Fit(context.Background(), backend, e, Options{Splits: 1, Seed: 5})
		require.NoError(t, err)
		j := newJob(&e, Options{Splits: 1, Seed: 5})
		var halves [2]*Fitted
		for h := range halves {
			half := Embeddings{Hidden: 6, Layers: []int{0}, Paired: true, Positive: make([][]float32, 1), Negative: make([][]float32, 1)}
			for i := range 10 {
				require.Equal(t, j.weight[(1+h)*20+i], j.weight[(1+h)*20+10+i], "pairs stay together")
				if j.weight[(1+h)*20+i] > 0 {
					half.Positive[0] = append(half.Positive[0], e.Positive[0][6*i:][:6]...)
					half.Negative[0] = append(half.Negative[0], e.Negative[0][6*i:][:6]...)
				}
			}
			require.Len(t, half.Positive[0], 5*6)
			halves[h], err = Fit(context.Background(), backend, half, Options{Splits: -1})
			require.NoError(t, err)
			require.True(t, math.IsNaN(halves[h].Layers[0].Estimate(LogisticRegression).Stability))
		}
		for _, k := range []Estimator{LogisticRegression, DiffMeans} {
			want := cosine(halves[0].Layers[0].Estimate(k).Vector, halves[1].Layers[0].Estimate(k).Vector)
			require.InDelta(t, want, fitted.Layers[0].Estimate(k).Stability, 1e-10)
			require.Less(t, want, 0.999)
		}
	})
}

// Where float64 is at its end the optimum is still found: embeddings of norm 1e4 and more, with directions of all sizes, as hidden
// states with massive activations are.
func TestHardScales(t *testing.T) {
	onBackends(t, func(t *testing.T, backend compute.Backend) {
		for _, scale := range []float32{1e-4, 1, 1e4} {
			e := synthetic(2, 30, 20, 40, 3)
			for _, class := range [][][]float32{e.Positive, e.Negative} {
				for _, layer := range class {
					for i := range layer {
						layer[i] *= scale * float32(math.Pow(2, float64(i%40)/4))
						if i%40 == 7 {
							layer[i] += 1e4 * scale
						}
					}
				}
			}
			fitted, err := Fit(context.Background(), backend, e, Options{})
			require.NoError(t, err, fmt.Sprint(scale))
			for _, layer := range fitted.Layers {
				require.Less(t, layer.NewtonSteps, maxNewton)
			}
		}
	})
}
