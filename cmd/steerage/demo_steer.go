package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

// demoPairs are story beginnings that are told once happily and once sadly.
//
//go:embed demo/happy.jsonl
var demoPairs []byte

// What the demo steers: openings that are not in demoPairs, each continued several times.
const (
	demoCoefficient = 2
	demoSeeds       = 16 // continuations of each opening
	demoLength      = 48
	demoResamples   = 1000
)

var demoOpenings = []string{
	"Once upon a time, there was a big bear.", "One day, a little cat went to the lake.", "There was a boy named Leo.",
	"The old man lived in a house.", "A bird sat in a tree.", "One morning, Kitty woke up.",
}

// What counts as a happy and as a sad word: its beginning.
var (
	happyWords = []string{"happy", "happi", "smil", "laugh", "fun", "glad", "excited", "love", "yay", "proud", "enjoy"}
	sadWords   = []string{"sad", "cry", "cried", "tear", "upset", "lonely", "scared", "hurt", "afraid", "angry"}
)

// mood is what the demo counted in the continuations of one configuration.
type mood struct {
	Steering string `json:"steering"`
	Happy    int    `json:"happy_words"`
	Sad      int    `json:"sad_words"`
	Stories  int    `json:"stories"`
	// Mean of happy less sad words of a story, with a 95% bootstrap interval.
	Score   float64    `json:"happy_minus_sad"`
	Between [2]float64 `json:"interval"`
	Moved   float64    `json:"mean_l2"` // mean distance by which steering moved a hidden state
	Example string     `json:"example"`

	scores []float64 // by story
}

// moods is the result of the demo's second part.
type moods struct {
	Layer  int              `json:"layer"`
	Pairs  int              `json:"pairs"`
	Probes []contrast.Probe `json:"probes"`
	Rows   []mood           `json:"rows"`
}

// demoMoods extracts the direction from sad to happy stories and continues other openings with it, against it, and, as a control, along
// a random direction of the same length: all in one batch, with one compiled program.
func demoMoods(ctx context.Context, m *engine.Model) (*moods, error) {
	scenarios, err := contrast.ReadScenarios(bytes.NewReader(demoPairs))
	if err != nil {
		return nil, err
	}
	x, err := contrast.Extract(ctx, m, scenarios, contrast.ExtractOptions{Model: "stories260k", Data: "happy.jsonl"})
	if err != nil {
		return nil, err
	}
	v, err := x.Vector(contrast.LogisticRegression)
	if err != nil {
		return nil, err
	}
	out := &moods{Pairs: len(scenarios)}
	if out.Layer, out.Probes, err = x.ChooseLayer(ctx, m, contrast.LogisticRegression, nil); err != nil {
		return nil, err
	}
	if v, err = v.Select(out.Layer); err != nil {
		return nil, err
	}
	random, err := randomLike(v)
	if err != nil {
		return nil, err
	}
	along := func(v *steering.Vector, coefficient float64) steering.Spec {
		return steering.Spec{{Vector: v, Method: steering.SwFC, Coefficient: coefficient}}
	}
	type running struct {
		row int
		*engine.Generation
	}
	var all []running
	for i, c := range []struct {
		name string
		spec steering.Spec
	}{
		{"none", nil},
		{"towards happy", along(v, demoCoefficient)},
		{"towards sad", along(v, -demoCoefficient)},
		{"random direction", along(random, demoCoefficient)},
		{"its opposite", along(random, -demoCoefficient)},
	} {
		out.Rows = append(out.Rows, mood{Steering: c.name})
		for n := range demoSeeds * len(demoOpenings) {
			g, err := m.Generate(ctx, engine.Request{
				Prompt: demoOpenings[n%len(demoOpenings)], MaxTokens: demoLength, Temperature: 0.8, Seed: uint64(n), Steering: c.spec,
			})
			if err != nil {
				return nil, err
			}
			all = append(all, running{i, g})
		}
	}
	for _, g := range all {
		r := g.Result()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if r.Err != nil {
			return nil, r.Err
		}
		out.Rows[g.row].count(r)
	}
	for i := range out.Rows {
		out.Rows[i].finish()
	}
	return out, nil
}

// randomLike returns a vector of random directions with the lengths of another.
func randomLike(v *steering.Vector) (*steering.Vector, error) {
	rng := rand.New(rand.NewPCG(1, 2))
	out := &steering.Vector{Hidden: v.Hidden}
	for i := range v.Layers {
		x := make([]float64, v.Hidden)
		for j := range x {
			x[j] = rng.NormFloat64()
		}
		l, err := steering.NewLayer(v.Layers[i].Index, x)
		if err != nil {
			return nil, err
		}
		l.DeltaMu = v.Layers[i].DeltaMu
		out.Layers = append(out.Layers, l)
	}
	return out, nil
}

func (m *mood) count(r engine.Result) {
	happy, sad := 0, 0
	for _, word := range strings.Fields(strings.ToLower(r.Text)) {
		word = strings.TrimLeft(word, `"'(`)
		begins := func(with string) bool { return strings.HasPrefix(word, with) }
		if slices.ContainsFunc(happyWords, begins) {
			happy++
		}
		if slices.ContainsFunc(sadWords, begins) {
			sad++
		}
	}
	if m.Stories == 0 {
		m.Example = strings.TrimSpace(r.Text)
	}
	m.Happy, m.Sad, m.Stories = m.Happy+happy, m.Sad+sad, m.Stories+1
	m.scores = append(m.scores, float64(happy-sad))
	for _, e := range r.Steering {
		m.Moved += e.Mean()
	}
}

func (m *mood) finish() {
	n := float64(len(m.scores))
	m.Moved /= n
	m.Score = sum(m.scores) / n
	rng := rand.New(rand.NewPCG(3, 4))
	means := make([]float64, demoResamples)
	for i := range means {
		for range m.scores {
			means[i] += m.scores[rng.IntN(len(m.scores))] / n
		}
	}
	slices.Sort(means)
	m.Between = [2]float64{means[demoResamples/40], means[demoResamples-1-demoResamples/40]}
}

func sum(x []float64) (s float64) {
	for _, v := range x {
		s += v
	}
	return s
}

func (d *moods) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(d)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe direction from sad to happy stories, from %d pairs; layer %d was chosen. Other stories, %d tokens each:\n\n",
		d.Pairs, d.Layer, demoLength)
	fmt.Fprintf(&b, "  %-17s %7s %5s   %-28s %s\n", "steering", "happy", "sad", "happy less sad in a story", "mean |delta|")
	for _, r := range d.Rows {
		fmt.Fprintf(&b, "  %-17s %7d %5d   %5.2f (95%%: %5.2f to %5.2f)    %.2f\n",
			r.Steering, r.Happy, r.Sad, r.Score, r.Between[0], r.Between[1], r.Moved)
	}
	fmt.Fprintf(&b, "\n%s\n", demoOpenings[0])
	for _, r := range d.Rows[:3] {
		fmt.Fprintf(&b, "  %-14s … %s\n", r.Steering+":", strings.Join(strings.Fields(r.Example), " "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
