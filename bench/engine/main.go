// Command engine measures the engine on one model folder and prints one line of JSON; bench/run compares it with bench/hf.py,
// which measures the same things under the same names.
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
)

func main() {
	dir := flag.String("model", "", "model folder")
	backend := flag.String("backend", "", "backend, as steerage run has it")
	tokens := flag.Int("tokens", 32, "tokens to generate for each request")
	prompt := flag.Int("prompt", 512, "tokens of the long prompt")
	verbose := flag.Bool("v", false, "log compilation")
	flag.Parse()
	if err := run(*dir, *backend, *tokens, *prompt, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, in this order: start to first token, decode at batch 1 and 8, prefill, peak memory. Each shape
// is run once before it is timed.
func run(dir, backend string, tokens, prompt int, verbose bool) error {
	began := time.Now()
	opt := engine.Options{Backend: backend, MaxBatch: 8, MaxContext: 1024}
	if verbose {
		opt.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	ctx := context.Background()
	m, err := engine.Open(ctx, dir, opt)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	ids := func(n int) []int32 {
		out := make([]int32, n)
		for i := range out {
			out[i] = int32((1000 + 37*i) % m.Config().VocabSize)
		}
		return out
	}
	// batch runs `rows` equal requests of n new tokens at once and returns how long they took together.
	batch := func(rows, n, length int) (time.Duration, error) {
		start := time.Now()
		var gens []*engine.Generation
		for range rows {
			g, err := m.Generate(ctx, engine.Request{IDs: ids(length), MaxTokens: n, IgnoreEOS: true})
			if err != nil {
				return 0, err
			}
			gens = append(gens, g)
		}
		for _, g := range gens {
			r := g.Result()
			if r.Err != nil {
				return 0, r.Err
			}
			if len(r.IDs) != n {
				return 0, fmt.Errorf("%d tokens generated, want %d", len(r.IDs), n)
			}
		}
		return time.Since(start), nil
	}
	const short, repeats = 16, 3
	if _, err := batch(1, 1, short); err != nil {
		return err
	}
	result := map[string]any{"start_to_first_token_s": time.Since(began).Seconds()}
	for _, rows := range []int{1, 8} {
		var rates []float64
		for i := range 1 + repeats {
			prefill, err := batch(rows, 1, short)
			if err != nil {
				return err
			}
			whole, err := batch(rows, tokens, short)
			if err != nil {
				return err
			}
			if i > 0 {
				rates = append(rates, float64(rows*(tokens-1))/(whole-prefill).Seconds())
			}
		}
		result[fmt.Sprintf("decode_b%d_tok_s", rows)] = median(rates)
	}
	var rates []float64
	for i := range 1 + repeats {
		took, err := batch(1, 1, prompt)
		if err != nil {
			return err
		}
		if i > 0 {
			rates = append(rates, float64(prompt)/took.Seconds())
		}
	}
	result[fmt.Sprintf("prefill_%d_tok_s", prompt)] = median(rates)
	if result["peak_rss_gb"], err = peakRSS(); err != nil {
		return err
	}
	result["backend"] = m.Backend().Kind
	return json.NewEncoder(os.Stdout).Encode(result)
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
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
