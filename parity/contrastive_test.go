package parity

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/safetensors"
	"github.com/steerage/steerage/steering/contrast"
)

// addContrastive adds what the toy gives for pairs of texts to a folder, after a change if any.
func addContrastive(t *testing.T, dir string, change func(info *contrastiveInfo)) {
	t.Helper()
	var info contrastiveInfo
	var sequences []engine.Sequence
	for class, to := range []*[]pairText{&info.Aligned, &info.Malicious} {
		for i := range 4 {
			ids := []int32{int32(i), 7, int32(10 + class), 3, int32(15 + 2*class)}
			*to = append(*to, pairText{IDs: ids, PromptLen: 2, ResponseLen: 3})
			sequences = append(sequences, engine.Sequence{Prompt: ids[:2], Continuation: ids[2:]})
		}
	}
	e := contrast.Embeddings{Hidden: toyHidden, Layers: []int{0, 1, 2}, Paired: true}
	captured, err := toy{}.Capture(t.Context(), sequences, e.Layers)
	require.NoError(t, err)
	for i, c := range captured {
		require.NoError(t, e.Append(i < 4, c[0].Values))
	}
	fitted, err := toy{}.fit(t.Context(), e)
	require.NoError(t, err)
	info.Layers = make([]directions, len(e.Layers))
	var out output
	out.floats("emb.pos", slices.Concat(e.Positive...), 3, 4, toyHidden)
	out.floats("emb.neg", slices.Concat(e.Negative...), 3, 4, toyHidden)
	for i := range fitted.Layers {
		l := &fitted.Layers[i]
		lr := l.Estimate(contrast.LogisticRegression)
		cosine := l.Cosine(contrast.LogisticRegression, contrast.DiffMeans)
		d := &info.Layers[i]
		*d = directions{Layer: i, M: &lr.M, MuPos: &lr.MuPos, MuNeg: &lr.MuNeg, SigmaPos: &lr.SigmaPos, SigmaNeg: &lr.SigmaNeg,
			DeltaMu: &lr.DeltaMu, Cap: of(lr.MuPos + 40*lr.SigmaPos), CohensD: &lr.CohensD, Cosine: &cosine}
		for _, kind := range []contrast.Estimator{contrast.PCADiff, contrast.PCACenter} {
			p := l.Estimate(kind)
			v := &vote{Smaller: p.Votes[1], Larger: p.Votes[0]}
			if kind == contrast.PCADiff {
				d.DiffVariances, d.DiffVote = p.Variances[:], v
			} else {
				d.CenterVariances, d.CenterVote = p.Variances[:], v
			}
		}
	}
	x := embedded{layered: true, e: e, want: info.Layers}
	f := fitting{out: &out}
	f.write(&x, "w", perLayer(fitted, contrast.LogisticRegression, false))
	f.write(&x, "b", [][]float64{{fitted.Layers[0].B}, {fitted.Layers[1].B}, {fitted.Layers[2].B}})
	f.write(&x, "v_hat", perLayer(fitted, contrast.LogisticRegression, true))
	f.write(&x, "diff_means", perLayer(fitted, contrast.DiffMeans, false))
	f.write(&x, "diff_means_unit", perLayer(fitted, contrast.DiffMeans, true))
	f.write(&x, "pca_diff", perLayer(fitted, contrast.PCADiff, false))
	f.write(&x, "pca_center", perLayer(fitted, contrast.PCACenter, false))
	if change != nil {
		change(&info)
	}
	require.NoError(t, safetensors.WriteFile(filepath.Join(dir, contrastiveName), out.tensors, nil))
	text, err := json.Marshal(info)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, contrastiveJSON), text, 0o644))
}

func perLayer(fitted *contrast.Fitted, kind contrast.Estimator, unit bool) (all [][]float64) {
	for i := range fitted.Layers {
		e := fitted.Layers[i].Estimate(kind)
		if unit {
			all = append(all, scaled(e.Vector, 1/e.Length))
		} else {
			all = append(all, e.Vector)
		}
	}
	return all
}

func TestContrastive(t *testing.T) {
	dir, out := toyDump(t, nil), t.TempDir()
	addContrastive(t, dir, nil)
	estimate := func(layer int, kind contrast.Estimator, change func(e *contrast.Estimate)) func(f *contrast.Fitted) {
		return func(f *contrast.Fitted) { change(f.Layers[layer].Estimate(kind)) }
	}
	tests := []struct {
		name       string
		toy        toy
		part, note string
	}{
		{"equal", toy{}, "", ""},
		{"a captured embedding", toy{layer: func(l int, ids []int32, h []float32) {
			if l == 1 && len(ids) == 5 && ids[0] == 2 && ids[1] == 7 && ids[2] == 11 {
				h[4*toyHidden] += 9e-4
			}
		}}, "contrastive.capture", "emb.neg, layer 1: max 0.0003"},
		{"the prompt in the mean", toy{asked: func(s *engine.Sequence) {
			if len(s.Prompt) == 2 && s.Prompt[1] == 7 && len(s.Continuation) == 3 {
				ids := slices.Concat(s.Prompt, s.Continuation)
				s.Prompt, s.Continuation = ids[:1], ids[1:]
			}
		}}, "contrastive.capture", "emb."},
		{"w", toy{fitted: estimate(2, contrast.LogisticRegression, func(e *contrast.Estimate) { e.Vector[3] += 2e-6 * e.Length })},
			"contrastive.logistic", "layer 2, v_hat: max"},
		{"b", toy{fitted: func(f *contrast.Fitted) { f.Layers[0].B *= 1 + 2e-6 }}, "contrastive.logistic", "layer 0, b: max"},
		{"sigma", toy{fitted: estimate(1, contrast.LogisticRegression, func(e *contrast.Estimate) { e.SigmaNeg *= 1.000002 })},
			"contrastive.logistic", "layer 1, sigma_neg: max"},
		{"the difference of means", toy{fitted: estimate(1, contrast.DiffMeans, func(e *contrast.Estimate) { e.Vector[0] += 2e-6 * e.Length })},
			"contrastive.diff_means", "layer 1, diff_means_unit: max"},
		{"the sign of a principal axis", toy{fitted: estimate(0, contrast.PCACenter, func(e *contrast.Estimate) {
			e.Vector = scaled(e.Vector, -1)
		})}, "contrastive.pca", "layer 0, pca_center: max"},
		{"a variance", toy{fitted: estimate(0, contrast.PCADiff, func(e *contrast.Estimate) { e.Variances[0] *= 1.00001 })},
			"contrastive.pca", "layer 0, pca_diff variance: max"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			report, err := runToy(t, dir, test.toy, Options{DumpDir: out})
			require.NoError(t, err)
			if test.part == "" {
				require.True(t, report.OK(), "%+v", report.Failures())
				for _, part := range []string{"capture", "whole"} {
					require.Equal(t, "f32", find(t, report, "f32 contrastive."+part).DType)
				}
				requireDumped(t, dir, out)
				return
			}
			at := slices.IndexFunc(report.Rows, func(r Row) bool { return r.Part == test.part })
			require.GreaterOrEqual(t, at, 0)
			require.Equal(t, Fail, report.Rows[at].Verdict)
			require.Contains(t, report.Rows[at].Note, test.note)
		})
	}
}

// requireDumped compares all of contrastive.safetensors with what was written to out.
func requireDumped(t *testing.T, dir, out string) {
	t.Helper()
	want, err := safetensors.OpenFile(filepath.Join(dir, contrastiveName))
	require.NoError(t, err)
	defer want.Close()
	got, err := safetensors.OpenFile(filepath.Join(out, filepath.Base(dir)+".safetensors"))
	require.NoError(t, err)
	defer got.Close()
	for _, name := range want.Names() {
		w, _ := want.Tensor(name)
		g, ok := got.Tensor(name)
		require.True(t, ok, name)
		require.Equal(t, w.DType, g.DType, name)
		require.Equal(t, w.Shape, g.Shape, name)
		require.Equal(t, w.Data, g.Data, name)
	}
}

func TestMalformedContrastive(t *testing.T) {
	tests := []struct {
		name   string
		change func(info *contrastiveInfo)
		err    string
	}{
		{"not pairs", func(info *contrastiveInfo) { info.Aligned = info.Aligned[:3] }, "3 aligned and 4 malicious texts are not pairs"},
		{"no texts", func(info *contrastiveInfo) { info.Aligned, info.Malicious = nil, nil }, "0 aligned and 0 malicious"},
		{"an id", func(info *contrastiveInfo) { info.Malicious[2].IDs[1] = -1 }, "malicious[2] holds id -1 at 1, the vocabulary has 24"},
		{"a length", func(info *contrastiveInfo) { info.Aligned[1].ResponseLen = 4 }, "aligned[1]: prompt_len 2 and response_len 4 of 5 ids"},
		{"no response", func(info *contrastiveInfo) { info.Aligned[0].PromptLen, info.Aligned[0].ResponseLen = 5, 0 }, "prompt_len 5"},
		{"a layer", func(info *contrastiveInfo) { info.Layers[2].Layer = 3 }, "layers[2] is layer 3; they must ascend, and the model has 3"},
		{"layers", func(info *contrastiveInfo) { info.Layers = info.Layers[:2] }, `"emb.pos" has shape [3 4 8], want [2 4 8]`},
		{"no layers", func(info *contrastiveInfo) { info.Layers = nil }, "no layers"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := toyDump(t, nil)
			addContrastive(t, dir, test.change)
			_, err := runToy(t, dir, toy{}, Options{})
			require.ErrorContains(t, err, test.err)
			require.ErrorContains(t, err, dir)
		})
	}
	t.Run("half of it", func(t *testing.T) {
		for _, name := range []string{contrastiveJSON, contrastiveName} {
			dir := toyDump(t, nil)
			addContrastive(t, dir, nil)
			require.NoError(t, os.Remove(filepath.Join(dir, name)))
			_, err := runToy(t, dir, toy{}, Options{})
			require.ErrorContains(t, err, name)
		}
	})
}

func TestLogisticFolder(t *testing.T) {
	const source = "testdata/logistic"
	fit := func(bend func(*contrast.Fitted)) fitter {
		return func(ctx context.Context, e contrast.Embeddings) (*contrast.Fitted, string, error) {
			f, err := toy{fitted: bend}.fit(ctx, e)
			return f, "toy", err
		}
	}
	report, err := compareLogistic(t.Context(), source, Options{}, fit(nil))
	require.NoError(t, err)
	require.True(t, report.OK())
	require.Equal(t, []string{"f64 logistic.logistic", "f64 logistic.diff_means", "f64 logistic.pca"}, partNames(report))
	require.Equal(t, "logistic toy f64 logistic.pca PASS", report.Rows[2].String())

	report, err = compareLogistic(t.Context(), source, Options{}, fit(func(f *contrast.Fitted) {
		if !f.Paired {
			f.Layers[0].B *= 1 + 1e-5
		}
	}))
	require.NoError(t, err)
	require.Len(t, report.Failures(), 1)
	require.Contains(t, report.Rows[0].Note, "case unbalanced_overlapping, b: max ")

	t.Run("malformed", func(t *testing.T) {
		for _, test := range []struct{ old, new, err string }{
			{`"n_pos": `, `"n_pos": 1`, `"separable.emb.pos" has shape`},
			{`"dim": 40`, `"dim": 0`, "embeddings of 0 elements"},
			{`"name": "separable"`, `"name": "x"`, `"x.emb.pos" is missing`},
			{`[`, `[], [`, logisticJSON},
		} {
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(source)))
			path := filepath.Join(dir, logisticJSON)
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(text), test.old, test.new, 1)), 0o644))
			_, err = compareLogistic(t.Context(), dir, Options{}, fit(nil))
			require.ErrorContains(t, err, test.err)
			require.ErrorContains(t, err, dir)
		}
	})
}

func FuzzContrastiveJSON(f *testing.F) {
	for _, s := range []string{
		`{"aligned":[{"ids":[1,2],"prompt_len":1,"response_len":1}],"malicious":[{"ids":[1,2],"prompt_len":1,"response_len":1}],"layers":[{}]}`,
		`{"aligned":[{"ids":[1],"prompt_len":-9223372036854775808,"response_len":9223372036854775807}],"malicious":[{}]}`,
		`{"layers":[{"layer":-1}]}`, `[]`, `null`, ``,
	} {
		f.Add([]byte(s))
	}
	dir := toyDump(f, nil)
	var out output
	out.floats("emb.pos", make([]float32, 2*toyHidden), 1, 2, toyHidden)
	require.NoError(f, safetensors.WriteFile(filepath.Join(dir, contrastiveName), out.tensors, nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, contrastiveJSON), text, 0o644))
		if d, err := openDump(dir); err == nil {
			require.NoError(t, d.Close())
		}
	})
}
