package layers_test

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/pjrt"
)

// The MLP of a block, as a graph for the Go backend.
func Example() {
	backend, _, err := pjrt.Backend("go")
	if err != nil {
		fmt.Println(err)
		return
	}
	const p = layers.Go
	mlp := graph.MustNewExec(backend, func(x, norm, gate, up, down *graph.Node) *graph.Node {
		h := layers.RMSNorm(x, norm, 1e-6)
		return layers.Linear(p, layers.SwiGLU(layers.Linear(p, h, gate), layers.Linear(p, h, up)), down)
	})
	identity := [][]float32{{1, 0}, {0, 1}} // [out, in]
	fmt.Printf("%.3f\n", mlp.MustCall1([][]float32{{3, -3}}, []float32{1, 2}, identity, identity, identity).Value())
	// Output:
	// [[0.731 0.477]]
}
