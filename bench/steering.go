package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/steerage/steerage/steering"
)

// Steering is what it costs to steer at every layer of every row with so many distinct configurations: ratios of times, of runs that
// alternate.
//
// A configuration is a direction and a length. They are dealt out in turn to the sites of a batch (each layer of each row), so with 1
// every site has the same and with as many as there are sites no two are alike. The number of directions in a program's table only
// grows, so 1 configuration beside others runs with the others' table. So it is measured twice: alone, and among the others.
type Steering struct {
	What           string   `json:"what"` // "decode" or "prefill"
	Batch          int      `json:"batch"`
	Tokens         int      `json:"tokens"`         // in each row's cache at the beginning; of a prefill its prompt
	Configurations int      `json:"configurations"` // 0 is the program without steering
	Among          int      `json:"among"`          // the most configurations that these rounds had
	Seconds        Summary  `json:"s"`              // of a step (the mean of a run's), or of a prefill
	Plain          Interval `json:"to_plain"`       // ratio to the program without steering
	One            Interval `json:"to_one"`         // ratio to 1 configuration, of the same rounds
}

// specs deals k configurations out to the rows and layers of a batch.
func (b *bench) specs(rows, k int) ([]steering.Spec, error) {
	cfg := b.m.Config()
	rng := rand.New(rand.NewPCG(7, uint64(k)))
	directions := make([]steering.Layer, k)
	for i := range directions {
		x := make([]float64, cfg.HiddenSize)
		for j := range x {
			x[j] = rng.NormFloat64()
		}
		var err error
		if directions[i], err = steering.NewLayer(0, x); err != nil {
			return nil, err
		}
		directions[i].DeltaMu = 0.1 * (1 + float64(i)/float64(k))
	}
	specs := make([]steering.Spec, rows)
	for r := range specs {
		v := &steering.Vector{Hidden: cfg.HiddenSize}
		for l := range cfg.NumHiddenLayers {
			at := directions[(r*cfg.NumHiddenLayers+l)%k]
			at.Index = l
			v.Layers = append(v.Layers, at)
		}
		specs[r] = steering.Spec{{Vector: v, Method: steering.SwFC, Coefficient: 1}}
	}
	return specs, nil
}

func (b *bench) steering() error {
	if len(b.opt.Steering) == 0 {
		return nil
	}
	b.line("\nsteering, all layers\tconfigurations\tms\tto plain\tto 1\tmedian of %d rounds [95%% interval]", b.opt.Repeats)
	for _, batch := range b.opt.Batch {
		context := b.opt.Context[0]
		err := b.alternate("decode", batch, context, func(specs []steering.Spec) (float64, error) {
			run, err := b.batch(batch, context, specs)
			return float64(batch) / run.rate(batch), err
		})
		if err != nil {
			return fmt.Errorf("bench: steering, batch %d: %w", batch, err)
		}
	}
	for _, prompt := range b.opt.Prompt {
		err := b.alternate("prefill", 1, prompt, func(specs []steering.Spec) (float64, error) {
			var spec steering.Spec
			if specs != nil {
				spec = specs[0]
			}
			took, err := b.firstToken(prompt, spec)
			return took.Seconds(), err
		})
		if err != nil {
			return fmt.Errorf("bench: steering, prefill of %d: %w", prompt, err)
		}
	}
	return nil
}

// alternate measures plain and 1 configuration in rounds of their own, then both and all the others.
func (b *bench) alternate(what string, batch, tokens int, run func([]steering.Spec) (float64, error)) error {
	sites := batch * b.m.Config().NumHiddenLayers
	all := []int{0, 1}
	for _, k := range b.opt.Steering {
		all = append(all, min(k, sites))
	}
	slices.Sort(all)
	all = slices.Compact(all)
	phases := [][]int{{0, 1}, all}
	if len(all) == 2 {
		phases = phases[:1]
	}
	for _, ks := range phases {
		if err := b.rounds(what, batch, tokens, ks, run); err != nil {
			return err
		}
	}
	return nil
}

// rounds runs each number of configurations once in every round, forwards and backwards in turn, so that a machine that slows down
// or speeds up favours none.
func (b *bench) rounds(what string, batch, tokens int, ks []int, run func([]steering.Spec) (float64, error)) error {
	specs := make([][]steering.Spec, len(ks))
	for i, k := range ks {
		if k == 0 {
			continue
		}
		var err error
		if specs[i], err = b.specs(batch, k); err != nil {
			return err
		}
	}
	seconds := make([][]float64, len(ks))
	for round := range 1 + b.opt.Repeats {
		for at := range ks {
			i := at
			if round%2 == 1 {
				i = len(ks) - 1 - at
			}
			err := b.settled(func() error {
				s, err := run(specs[i])
				if err == nil && round > 0 { // the first compiles
					seconds[i] = append(seconds[i], s)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	one := slices.Index(ks, 1)
	for i, k := range ks {
		s := Steering{What: what, Batch: batch, Tokens: tokens, Configurations: k, Among: ks[len(ks)-1], Seconds: Summarize(seconds[i]),
			Plain: ratios(seconds[i], seconds[0]), One: ratios(seconds[i], seconds[one])}
		b.r.Steering = append(b.r.Steering, s)
		name := fmt.Sprintf("%s, batch %d, context %d", what, batch, tokens)
		if what == "prefill" {
			name = fmt.Sprintf("prefill of %d", tokens)
		}
		beside := "none"
		if k > 0 {
			beside = fmt.Sprintf("%d", k)
		}
		b.line("%s\t%s\t%.4g\t%v\t%v\tamong up to %d", name, beside, 1e3*s.Seconds.Median, s.Plain, s.One, s.Among)
	}
	return nil
}
