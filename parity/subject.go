package parity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/engine/schedule"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

// subject is what is compared with a dump: an engine, or in tests a toy that a test can bend.
type subject interface {
	Trace(ctx context.Context, s engine.Sequence) (*engine.Trace, error)
	Score(ctx context.Context, s engine.Sequence) (*engine.Scored, error)
	Capture(ctx context.Context, s []engine.Sequence, layers []int, pools ...engine.Pool) ([]engine.Captured, error)
	// generate runs requests at the same time, as one batch as far as they fit into one.
	generate(ctx context.Context, requests []engine.Request) ([]continuation, error)
	// fit fits directions on the subject's device.
	fit(ctx context.Context, e contrast.Embeddings) (*contrast.Fitted, error)
	backend() string
	Close() error
}

// continuation is what came of a request.
type continuation struct {
	tokens   []int32
	logProbs []float32
	effects  []steering.Effect // of each entry of its steering
	err      error             // the request failed, as it does with logits that are not finite
}

// greedyRequest asks for n tokens, past any EOS.
func greedyRequest(ids []int32, n int, spec steering.Spec) engine.Request {
	return engine.Request{IDs: ids, MaxTokens: n, IgnoreEOS: true, Logprobs: true, Steering: spec}
}

// opener opens a subject for a reference and for the sizes of a dump.
type opener func(ctx context.Context, dir, ref string, opt Options, sizes sizes) (subject, error)

// sizes are the largest that are run.
type sizes struct {
	context int // tokens of a text with its continuation
	rows    int // of a batch
	row     int // tokens of most texts: all but the longest prompts
	queue   int // requests at the same time
}

// schedule is the one with the fewest programs, which take most of the time, that still fills a batch by one prefill and
// prefills two prompts of different length in two sizes.
func (s sizes) schedule() *schedule.Config {
	chunk := max(s.context, s.rows*s.row)
	return &schedule.Config{
		MaxBatch: s.rows, MaxContext: s.context, MaxQueue: s.queue, PrefillRows: s.rows, Chunk: chunk,
		Batches: slices.Compact([]int{1, s.rows}), Tokens: slices.Compact([]int{s.row, chunk}), Lengths: []int{chunk},
	}
}

type engineSubject struct{ *engine.Model }

func openEngine(ctx context.Context, dir, ref string, opt Options, sizes sizes) (subject, error) {
	o := engine.Options{Backend: opt.Backend, MaxContext: sizes.context, MaxBatch: sizes.rows, Schedule: sizes.schedule(),
		Logger: opt.Logger}
	if ref == refF32 {
		o.DType, o.Backend = "float32", trueFloat32(o.Backend)
	}
	m, err := engine.Open(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	return engineSubject{m}, nil
}

// trueFloat32 switches TF32 off: the tolerances are those of true float32 products.
func trueFloat32(backend string) string {
	if !strings.HasPrefix(backend, "xla") || strings.Contains(backend, "tf32=") {
		return backend
	}
	if backend == "xla" {
		backend += ":"
	}
	return backend + ",tf32=false"
}

func (s engineSubject) backend() string { return s.Backend().Kind }

func (s engineSubject) generate(ctx context.Context, requests []engine.Request) ([]continuation, error) {
	results := make([]continuation, len(requests))
	var wait sync.WaitGroup
	// The device is held until all have been submitted, so that what runs together does not depend on the clock.
	err := s.Use(ctx, func(*engine.Device) error {
		for i, r := range requests {
			g, err := s.Generate(ctx, r)
			if err != nil {
				results[i].err = err
				continue
			}
			wait.Go(func() { results[i] = collect(g) })
		}
		return nil
	})
	wait.Wait()
	return results, errors.Join(err, ctx.Err())
}

func (s engineSubject) fit(ctx context.Context, e contrast.Embeddings) (fitted *contrast.Fitted, err error) {
	err = s.Use(ctx, func(d *engine.Device) error {
		fitted, err = contrast.Fit(ctx, d.Backend(), e, fitOptions)
		return err
	})
	return fitted, err
}

// collect waits for a request.
func collect(g *engine.Generation) (c continuation) {
	for token, err := range g.Tokens() {
		if err != nil {
			c.err = err
			break
		}
		if token.ID >= 0 { // else the rest of the text
			c.tokens, c.logProbs = append(c.tokens, token.ID), append(c.logProbs, token.Logprob)
		}
	}
	c.effects = g.Result().Steering
	return c
}
