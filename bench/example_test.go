package bench_test

import (
	"context"
	"fmt"

	"github.com/steerage/steerage/bench"
)

func ExampleRun() {
	r, err := bench.Run(context.Background(), "../parity/testdata/qwen3-tied-bf16",
		bench.Options{Backend: "go", Batch: []int{2}, Tokens: 8, Prompt: 32, Repeats: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("tokens of each request:", r.Tokens)
	fmt.Println("batch:", r.Decode[0].Batch, "measured:", r.Decode[0].Rate.Median > 0)
	// Output:
	// tokens of each request: 8
	// batch: 2 measured: true
}

// The prompts of bench/peers are the same.
func ExamplePrompt() {
	fmt.Println(bench.Prompt(0, 4, 151936))
	fmt.Println(bench.Prompt(1, 4, 151936))
	// Output:
	// [105558 4953 151628 67174]
	// [148588 97450 41864 6232]
}
