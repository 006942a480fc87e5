// Command extract measures the two halves of extracting a vector, on one model folder: capturing response means at all layers, and fitting
// all of them. It prints one line of JSON and writes the embeddings to a file; peers/extract_bench.py does the same work with
// transformers and fits the same embeddings with scikit-learn, and bench/run_extract compares them.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/steerage/steerage/bench"
	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/safetensors"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

func main() {
	var o options
	flag.StringVar(&o.dir, "model", "", "model folder")
	flag.StringVar(&o.backend, "backend", "", "backend, as steerage run has it")
	flag.IntVar(&o.texts, "texts", 50, "texts of each class")
	flag.IntVar(&o.prompt, "prompt", 32, "tokens of each prompt")
	flag.IntVar(&o.response, "response", 128, "tokens of each response")
	flag.IntVar(&o.repeats, "repeats", 3, "timed runs of each figure")
	flag.StringVar(&o.out, "embeddings", "", "file for the embeddings: safetensors, positive.L and negative.L [texts, hidden] of each layer L")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "extract:", err)
		os.Exit(1)
	}
}

type options struct {
	dir, backend, out                string
	texts, prompt, response, repeats int
}

// result has the keys of peers/extract_bench.py, as far as both measure the same.
type result struct {
	Backend string        `json:"backend"`
	Capture bench.Summary `json:"capture_tok_s"` // tokens of prompts and responses
	First   float64       `json:"capture_first_s"`
	// Fitting all layers: by all four estimators, without the halvings for the stability. The first fit of a process compiles its programs, or
	// loads them from the cache on disk.
	FitFirst    float64       `json:"fit_first_s"`
	Fit         bench.Summary `json:"fit_s"`
	FitHalvings bench.Summary `json:"fit_with_stability_s"` // with the halvings
	Gradient    float64       `json:"gradient"`             // the largest element of any layer's logistic gradient
	Layers      int           `json:"layers"`
	W           []float64     `json:"w"` // of the first layer's logistic regression
}

func run(ctx context.Context, o options) (err error) {
	if o.texts < 2 || o.prompt < 1 || o.response < 1 || o.repeats < 1 {
		return fmt.Errorf("%d texts of %d + %d tokens, %d times: too few", o.texts, o.prompt, o.response, o.repeats)
	}
	m, err := engine.Open(ctx, o.dir, engine.Options{Backend: o.backend, MaxContext: o.prompt + o.response + 1})
	if err != nil {
		return err
	}
	defer func() {
		if e := m.Close(); err == nil {
			err = e
		}
	}()
	sequences := make([]engine.Sequence, 2*o.texts)
	for i := range sequences {
		ids := bench.Prompt(i, o.prompt+o.response, m.Config().VocabSize)
		sequences[i] = engine.Sequence{Prompt: ids[:o.prompt], Continuation: ids[o.prompt:]}
	}
	r := result{Backend: m.Backend().Kind, Layers: m.Config().NumHiddenLayers}
	var captured []engine.Captured
	first, rest, err := timed(o.repeats, func() error {
		captured, err = m.Capture(ctx, sequences, nil, engine.Pool{Positions: steering.Response, Reduce: engine.Mean})
		return err
	})
	if err != nil {
		return err
	}
	r.First = first
	tokens := float64(len(sequences) * (o.prompt + o.response))
	for i := range rest {
		rest[i] = tokens / rest[i]
	}
	r.Capture = bench.Summarize(rest)

	e := contrast.Embeddings{Hidden: m.Config().HiddenSize, NumHiddenLayers: r.Layers, Paired: true}
	for l := range r.Layers {
		e.Layers = append(e.Layers, l)
	}
	for i, c := range captured {
		if err := e.Append(i%2 == 0, c[0].Values); err != nil {
			return err
		}
	}
	if o.out != "" {
		if err := write(o.out, e); err != nil {
			return err
		}
	}
	err = m.Use(ctx, func(d *engine.Device) error {
		f, err := contrast.NewFitter(d.Backend())
		if err != nil {
			return err
		}
		defer f.Finalize()
		var fitted *contrast.Fitted
		fit := func(splits int) (float64, []float64, error) {
			return timed(o.repeats, func() error {
				fitted, err = f.Fit(ctx, e, contrast.Options{Splits: splits})
				return err
			})
		}
		_, halved, err := fit(contrast.DefaultSplits)
		if err != nil {
			return err
		}
		r.FitHalvings = bench.Summarize(halved)
		first, rest, err := fit(-1)
		if err != nil {
			return err
		}
		r.FitFirst, r.Fit = first, bench.Summarize(rest)
		r.W = fitted.Layers[0].Estimate(contrast.LogisticRegression).Vector
		for _, l := range fitted.Layers {
			r.Gradient = max(r.Gradient, l.Gradient)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// timed returns the seconds of the first call of f and of those after it.
func timed(repeats int, f func() error) (first float64, rest []float64, err error) {
	var seconds []float64
	for range 1 + repeats {
		began := time.Now()
		if err := f(); err != nil {
			return 0, nil, err
		}
		seconds = append(seconds, time.Since(began).Seconds())
	}
	return seconds[0], slices.Clone(seconds[1:]), nil
}

// write writes the embeddings for the peer.
func write(path string, e contrast.Embeddings) error {
	var tensors []safetensors.Tensor
	for i, l := range e.Layers {
		for name, x := range map[string][]float32{"positive": e.Positive[i], "negative": e.Negative[i]} {
			tensors = append(tensors, safetensors.Tensor{
				Name: fmt.Sprintf("%s.%d", name, l), DType: safetensors.F32, Shape: []int{len(x) / e.Hidden, e.Hidden},
				Data: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x)), // the peers are on this machine
			})
		}
	}
	return safetensors.WriteFile(path, tensors, nil)
}
