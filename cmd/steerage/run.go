package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/hub"
	"github.com/steerage/steerage/layers"
)

// maxSamples bounds -n: so many requests fit the engine's queue.
const maxSamples = 256

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run MODEL [PROMPT | -]",
		Short: "Continue a text",
		Long: `Run continues PROMPT, or the text on standard input for "-", and streams the continuation to standard output. The
prompt is not repeated. Without a prompt the text starts from the model's BOS token. Of a model without tokenizer.json
the ids are printed instead of text.

Decoding is greedy unless --temperature is above 0. Samples are then a function of the model, the prompt, the sampling
flags and --seed: the same seed gives the same text, and sample i of -n has seed + i. Filters apply after the
temperature, in the order top-k, top-p, min-p.

With --json each sample is one line. tokens_per_second counts the tokens after the first, first_token_seconds has the
prompt and compiling in it.

` + steerHelp,
		Example: `  steerage run ./Qwen3-0.6B "The capital of France is"
  steerage run ./Qwen3-0.6B "Once upon a time" --temperature 0.8 --top-p 0.95 -n 4 --seed 7
  steerage run ./Qwen3-0.6B "I will tell you" --steer honesty.safetensors:stmp:4@14 --steer style.gguf:swfc:-1:response
  cat essay.txt | steerage run ./Qwen3-0.6B - --max-tokens 500 --stop "THE END" --json`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeFolders,
	}
	var req engine.Request
	var opt engine.Options
	f := cmd.Flags()
	f.Float32Var(&req.Temperature, "temperature", 0, "divide logits by this before sampling; 0 is greedy")
	f.IntVar(&req.TopK, "top-k", 0, "sample among the k likeliest tokens; 0 is off")
	f.Float32Var(&req.TopP, "top-p", 1, "sample among the likeliest tokens that hold this probability; 1 is off")
	f.Float32Var(&req.MinP, "min-p", 0, "sample among tokens at least this likely relative to the likeliest; 0 is off")
	f.Uint64Var(&req.Seed, "seed", 0, "of the first sample")
	f.IntVar(&req.MaxTokens, "max-tokens", 256, "end after so many tokens")
	f.StringArrayVar(&req.Stop, "stop", nil, "end before this text; may be given several times")
	f.BoolVar(&req.IgnoreEOS, "ignore-eos", false, "go on after the model's end-of-text tokens")
	f.StringVar(&opt.DType, "dtype", "", "compute in this type: float32 (default as stored)")
	f.IntVar(&opt.MaxContext, "context", 0, "most tokens of prompt and answer together (default the model's, at most 8192)")
	n := f.IntP("samples", "n", 1, "how many samples, generated side by side")
	steer := steerFlags(cmd)
	backend, asJSON, log := backendFlag(cmd), jsonFlag(cmd), verboseFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("dtype", cobra.FixedCompletions([]string{"float32"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		params := layers.Params{Temperature: req.Temperature, TopK: req.TopK, TopP: req.TopP, MinP: req.MinP}
		if err := params.Validate(); err != nil {
			return badUsage("%w", err)
		}
		switch {
		case req.MaxTokens < 1:
			return badUsage("--max-tokens is %d, want at least 1", req.MaxTokens)
		case *n < 1 || *n > maxSamples:
			return badUsage("-n is %d, want 1 to %d", *n, maxSamples)
		case opt.MaxContext < 0:
			return badUsage("--context is %d, want at least 1", opt.MaxContext)
		case opt.DType != "" && opt.DType != "float32":
			return badUsage("--dtype is %q, want float32 or none", opt.DType)
		}
		if err := steer.parse(); err != nil {
			return err
		}
		if err := steer.load(); err != nil { // before the model, which takes longer
			return err
		}
		if len(args) == 2 {
			var err error
			if req.Prompt, err = textArgument(cmd, args[1]); err != nil {
				return err
			}
		}
		dir, err := resolve(cmd, args[0], hub.Model)
		if err != nil {
			return err
		}
		opt.Backend, opt.Logger = *backend, log()
		opt.MaxBatch = min(*n, 16)
		return generate(cmd, dir, opt, req, steer, *n, *asJSON)
	}
	return cmd
}

// sample is what --json prints of one continuation.
type sample struct {
	Text              string  `json:"text"`
	IDs               []int32 `json:"ids"`
	Finish            string  `json:"finish"` // engine.Result.Finish
	PromptTokens      int     `json:"prompt_tokens"`
	Seed              uint64  `json:"seed"`
	TokensPerSecond   float64 `json:"tokens_per_second"` // after the first token; 0 if there is only one
	FirstTokenSeconds float64 `json:"first_token_seconds"`
	TotalSeconds      float64 `json:"total_seconds"`
	Backend           string  `json:"backend"` // pjrt.Choice.Kind

	Steering []effect `json:"steering,omitempty"` // of each --steer
}

// generate opens a model, prints n continuations in order, the first as it comes, and closes the model.
func generate(cmd *cobra.Command, dir string, opt engine.Options, req engine.Request, steer *steered, n int, asJSON bool) (err error) {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	m, err := openModel(cmd, dir, opt)
	if err != nil {
		return err
	}
	defer func() {
		if e := m.Close(); err == nil {
			err = e
		}
	}()
	if err := steer.check(m.SteeringConfig()); err != nil {
		return err
	}
	req.Steering = steer.spec
	start := time.Now()
	generations := make([]*engine.Generation, n)
	for i := range generations {
		if generations[i], err = m.Generate(ctx, req); err != nil {
			return err
		}
		req.Seed++
	}
	tokens := 0
	for i, g := range generations {
		if n > 1 {
			progress(cmd, "sample %d of %d", i+1, n)
		}
		if !asJSON {
			if i > 0 {
				_, _ = fmt.Fprintln(cmd.OutOrStdout())
			}
			if err := stream(cmd, m, g); err != nil {
				return err
			}
		}
		r := g.Result()
		s := sample{Text: r.Text, IDs: encoded(r.IDs).IDs, Finish: r.Finish, PromptTokens: r.PromptTokens,
			Seed: req.Seed - uint64(n-i), FirstTokenSeconds: r.Timing.FirstToken.Seconds(),
			TotalSeconds: r.Timing.Total.Seconds(), Backend: m.Backend().Kind, Steering: steer.effects(r.Steering)}
		if after := r.Timing.Total - r.Timing.FirstToken; after > 0 && len(r.IDs) > 1 {
			s.TokensPerSecond = float64(len(r.IDs)-1) / after.Seconds()
		}
		tokens += len(r.IDs)
		if asJSON {
			if err := printJSON(cmd.OutOrStdout(), s); err != nil {
				return err
			}
		}
		if r.Err != nil {
			return r.Err
		}
		note(cmd, "%d tokens (%s), %.1f tokens/s, first after %.2f s, on %s",
			len(r.IDs), r.Finish, s.TokensPerSecond, s.FirstTokenSeconds, s.Backend)
		steer.noteEffects(cmd, r.Steering)
	}
	if n > 1 {
		seconds := time.Since(start).Seconds()
		note(cmd, "%d samples, %d tokens in %.2f s, %.1f tokens/s together", n, tokens, seconds, float64(tokens)/seconds)
	}
	return cmd.Context().Err()
}

// stream prints a continuation as it comes, and a line end after it.
func stream(cmd *cobra.Command, m *engine.Model, g *engine.Generation) error {
	out := cmd.OutOrStdout()
	print := func(s string) error { _, err := fmt.Fprint(out, s); return err }
	var failed error // of printing; the generation's own is in its Result
	if m.Tokenizer() != nil {
		for piece, err := range g.Text() {
			if err != nil {
				break
			}
			if failed = print(piece); failed != nil {
				return failed
			}
		}
		return print("\n")
	}
	separator := ""
	for token, err := range g.Tokens() {
		if err != nil {
			break
		}
		if failed = print(separator + strconv.Itoa(int(token.ID))); failed != nil {
			return failed
		}
		separator = " "
	}
	return print("\n")
}
