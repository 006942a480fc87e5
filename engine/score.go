package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute"

	"github.com/steerage/steerage/engine/schedule"
	"github.com/steerage/steerage/steering"
)

// Sequence is a text that is run through the model as it is; nothing is generated.
type Sequence struct {
	Prompt, Continuation []int32 // together at least one token
	// Steering edits the residual stream; len(Prompt) is where steering.Response begins.
	Steering steering.Spec
}

func (s Sequence) ids() []int32 { return slices.Concat(s.Prompt, s.Continuation) }

// Scored is what Score returns.
type Scored struct {
	LogProbs []float32         // of each token of the continuation: natural logarithm, temperature 1
	Steering []steering.Effect // what each entry of the spec did
}

// Score computes the log-probability of each token of a continuation, given the prompt, of at least one token, and the
// continuation's earlier tokens. The continuation's last token is not run, as nothing follows it.
func (m *Model) Score(ctx context.Context, s Sequence) (*Scored, error) {
	if len(s.Prompt) == 0 {
		return nil, errors.New("engine: a continuation is scored after a prompt of at least one token")
	}
	ids := s.ids()
	course, err := m.check(s, ids)
	if err != nil {
		return nil, err
	}
	scored := &Scored{Steering: course.effects}
	if len(s.Continuation) == 0 {
		return scored, nil
	}
	err = m.sweep(ctx, ids[:len(ids)-1], course, headScore, ids[1:], func(count int, out []compute.Buffer) error {
		flat, err := toHost(out[0])
		scored.LogProbs = append(scored.LogProbs, flat[:min(count, len(flat))]...)
		return err
	})
	if err != nil {
		return nil, err
	}
	scored.LogProbs = scored.LogProbs[len(s.Prompt)-1:]
	return scored, nil
}

// Trace is everything the model computes for one sequence.
type Trace struct {
	Logits   []float32         // [tokens, vocab_size]
	Layers   [][]float32       // output of each block, steered, [tokens, hidden_size] each
	Steering []steering.Effect // what each entry of the spec did
	Sites    []Site            // and what it did where
}

// Site is one entry of a spec at one layer: what it saw and did at each token, along the direction in which the entry acts: v̂, or −v̂ of a
// negative one.
type Site struct {
	steering.Site
	Rho   []float32 // [tokens] projection before the edit
	Delta []float32 // [tokens] how far the token was moved along the direction; 0 where it was not
}

// Trace runs a sequence and returns logits and hidden states at every position. It is meant for comparing small
// models with a reference; the result has tokens x (vocab_size + layers x hidden_size) elements.
func (m *Model) Trace(ctx context.Context, s Sequence) (*Trace, error) {
	ids := s.ids()
	course, err := m.check(s, ids)
	if err != nil {
		return nil, err
	}
	t := &Trace{Layers: make([][]float32, m.cfg.NumHiddenLayers), Steering: course.effects}
	for _, site := range course.plan.Sites() {
		t.Sites = append(t.Sites, Site{Site: site})
	}
	err = m.sweep(ctx, ids, course, headTrace, nil, func(count int, out []compute.Buffer) error {
		return t.add(m, count, out)
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// add takes in the results of one chunk with that many real tokens.
func (t *Trace) add(m *Model, count int, out []compute.Buffer) error {
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
	edits := out[1+len(t.Layers):] // rho and delta, [layers, S, 1, tokens]
	if len(t.Sites) == 0 {
		return nil
	}
	shape, err := edits[0].Shape()
	if err != nil {
		return err
	}
	slots, width := shape.Dim(1), shape.Dim(3)
	for which, edit := range edits {
		if flat, err = toHost(edit); err != nil {
			return err
		}
		for i := range t.Sites {
			s := &t.Sites[i]
			at := (s.Layer*slots + s.Slot) * width
			to := &s.Rho
			if which == 1 {
				to = &s.Delta
			}
			*to = append(*to, flat[at:at+count]...)
		}
	}
	return nil
}

// check refuses a sequence that cannot be run and returns its course.
func (m *Model) check(s Sequence, ids []int32) (*course, error) {
	if len(ids) == 0 {
		return nil, errors.New("engine: a sequence of no tokens")
	}
	if err := m.inVocabulary(ids); err != nil {
		return nil, err
	}
	if len(ids) > m.plan.MaxContext {
		return nil, fmt.Errorf("engine: a sequence of %d tokens, the context has %d", len(ids), m.plan.MaxContext)
	}
	plan, err := m.steer(s.Steering)
	if err != nil {
		return nil, err
	}
	return newCourse(plan, len(s.Prompt)), nil
}

// inVocabulary refuses ids that the model does not have.
func (m *Model) inVocabulary(ids []int32) error {
	for i, id := range ids {
		if id < 0 || int(id) >= m.cfg.VocabSize {
			return fmt.Errorf("engine: id %d at %d lies outside the vocabulary of %d", id, i, m.cfg.VocabSize)
		}
	}
	return nil
}

// sweep runs a sequence chunk by chunk in a cache of its own and shows visit what the head returned for each: count real tokens of
// a padded chunk.
func (m *Model) sweep(ctx context.Context, ids []int32, course *course, h head, targets []int32,
	visit func(count int, out []compute.Buffer) error) error {
	cfg := m.sched
	chunk := cfg.Tokens[len(cfg.Tokens)-1]
	if h == headScore {
		chunk = ladder(cfg.Tokens, min(chunk, scoreTokens)) // bounds [tokens, vocab] logits
	}
	return m.exclusive(ctx, func(d *device) error {
		return d.sweep(ctx, cfg, chunk, row{course, 0, ids}, form{head: h}, func(start, count, padded int) any {
			if targets == nil {
				return nil
			}
			return pad(targets[start:start+count], padded)
		}, func(_, count int, out []compute.Buffer) error { return visit(count, out) })
	})
}

// sweep runs one row chunk by chunk. head makes the head's own input for count tokens from start, padded; visit gets what
// the head returned.
func (d *device) sweep(ctx context.Context, cfg schedule.Config, chunk int, r row, f form, head func(start, count, padded int) any,
	visit func(start, count int, out []compute.Buffer) error) error {
	var cache kvCache
	defer cache.free()
	for start := 0; start < len(r.tokens); start += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		end := min(start+chunk, len(r.tokens))
		padded := ladder(cfg.Tokens, end-start)
		part := row{r.course, start, r.tokens[start:end]}
		own := head(start, end-start, padded)
		var out []compute.Buffer
		var err error
		if start == 0 {
			cache, out, err = d.first([]row{part}, 1, padded, f, own)
			if slots := ladder(cfg.Lengths, len(r.tokens)+padded); err == nil && end < len(r.tokens) {
				err = d.relayout(&cache, []int32{0}, nil, slots)
			}
		} else {
			out, err = d.next(&cache, part, padded, f, own)
		}
		if err == nil {
			err = visit(start, end-start, out)
		}
		finalize(out)
		if err != nil {
			return err
		}
	}
	return nil
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
