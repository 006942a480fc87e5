package contrast

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
)

// result makes the vector, and measures where the training pairs' responses lie on it.
func (t *trainer) result(ctx context.Context) (*Trained, error) {
	s := &t.state
	out := &Trained{History: s.history, Step: len(s.history), HeldOut: math.NaN(), Before: s.before}
	vectors := s.vectors
	if s.bestStep > 0 {
		vectors, out.Step, out.HeldOut = s.best, s.bestStep, bestLoss(s)
	}
	cfg := t.programs.cfg
	v := &steering.Vector{Hidden: cfg.HiddenSize, Provenance: t.opt.Provenance}
	v.Fingerprint, v.NumHiddenLayers = t.config.Fingerprint(), cfg.NumHiddenLayers
	orDefault(&v.Method, fmt.Sprintf("trained: %v loss, positions %v", t.opt.Loss, t.opt.Positions))
	notes := map[string]string{
		"step": strconv.Itoa(out.Step), "seed": strconv.FormatUint(t.opt.Seed, 10), "token_digest": t.data,
	}
	for key, note := range t.opt.Provenance.Notes {
		notes[key] = note
	}
	v.Notes = notes
	for k, l := range t.opt.Layers {
		x := make([]float64, cfg.HiddenSize)
		for i := range x {
			x[i] = float64(vectors[k*cfg.HiddenSize+i])
		}
		layer, err := steering.NewLayer(l, x)
		if err != nil {
			return nil, err
		}
		v.Layers = append(v.Layers, layer)
	}
	if err := t.statistics(ctx, v); err != nil {
		return nil, err
	}
	out.Vector = v
	return out, v.Validate()
}

// statistics fills the vector's, if every training pair has both responses.
func (t *trainer) statistics(ctx context.Context, v *steering.Vector) error {
	var texts []engine.Sequence // positive, negative, positive, …
	for _, p := range t.pairs {
		if len(p.Negative) == 0 {
			return nil
		}
		for _, response := range [][]int32{p.Positive, p.Negative} {
			texts = append(texts, engine.Sequence{Prompt: p.Prompt, Continuation: response})
		}
	}
	rho := make([][2][]float64, len(v.Layers)) // by layer and class
	const part = 64                            // texts whose means are in memory at once
	for from := 0; from < len(texts); from += part {
		captured, err := t.model.Capture(ctx, texts[from:min(from+part, len(texts))], t.opt.Layers,
			engine.Pool{Positions: steering.Response, Reduce: engine.Mean})
		if err != nil {
			return err
		}
		for i, c := range captured {
			for l, mean := range c[0].Values {
				product := 0.0
				for j, x := range v.Layers[l].Direction {
					product += float64(x) * float64(mean[j])
				}
				rho[l][i%2] = append(rho[l][i%2], product)
			}
		}
	}
	for l := range v.Layers {
		v.Layers[l].Statistics = classStatistics(rho[l][0], rho[l][1])
	}
	return nil
}

// classStatistics describes two samples. M is the middle between their means. Without spread Cohen's d is not defined,
// and 0.
func classStatistics(positive, negative []float64) *steering.Statistics {
	s := &steering.Statistics{}
	var varPos, varNeg float64
	s.MuPos, varPos = moments(positive)
	s.MuNeg, varNeg = moments(negative)
	s.M, s.SigmaPos, s.SigmaNeg = (s.MuPos+s.MuNeg)/2, math.Sqrt(varPos), math.Sqrt(varNeg)
	n := float64(len(positive)) // as many as negative
	if pooled := math.Sqrt((varPos + varNeg) / 2 * n / (n - 1)); pooled > 0 {
		s.CohensD = (s.MuPos - s.MuNeg) / pooled
	}
	return s
}
