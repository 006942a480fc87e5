package parity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/steerage/steerage/engine"
)

// Options of [Run]. The zero value compares on the best backend found and writes nothing.
type Options struct {
	// Backend is where the engine runs, as engine.Options.Backend. TF32 is switched off for the float32 reference if this
	// begins with "xla".
	Backend string
	// DumpDir, if set, is a folder for what the engine computed: <name of the model's folder>.safetensors, under the
	// dump's tensor names and in its dtypes. It is made if it is not there.
	DumpDir string
	// Logger of the engine; nil is silent.
	Logger *slog.Logger
}

// Run compares the engine with the reference dump in a model's folder. The error is about a folder or a dump that cannot
// be used and about an engine that cannot compute; the report then holds what was compared before. A number that
// disagrees is no error but a row with the verdict Fail.
func Run(ctx context.Context, dir string, opt Options) (Report, error) {
	if logistic, err := isLogistic(dir); err != nil {
		return Report{}, err
	} else if logistic {
		fit, done, err := openFitter(opt.Backend)
		if err != nil {
			return Report{}, err
		}
		defer done()
		return compareLogistic(ctx, dir, opt, fit)
	}
	return compare(ctx, dir, opt, openEngine)
}

// isLogistic reports whether a folder holds embeddings and no model.
func isLogistic(dir string) (bool, error) {
	for _, name := range []string{"config.json", logisticJSON} {
		_, err := os.Stat(filepath.Join(dir, name))
		if err == nil {
			return name == logisticJSON, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

func compare(ctx context.Context, dir string, opt Options, open opener) (report Report, err error) {
	d, err := openDump(dir)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	var out output
	kind := ""
	float := map[string]seen{}
	for i, ref := range d.info.References {
		s, err := open(ctx, dir, ref, opt, d.sizes())
		if err != nil {
			return report, fmt.Errorf("%s: %w", dir, err)
		}
		kind = s.backend()
		r := &comparison{ctx: ctx, dump: d, subject: s, ref: ref, report: &report, out: &out, float: float}
		if i == 0 {
			r.config()
		}
		err = r.run()
		if err = errors.Join(err, s.Close()); err != nil {
			return report, fmt.Errorf("%s: %s: %w", dir, ref, err)
		}
	}
	if opt.DumpDir != "" {
		if err := out.write(opt.DumpDir, d.name, map[string]string{"model": d.name, "backend": kind}); err != nil {
			return report, err
		}
	}
	return report, nil
}

// comparison compares one opened subject with one reference.
type comparison struct {
	ctx context.Context
	*dump
	subject subject
	ref     string
	report  *Report
	out     *output

	singles    []continuation  // of each prompt alone
	bf16Logits float64         // how far transformers' bf16 logits are from its float32 logits, over all that was compared so far
	rhoBound   Bound           // of projections
	float      map[string]seen // what the float32 run saw of each steered text
}

func (r *comparison) run() error {
	steps := []func() error{r.comparePrompts, r.compareContinuations}
	if r.ref == refF32 { // the dump's padded batches are float32
		steps = append(steps, r.compareBatches)
	}
	if len(r.steer) > 0 && r.has(r.ref+".steer.") {
		steps = append(steps, r.projected, r.compareSteer)
	}
	if len(r.mixed) > 0 && r.has(r.ref+".mixed.") {
		steps = append(steps, r.compareMixed)
	}
	if r.contrastive != nil && r.ref == refF32 { // fitted on float32 embeddings
		steps = append(steps, r.compareContrastive)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// row appends a row to the report.
func (r *comparison) row(row Row) {
	row.Model, row.Backend, row.DType = r.dump.name, r.subject.backend(), r.ref
	r.report.Rows = append(r.report.Rows, row)
}

// judge appends the row of a tally: it fails with a problem, or beyond the tolerance.
func (r *comparison) judge(part string, t tally, exact *Agreement, problems []string, notes ...string) {
	row := Row{Part: part, Exact: exact, Verdict: Pass}
	if t.any {
		row.Diff, row.Used = &t.diff, t.used
		if t.used > 1 && len(problems) == 0 {
			problems = []string{t.worst}
		}
	}
	if len(problems) > 0 {
		row.Verdict = Fail
	}
	row.Note = strings.Join(append(short(problems), short(notes)...), "; ")
	r.row(row)
}

// trace is Trace with its shapes checked.
func (r *comparison) trace(s engine.Sequence) (*engine.Trace, error) {
	t, err := r.subject.Trace(r.ctx, s)
	if err != nil {
		return nil, err
	}
	n, c := len(s.Prompt)+len(s.Continuation), r.cfg
	if len(t.Layers) != c.NumHiddenLayers || len(t.Logits) != n*c.VocabSize {
		return nil, fmt.Errorf("trace of %d tokens: %d layers, want %d; %d logits, want %d", n, len(t.Layers),
			c.NumHiddenLayers, len(t.Logits), n*c.VocabSize)
	}
	for l, h := range t.Layers {
		if len(h) != n*c.HiddenSize {
			return nil, fmt.Errorf("trace of %d tokens: layer %d has %d values, want %d", n, l, len(h), n*c.HiddenSize)
		}
	}
	if len(t.Sites) != len(s.Steering) { // each entry of a dump's specs has one layer
		return nil, fmt.Errorf("trace of %d tokens: %d sites, want %d", n, len(t.Sites), len(s.Steering))
	}
	for i, site := range t.Sites {
		if site.Entry != i || len(site.Rho) != n || len(site.Delta) != n {
			return nil, fmt.Errorf("trace of %d tokens: site %d is of entry %d, has %d and %d values", n, i, site.Entry,
				len(site.Rho), len(site.Delta))
		}
	}
	return t, nil
}

// logits returns a row of a trace, [vocab_size].
func (r *comparison) logits(t *engine.Trace, position int) []float32 {
	return t.Logits[position*r.cfg.VocabSize : (position+1)*r.cfg.VocabSize]
}
