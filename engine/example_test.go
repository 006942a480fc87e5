package engine_test

import (
	"context"
	"fmt"
	"log"

	"github.com/steerage/steerage/engine"
)

func Example() {
	ctx := context.Background()
	m, err := engine.Open(ctx, "../cmd/steerage/demo/stories260k", engine.Options{Backend: "go"})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	gen, err := m.Generate(ctx, engine.Request{Prompt: "Once upon a time", MaxTokens: 12})
	if err != nil {
		log.Fatal(err)
	}
	for piece, err := range gen.Text() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(piece)
	}
	fmt.Println()
	fmt.Println(gen.Result().Finish)
	// Output:
	// , there was a little girl named Lily. She
	// length
}
