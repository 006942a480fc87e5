package bench_test

import (
	"context"
	"fmt"
	"io"

	"github.com/steerage/steerage/bench"
)

func ExampleRun() {
	r, err := bench.Run(context.Background(), "../parity/testdata/qwen3-tied-bf16",
		bench.Options{Backend: "go", Batch: []int{2}, Tokens: 8, Prompt: []int{32}, Repeats: 1}, io.Discard)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("batch:", r.Decode[0].Batch, "measured:", r.Decode[0].Rate.Median > 0)
	fmt.Println("greedy tokens:", len(r.IDs))
	// Output:
	// batch: 2 measured: true
	// greedy tokens: 8
}

// The prompts of bench/peers are the same.
func ExamplePrompt() {
	fmt.Println(bench.Prompt(0, 4, 151936))
	fmt.Println(bench.Prompt(1, 4, 151936))
	// Output:
	// [105558 4953 151628 67174]
	// [148588 97450 41864 6232]
}
