package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/compute"
)

// Score returns the log-probability (natural logarithm, temperature 1) of each token of continuation, given prompt and the
// continuation's earlier tokens: [len(continuation)].
func (m *Model) Score(ctx context.Context, prompt, continuation []int32) ([]float32, error) {
	if len(prompt) == 0 {
		return nil, errors.New("engine: a continuation is scored after a prompt of at least one token")
	}
	ids := append(append([]int32{}, prompt...), continuation...)
	if err := m.checkIDs(ids); err != nil || len(continuation) == 0 {
		return nil, err
	}
	scores := make([]float32, 0, len(ids))
	err := m.sweep(ctx, ids[:len(ids)-1], headScore, ids[1:], func(count int, out []compute.Buffer) error {
		flat, err := toHost(out[0])
		scores = append(scores, flat[:min(count, len(flat))]...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return scores[len(prompt)-1:], nil
}

// Trace is everything the model computes for one sequence.
type Trace struct {
	Logits []float32   // [tokens, vocab_size]
	Layers [][]float32 // output of each block, [tokens, hidden_size] each
}

// Trace runs a sequence and returns logits and hidden states at every position. It is meant for comparing small
// models with a reference; the result has
// tokens x (vocab_size + layers x hidden_size) elements.
func (m *Model) Trace(ctx context.Context, ids []int32) (*Trace, error) {
	if len(ids) == 0 {
		return nil, errors.New("engine: nothing to trace")
	}
	if err := m.checkIDs(ids); err != nil {
		return nil, err
	}
	t := &Trace{Layers: make([][]float32, m.cfg.NumHiddenLayers)}
	err := m.sweep(ctx, ids, headTrace, nil, func(count int, out []compute.Buffer) error {
		flat, err := toHost(out[0])
		if err != nil {
			return err
		}
		t.Logits = append(t.Logits, flat[:count*m.cfg.VocabSize]...)
		for l := range t.Layers {
			if flat, err = toHost(out[1+l]); err != nil {
				return err
			}
			t.Layers[l] = append(t.Layers[l], flat[:count*m.cfg.HiddenSize]...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (m *Model) checkIDs(ids []int32) error {
	for i, id := range ids {
		if id < 0 || int(id) >= m.cfg.VocabSize {
			return fmt.Errorf("engine: id %d at %d lies outside the vocabulary of %d", id, i, m.cfg.VocabSize)
		}
	}
	if len(ids) > m.plan.MaxContext {
		return fmt.Errorf("engine: a sequence of %d tokens, the context has %d", len(ids), m.plan.MaxContext)
	}
	return nil
}

// sweep runs a sequence chunk by chunk in a cache of its own and shows visit what the head returned for each: count real tokens of
// a padded chunk.
func (m *Model) sweep(ctx context.Context, ids []int32, h head, targets []int32,
	visit func(count int, out []compute.Buffer) error) error {
	cfg := m.sched
	chunk := cfg.Tokens[len(cfg.Tokens)-1]
	if h == headScore {
		chunk = ladder(cfg.Tokens, min(chunk, scoreTokens)) // bounds [tokens, vocab] logits
	}
	return m.exclusive(ctx, func(d *device) error {
		var cache kvCache
		defer cache.free()
		for start := 0; start < len(ids); start += chunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			end := min(start+chunk, len(ids))
			var to []int32
			if targets != nil {
				to = targets[start:end]
			}
			padded := ladder(cfg.Tokens, end-start)
			var out []compute.Buffer
			var err error
			if start == 0 {
				cache, out, err = d.first([][]int32{ids[:end]}, 1, padded, h, to)
				if slots := ladder(cfg.Lengths, len(ids)+padded); err == nil && end < len(ids) {
					err = d.relayout(&cache, []int32{0}, slots)
				}
			} else {
				out, err = d.next(&cache, ids[start:end], start, padded, h, to)
			}
			if err == nil {
				err = visit(end-start, out)
			}
			finalize(out)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// scoreTokens bounds the tokens scored in one call: their logits are in memory at once.
const scoreTokens = 128

// ladder returns the smallest rung that holds n, or the last.
func ladder(rungs []int, n int) int {
	for _, r := range rungs {
		if r >= n {
			return r
		}
	}
	return rungs[len(rungs)-1]
}
