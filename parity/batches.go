package parity

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/steerage/steerage/engine"
)

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
		traces, traceErrs := make([]*engine.Trace, n), make([]error, n)
		var requests []engine.Request
		var wait sync.WaitGroup
		for i, row := range s.rows {
			wait.Go(func() { traces[i], traceErrs[i] = r.trace(engine.Sequence{Prompt: row}) })
			requests = append(requests, greedyRequest(row, len(r.prompts[s.prompt[i]].greedy), nil))
		}
		together, err := r.subject.generate(r.ctx, requests)
		wait.Wait()
		if err := errors.Join(append(traceErrs, err)...); err != nil {
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
			if err := together[i].err; err != nil {
				problem = fmt.Sprintf("generate: %v", err)
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
