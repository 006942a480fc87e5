package pjrt_test

import (
	"context"
	"fmt"
	"log"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/steerage/steerage/pjrt"
)

// A counter that is updated where it lies: parameter alias_0__… gives its memory to result 0.
func ExampleBackend() {
	backend, choice, err := pjrt.Backend("go") // "" takes the best backend of the machine
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Finalize()
	fmt.Println(choice)

	g := graph.NewGraph(backend, "count")
	counter := graph.Parameter(g, "alias_0__counter", shapes.Make(dtypes.Int32, 2))
	if err := g.Compile(graph.AddScalar(counter, 1)); err != nil {
		log.Fatal(err)
	}
	x := tensors.FromValue([]int32{0, 10})
	for range 3 {
		donated, err := graph.DonateTensorBuffer(x, backend, 0)
		if err != nil {
			log.Fatal(err)
		}
		x = g.Run(donated)[0]
	}
	fmt.Println(x.Value())
	// Output:
	// backend go: it was asked for
	// [3 13]
}

func ExampleSetup() {
	plugin, err := pjrt.Setup(context.Background(), "cpu", func(what string) { log.Print(what) })
	if err != nil {
		log.Fatal(err) // says what to do
	}
	backend, err := pjrt.Open(plugin, pjrt.Options{OnCompile: func(c pjrt.Compile) {
		log.Printf("%s: %v, from the cache: %t", c.Module, c.Duration, c.Cached)
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Finalize()
}
