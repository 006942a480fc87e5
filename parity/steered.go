package parity

import (
	"fmt"
	"math"
	"slices"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
)

// steered compares one part, steer or mixed: each text alone, as it is, and then its prompt with a continuation. The
// continuations are asked for all at once, so that the rows of the mixed batch are one.
//
// A gate is a comparison of two numbers, and so a token whose projection lies at the boundary, within what projections may
// be off by, may fall on either side. Where that happens the two runs are different questions from there on, and what
// follows is not compared. By the margins of the dumps it does not happen in float32; in bf16 it may.
type steered struct {
	*comparison
	part  string
	texts []text

	logits, hidden, rho, moved, cached tally
	gates, counts, tokens              Agreement
	atGates, atCounts, atTokens        []string // problems
	notes                              []string
}

// projected is how far projections may be off: a projection is judged as a hidden state is.
func (r *comparison) projected() error {
	r.rhoBound = float32Bound
	if r.ref == refF32 {
		return nil
	}
	var rounded, exact []float32 // over all texts: those of one are too few for a ratio of noise
	for i := range r.steer {
		x := &r.steer[i]
		if !x.insight || len(x.sites) == 0 {
			continue
		}
		a, err := r.readSeen(x, refBF16)
		if err != nil {
			return err
		}
		b, err := r.readSeen(x, refF32)
		if err != nil {
			return err
		}
		n := a.agree(b)
		rounded, exact = append(rounded, a.until(n)...), append(exact, b.until(n)...)
	}
	r.rhoBound = bf16Bound(diff(rounded, exact))
	return nil
}

// agree returns the first token at which gates differ.
func (s seen) agree(other seen) int {
	n := math.MaxInt
	for i := range s.gate {
		for t := range s.gate[i] {
			if t < n && s.gate[i][t] != other.gate[i][t] {
				n = t
			}
		}
	}
	return n
}

// until returns the projections of the first n tokens, site by site.
func (s seen) until(n int) (rho []float32) {
	for _, x := range s.rho {
		rho = append(rho, x[:min(n, len(x))]...)
	}
	return rho
}

// slack is the largest difference of a projection.
func (r *comparison) slack() float64 { return r.rhoBound.Max }

func (r *comparison) compareSteer() error { return r.compareTexts("steer", r.steer) }
func (r *comparison) compareMixed() error { return r.compareTexts("mixed", r.mixed) }

func (r *comparison) compareTexts(part string, texts []text) error {
	p := &steered{comparison: r, part: part, texts: texts}
	insight := false
	for i := range texts {
		x := &texts[i]
		insight = insight || x.insight
		if err := p.compareText(x); err != nil {
			return fmt.Errorf("%s: %s: %w", part, x.where, err)
		}
	}
	if err := p.compareContinuations(); err != nil {
		return fmt.Errorf("%s: %w", part, err)
	}
	if r.ref == refBF16 { // of all texts together, as the bound is
		p.rho.addPooled("all texts", r.rhoBound.RMS)
	}
	r.judge(part+".logits", p.logits, nil, nil)
	if insight {
		r.judge(part+".hidden", p.hidden, nil, nil)
		r.judge(part+".gates", p.rho, &p.gates, p.rho.problems(p.atGates))
	}
	if p.counts.Total > 0 {
		r.judge(part+".readout", p.moved, &p.counts, p.moved.problems(p.atCounts))
	}
	if p.tokens.Total > 0 || len(p.atTokens) > 0 {
		r.judge(part+".greedy", tally{}, &p.tokens, p.atTokens, p.notes...)
		r.judge(part+".cached", p.cached, nil, nil)
	}
	return nil
}

// compareText compares what is computed for a text alone.
func (p *steered) compareText(x *text) error {
	t, err := p.trace(x.sequence())
	if err != nil {
		return err
	}
	n, c := len(x.ids), p.cfg
	got := x.traced(t)
	p.write(x, t, got)

	until := n // where both references and the subject agree about gates
	if x.insight {
		want, err := p.readSeen(x, refF32)
		if err != nil {
			return err
		}
		until = p.compareGates(x, x.ids, got, want, &p.gates, &p.atGates)
		if p.ref == refBF16 {
			rounded, err := p.readSeen(x, refBF16)
			if err != nil {
				return err
			}
			until = min(until, rounded.agree(want))
		}
		for s := range x.sites {
			bound := p.rhoBound
			if p.ref == refBF16 {
				bound.RMS = 0
			}
			p.rho.add(x.in(s, x.where), got.rho[s][:until], want.rho[s][:until], bound)
		}
		hidden := t.Layers[c.NumHiddenLayers-1]
		if err := p.compareRows(&p.hidden, x, "hidden_last", hidden, c.HiddenSize, until); err != nil {
			return err
		}
		p.compareReadout(x, x.where, t.Steering, x.told[refF32].Sites, x.doubts(x.ids, want, p.slack()), until == n)
	} else {
		if want, ok := p.float[x.path]; ok && p.ref == refBF16 {
			until = p.compareGates(x, x.ids, got, want, &Agreement{}, &p.atCounts)
		}
		p.compareReadout(x, x.where, t.Steering, x.told[refF32].Sites, x.doubts(x.ids, got, p.slack()), until == n)
	}
	p.compareOwn(x, t, got)
	if p.ref == refF32 {
		p.float[x.path] = got
	}
	if until < n {
		p.notes = append(p.notes, fmt.Sprintf("%s: from token %d on nothing is compared: its gate lies within rounding of the boundary",
			x.where, until))
	}
	return p.compareRows(&p.logits, x, "logits", t.Logits, c.VocabSize, until)
}

// write adds what was computed to the output.
func (p *steered) write(x *text, t *engine.Trace, got seen) {
	n := len(x.ids)
	p.out.floats(x.name(p.ref, "logits"), t.Logits, n, p.cfg.VocabSize)
	if x.insight {
		p.out.floats(x.name(p.ref, "hidden_last"), t.Layers[len(t.Layers)-1], n, p.cfg.HiddenSize)
		p.out.float32s(x.name(p.ref, "rho"), slices.Concat(got.rho...), len(x.sites), n)
		p.out.bools(x.name(p.ref, "gate"), slices.Concat(got.gate...), len(x.sites), n)
	}
}

// compareRows compares the first rows of a tensor [T, width].
func (p *steered) compareRows(t *tally, x *text, what string, got []float32, width, rows int) error {
	want, err := p.floats(x.name(refF32, what), len(x.ids), width)
	if err != nil {
		return err
	}
	bound, end := float32Bound, rows*width
	if p.ref == refBF16 {
		rounded, err := p.floats(x.name(refBF16, what), len(x.ids), width)
		if err != nil {
			return err
		}
		d := diff(rounded[:end], want[:end])
		if bound = bf16Bound(d); what == "logits" {
			p.bf16Logits = max(p.bf16Logits, d.Max)
		}
	}
	if rows > 0 {
		t.add(x.where, got[:end], want[:end], bound)
	}
	return nil
}

// compareGates compares gates token by token, and returns the first token whose gate differs and may: its projection lies
// within the slack of the boundary.
func (p *steered) compareGates(x *text, ids []int32, got, want seen, a *Agreement, problems *[]string) int {
	for t, id := range ids {
		for s := range x.sites {
			g, w := got.gate[s][t], want.gate[s][t]
			gate, _ := x.sites[s].doubt(want.rho[s][t], p.slack())
			if g != w && gate && x.spec[s].Positions.Mask(t, x.prompt, id) {
				return t
			}
			a.Total++
			if g == w {
				a.Equal++
			} else {
				*problems = append(*problems, fmt.Sprintf("%s: the gate of token %d is %t, want %t: rho is %.6g, want %.6g, m is %.6g",
					x.in(s, x.where), t, g, w, got.rho[s][t], want.rho[s][t], x.sites[s].M))
			}
		}
	}
	return len(ids)
}

// doubt counts tokens of a site that may fall on either side.
type doubt struct{ gate, limit int }

func (x *text) doubts(ids []int32, s seen, slack float64) []doubt {
	counts := make([]doubt, len(x.sites))
	for i := range x.sites {
		for t, id := range ids {
			if !x.spec[i].Positions.Mask(t, x.prompt, id) {
				continue
			}
			gate, limit := x.sites[i].doubt(s.rho[i][t], slack)
			if gate {
				counts[i].gate++
			}
			if limit || gate {
				counts[i].limit++
			}
		}
	}
	return counts
}

// compareReadout compares what each site reports of a text with the dump, if that says. The mean is compared if all gates agree.
func (p *steered) compareReadout(x *text, where string, got []steering.Effect, want []did, doubts []doubt, agree bool) {
	if want == nil || !p.complete(x, where, got) {
		return
	}
	for s, w := range want {
		e := got[s]
		p.count(x, s, where, "eligible tokens", e.Eligible, w.Eligible, 0)
		p.count(x, s, where, "gated tokens", e.Moved, w.Gated, doubts[s].gate)
		p.count(x, s, where, "capped tokens", e.Capped, w.Capped, doubts[s].limit)
		if !agree || e.Moved != w.Gated || e.Capped != w.Capped {
			continue
		}
		bound := Bound{Max: max(float32Bound.Max, p.slack()*x.sites[s].gain())}
		p.compareMean(x, s, where, e.Mean(), w.MeanL2, bound)
	}
}

// compareOwn compares what each site reports with the tokens that the trace saw it move.
func (p *steered) compareOwn(x *text, t *engine.Trace, got seen) {
	if !p.complete(x, x.where, t.Steering) {
		return
	}
	for _, site := range t.Sites {
		s, moved, sum := site.Entry, 0, 0.0
		for i, d := range site.Delta {
			if sum += math.Abs(float64(d)); got.gate[s][i] {
				moved++
			}
		}
		e := t.Steering[s]
		p.count(x, s, x.where, "gated tokens, by its trace,", e.Moved, moved, 0)
		p.compareMean(x, s, x.where, e.Mean(), sum/float64(max(1, e.Eligible)), Bound{Max: 1e-5 * max(1, e.Mean())})
	}
}

func (p *steered) compareMean(x *text, s int, where string, got, want float64, bound Bound) {
	p.moved.add(fmt.Sprintf("%s, mean |h'-h|", x.in(s, where)), []float32{float32(got)}, []float32{float32(want)}, bound)
}

// in names a site of a run of the text.
func (x *text) in(s int, where string) string {
	return fmt.Sprintf("%s, site %d (%s, layer %d)", where, s, x.sites[s].Method, x.sites[s].Layer)
}

// complete requires an effect for each site.
func (p *steered) complete(x *text, where string, got []steering.Effect) bool {
	if len(got) == len(x.sites) {
		return true
	}
	p.atCounts = append(p.atCounts, fmt.Sprintf("%s: %d effects for %d sites", where, len(got), len(x.sites)))
	return false
}

func (p *steered) count(x *text, s int, where, what string, got, want, doubt int) {
	p.counts.Total++
	if got-want <= doubt && want-got <= doubt {
		p.counts.Equal++
		return
	}
	p.atCounts = append(p.atCounts, fmt.Sprintf("%s: %d %s, want %d", x.in(s, where), got, what, want))
}

// compareContinuations generates after the prompts of all texts.
func (p *steered) compareContinuations() error {
	var asked []*text
	var requests []engine.Request
	for i := range p.texts {
		if x := &p.texts[i]; x.greedy != nil {
			asked = append(asked, x)
			requests = append(requests, greedyRequest(x.ids[:x.prompt], len(x.greedy), x.spec))
		}
	}
	if len(asked) == 0 {
		return nil
	}
	got, err := p.subject.generate(p.ctx, requests)
	if err != nil {
		return err
	}
	for i, x := range asked {
		if err := p.compareContinuation(x, got[i]); err != nil {
			return fmt.Errorf("%s: %w", x.where, err)
		}
	}
	return nil
}

func (p *steered) compareContinuation(x *text, got continuation) error {
	if got.err != nil {
		p.atTokens = append(p.atTokens, fmt.Sprintf("%s: generate: %v", x.where, got.err))
		p.tokens.Total += len(x.greedy)
		return nil
	}
	p.out.ints(x.name(p.ref, "greedy"), got.tokens)
	var alone *engine.Trace // the same text in one pass
	var err error
	if len(got.tokens) > 0 {
		if alone, err = p.trace(x.continued(got.tokens)); err != nil {
			return err
		}
	}
	problem, note := "", ""
	if p.ref == refF32 {
		problem, note = p.tokens.tokens(got.tokens, x.greedy, x.margin)
	} else {
		forced := alone
		if !slices.Equal(got.tokens, x.greedy) {
			if forced, err = p.trace(x.continued(x.greedy)); err != nil {
				return err
			}
		}
		problem = p.compareForced(x, forced)
	}
	if problem != "" {
		p.atTokens = append(p.atTokens, x.where+": "+problem)
	}
	if note != "" {
		p.notes = append(p.notes, x.where+": "+note)
	}
	if alone != nil {
		p.compareAlone(x, got, alone)
	}
	return nil
}

// compareForced compares the arg-max of each step with the float32 continuation, which was fed, where its margin is beyond what
// logits may be off; up to the first token whose gate differs from that of the subject's float32 run.
func (p *steered) compareForced(x *text, t *engine.Trace) (problem string) {
	want, ok := p.float[x.path+".greedy"]
	if !ok {
		return "" // the float32 run differs, which is a problem already
	}
	where := x.where + ", its float32 continuation"
	ids := slices.Concat(x.ids[:x.prompt], x.greedy[:len(x.greedy)-1])
	until := p.compareGates(x, ids, x.traced(t), want, &Agreement{}, &p.atCounts)
	p.compareReadout(x, where, t.Steering, x.told[refF32].GreedySites, x.doubts(ids, want, p.slack()), until == len(ids))
	return p.argMax(t, x.prompt, x.greedy, x.margin, until, &p.tokens)
}

// compareAlone compares a generation, in a batch and with a cache, with the same text alone in one pass, and with the dump.
func (p *steered) compareAlone(x *text, got continuation, t *engine.Trace) {
	where := x.where + ", generated"
	ids := slices.Concat(x.ids[:x.prompt], got.tokens[:len(got.tokens)-1])
	alone := x.traced(t)
	doubts := x.doubts(ids, alone, p.slack())
	agree := true
	if p.complete(x, where, got.effects) && p.complete(x, where, t.Steering) {
		for s := range x.sites {
			a, b := got.effects[s], t.Steering[s]
			p.count(x, s, where, "eligible tokens", a.Eligible, b.Eligible, 0)
			p.count(x, s, where, "gated tokens", a.Moved, b.Moved, doubts[s].gate)
			p.count(x, s, where, "capped tokens", a.Capped, b.Capped, doubts[s].limit)
			agree = agree && a.Moved == b.Moved && a.Capped == b.Capped
		}
	}
	if agree {
		bound := singleBound
		if p.ref == refBF16 {
			bound = Bound{Max: bf16Max * p.bf16Logits}
		}
		p.cached.add(x.where, got.logProbs, p.logProbs(t, x.prompt, got.tokens), bound)
	}
	if p.ref == refF32 && slices.Equal(got.tokens, x.greedy) {
		p.float[x.path+".greedy"] = alone
		told := x.told[refF32]
		if told.GreedyGateMargin == nil || *told.GreedyGateMargin > p.slack() {
			doubts = x.doubts(ids, alone, 0)
		}
		p.compareReadout(x, where, got.effects, told.GreedySites, doubts, true)
	}
}
