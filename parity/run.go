package parity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/engine/schedule"
	"github.com/steerage/steerage/model"
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
	return compare(ctx, dir, opt, openEngine)
}

// subject is what is compared with a dump: an engine, or in tests the dump itself, perturbed.
type subject interface {
	Trace(ctx context.Context, ids []int32) (*engine.Trace, error)
	Score(ctx context.Context, prompt, continuation []int32) ([]float32, error)
	// continuation generates n tokens greedily, past any EOS.
	continuation(ctx context.Context, ids []int32, n int) (tokens []int32, logProbs []float32, err error)
	backend() string
	Close() error
}

// opener opens a subject for a reference and for the sizes of a dump.
type opener func(ctx context.Context, dir, ref string, opt Options, sizes sizes) (subject, error)

// sizes are the largest that are run.
type sizes struct {
	context int // tokens of a prompt with its continuation
	rows    int // of a batch
	row     int // tokens of a batch's row, without its continuation
}

// schedule is the one with the fewest programs, which take most of the time, that still fills a batch by one prefill and
// prefills two prompts of different length in two sizes.
func (s sizes) schedule() *schedule.Config {
	chunk := max(s.context, s.rows*s.row)
	return &schedule.Config{
		MaxBatch: s.rows, MaxContext: s.context, MaxQueue: 2 * s.rows, PrefillRows: s.rows, Chunk: chunk,
		Batches: slices.Compact([]int{1, s.rows}), Tokens: slices.Compact([]int{s.row, chunk}), Lengths: []int{chunk},
	}
}

type engineSubject struct{ *engine.Model }

func openEngine(ctx context.Context, dir, ref string, opt Options, sizes sizes) (subject, error) {
	o := engine.Options{Backend: opt.Backend, MaxContext: sizes.context, MaxBatch: sizes.rows, Schedule: sizes.schedule(),
		Logger: opt.Logger}
	if ref == refF32 {
		o.DType = "float32"
		if strings.HasPrefix(o.Backend, "xla") && !strings.Contains(o.Backend, "tf32=") {
			if o.Backend == "xla" {
				o.Backend += ":"
			}
			o.Backend += ",tf32=false" // the tolerances are those of true float32 products
		}
	}
	m, err := engine.Open(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	return engineSubject{m}, nil
}

func (s engineSubject) Trace(ctx context.Context, ids []int32) (*engine.Trace, error) {
	return s.Model.Trace(ctx, engine.Sequence{Prompt: ids})
}

func (s engineSubject) Score(ctx context.Context, prompt, continuation []int32) ([]float32, error) {
	scored, err := s.Model.Score(ctx, engine.Sequence{Prompt: prompt, Continuation: continuation})
	if err != nil {
		return nil, err
	}
	return scored.LogProbs, nil
}

func (s engineSubject) backend() string { return s.Backend().Kind }

func (s engineSubject) continuation(ctx context.Context, ids []int32, n int) ([]int32, []float32, error) {
	g, err := s.Generate(ctx, engine.Request{IDs: ids, MaxTokens: n, IgnoreEOS: true, Logprobs: true})
	if err != nil {
		return nil, nil, err
	}
	var tokens []int32
	var logProbs []float32
	for token, err := range g.Tokens() {
		if err != nil {
			return nil, nil, err
		}
		if token.ID >= 0 { // else the rest of the text
			tokens, logProbs = append(tokens, token.ID), append(logProbs, token.Logprob)
		}
	}
	return tokens, logProbs, g.Result().Err
}

func compare(ctx context.Context, dir string, opt Options, open opener) (report Report, err error) {
	d, err := openDump(dir)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	var out output
	kind := ""
	for i, ref := range d.info.References {
		s, err := open(ctx, dir, ref, opt, d.sizes())
		if err != nil {
			return report, fmt.Errorf("%s: %w", dir, err)
		}
		kind = s.backend()
		r := &comparison{ctx: ctx, dump: d, subject: s, ref: ref, report: &report, out: &out}
		if i == 0 {
			r.config()
		}
		err = r.run()
		if err = errors.Join(err, s.Close()); err != nil {
			return report, fmt.Errorf("%s: %s: %w", dir, ref, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, contrastiveName)); err == nil {
		report.Rows = append(report.Rows, Row{Model: d.name, Backend: kind, Part: "contrastive", Verdict: NotYet})
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

	singles    []single // by prompt
	bf16Logits float64  // how far transformers' bf16 logits are from its float32 logits, over all prompts
}

// single is what the subject computed for one prompt alone.
type single struct {
	tokens   []int32
	logProbs []float32
}

func (r *comparison) run() error {
	steps := []func() error{r.comparePrompts, r.compareContinuations}
	if r.ref == refF32 { // the dump's padded batches are float32
		steps = append(steps, r.compareBatches)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	for _, part := range []string{"steer", "mixed"} {
		if r.has(r.ref + "." + part + ".") {
			r.row(Row{Part: part, Verdict: NotYet})
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
func (r *comparison) judge(part string, t tally, greedy *Agreement, problems []string, notes ...string) {
	row := Row{Part: part, Greedy: greedy, Verdict: Pass}
	if t.any {
		row.Diff, row.Used = &t.diff, t.used
		if t.used > 1 && len(problems) == 0 {
			problems = []string{t.worst}
		}
	}
	if len(problems) > 0 {
		row.Verdict = Fail
	}
	row.Note = strings.Join(append(problems, notes...), "; ")
	r.row(row)
}

// config compares config.json with dump.json and with its twin in the other key style.
func (r *comparison) config() {
	var problems []string
	for _, c := range []struct {
		key         string
		dump, model int
	}{
		{"num_layers", r.info.NumLayers, r.cfg.NumHiddenLayers},
		{"hidden_size", r.info.HiddenSize, r.cfg.HiddenSize},
		{"vocab_size", r.info.VocabSize, r.cfg.VocabSize},
	} {
		if c.dump != c.model {
			problems = append(problems, fmt.Sprintf("%s is %d in %s, %d in config.json", c.key, c.dump, dumpJSON, c.model))
		}
	}
	const twinName = "config.transformers5.json"
	twin, err := os.ReadFile(filepath.Join(r.dir, twinName))
	if err == nil {
		problems = append(problems, twinProblems(r.dir, twin, twinName)...)
	} else if !errors.Is(err, os.ErrNotExist) {
		problems = append(problems, err.Error())
	}
	r.judge("config", tally{}, nil, problems)
}

func twinProblems(dir string, twin []byte, twinName string) []string {
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return []string{err.Error()}
	}
	// Both without generation_config.json, which LoadConfig would mix in.
	a, err := model.ParseConfig(text)
	if err != nil {
		return []string{"config.json: " + err.Error()}
	}
	b, err := model.ParseConfig(twin)
	if err != nil {
		return []string{twinName + ": " + err.Error()}
	}
	var problems []string
	va, vb := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range va.NumField() {
		if x, y := va.Field(i).Interface(), vb.Field(i).Interface(); !reflect.DeepEqual(x, y) {
			problems = append(problems, fmt.Sprintf("%s is %v, in %s %v", va.Type().Field(i).Name, x, twinName, y))
		}
	}
	return problems
}

// trace is Trace with its shapes checked.
func (r *comparison) trace(ids []int32) (*engine.Trace, error) {
	t, err := r.subject.Trace(r.ctx, ids)
	if err != nil {
		return nil, err
	}
	n, c := len(ids), r.cfg
	if len(t.Layers) != c.NumHiddenLayers || len(t.Logits) != n*c.VocabSize {
		return nil, fmt.Errorf("trace of %d tokens: %d layers, want %d; %d logits, want %d", n, len(t.Layers),
			c.NumHiddenLayers, len(t.Logits), n*c.VocabSize)
	}
	for l, h := range t.Layers {
		if len(h) != n*c.HiddenSize {
			return nil, fmt.Errorf("trace of %d tokens: layer %d has %d values, want %d", n, l, len(h), n*c.HiddenSize)
		}
	}
	return t, nil
}

// logits returns a row of a trace, [vocab_size].
func (r *comparison) logits(t *engine.Trace, position int) []float32 {
	return t.Logits[position*r.cfg.VocabSize : (position+1)*r.cfg.VocabSize]
}

// comparePrompts compares logits and the output of every block over all positions of every prompt.
func (r *comparison) comparePrompts() error {
	var hidden, logits tally
	blamed := r.cfg.NumHiddenLayers // the first layer that disagrees, of all prompts
	blame := ""
	for _, p := range r.prompts {
		where := fmt.Sprintf("prompt %d", p.index)
		want, bounds, err := r.expected(p)
		if err != nil {
			return err
		}
		t, err := r.trace(p.ids)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		all := slices.Concat(t.Layers...)
		agree := true
		if r.ref == refBF16 {
			// Bounded per prompt: a layer of a short prompt has too few numbers for a ratio of noise.
			agree = hidden.add(where, all, slices.Concat(want.layers...), bounds.hidden)
		}
		for l, got := range t.Layers {
			block := fmt.Sprintf("%s, layer %d", where, l)
			if r.ref == refF32 {
				agree = hidden.add(block, got, want.layers[l], float32Bound) && agree
			}
			if d := diff(got, want.layers[l]); !agree && l < blamed && bounds.layers[l].used(d) > 1 {
				blamed, blame = l, fmt.Sprintf("first layer that disagrees: %d (%s: %s)", l, where, d)
			}
		}
		logits.add(where, t.Logits, want.logits, bounds.logits)

		r.out.floats(p.name(r.ref, "logits"), t.Logits, len(p.ids), r.cfg.VocabSize)
		r.out.floats(p.name(r.ref, "hidden"), all, len(t.Layers), len(p.ids), r.cfg.HiddenSize)
	}
	var problems []string
	if blame != "" {
		problems = []string{blame}
	}
	r.judge("hidden", hidden, nil, problems)
	problems = nil
	if logits.used > 1 {
		problems = []string{logits.worst}
		if blame == "" {
			problems = append(problems, "all layers agree: the final norm or the head")
		} else {
			problems = append(problems, blame)
		}
	}
	r.judge("logits", logits, nil, problems)
	return nil
}

// expected reads what transformers computed in float32 for a prompt, and what the subject may be off from it.
func (r *comparison) expected(p prompt) (want expectation, bounds allowance, err error) {
	if want, err = r.read(p, refF32); err != nil {
		return want, bounds, err
	}
	if r.ref == refF32 {
		bounds = allowance{logits: float32Bound, layers: slices.Repeat([]Bound{float32Bound}, len(want.layers))}
		return want, bounds, nil
	}
	rounded, err := r.read(p, refBF16)
	if err != nil {
		return want, bounds, err
	}
	logits := diff(rounded.logits, want.logits)
	r.bf16Logits = max(r.bf16Logits, logits.Max)
	bounds.logits = bf16Bound(logits)
	bounds.hidden = bf16Bound(diff(slices.Concat(rounded.layers...), slices.Concat(want.layers...)))
	for l := range want.layers {
		bounds.layers = append(bounds.layers, bf16Bound(diff(rounded.layers[l], want.layers[l])))
	}
	return want, bounds, nil
}

// expectation is what a reference computed for a prompt: logits [T, V], and [T, H] for each layer.
type expectation struct {
	logits []float32
	layers [][]float32
}

// allowance bounds the difference from an expectation. hidden is that of all layers together, for bf16.
type allowance struct {
	logits, hidden Bound
	layers         []Bound
}

func (r *comparison) read(p prompt, ref string) (e expectation, err error) {
	n, l, h := len(p.ids), r.cfg.NumHiddenLayers, r.cfg.HiddenSize
	if e.logits, err = r.floats(p.name(ref, "logits"), n, r.cfg.VocabSize); err != nil {
		return e, err
	}
	hidden, err := r.floats(p.name(ref, "hidden"), l, n, h)
	e.layers = slices.Collect(slices.Chunk(hidden, n*h))
	return e, err
}

// compareContinuations generates after every prompt, one at a time, and compares tokens and log-probabilities.
func (r *comparison) compareContinuations() error {
	var greedy Agreement
	var cached, score tally
	var problems, notes []string
	// Log-probabilities of one model on two paths. In bf16 both are rounded, like transformers' bf16 run.
	bound := singleBound
	if r.ref == refBF16 {
		bound = Bound{Max: bf16Max * r.bf16Logits}
	}
	for _, p := range r.prompts {
		where := fmt.Sprintf("prompt %d", p.index)
		tokens, logProbs, err := r.subject.continuation(r.ctx, p.ids, len(p.greedy))
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		r.singles = append(r.singles, single{tokens, logProbs})
		if err != nil { // a request that fails, as with logits that are not finite, is a difference
			problems = append(problems, fmt.Sprintf("%s: generate: %v", where, err))
			greedy.Total += len(p.greedy)
			continue
		}
		r.out.ints(p.name(r.ref, "greedy"), tokens)
		problem, note := "", ""
		if r.ref == refF32 {
			problem, note = greedy.tokens(tokens, p.greedy, p.margin)
		} else {
			problem, err = r.forced(p, &greedy)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		if problem != "" {
			problems = append(problems, where+": "+problem)
		}
		if note != "" {
			notes = append(notes, where+": "+note)
		}

		if len(tokens) == 0 {
			continue // a problem already
		}
		text := slices.Concat(p.ids, tokens[:len(tokens)-1])
		t, err := r.trace(text)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		uncached := make([]float32, 0, len(text))
		for i, id := range slices.Concat(p.ids, tokens)[1:] {
			uncached = append(uncached, logProb(r.logits(t, i), id))
		}
		cached.add(where, logProbs, uncached[len(p.ids)-1:], bound)

		scored, err := r.subject.Score(r.ctx, p.ids[:1], slices.Concat(p.ids, tokens)[1:])
		if err == nil && len(scored) != len(uncached) {
			err = fmt.Errorf("%d values for %d tokens", len(scored), len(uncached))
		}
		if err != nil {
			return fmt.Errorf("%s: score: %w", where, err)
		}
		score.add(where, scored, uncached, bound)
	}
	r.judge("greedy", tally{}, &greedy, problems, notes...)
	r.judge("cached", cached, nil, nil)
	r.judge("score", score, nil, nil)
	return nil
}

// forced feeds a prompt with its float32 continuation and requires each token of that to be the arg-max, where the
// float32 margin is larger than what two logits may be off in bf16.
func (r *comparison) forced(p prompt, greedy *Agreement) (problem string, err error) {
	t, err := r.trace(slices.Concat(p.ids, p.greedy[:len(p.greedy)-1]))
	if err != nil {
		return "", err
	}
	for k, id := range p.greedy {
		i := len(p.ids) - 1 + k
		best, finite := argMax(r.logits(t, i))
		if finite && float64(p.margin[k]) <= 2*r.bf16Logits {
			continue
		}
		greedy.Total++
		switch {
		case !finite:
			problem = cmp.Or(problem, fmt.Sprintf("logits for token %d are not finite", k))
		case best == id:
			greedy.Equal++
		default:
			problem = cmp.Or(problem, fmt.Sprintf("the arg-max for token %d is %d, want %d, whose margin is %.2g", k, best, id, p.margin[k]))
		}
	}
	return problem, nil
}

// compareBatches runs the rows of the padded batches, without their padding, at the same time.
func (r *comparison) compareBatches() error {
	for _, s := range r.sides {
		n := len(s.rows)
		part := "batch." + s.name
		vocab := r.cfg.VocabSize
		name := fmt.Sprintf("%s.%s.last_logits", r.ref, part)
		want, err := r.floats(name, n, vocab)
		if err != nil {
			return err
		}
		traces, together := make([]*engine.Trace, n), make([]single, n)
		traceErrs, errs := make([]error, n), make([]error, n)
		var wait sync.WaitGroup
		for i, row := range s.rows {
			wait.Go(func() { traces[i], traceErrs[i] = r.trace(row) })
			wait.Go(func() {
				b := &together[i]
				b.tokens, b.logProbs, errs[i] = r.subject.continuation(r.ctx, row, len(r.prompts[s.prompt[i]].greedy))
			})
		}
		wait.Wait()
		if err := errors.Join(append(traceErrs, r.ctx.Err())...); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}

		var last, alone tally
		var greedy Agreement
		var problems, notes []string
		var computed []float32
		for i, t := range traces {
			where := fmt.Sprintf("row %d", i)
			p, single := r.prompts[s.prompt[i]], r.singles[s.prompt[i]]
			got := r.logits(t, len(s.rows[i])-1)
			computed = append(computed, got...)
			last.add(where, got, want[i*vocab:(i+1)*vocab], float32Bound)
			problem, note := greedy.tokens(together[i].tokens, p.greedy, p.margin)
			if errs[i] != nil {
				problem = fmt.Sprintf("generate: %v", errs[i])
			}
			if problem == "" && !slices.Equal(together[i].tokens, single.tokens) {
				problem = "the tokens are not those of the prompt alone"
			}
			if problem != "" {
				problems = append(problems, where+": "+problem)
			}
			if note != "" {
				notes = append(notes, where+": "+note)
			}
			same := min(len(together[i].logProbs), len(single.logProbs))
			alone.add(where, together[i].logProbs[:same], single.logProbs[:same], singleBound)
		}
		r.out.floats(name, computed, n, vocab)
		if last.used > 1 {
			problems = append(problems, last.worst)
		}
		r.judge(part, last, &greedy, problems, notes...)
		r.judge(part+" as single", alone, nil, nil)
	}
	return nil
}
