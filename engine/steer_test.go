package engine

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/pjrt/pjrttest"
	"github.com/steerage/steerage/steering"
)

// vector makes a vector at all layers of a model, with statistics among which gates fall to both sides.
func vector(t *testing.T, m *Model, seed uint64) *steering.Vector {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	c := m.Config()
	v := &steering.Vector{Hidden: c.HiddenSize}
	for l := range c.NumHiddenLayers {
		x := make([]float64, c.HiddenSize)
		for i := range x {
			x[i] = rng.NormFloat64()
		}
		at, err := steering.NewLayer(l, x)
		require.NoError(t, err)
		at.DeltaMu = 1.5
		at.Statistics = &steering.Statistics{M: 0.1, MuPos: 1, MuNeg: -0.5, SigmaPos: 0.04, SigmaNeg: 0.2, CohensD: 3}
		v.Layers = append(v.Layers, at)
	}
	return v
}

// below brings ids into a model's vocabulary.
func below(m *Model, ids []int32) []int32 {
	for i := range ids {
		ids[i] %= int32(m.Config().VocabSize)
	}
	return ids
}

func positions(t *testing.T, text string) steering.Positions {
	t.Helper()
	p, err := steering.ParsePositions(text)
	require.NoError(t, err)
	return p
}

func requireBits(t *testing.T, want, got []float32, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	for i := range want {
		require.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]), "%s: element %d: %g and %g", what, i, want[i], got[i])
	}
}

// No steering, an empty spec, and a spec that moves nothing are the same bits, whether the program steers or not; and so is an unsteered row
// beside steered ones.
func TestUnsteeredBits(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		for _, dir := range []string{small, llamaF32, llamaBF16} {
			t.Run(fmt.Sprintf("%s %s", b, dir), func(t *testing.T) {
				s := rungs(4, 96, 96, 48)
				s.Batches = []int{4}
				s.PrefillRows = 4
				m := open(t, dir, Options{Backend: b, MaxContext: 96, Schedule: s})
				v, w := vector(t, m, 1), vector(t, m, 2)
				nothing := steering.Spec{{Vector: v, Method: steering.SwFC, Coefficient: 0}}
				heavy := steering.Spec{{Vector: w, Method: steering.SwFC, Coefficient: 3}, {Vector: v, Method: steering.StMP, Coefficient: 2}}

				text := Sequence{Prompt: below(m, prompt(4, 30))}
				plain, err := m.Trace(context.Background(), text)
				require.NoError(t, err)
				for name, spec := range map[string]steering.Spec{"empty": {}, "coefficient 0": nothing} {
					text.Steering = spec
					got, err := m.Trace(context.Background(), text)
					require.NoError(t, err)
					requireBits(t, plain.Logits, got.Logits, name)
					for l := range plain.Layers {
						requireBits(t, plain.Layers[l], got.Layers[l], fmt.Sprintf("%s, layer %d", name, l))
					}
				}

				r := greedy(below(m, prompt(4, 20)), 24)
				alone, err := ask(m, r)
				require.NoError(t, err)
				for name, spec := range map[string]steering.Spec{"empty": {}, "coefficient 0": nothing} {
					r.Steering = spec
					got, err := ask(m, r)
					require.NoError(t, err)
					require.Equal(t, alone.ids, got.ids, name)
					requireBits(t, alone.logprobs, got.logprobs, name)
				}
				r.Steering = nil
				for i := range 4 { // in whichever slot
					requests := slices.Repeat([]Request{{IDs: below(m, prompt(4, 20)), MaxTokens: 24, IgnoreEOS: true, Steering: heavy}}, 4)
					requests[i] = r
					got := together(t, m, requests)
					require.Equal(t, alone.ids, got[i].ids)
					requireBits(t, alone.logprobs, got[i].logprobs, "beside steered rows")
					require.NotEqual(t, alone.ids, got[(i+1)%4].ids, "steering has an effect")
				}
			})
		}
	}
}

// together runs requests in one batch.
func together(t *testing.T, m *Model, requests []Request) []answer {
	t.Helper()
	answers, errs := make([]answer, len(requests)), make([]error, len(requests))
	var wait sync.WaitGroup
	// The device is held until all have been submitted, so that they are prefilled and decoded as one batch.
	err := m.Use(context.Background(), func(*Device) error {
		for i := range requests {
			g, err := m.Generate(context.Background(), requests[i])
			if err != nil {
				return err
			}
			wait.Go(func() {
				answers[i], errs[i] = collect(g)
				answers[i].effects = g.Result().Steering
			})
		}
		return nil
	})
	require.NoError(t, err)
	wait.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	return answers
}

// Random specs in one batch, with prompts in one piece and in chunks: each request does what the same text does alone, run at once
// without a cache, token by token and effect by effect.
func TestRandomSteering(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			s := rungs(4, 96, 96, 16)
			s.PrefillRows = 4
			m := open(t, small, Options{Backend: b, MaxContext: 96, Schedule: s})
			rng := rand.New(rand.NewPCG(5, 6))
			places := []string{"all", "prompt", "response", "all-prompt/0..2", "prompt/-2..+response/..5", "response-response=3,7,11"}
			var vectors []*steering.Vector
			for i := range 5 {
				vectors = append(vectors, vector(t, m, uint64(i)))
			}
			moved := 0
			for round := range 6 {
				var requests []Request
				for range 1 + rng.IntN(4) {
					r := greedy(prompt(rng.IntN(100), 1+rng.IntN(40)), 2+rng.IntN(12))
					if rng.IntN(2) == 0 {
						r.Temperature, r.Seed = 0.8, rng.Uint64()
					}
					for range rng.IntN(4) {
						r.Steering = append(r.Steering, steering.Entry{
							Vector: vectors[rng.IntN(len(vectors))], Method: steering.SwFC + steering.Method(rng.IntN(4)),
							Coefficient: rng.NormFloat64(), Negative: rng.IntN(3) == 0, Layers: rng.Perm(m.cfg.NumHiddenLayers)[:1+rng.IntN(3)],
							Positions: positions(t, places[rng.IntN(len(places))]),
						})
					}
					requests = append(requests, r)
				}
				for i, got := range together(t, m, requests) {
					r, what := requests[i], fmt.Sprintf("round %d request %d of %d", round, i, len(requests))
					want, err := m.Score(context.Background(), Sequence{Prompt: r.IDs, Continuation: got.ids, Steering: r.Steering})
					require.NoError(t, err)
					require.InDeltaSlice(t, want.LogProbs, got.logprobs, tolerance, what)
					require.Len(t, got.effects, len(r.Steering), what)
					for n, w := range want.Steering {
						g := got.effects[n]
						require.InDelta(t, w.Sum, g.Sum, 1e-4*math.Max(1, w.Sum), what)
						g.Sum = w.Sum
						require.Equal(t, w, g, what)
						moved += g.Moved
					}
				}
			}
			require.Greater(t, moved, 200, "the test tests something")
		})
	}
}

// What a trace says of its sites is what the effects add up, and what the layer's output shows.
func TestTraceSites(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			m := open(t, small, Options{Backend: b, MaxContext: 96, Schedule: rungs(1, 96, 96, 16)})
			v, w := vector(t, m, 1), vector(t, m, 2)
			last := m.cfg.NumHiddenLayers - 1
			s := Sequence{Prompt: prompt(1, 21), Continuation: prompt(2, 9), Steering: steering.Spec{
				{Vector: v, Method: steering.StTP, Coefficient: 3, Layers: []int{0, last}},
				{Vector: w, Method: steering.SwFC, Coefficient: 1, Layers: []int{last}, Positions: steering.Response},
			}}
			trace, err := m.Trace(context.Background(), s)
			require.NoError(t, err)
			require.Len(t, trace.Sites, 3)
			require.Equal(t, []int{60, 9}, []int{trace.Steering[0].Eligible, trace.Steering[1].Eligible})
			sums := make([]float64, 2)
			moved := make([]int, 2)
			for _, site := range trace.Sites {
				require.Len(t, site.Rho, 30)
				require.Len(t, site.Delta, 30)
				for at, d := range site.Delta {
					if d != 0 {
						moved[site.Entry]++
						sums[site.Entry] += math.Abs(float64(d))
					}
					if site.Entry == 0 {
						require.Equal(t, site.Rho[at] < 0.1, d != 0, "the gate is rho < m")
						if d != 0 {
							require.InDelta(t, 1+3*0.04, site.Rho[at]+d, 1e-5, "the target")
						}
					} else {
						require.Equal(t, at >= 21, d != 0)
					}
				}
			}
			for i, e := range trace.Steering {
				require.Equal(t, e.Moved, moved[i])
				require.InDelta(t, e.Sum, sums[i], 1e-4)
				require.NotZero(t, moved[i])
			}
			// The second entry came last, so the output's projection on w is what it saw plus what it did.
			for at := range 30 {
				h := trace.Layers[last][at*v.Hidden : (at+1)*v.Hidden]
				rho := 0.0
				for i, x := range h {
					rho += float64(x) * float64(w.Layers[last].Direction[i])
				}
				require.InDelta(t, float64(trace.Sites[2].Rho[at]+trace.Sites[2].Delta[at]), rho, 1e-4)
			}
		})
	}
}

func TestCapture(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			s := rungs(4, 96, 96, 8, 32)
			m := open(t, small, Options{Backend: b, MaxContext: 96, Schedule: s})
			hidden := m.cfg.HiddenSize
			steer := steering.Spec{{Vector: vector(t, m, 3), Method: steering.SwFC, Coefficient: 1, Positions: steering.Response}}
			var sequences []Sequence
			for i := range 9 { // some longer than the largest program
				sequences = append(sequences, Sequence{Prompt: prompt(i, 2+i*5), Continuation: prompt(i+40, 1+i*3)})
				if i%3 == 0 {
					sequences[i].Steering = steer
				}
			}
			pools := []Pool{
				{Positions: steering.Response}, {Positions: steering.Prompt, Reduce: Last}, {Positions: positions(t, "prompt/1..+response"), Reduce: Mean},
			}
			got, err := m.Capture(context.Background(), sequences, []int{2, 0}, pools...)
			require.NoError(t, err)
			each, err := m.Capture(context.Background(), sequences, []int{1}, Pool{Positions: pools[2].Positions, Reduce: Each})
			require.NoError(t, err)
			require.Len(t, got, len(sequences))
			for i, s := range sequences {
				trace, err := m.Trace(context.Background(), s)
				require.NoError(t, err)
				ids := s.ids()
				for j, p := range got[i] {
					require.Equal(t, []int{2, 0}, p.Layers)
					for k, l := range p.Layers {
						want := make([]float32, hidden)
						for _, at := range p.Positions {
							for x := range want {
								want[x] += trace.Layers[l][at*hidden+x] / float32(len(p.Positions))
							}
						}
						require.InDeltaSlice(t, want, p.Values[k], 2e-5, "sequence %d pool %d layer %d", i, j, l)
					}
					for n, at := range p.Positions {
						require.Equal(t, ids[at], p.Tokens[n])
					}
				}
				require.Len(t, got[i][0].Positions, len(s.Continuation))
				require.Equal(t, []int{len(s.Prompt) - 1}, got[i][1].Positions)
				require.Len(t, got[i][2].Positions, len(ids)-1)
				require.Equal(t, got[i][2].Tokens, each[i][0].Tokens)
				require.InDeltaSlice(t, trace.Layers[1][hidden:], each[i][0].Values[0], 2e-5)
			}

			for want, call := range map[string]func() error{
				"layer 4: the model has layers 0 to 3": func() error { _, err := m.Capture(context.Background(), sequences, []int{4}, pools...); return err },
				"no pools":                             func() error { _, err := m.Capture(context.Background(), sequences, nil); return err },
				"no such reduction: 9": func() error {
					_, err := m.Capture(context.Background(), sequences, nil, Pool{Reduce: 9})
					return err
				},
				"sequence 0 has no token at positions response=199": func() error {
					_, err := m.Capture(context.Background(), sequences, nil, Pool{Positions: positions(t, "response=199")})
					return err
				},
				"a call of their own": func() error {
					_, err := m.Capture(context.Background(), sequences, nil, Pool{Reduce: Each}, Pool{})
					return err
				},
			} {
				require.ErrorContains(t, call(), want)
			}
		})
	}
}

// A program of the caller's own runs on the model's weights.
func TestUse(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			m := open(t, stories, Options{Backend: b})
			hidden := m.cfg.HiddenSize
			p := &Program{
				Name: "embedding of 2", Weights: true, Inputs: []shapes.Shape{shapes.Make(dtypes.Int32, 2), shapes.Make(dtypes.Float64, 1)},
				Build: func(b Builder, in []*graph.Node) []*graph.Node {
					return []*graph.Node{layers.Embed(b.Platform, in[0], b.Params[model.EmbedTokens]), graph.AddScalar(in[1], 1)}
				},
			}
			err := m.Use(context.Background(), func(d *Device) error {
				out, err := d.Call(p, []int32{7, 7}, []float64{2})
				if err != nil {
					return err
				}
				e := out[0].([]float32)
				require.Len(t, e, 2*hidden)
				require.Equal(t, e[:hidden], e[hidden:])
				require.Equal(t, []float64{3}, out[1])
				_, err = d.Call(p, []int32{7, 7})
				require.ErrorContains(t, err, "takes 2 inputs, got 1")
				_, err = d.Call(p, []int32{7}, []float64{2})
				require.ErrorContains(t, err, "input 0")
				_, err = d.Call(&Program{Name: "bad", Build: func(Builder, []*graph.Node) []*graph.Node { panic("no graph") }})
				require.ErrorContains(t, err, "no graph")
				return nil
			})
			require.NoError(t, err)
		})
	}
}

func TestSteeringRefusals(t *testing.T) {
	m := open(t, small, Options{Backend: "go", MaxContext: 64})
	v := vector(t, m, 1)
	short := &steering.Vector{Hidden: 2, Layers: []steering.Layer{{Index: 0, Direction: []float32{1, 0}, DeltaMu: 1}}}
	bare := vector(t, m, 1)
	for i := range bare.Layers {
		bare.Layers[i].Statistics = nil
	}
	for want, e := range map[string]steering.Entry{
		"hidden_size 2, the model has":    {Vector: short, Method: steering.SwFC},
		"no vector":                       {Method: steering.SwFC},
		"the vector has no layer 9":       {Vector: v, Method: steering.SwFC, Layers: []int{9}},
		"NaN":                             {Vector: v, Method: steering.SwFC, Coefficient: math.NaN()},
		"+Inf":                            {Vector: v, Method: steering.StTP, Coefficient: math.Inf(1)},
		"no clause includes anything":     {Vector: v, Method: steering.SwFC, Positions: steering.Positions{}},
		"needs the vector's statistics":   {Vector: bare, Method: steering.StMP},
		"is none of swfc, sttp, stmp, ab": {Vector: v},
	} {
		spec := steering.Spec{e}
		_, err := m.Generate(context.Background(), Request{IDs: []int32{1}, Steering: spec})
		require.ErrorContains(t, err, want)
		_, err = m.Trace(context.Background(), Sequence{Prompt: []int32{1}, Steering: spec})
		require.ErrorContains(t, err, want)
	}
}
