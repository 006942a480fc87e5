package parity

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/steerage/steerage/pjrt"
	"github.com/steerage/steerage/steering/contrast"
)

// embedded is embeddings of two classes and what was fitted on them: those of a model at its layers, or a case of logistic.
type embedded struct {
	where   string // for messages; "" for a model's
	prefix  string // of its tensors
	file    *store
	layered bool // tensors have a leading axis for layers
	e       contrast.Embeddings
	want    []directions // by layer
}

// directions is what a dump says of the directions at one layer. What is absent is not compared.
type directions struct {
	Layer int    `json:"layer"`
	Name  string `json:"name"` // logistic only, and so are these:
	NPos  int    `json:"n_pos"`
	NNeg  int    `json:"n_neg"`
	Dim   int    `json:"dim"`

	M        *float64 `json:"m"`
	MuPos    *float64 `json:"mu_pos"`
	MuNeg    *float64 `json:"mu_neg"`
	SigmaPos *float64 `json:"sigma_pos"`
	SigmaNeg *float64 `json:"sigma_neg"`
	DeltaMu  *float64 `json:"delta_mu"`
	Cap      *float64 `json:"cap"`
	CohensD  *float64 `json:"cohens_d"`
	Cosine   *float64 `json:"cosine_lr_diff_means"`

	DiffVariances   []float64 `json:"pca_diff_explained_variance"`
	CenterVariances []float64 `json:"pca_center_explained_variance"`
	DiffVote        *vote     `json:"pca_diff_sign_vote"`
	CenterVote      *vote     `json:"pca_center_sign_vote"`
}

// vote is of the pairs, along a principal axis before it was flipped.
type vote struct {
	Smaller float64 `json:"pos_smaller"`
	Larger  float64 `json:"pos_larger"`
}

// Tolerances of directions.
const (
	exactSlack     = 1e-6 // relative, of a float64 fit on the same embeddings
	directionSlack = 1e-6 // 1 - cosine, of a fit on embeddings that differ as float32 runs do
)

// rows says how many rows a tensor has for each layer, and the shape it has in the file.
func (x *embedded) shape(dims ...int) []int {
	if x.layered {
		return append([]int{len(x.want)}, dims...)
	}
	return dims
}

// readEmbeddings reads emb.pos and emb.neg.
func (x *embedded) readEmbeddings(pos, neg, hidden int, paired bool) error {
	if len(x.want) == 0 {
		return errors.New("no layers")
	}
	if pos < 2 || neg < 2 || hidden < 1 {
		return fmt.Errorf("%d and %d embeddings of %d elements", pos, neg, hidden)
	}
	x.e = contrast.Embeddings{Hidden: hidden, Paired: paired}
	for _, l := range x.want {
		x.e.Layers = append(x.e.Layers, l.Layer)
	}
	for _, class := range []struct {
		name string
		n    int
		to   *[][]float32
	}{{"emb.pos", pos, &x.e.Positive}, {"emb.neg", neg, &x.e.Negative}} {
		flat, err := x.file.floats(x.prefix+class.name, x.shape(class.n, hidden)...)
		if err != nil {
			return err
		}
		*class.to = slices.Collect(slices.Chunk(flat, class.n*hidden))
	}
	return nil
}

// tensor returns an F64 tensor [hidden], or [1] for b, by layer.
func (x *embedded) tensor(name string) ([][]float64, error) {
	n := x.e.Hidden
	if name == "b" {
		n = 1
	}
	flat, err := x.file.doubles(x.prefix+name, x.shape(n)...)
	return slices.Collect(slices.Chunk(flat, n)), err
}

// compareLogistic compares fits with a folder of embeddings without a model.
func compareLogistic(ctx context.Context, dir string, opt Options, fit fitter) (report Report, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Report{}, err
	}
	name := filepath.Base(abs)
	var cases []directions
	if err := readJSON(dir, logisticJSON, &cases); err != nil {
		return Report{}, err
	}
	file, err := openStore(dir, LogisticName)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if len(cases) == 0 {
		return Report{}, fmt.Errorf("%s: %s: no cases", dir, logisticJSON)
	}

	var out output
	f := fitting{out: &out}
	kind := ""
	for i, c := range cases {
		c.Layer = 0
		x := embedded{where: "case " + c.Name, prefix: c.Name + ".", file: file, want: []directions{c}}
		err := x.readEmbeddings(c.NPos, c.NNeg, c.Dim, file.has(c.Name+".pca_"))
		if err == nil {
			var fitted *contrast.Fitted
			if fitted, kind, err = fit(ctx, x.e); err == nil {
				err = f.compare(&x, fitted)
			}
		}
		if err != nil {
			return report, fmt.Errorf("%s: case %d (%s): %w", dir, i, c.Name, err)
		}
	}
	f.judge("logistic.", func(row Row) {
		row.Model, row.Backend = name, kind
		report.Rows = append(report.Rows, row)
	})
	if opt.DumpDir != "" {
		err = out.write(opt.DumpDir, name, map[string]string{"model": name, "backend": kind})
	}
	return report, err
}

// fitter fits on a backend, and says on which.
type fitter func(ctx context.Context, e contrast.Embeddings) (*contrast.Fitted, string, error)

// openFitter opens a backend of its own.
func openFitter(spec string) (fitter, func(), error) {
	backend, choice, err := pjrt.Backend(trueFloat32(spec))
	if err != nil {
		return nil, nil, err
	}
	fit := func(ctx context.Context, e contrast.Embeddings) (*contrast.Fitted, string, error) {
		fitted, err := contrast.Fit(ctx, backend, e, fitOptions)
		return fitted, choice.Kind, err
	}
	return fit, backend.Finalize, nil
}

// fitOptions leave out the split halves, which no dump has.
var fitOptions = contrast.Options{Splits: -1}

// fitting compares fits with dumps.
type fitting struct {
	out                  *output
	logistic, means, pca tally
}

func (f *fitting) judge(prefix string, row func(Row)) {
	for _, part := range []struct {
		name string
		t    *tally
	}{{"logistic", &f.logistic}, {"diff_means", &f.means}, {"pca", &f.pca}} {
		if !part.t.any {
			continue
		}
		r := Row{Part: prefix + part.name, DType: "f64", Diff: &part.t.diff, Used: part.t.used, Verdict: Pass}
		if part.t.used > 1 {
			r.Verdict, r.Note = Fail, part.t.worst
		}
		row(r)
	}
}

// compare compares a fit on the dump's embeddings, layer by layer.
func (f *fitting) compare(x *embedded, fitted *contrast.Fitted) error {
	if len(fitted.Layers) != len(x.want) {
		return fmt.Errorf("fitted at %d layers, want %d", len(fitted.Layers), len(x.want))
	}
	for _, part := range []func(*embedded, *contrast.Fitted) error{f.compareLogistic, f.compareMeans, f.comparePCA} {
		if err := part(x, fitted); err != nil {
			return err
		}
	}
	return nil
}

// at names a layer for a message.
func (x *embedded) at(l int, what string) string {
	if x.layered {
		return fmt.Sprintf("layer %d, %s", x.want[l].Layer, what)
	}
	return fmt.Sprintf("%s, %s", x.where, what)
}

func (f *fitting) write(x *embedded, name string, byLayer [][]float64) {
	f.out.doubles(x.prefix+name, slices.Concat(byLayer...), x.shape(len(byLayer[0]))...)
}

func (f *fitting) compareLogistic(x *embedded, fitted *contrast.Fitted) error {
	var w, b, v [][]float64
	for i := range fitted.Layers {
		l := &fitted.Layers[i]
		e := l.Estimate(contrast.LogisticRegression)
		w, b, v = append(w, e.Vector), append(b, []float64{l.B}), append(v, scaled(e.Vector, 1/e.Length))

		want := &x.want[i]
		// What lies near zero, as m of balanced data does, is relative to the spread.
		spread := 1e-3 * max(e.SigmaPos, e.SigmaNeg)
		for _, s := range []struct {
			name    string
			got     float64
			want    *float64
			atLeast float64
		}{
			{"m", e.M, want.M, spread}, {"mu_pos", e.MuPos, want.MuPos, spread}, {"mu_neg", e.MuNeg, want.MuNeg, spread},
			{"sigma_pos", e.SigmaPos, want.SigmaPos, 0}, {"sigma_neg", e.SigmaNeg, want.SigmaNeg, 0},
			{"delta_mu", e.DeltaMu, want.DeltaMu, 0}, {"cap", e.MuPos + 40*e.SigmaPos, want.Cap, 0}, {"cohens_d", e.CohensD, want.CohensD, 0},
			{"cosine_lr_diff_means", l.Cosine(contrast.LogisticRegression, contrast.DiffMeans), want.Cosine, 1},
		} {
			if s.want != nil {
				f.logistic.addRelative(x.at(i, s.name), []float64{s.got}, []float64{*s.want}, s.atLeast, exactSlack)
			}
		}
	}
	for _, t := range []struct {
		name string
		got  [][]float64
	}{{"w", w}, {"b", b}, {"v_hat", v}} {
		if err := f.compareTensor(&f.logistic, x, t.name, t.got, func(i int) float64 {
			if t.name != "b" {
				return 0
			}
			e := fitted.Layers[i].Estimate(contrast.LogisticRegression)
			return 1e-3 * e.Length * max(e.SigmaPos, e.SigmaNeg) // b = -m |w|
		}); err != nil {
			return err
		}
	}
	return nil
}

// compareTensor compares vectors by layer, relative to their length or at least to something.
func (f *fitting) compareTensor(t *tally, x *embedded, name string, got [][]float64, atLeast func(i int) float64) error {
	want, err := x.tensor(name)
	if err != nil {
		return err
	}
	for i := range want {
		t.addRelative(x.at(i, name), got[i], want[i], atLeast(i), exactSlack)
	}
	f.write(x, name, got)
	return nil
}

func (f *fitting) compareMeans(x *embedded, fitted *contrast.Fitted) error {
	var means, units [][]float64
	for i := range fitted.Layers {
		e := fitted.Layers[i].Estimate(contrast.DiffMeans)
		means, units = append(means, e.Vector), append(units, scaled(e.Vector, 1/e.Length))
	}
	for _, t := range []struct {
		name string
		got  [][]float64
	}{{"diff_means", means}, {"diff_means_unit", units}} {
		if !x.file.has(x.prefix + t.name) {
			continue
		}
		if err := f.compareTensor(&f.means, x, t.name, t.got, func(int) float64 { return 0 }); err != nil {
			return err
		}
	}
	return nil
}

// comparePCA compares principal axes. The closer the first two variances are, the less the first axis is determined.
func (f *fitting) comparePCA(x *embedded, fitted *contrast.Fitted) error {
	for _, kind := range []contrast.Estimator{contrast.PCADiff, contrast.PCACenter} {
		name := kind.String()
		if !x.file.has(x.prefix + name) {
			continue
		}
		want, err := x.tensor(name)
		if err != nil {
			return err
		}
		var got [][]float64
		for i := range fitted.Layers {
			e := fitted.Layers[i].Estimate(kind)
			variances, votes := x.want[i].DiffVariances, x.want[i].DiffVote
			if kind == contrast.PCACenter {
				variances, votes = x.want[i].CenterVariances, x.want[i].CenterVote
			}
			if e == nil {
				f.pca.addFailed(x.at(i, name) + ": no axis was found")
				got = append(got, make([]float64, x.e.Hidden))
				continue
			}
			got = append(got, e.Vector)
			slack := directionSlack
			if len(variances) > 1 && variances[0] > variances[1] {
				slack /= 1 - variances[1]/variances[0]
				f.pca.addRelative(x.at(i, name+" variance"), e.Variances[:1], variances[:1], 0, exactSlack)
			}
			axis := e.Vector
			tie := votes == nil || votes.Smaller == votes.Larger
			if tie && inner(axis, want[i]) < 0 { // the sign says nothing
				axis = scaled(axis, -1)
			}
			f.pca.addDirection(x.at(i, name), axis, want[i], slack)
			if !tie {
				share := []float64{max(votes.Smaller, votes.Larger), min(votes.Smaller, votes.Larger)}
				f.pca.addRelative(x.at(i, name+" votes"), e.Votes[:], share, 1, exactSlack)
			}
		}
		f.write(x, name, got)
	}
	return nil
}

func scaled(x []float64, by float64) []float64 {
	y := make([]float64, len(x))
	for i := range x {
		y[i] = by * x[i]
	}
	return y
}

func inner(x, y []float64) (sum float64) {
	for i := range y {
		sum += x[i] * y[i]
	}
	return sum
}

// addRelative compares two vectors relative to the length of the second, or at least to something.
func (t *tally) addRelative(where string, got, want []float64, atLeast, slack float64) {
	d := diff(got, want)
	length := max(math.Sqrt(inner(want, want)), atLeast)
	off := d.RMS * math.Sqrt(float64(len(want))) // the length of the difference
	t.put(where, d, Bound{Max: slack * length}.used(Diff{Max: off, NotFinite: d.NotFinite}))
}

// addDirection compares the directions of two vectors.
func (t *tally) addDirection(where string, got, want []float64, slack float64) {
	d := diff(scaled(got, 1/math.Sqrt(inner(got, got))), scaled(want, 1/math.Sqrt(inner(want, want))))
	// |u - v|²/2 is 1 - cosine, without its cancellation.
	off := d.RMS * d.RMS * float64(len(want)) / 2
	t.put(where, d, Bound{Max: slack}.used(Diff{Max: off, NotFinite: d.NotFinite}))
}

// addFailed adds something that cannot be compared and should.
func (t *tally) addFailed(where string) { t.put(where, Diff{Cosine: 1}, mismatch) }
