package contrast_test

import (
	"context"
	"fmt"
	"os"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

// A vector that makes a small story model prefer one continuation to another. It is used like any other vector.
func ExampleTrain() {
	ctx := context.Background()
	m, err := engine.Open(ctx, "../../cmd/steerage/demo/stories260k", engine.Options{Backend: "go", MaxContext: 128})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer func() { _ = m.Close() }()
	ids := func(text string) []int32 {
		ids, err := m.Tokenizer().Encode(text, false)
		if err != nil {
			panic(err)
		}
		return ids
	}
	var pairs []contrast.Pair
	for _, name := range []string{"Lily", "Tom", "Max", "Sue"} {
		pairs = append(pairs, contrast.Pair{
			Prompt:   append([]int32{1}, ids("Once upon a time, there was a child named "+name+".")...),
			Positive: ids(" She was very happy and smiled."),
			Negative: ids(" She was very sad and cried."),
		})
	}
	trained, err := contrast.Train(ctx, m, pairs, contrast.TrainOptions{
		Loss: contrast.Contrastive, Layers: []int{2}, LearningRate: 0.05, Epochs: 8, MaxNorm: 2,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	fmt.Printf("loss before and after: %.1f, %.1f\n", trained.History[0].Loss, trained.History[len(trained.History)-1].Loss)

	gap := func(spec steering.Spec) (gap float64) {
		for sign, response := range map[float64][]int32{1: pairs[0].Positive, -1: pairs[0].Negative} {
			s, err := m.Score(ctx, engine.Sequence{Prompt: pairs[0].Prompt, Continuation: response, Steering: spec})
			if err != nil {
				panic(err)
			}
			for _, lp := range s.LogProbs {
				gap += sign * float64(lp)
			}
		}
		return gap
	}
	plain := gap(nil)
	steered := gap(steering.Spec{{Vector: trained.Vector, Method: steering.SwFC, Coefficient: 1}})
	fmt.Println("happy gains on sad:", steered > plain+3)
	// Output:
	// loss before and after: 0.7, 0.3
	// happy gains on sad: true
}
