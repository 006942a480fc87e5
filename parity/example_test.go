package parity_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/steerage/steerage/parity"
)

func ExampleRun() {
	report, err := parity.Run(context.Background(), "testdata/qwen3-tied-bf16", parity.Options{Backend: "go"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if !report.OK() {
		if err := report.Write(os.Stdout); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("agrees:", report.OK())
	// Output: agrees: true
}

func ExampleReport_Write() {
	report := parity.Report{Rows: []parity.Row{
		{Model: "qwen3", Backend: "xla-cpu", DType: "f32", Part: "hidden", Diff: &parity.Diff{Max: 3e-3, RMS: 2e-4, Cosine: 0.99999},
			Used: 15, Verdict: parity.Fail, Note: "first layer that disagrees: 2 (prompt 0: max 0.003, rms 0.0002)"},
		{Model: "qwen3", Backend: "xla-cpu", DType: "f32", Part: "greedy", Exact: &parity.Agreement{Equal: 128, Total: 128},
			Verdict: parity.Pass},
		{Model: "qwen3", Backend: "xla-cpu", DType: "f32", Part: "steer.gates", Diff: &parity.Diff{Max: 1.7e-5, RMS: 5.1e-6, Cosine: 1},
			Used: 0.26, Exact: &parity.Agreement{Equal: 492, Total: 492}, Verdict: parity.Pass},
	}}
	if err := report.Write(os.Stdout); err != nil {
		log.Fatal(err)
	}
	// Output:
	// model  backend  dtype  part         max|Δ|   rms      cosine      used   exact    verdict
	// qwen3  xla-cpu  f32    hidden       3.0e-03  2.0e-04  0.99999000  15.00  -        FAIL
	// qwen3  xla-cpu  f32    greedy       -        -        -           -      128/128  PASS
	// qwen3  xla-cpu  f32    steer.gates  1.7e-05  5.1e-06  1.00000000  0.26   492/492  PASS
	// qwen3 xla-cpu f32 hidden FAIL: first layer that disagrees: 2 (prompt 0: max 0.003, rms 0.0002)
}
