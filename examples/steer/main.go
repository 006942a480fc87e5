// Command steer continues a text three times in one batch, as the model is and steered in both directions: steer MODEL.
//
// The vector is made on the spot, by contrast of a few texts; see package contrast and `steerage extract` for one made with care.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
)

// The vector leads from the sad texts to the happy ones.
var (
	happy = []string{"Lily was very happy. She smiled and laughed.", "It was a great day. They had so much fun."}
	sad   = []string{"Lily was very sad. She cried and cried.", "It was a bad day. They were so scared."}
)

const (
	prompt      = "One day, Tom went to the park. He"
	layer       = 2 // the vector is measured and added at the output of this block, counted from 0
	coefficient = 2 // how many times the distance between the happy and the sad texts
	tokens      = 30
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: steer MODEL")
	}
	if err := run(context.Background(), os.Stdout, os.Args[1], ""); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, w io.Writer, dir, backend string) error {
	m, err := engine.Open(ctx, dir, engine.Options{Backend: backend})
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	v, err := difference(ctx, m, happy, sad)
	if err != nil {
		return err
	}

	// Every request of a batch has its own steering. They run side by side, in one program.
	toward := steering.Spec{{Vector: v, Method: steering.SwFC, Coefficient: coefficient}}
	away := steering.Spec{{Vector: v, Method: steering.SwFC, Coefficient: -coefficient}}
	specs := []steering.Spec{nil, toward, away}
	var generations []*engine.Generation
	for _, spec := range specs {
		g, err := m.Generate(ctx, engine.Request{Prompt: prompt, MaxTokens: tokens, Steering: spec})
		if err != nil {
			return err
		}
		generations = append(generations, g)
	}
	for i, g := range generations {
		r := g.Result()
		if r.Err != nil {
			return r.Err
		}
		if _, err := fmt.Fprintf(w, "%s: %s%s\n", []string{"unsteered", "happy", "sad"}[i], prompt, r.Text); err != nil {
			return err
		}
		for _, e := range r.Steering { // one for each entry of the spec
			if _, err := fmt.Fprintf(w, "  moved %d of %d tokens by %.1f on average\n", e.Moved, e.Eligible, e.Mean()); err != nil {
				return err
			}
		}
	}
	return nil
}

// difference returns the vector between the mean hidden states of two classes of texts.
func difference(ctx context.Context, m *engine.Model, positive, negative []string) (*steering.Vector, error) {
	if m.Tokenizer() == nil {
		return nil, errors.New("texts need a tokenizer, and the model's folder has no tokenizer.json")
	}
	var sequences []engine.Sequence
	for _, text := range append(positive[:len(positive):len(positive)], negative...) {
		ids, err := m.Tokenizer().Encode(text, true)
		if err != nil {
			return nil, err
		}
		sequences = append(sequences, engine.Sequence{Prompt: ids})
	}
	captured, err := m.Capture(ctx, sequences, []int{layer}, engine.Pool{Reduce: engine.Mean})
	if err != nil {
		return nil, err
	}
	between := make([]float64, m.Config().HiddenSize)
	for i, c := range captured {
		share := 1 / float64(len(positive))
		if i >= len(positive) {
			share = -1 / float64(len(negative))
		}
		for j, x := range c[0].Values[0] { // of the first pool at the first layer
			between[j] += share * float64(x)
		}
	}
	l, err := steering.NewLayer(layer, between)
	if err != nil {
		return nil, err
	}
	return &steering.Vector{Hidden: len(between), Layers: []steering.Layer{l}}, nil
}
