package parity

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/steerage/steerage/engine"
)

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
		t, err := r.trace(engine.Sequence{Prompt: p.ids})
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
		got, err := r.subject.generate(r.ctx, []engine.Request{greedyRequest(p.ids, len(p.greedy), nil)})
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		one := got[0]
		r.singles = append(r.singles, one)
		if one.err != nil { // a difference
			problems = append(problems, fmt.Sprintf("%s: generate: %v", where, one.err))
			greedy.Total += len(p.greedy)
			continue
		}
		r.out.ints(p.name(r.ref, "greedy"), one.tokens)
		problem, note := "", ""
		if r.ref == refF32 {
			problem, note = greedy.tokens(one.tokens, p.greedy, p.margin)
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

		if len(one.tokens) == 0 {
			continue // a problem already
		}
		t, err := r.trace(engine.Sequence{Prompt: p.ids, Continuation: one.tokens[:len(one.tokens)-1]})
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		after := slices.Concat(p.ids, one.tokens)[1:]
		uncached := r.logProbs(t, 1, after)
		cached.add(where, one.logProbs, uncached[len(p.ids)-1:], bound)

		scored, err := r.subject.Score(r.ctx, engine.Sequence{Prompt: p.ids[:1], Continuation: after})
		if err == nil && len(scored.LogProbs) != len(uncached) {
			err = fmt.Errorf("%d values for %d tokens", len(scored.LogProbs), len(uncached))
		}
		if err != nil {
			return fmt.Errorf("%s: score: %w", where, err)
		}
		score.add(where, scored.LogProbs, uncached, bound)
	}
	r.judge("greedy", tally{}, &greedy, problems, notes...)
	r.judge("cached", cached, nil, nil)
	r.judge("score", score, nil, nil)
	return nil
}

// logProbs returns the log-probability of each token that follows a prompt, by a trace of both.
func (r *comparison) logProbs(t *engine.Trace, prompt int, tokens []int32) []float32 {
	var p []float32
	for k, id := range tokens {
		p = append(p, logProb(r.logits(t, prompt-1+k), id))
	}
	return p
}

// forced feeds a prompt with its float32 continuation and compares the arg-max with that.
func (r *comparison) forced(p prompt, greedy *Agreement) (problem string, err error) {
	t, err := r.trace(engine.Sequence{Prompt: p.ids, Continuation: p.greedy[:len(p.greedy)-1]})
	if err != nil {
		return "", err
	}
	return r.argMax(t, len(p.ids), p.greedy, p.margin, len(p.ids)+len(p.greedy), greedy), nil
}

// argMax compares the arg-max of each step of a continuation with its token, where the float32 margin is larger than what two
// logits may be off in bf16. Positions from until on are not compared.
func (r *comparison) argMax(t *engine.Trace, prompt int, greedy []int32, margin []float32, until int, a *Agreement) (problem string) {
	for k, id := range greedy {
		i := prompt - 1 + k
		if i >= until {
			break
		}
		best, finite := argMax(r.logits(t, i))
		if finite && float64(margin[k]) <= 2*r.bf16Logits {
			continue
		}
		a.Total++
		switch {
		case !finite:
			problem = cmp.Or(problem, fmt.Sprintf("logits for token %d are not finite", k))
		case best == id:
			a.Equal++
		default:
			problem = cmp.Or(problem, fmt.Sprintf("the arg-max for token %d is %d, want %d, whose margin is %.2g", k, best, id, margin[k]))
		}
	}
	return problem
}
