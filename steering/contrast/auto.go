package contrast

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
)

// Probe is what steering at one layer did in a small experiment with texts that the vector had not seen.
type Probe struct {
	Candidate
	// Margin is by how much steering raises log p(positive) − log p(negative), in nats per token: what is to be bought.
	Margin float64 `json:"margin"`
	// Drift is by how much less likely the model without steering finds what it writes with steering, in nats per token: the price.
	Drift float64 `json:"drift"`
}

// Of the probe: how many layers, pairs and tokens, and how much drift is too much.
const (
	probeLayers  = 6
	probeShare   = 5 // one in so many pairs is held out
	maxProbed    = 12
	minProbed    = 2
	probeTokens  = 32
	probeDrift   = 1.0
	probedEffect = 1 // SwFC's coefficient: one distance between the classes
)

// ChooseLayer picks the layer to steer at: the first version of `--layer auto`.
//
// It takes the layers that [Rank] likes best and tries them out. A fifth of the pairs (2 to 12) is held out and the direction fitted
// again on the rest; then, at one layer at a time, with SwFC at coefficient 1 and after the prompt of the negative text, it measures
// how far steering moves the held-out texts' log-probabilities apart (Margin) and how strange the model finds its own steered
// continuations (Drift). The layer with the largest margin wins, among those that drift by less than 1 nat per token; if all drift
// more, the one that drifts least.
//
// It is a heuristic: it looks at likelihoods, not at behaviour, at one coefficient and one method. A sweep judges what the model says.
// The probes come back best first; Fits[0] is what is ranked.
func (x *Extraction) ChooseLayer(ctx context.Context, m *engine.Model, k Estimator,
	progress func(Step)) (layer int, probes []Probe, err error) {
	if progress == nil {
		progress = func(Step) {}
	}
	n := len(x.pairs)
	held := min(max(n/probeShare, minProbed), maxProbed)
	if n-held < 2 {
		return 0, nil, fmt.Errorf("contrast: choosing a layer holds %d pairs out of %d, and at least 2 must remain to fit", held, n)
	}
	// Spread over the data, as neighbours may be alike.
	probed := make([]int, held)
	for i := range probed {
		probed[i] = (i*n + n/2) / held
	}
	fitted, err := fitOn(ctx, m, x.embeddings.without(probed), Options{Splits: -1})
	if err != nil {
		return 0, nil, err
	}
	v, err := fitted.Vector(k, x.provenance)
	if err != nil {
		return 0, nil, err
	}
	for _, c := range Rank(x.Fits[0].Fitted)[:min(probeLayers, len(v.Layers))] {
		probes = append(probes, Probe{Candidate: c})
	}
	p := prober{m: m, v: v, progress: progress, total: (len(probes) + 1) * held}
	for _, i := range probed {
		p.pairs = append(p.pairs, x.pairs[i])
	}
	plain, err := p.run(ctx, nil)
	if err != nil {
		return 0, nil, err
	}
	for i := range probes {
		steered, err := p.run(ctx, steering.Spec{{
			Vector: v, Method: steering.SwFC, Coefficient: probedEffect, Layers: []int{probes[i].Layer},
		}})
		if err != nil {
			return 0, nil, err
		}
		probes[i].Margin, probes[i].Drift = steered.margin-plain.margin, steered.surprise-plain.surprise
	}
	slices.SortStableFunc(probes, func(a, b Probe) int {
		switch aFar, bFar := a.Drift > probeDrift, b.Drift > probeDrift; {
		case aFar && bFar:
			return cmp.Compare(a.Drift, b.Drift)
		case aFar:
			return 1
		case bFar:
			return -1
		}
		return cmp.Compare(b.Margin, a.Margin)
	})
	return probes[0].Layer, probes, nil
}

// without returns the embeddings of all pairs but some.
func (e *Embeddings) without(pairs []int) Embeddings {
	out := *e
	keep := func(class [][]float32) [][]float32 {
		var kept [][]float32
		for _, rows := range class {
			var some []float32
			for i := range len(rows) / e.Hidden {
				if !slices.Contains(pairs, i) {
					some = append(some, rows[i*e.Hidden:(i+1)*e.Hidden]...)
				}
			}
			kept = append(kept, some)
		}
		return kept
	}
	out.Positive, out.Negative = keep(e.Positive), keep(e.Negative)
	return out
}

// prober measures one configuration after the other on the same pairs.
type prober struct {
	m           *engine.Model
	v           *steering.Vector
	pairs       [][2]Response
	progress    func(Step)
	done, total int
}

// outcome is in nats per token.
type outcome struct{ margin, surprise float64 }

func (p *prober) run(ctx context.Context, spec steering.Spec) (out outcome, err error) {
	var texts []*engine.Generation
	for _, pair := range p.pairs {
		g, err := p.m.Generate(ctx, engine.Request{IDs: pair[1].Before, MaxTokens: probeTokens, IgnoreEOS: true, Steering: spec})
		if err != nil {
			return out, err
		}
		texts = append(texts, g)
	}
	n := float64(len(p.pairs))
	for i, pair := range p.pairs {
		pos, err := meanLogProb(ctx, p.m, pair[1].Before, pair[0].IDs, spec)
		if err != nil {
			return out, err
		}
		neg, err := meanLogProb(ctx, p.m, pair[1].Before, pair[1].IDs, spec)
		if err != nil {
			return out, err
		}
		r := texts[i].Result()
		if r.Err != nil {
			return out, r.Err
		}
		written, err := meanLogProb(ctx, p.m, pair[1].Before, r.IDs, nil)
		if err != nil {
			return out, err
		}
		out.margin += (pos - neg) / n
		out.surprise -= written / n
		p.done++
		p.progress(Step{"probe", p.done, p.total})
	}
	return out, nil
}

// meanLogProb is the mean log-probability of a text's tokens after a prompt.
func meanLogProb(ctx context.Context, m *engine.Model, before, ids []int32, spec steering.Spec) (float64, error) {
	s, err := m.Score(ctx, engine.Sequence{Prompt: before, Continuation: ids, Steering: spec})
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	sum := 0.0
	for _, p := range s.LogProbs {
		sum += float64(p)
	}
	return sum / float64(len(ids)), nil
}
