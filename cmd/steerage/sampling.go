package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
)

// This file is what `run` and `chat` share: how the next token is chosen, and how a conversation is rendered.

// samplingHelp explains where the sampling flags' defaults come from.
const samplingHelp = `Temperature, top-k, top-p and min-p are those of the model's generation_config.json; a flag takes the place of its
one. A model without them is decoded greedily, and so is every model with --temperature 0. Filters apply after the
temperature, in the order top-k, top-p, min-p. Samples are a function of the model, the prompt, these numbers and --seed.`

// sampling is how a token is chosen, as --json prints it.
type sampling struct {
	Temperature float32 `json:"temperature"` // 0 is greedy
	TopK        int     `json:"top_k"`       // 0 is off
	TopP        float32 `json:"top_p"`       // 1 is off
	MinP        float32 `json:"min_p"`       // 0 is off
}

func (s sampling) validate() error {
	return layers.Params{Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, MinP: s.MinP}.Validate()
}

// put writes the numbers into a request.
func (s sampling) put(r *engine.Request) {
	r.Temperature, r.TopK, r.TopP, r.MinP = s.Temperature, s.TopK, s.TopP, s.MinP
}

func (s sampling) String() string {
	if s.Temperature == 0 {
		return "greedy"
	}
	return fmt.Sprintf("temperature %g, top_k %d, top_p %g, min_p %g", s.Temperature, s.TopK, s.TopP, s.MinP)
}

// samplingOf is how the model's authors would sample.
func samplingOf(g model.Generation) sampling {
	s := sampling(g)
	if s.TopP == 0 {
		s.TopP = 1 // both are off; this is how people write it
	}
	return s
}

// samplingFlags holds --temperature, --top-k, --top-p and --min-p.
type samplingFlags struct {
	given   sampling
	changed func(flag string) bool
}

func newSamplingFlags(cmd *cobra.Command) *samplingFlags {
	s := &samplingFlags{changed: cmd.Flags().Changed}
	f := cmd.Flags()
	f.Float32Var(&s.given.Temperature, "temperature", 0, "divide logits by this before sampling; 0 is greedy (default the model's, else 0)")
	f.IntVar(&s.given.TopK, "top-k", 0, "sample among the k likeliest tokens; 0 is off (default the model's, else 0)")
	f.Float32Var(&s.given.TopP, "top-p", 0,
		"sample among the likeliest tokens that hold this probability; 1 is off (default the model's, else 1)")
	f.Float32Var(&s.given.MinP, "min-p", 0,
		"sample among tokens at least this likely relative to the likeliest; 0 is off (default the model's, else 0)")
	return s
}

// check looks at the flags alone.
func (s *samplingFlags) check() error {
	if err := s.given.validate(); err != nil {
		return badUsage("%w", err)
	}
	return nil
}

// over returns the model's numbers, with the flags that were given in their place. A nil s is greedy decoding.
func (s *samplingFlags) over(g model.Generation) sampling {
	if s == nil {
		return sampling{TopP: 1}
	}
	out := samplingOf(g)
	if s.changed("temperature") {
		out.Temperature = s.given.Temperature
	}
	if s.changed("top-k") {
		out.TopK = s.given.TopK
	}
	if s.changed("top-p") {
		out.TopP = s.given.TopP
	}
	if s.changed("min-p") {
		out.MinP = s.given.MinP
	}
	return out
}

// engineFlags adds the flags of engine.Options that both commands have, --verbose and --backend included. The function it returns checks
// and completes the options.
func engineFlags(cmd *cobra.Command) func() (engine.Options, error) {
	var opt engine.Options
	cmd.Flags().StringVar(&opt.DType, "dtype", "", "compute in this type: float32 (default as stored)")
	cmd.Flags().IntVar(&opt.MaxContext, "context", 0, "most tokens of prompt and answer together (default the model's, at most 8192)")
	backend, log := backendFlag(cmd), verboseFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("dtype", cobra.FixedCompletions([]string{"float32"}, cobra.ShellCompDirectiveNoFileComp))
	return func() (engine.Options, error) {
		switch {
		case opt.MaxContext < 0:
			return opt, badUsage("--context is %d, want at least 1", opt.MaxContext)
		case opt.DType != "" && opt.DType != "float32":
			return opt, badUsage("--dtype is %q, want float32 or none", opt.DType)
		}
		opt.Backend, opt.Logger = *backend, log()
		return opt, nil
	}
}

// templateFlag adds --chat-template-kwargs. The function it returns decodes it.
func templateFlag(cmd *cobra.Command) func() (map[string]any, error) {
	text := cmd.Flags().String("chat-template-kwargs", "",
		"`JSON` object of variables for the chat template, such as '{\"enable_thinking\": false}'")
	return func() (map[string]any, error) {
		if *text == "" {
			return nil, nil
		}
		var raw map[string]json.RawMessage // which keeps the order of keys further in
		if err := json.Unmarshal([]byte(*text), &raw); err != nil {
			return nil, badUsage("--chat-template-kwargs: %w", err)
		}
		kwargs := map[string]any{}
		for name, value := range raw {
			kwargs[name] = value
		}
		return kwargs, nil
	}
}
