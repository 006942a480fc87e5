package contrast_test

import (
	"context"
	"fmt"
	"log"

	"github.com/steerage/steerage/pjrt"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

// Two classes of embeddings at one layer, which differ in their first element, become a vector to steer with.
func ExampleFit() {
	backend, _, err := pjrt.Backend("go")
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Finalize()
	fitted, err := contrast.Fit(context.Background(), backend, contrast.Embeddings{
		Hidden:   2,
		Layers:   []int{12},
		Positive: [][]float32{{2, 1, 3, -1, 2, 1, 3, -1}}, // four texts
		Negative: [][]float32{{-2, 1, -3, -1, -2, 1, -3, -1}},
		Paired:   true,
	}, contrast.Options{})
	if err != nil {
		log.Fatal(err)
	}
	vector, err := fitted.Vector(contrast.DiffMeans, steering.Provenance{Model: "toy"})
	if err != nil {
		log.Fatal(err)
	}
	l := vector.Layers[0]
	fmt.Printf("layer %d: %s %v, distance %.1f, boundary %.1f, d %.1f\n",
		l.Index, vector.Method, l.Direction, l.DeltaMu, l.Statistics.M, l.Statistics.CohensD)
	fmt.Printf("logistic regression: cosine %.3f\n", fitted.Layers[0].Cosine(contrast.LogisticRegression, contrast.DiffMeans))
	// Output:
	// layer 12: diff_means [1 0], distance 5.0, boundary 0.0, d 8.7
	// logistic regression: cosine 1.000
}
