package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute"

	"github.com/steerage/steerage/steering"
)

// Reduction says what Capture keeps of the hidden states at a pool's positions.
type Reduction uint8

// Each pool is reduced on the device, except by Each, which brings every one of its hidden states to the host.
const (
	Mean Reduction = iota // their mean
	Last                  // the last
	Each                  // all of them
)

// Pool is a choice of hidden states of a sequence.
type Pool struct {
	Positions steering.Positions // nil: every token
	Reduce    Reduction
}

// Captured is what Capture kept of one sequence: one Pooled for each pool.
type Captured []Pooled

// Pooled is the hidden states of one pool.
type Pooled struct {
	Positions []int       // which were pooled; for Last the one that was kept
	Tokens    []int32     // at these positions
	Layers    []int       // whose outputs Values has
	Values    [][]float32 // of each of Layers: [hidden_size], or for Each [len(Positions), hidden_size]
}

// Capture runs sequences in padded batches and returns the outputs of chosen blocks (nil: of all), pooled. What a layer
// puts out is taken after it was steered. Nothing but the pooled values leaves the device. A sequence in which a pool finds no token is an
// error.
func (m *Model) Capture(ctx context.Context, sequences []Sequence, layers []int, pools ...Pool) ([]Captured, error) {
	c := capture{m: m, layers: layers, pools: pools}
	if err := c.prepare(sequences); err != nil {
		return nil, err
	}
	for _, batch := range c.batches() {
		// One batch at a time, so that requests go on in between.
		if err := m.exclusive(ctx, func(d *device) error { return c.run(ctx, d, batch) }); err != nil {
			return nil, err
		}
	}
	return c.results, nil
}

// capture is one call of Capture.
type capture struct {
	m       *Model
	layers  []int
	pools   []Pool
	reduced []int // indices of the pools that are reduced on the device
	rows    []row
	results []Captured
}

func (c *capture) prepare(sequences []Sequence) error {
	n := c.m.cfg.NumHiddenLayers
	if c.layers == nil {
		for l := range n {
			c.layers = append(c.layers, l)
		}
	}
	for _, l := range c.layers {
		if l < 0 || l >= n {
			return fmt.Errorf("engine: capture: layer %d: the model has layers 0 to %d", l, n-1)
		}
	}
	if len(c.layers) == 0 || len(c.pools) == 0 {
		return errors.New("engine: capture: no layers or no pools")
	}
	for i, p := range c.pools {
		if err := p.Positions.Validate(); err != nil {
			return fmt.Errorf("engine: capture: pool %d: %w", i, err)
		}
		switch p.Reduce {
		case Mean, Last:
			c.reduced = append(c.reduced, i)
		case Each:
		default:
			return fmt.Errorf("engine: capture: pool %d: no such reduction: %d", i, p.Reduce)
		}
	}
	if len(c.reduced) > 0 && len(c.reduced) < len(c.pools) {
		return errors.New("engine: capture: pools that keep each state are captured in a call of their own")
	}
	c.results = make([]Captured, len(sequences))
	for i, s := range sequences {
		ids := s.ids()
		course, err := c.m.check(s, ids)
		if err != nil {
			return fmt.Errorf("sequence %d: %w", i, err)
		}
		c.rows = append(c.rows, row{course, 0, ids})
		for j, p := range c.pools {
			pooled := Pooled{Layers: c.layers, Values: make([][]float32, len(c.layers))}
			for at, id := range ids {
				if p.Positions.Mask(at, len(s.Prompt), id) {
					pooled.Positions, pooled.Tokens = append(pooled.Positions, at), append(pooled.Tokens, id)
				}
			}
			if len(pooled.Positions) == 0 {
				return fmt.Errorf("engine: capture: sequence %d has no token at positions %s of pool %d: the prompt has %d tokens, the continuation %d",
					i, p.Positions, j, len(s.Prompt), len(s.Continuation))
			}
			if last := len(pooled.Positions) - 1; p.Reduce == Last {
				pooled.Positions, pooled.Tokens = pooled.Positions[last:], pooled.Tokens[last:]
			}
			c.results[i] = append(c.results[i], pooled)
		}
	}
	return nil
}

// captureTokens bounds the padded tokens of one call.
const captureTokens = 2048

// batch is sequences that are run in one call.
type batch struct {
	rows          []int // indices of sequences
	total, padded int   // rows and tokens of the program
}

// batches groups sequences of like length, so that little is padded and few programs are compiled. A sequence longer than the
// largest program is alone.
func (c *capture) batches() []batch {
	cfg := c.m.sched
	order := make([]int, len(c.rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(c.rows[b].tokens) - len(c.rows[a].tokens) })
	var out []batch
	for len(order) > 0 {
		n := len(c.rows[order[0]].tokens)
		b := batch{total: 1, padded: ladder(cfg.Tokens, n)}
		if n <= b.padded {
			for _, r := range cfg.Batches {
				if r*b.padded <= captureTokens {
					b.total = r
				}
			}
		}
		k := min(b.total, len(order))
		b.rows, order = order[:k], order[k:]
		b.total = min(b.total, ladder(cfg.Batches, k))
		out = append(out, b)
	}
	return out
}

func (c *capture) run(ctx context.Context, d *device, b batch) error {
	f := form{head: headStates}
	if len(c.reduced) > 0 {
		f = form{head: headPools, pools: len(c.reduced)}
	}
	if one := c.rows[b.rows[0]]; len(one.tokens) > b.padded {
		return d.sweep(ctx, c.m.sched, b.padded, one, f, func(start, _, padded int) any {
			return c.weights(b.rows, 1, start, padded)
		}, func(start, count int, out []compute.Buffer) error {
			return c.take(b.rows, start, count, out)
		})
	}
	var rows []row
	for _, i := range b.rows {
		rows = append(rows, c.rows[i])
	}
	cache, out, err := d.first(rows, b.total, b.padded, f, c.weights(b.rows, b.total, 0, b.padded))
	cache.free()
	if err != nil {
		return err
	}
	defer finalize(out)
	return c.take(b.rows, 0, b.padded, out)
}

// weights returns what each token from start counts for in each reduced pool, [pools, total, padded].
func (c *capture) weights(rows []int, total, start, padded int) []float32 {
	w := make([]float32, len(c.reduced)*total*padded)
	for k, j := range c.reduced {
		for i, sequence := range rows {
			pooled := c.results[sequence][j].Positions
			for _, at := range pooled {
				if at >= start && at < start+padded {
					w[(k*total+i)*padded+at-start] = 1 / float32(len(pooled))
				}
			}
		}
	}
	return w
}

// take adds to the results what a program returned for tokens from start.
func (c *capture) take(rows []int, start, count int, out []compute.Buffer) error {
	hidden := c.m.cfg.HiddenSize
	if len(c.reduced) == 0 {
		for k, l := range c.layers {
			shape, err := out[l].Shape() // [rows, tokens, hidden]
			if err != nil {
				return err
			}
			flat, err := toHost(out[l])
			if err != nil {
				return err
			}
			width := shape.Dim(1)
			for i, sequence := range rows {
				for j := range c.pools {
					pooled := &c.results[sequence][j]
					for _, at := range pooled.Positions {
						if at >= start && at < start+count {
							from := (i*width + at - start) * hidden
							pooled.Values[k] = append(pooled.Values[k], flat[from:from+hidden]...)
						}
					}
				}
			}
		}
		return nil
	}
	flat, err := toHost(out[0]) // [layers, rows, pools, hidden]
	if err != nil {
		return err
	}
	total := len(flat) / (c.m.cfg.NumHiddenLayers * len(c.reduced) * hidden)
	for k, l := range c.layers {
		for i, sequence := range rows {
			for n, j := range c.reduced {
				from := flat[((l*total+i)*len(c.reduced)+n)*hidden:][:hidden]
				to := &c.results[sequence][j].Values[k]
				if *to == nil {
					*to = make([]float32, hidden)
				}
				for x := range from {
					(*to)[x] += from[x]
				}
			}
		}
	}
	return nil
}
