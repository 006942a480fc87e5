package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
)

// decoded is one batch of equal requests.
type decoded struct {
	first time.Duration // from the first request to the last row's first token
	steps []float64     // seconds of each step during which all rows were at work
	ids   []int32       // of row 0
}

// rate is tokens per second of all rows.
func (d decoded) rate(rows int) float64 {
	sum := 0.0
	for _, s := range d.steps {
		sum += s
	}
	return float64(rows*len(d.steps)) / sum
}

// batch runs requests of `context` tokens at once, until there are Options.Tokens steps during which all were at work. specs steers the
// rows; nil steers none. A run during which a program was compiled is errCompile.
func (b *bench) batch(rows, length int, specs []steering.Spec) (decoded, error) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	programs := b.m.Stats().Programs
	gens, asked := make([]*engine.Generation, rows), make([]time.Time, rows)
	prompts := make([][]int32, rows)
	for i := range prompts {
		prompts[i] = Prompt(i, length, b.m.Config().VocabSize)
	}
	for i := range gens {
		r := engine.Request{IDs: prompts[i], MaxTokens: b.opt.room(rows), IgnoreEOS: true}
		if specs != nil {
			r.Steering = specs[i]
		}
		asked[i] = time.Now()
		var err error
		if gens[i], err = b.m.Generate(ctx, r); err != nil {
			return decoded{}, err
		}
	}
	// Only the request that was made last is watched: it joins last, and a reader for each row would take time from the steps.
	var stamps []time.Time
	for _, err := range gens[rows-1].Tokens() {
		if err != nil {
			return decoded{}, err
		}
		if stamps = append(stamps, time.Now()); len(stamps) > b.opt.Tokens {
			break
		}
	}
	cancel()
	var joined time.Time
	for i, g := range gens {
		r := g.Result()
		if r.Err != nil {
			return decoded{}, r.Err
		}
		if r.Timing.FirstToken == 0 {
			return decoded{}, errApart
		}
		if specs != nil {
			for _, e := range r.Steering {
				if e.Moved == 0 {
					return decoded{}, fmt.Errorf("row %d was to be steered, and no token was moved", i)
				}
			}
		}
		if at := asked[i].Add(r.Timing.FirstToken); at.After(joined) {
			joined = at
		}
	}
	if b.m.Stats().Programs != programs {
		return decoded{}, errCompile
	}
	steps := between(stamps, joined)
	if len(steps) < b.opt.Tokens-1 {
		return decoded{}, errApart
	}
	return decoded{first: joined.Sub(asked[0]), steps: steps, ids: gens[0].Result().IDs[:b.opt.Tokens]}, nil
}

// between returns the seconds between consecutive stamps, from the first that is not before `from`.
func between(stamps []time.Time, from time.Time) []float64 {
	var steps []float64
	for i := 1; i < len(stamps); i++ {
		if !stamps[i-1].Before(from) {
			steps = append(steps, stamps[i].Sub(stamps[i-1]).Seconds())
		}
	}
	return steps
}

// firstToken runs one prompt and returns the time to its first token. A run during which a program was compiled is errCompile.
func (b *bench) firstToken(prompt int, spec steering.Spec) (time.Duration, error) {
	programs := b.m.Stats().Programs
	ids := Prompt(0, prompt, b.m.Config().VocabSize)
	g, err := b.m.Generate(b.ctx, engine.Request{IDs: ids, MaxTokens: 1, IgnoreEOS: true, Steering: spec})
	if err != nil {
		return 0, err
	}
	r := g.Result()
	if r.Err != nil {
		return 0, r.Err
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.m.Stats().Programs != programs {
		return 0, errCompile
	}
	return r.Timing.FirstToken, nil
}
