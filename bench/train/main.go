// Command train measures steps of contrast.Train on one model folder and prints one line of JSON; bench/run_train compares it with
// steering/reference/train_torch.py, which makes the same steps in PyTorch, under the same names.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering/contrast"
)

func main() {
	dir := flag.String("model", "", "model folder")
	backend := flag.String("backend", "", "backend, as steerage run has it")
	layer := flag.Int("layer", 14, "at whose output the vector is trained")
	batch := flag.Int("batch", 4, "pairs in a step")
	prompt := flag.Int("prompt", 32, "tokens of each prompt")
	response := flag.Int("response", 32, "tokens of each response")
	steps := flag.Int("steps", 6, "steps; the first is not timed")
	verbose := flag.Bool("v", false, "log compilation")
	flag.Parse()
	if err := run(*dir, *backend, *layer, *batch, *prompt, *response, *steps, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(dir, backend string, layer, batch, prompt, response, steps int, verbose bool) error {
	began := time.Now()
	opt := engine.Options{Backend: backend, MaxBatch: 8, MaxContext: prompt + response}
	if verbose {
		opt.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	m, err := engine.Open(context.Background(), dir, opt)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	ids := func(n, seed int) []int32 {
		out := make([]int32, n)
		for i := range out {
			out[i] = int32((1000 + 37*i + 101*seed) % m.Config().VocabSize)
		}
		return out
	}
	pairs := make([]contrast.Pair, batch)
	for i := range pairs {
		pairs[i] = contrast.Pair{Prompt: ids(prompt, 3*i), Positive: ids(response, 3*i+1), Negative: ids(response, 3*i+2)}
	}
	var losses, seconds []float64
	first, last := time.Duration(0), time.Time{}
	trained, err := contrast.Train(context.Background(), m, pairs, contrast.TrainOptions{
		Loss: contrast.Contrastive, Layers: []int{layer}, Epochs: steps, Batch: batch, Schedule: contrast.Constant, LearningRate: 1e-2,
		Progress: func(done, _ int, p contrast.Point) {
			if done == 1 {
				first = time.Since(began)
			} else {
				seconds = append(seconds, time.Since(last).Seconds())
			}
			losses, last = append(losses, p.Loss), time.Now()
		},
	})
	if err != nil {
		return err
	}
	slices.Sort(seconds)
	result := map[string]any{
		"step_s": seconds[len(seconds)/2], "steps_per_s": 1 / seconds[len(seconds)/2], "start_to_first_step_s": first.Seconds(),
		"losses": losses, "norm": trained.Vector.Layers[0].DeltaMu, "backend": m.Backend().Kind,
	}
	if result["peak_rss_gb"], err = peakRSS(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// peakRSS is the process's greatest resident memory in 10^9 bytes (VmHWM).
func peakRSS() (float64, error) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			return kib * 1024 / 1e9, err
		}
	}
	return 0, errors.New("no VmHWM in /proc/self/status")
}
