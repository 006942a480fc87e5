// Command generate continues a text with a model, in the fewest lines: generate MODEL PROMPT.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/steerage/steerage/engine"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: generate MODEL PROMPT")
	}
	m, err := engine.Open(context.Background(), os.Args[1], engine.Options{MaxBatch: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	gen, err := m.Generate(context.Background(), engine.Request{Prompt: os.Args[2], MaxTokens: 100})
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
}
