package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/chat"
	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/hub"
)

const (
	maxSamples = 256 // of -n: so many requests fit the engine's queue
	textTokens = 256 // of a continuation, unless --max-tokens says otherwise
)

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run MODEL [PROMPT] [-]",
		Short: "Answer a message, or continue a text",
		Long: `Run answers PROMPT, rendered as a message by the model's chat template. A model without one, and every model with
--raw, continues PROMPT as a text. The answer is streamed to standard output, and the prompt is not repeated. Of a model
without tokenizer.json the ids are printed instead of text.

Without PROMPT the text comes from standard input, if that is a pipe or a file. With PROMPT standard input is not read,
unless "-" asks for it: alone it stands for the prompt, behind PROMPT it appends the text after an empty line. In a message
the line ends at its end are left out. With no text at all, --raw starts from the model's BOS token.

` + samplingHelp + `
Sample i of -n, counted from 0, has seed + i.

With --json each sample is one line, with the numbers used. tokens_per_second counts the tokens after the first,
first_token_seconds has the prompt and compiling in it.

` + steerHelp,
		Example: `  steerage run Qwen/Qwen3-0.6B "What is the capital of France?"
  steerage run ./Qwen3-0.6B --raw "The capital of France is" --temperature 0
  steerage run ./Qwen3-0.6B "Tell a story." --system "You are a pirate." -n 4 --seed 7
  steerage run ./Qwen3-0.6B "Introduce yourself." --steer honesty.safetensors:stmp:4@14 --steer style.gguf:swfc:-1:response
  steerage run ./Qwen3-0.6B "Summarise this:" - < essay.txt
  cat essay.txt | steerage run ./Qwen3-0.6B --raw --max-tokens 500 --stop "THE END" --json`,
		Args:              cobra.RangeArgs(1, 3),
		ValidArgsFunction: completeFolders,
	}
	var r request
	f := cmd.Flags()
	f.StringVar(&r.system, "system", "", "system message")
	f.BoolVar(&r.raw, "raw", false, "continue the text as it is given, without the chat template")
	kwargs := templateFlag(cmd)
	r.sampling = newSamplingFlags(cmd)
	f.Uint64Var(&r.Seed, "seed", 0, "of the first sample")
	f.IntVar(&r.MaxTokens, "max-tokens", 0, "end after so many tokens (default 256 of a text; of an answer, what the context holds)")
	f.StringArrayVar(&r.Stop, "stop", nil, "end before this text; may be given several times")
	f.BoolVar(&r.IgnoreEOS, "ignore-eos", false, "go on after the model's end-of-text tokens")
	f.IntVarP(&r.samples, "samples", "n", 1, "how many samples, generated side by side")
	options := engineFlags(cmd)
	r.steer = steerFlags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := r.sampling.check(); err != nil {
			return err
		}
		switch {
		case f.Changed("max-tokens") && r.MaxTokens < 1:
			return badUsage("--max-tokens is %d, want at least 1", r.MaxTokens)
		case r.samples < 1 || r.samples > maxSamples:
			return badUsage("-n is %d, want 1 to %d", r.samples, maxSamples)
		case r.raw && f.Changed("system"):
			return badUsage("--system is for the chat template, which --raw leaves out")
		case r.raw && f.Changed("chat-template-kwargs"):
			return badUsage("--chat-template-kwargs is for the chat template, which --raw leaves out")
		case len(args) == 3 && (args[1] == "-" || args[2] != "-"):
			return badUsage("one PROMPT, and after it nothing but \"-\" for standard input; quote a prompt of several words")
		}
		if r.kwargs, err = kwargs(); err != nil {
			return err
		}
		opt, err := options()
		if err != nil {
			return err
		}
		if err := r.steer.parse(); err != nil {
			return err
		}
		if err := r.steer.load(); err != nil { // before the model, which takes longer
			return err
		}
		text, err := promptText(cmd, args[1:])
		if err != nil {
			return err
		}
		dir, err := resolve(cmd, args[0], hub.Model)
		if err != nil {
			return err
		}
		if err := r.ask(dir, text); err != nil {
			return err
		}
		r.asJSON = *asJSON
		opt.MaxBatch = min(r.samples, 16)
		return generate(cmd, dir, opt, r)
	}
	return cmd
}

// promptText returns the text that the arguments behind MODEL stand for.
func promptText(cmd *cobra.Command, args []string) (string, error) {
	switch len(args) {
	case 0:
		if !piped(cmd.InOrStdin()) {
			return "", nil
		}
		return textArgument(cmd, "-")
	case 1:
		return textArgument(cmd, args[0])
	}
	text, err := textArgument(cmd, args[1])
	return args[0] + "\n\n" + text, err
}

// piped reports whether a stream is a pipe, a socket or a file: something that has an end.
func piped(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}

// request is what a command line asks of a model.
type request struct {
	engine.Request
	sampling *samplingFlags
	steer    *steered
	samples  int
	asJSON   bool

	raw    bool // no chat template
	system string
	kwargs map[string]any
}

// ask makes a text the request's prompt, or its message if the model in a folder has a chat template.
func (r *request) ask(dir, text string) error {
	if r.raw {
		r.Prompt = text
	} else if _, err := chat.Open(dir); errors.Is(err, chat.ErrNoTemplate) {
		if r.system != "" || r.kwargs != nil {
			return fmt.Errorf("--system and --chat-template-kwargs need a chat template: %w", err)
		}
		r.Prompt = text
	} else if err != nil {
		return fmt.Errorf("%w; --raw does without the chat template", err)
	} else if text = strings.TrimRight(text, "\r\n"); text == "" {
		return badUsage("PROMPT is missing: this model's chat template needs a message. --raw starts from the BOS token, " +
			"`steerage chat` talks")
	} else {
		r.Messages, r.ChatTemplateKwargs = conversation(r.system, chat.Message{Role: "user", Content: text}), r.kwargs
	}
	if r.Messages == nil && r.MaxTokens == 0 {
		r.MaxTokens = textTokens
	}
	return nil
}

// conversation puts the system message, if any, in front of others.
func conversation(system string, messages ...chat.Message) []chat.Message {
	if system == "" {
		return messages
	}
	return append([]chat.Message{{Role: "system", Content: system}}, messages...)
}

// sample is what --json prints of one answer.
type sample struct {
	Text              string  `json:"text"`
	IDs               []int32 `json:"ids"`
	Finish            string  `json:"finish"` // engine.Result.Finish
	PromptTokens      int     `json:"prompt_tokens"`
	CachedTokens      int     `json:"cached_tokens,omitempty"` // of these, kept from the turns before
	ChatTemplate      bool    `json:"chat_template"`           // whether it made the prompt
	TokensPerSecond   float64 `json:"tokens_per_second"`       // after the first token; 0 if there is only one
	FirstTokenSeconds float64 `json:"first_token_seconds"`
	TotalSeconds      float64 `json:"total_seconds"`
	Backend           string  `json:"backend"` // pjrt.Choice.Kind

	sampling
	Seed uint64 `json:"seed"`

	Steering []effect `json:"steering,omitempty"` // of each --steer
}

// newSample describes what came of a request.
func newSample(m *engine.Model, req engine.Request, chosen sampling, steer *steered, r engine.Result) sample {
	s := sample{Text: r.Text, IDs: encoded(r.IDs).IDs, Finish: r.Finish, PromptTokens: r.PromptTokens, CachedTokens: r.CachedTokens,
		ChatTemplate: req.Messages != nil, FirstTokenSeconds: r.Timing.FirstToken.Seconds(), TotalSeconds: r.Timing.Total.Seconds(),
		Backend: m.Backend().Kind, sampling: chosen, Seed: req.Seed, Steering: steer.effects(r.Steering)}
	if after := r.Timing.Total - r.Timing.FirstToken; after > 0 && len(r.IDs) > 1 {
		s.TokensPerSecond = float64(len(r.IDs)-1) / after.Seconds()
	}
	return s
}

// generate opens a model, prints the samples in order, the first as it comes, and closes the model.
func generate(cmd *cobra.Command, dir string, opt engine.Options, r request) (err error) {
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
	if err := r.steer.check(m.SteeringConfig()); err != nil {
		return err
	}
	chosen := r.sampling.over(m.Config().Generation)
	r.Steering = r.steer.spec
	chosen.put(&r.Request)
	start := time.Now()
	requests := make([]engine.Request, r.samples)
	generations := make([]*engine.Generation, r.samples)
	for i := range generations {
		requests[i] = r.Request
		requests[i].Seed += uint64(i)
		if generations[i], err = m.Generate(ctx, requests[i]); err != nil {
			return err
		}
	}
	tokens := 0
	for i, g := range generations {
		if r.samples > 1 {
			progress(cmd, "sample %d of %d", i+1, r.samples)
		}
		if !r.asJSON {
			if i > 0 {
				_, _ = fmt.Fprintln(cmd.OutOrStdout())
			}
			if err := stream(cmd.OutOrStdout(), m, r.Request, g); err != nil {
				return err
			}
		}
		result := g.Result()
		s := newSample(m, requests[i], chosen, r.steer, result)
		tokens += len(result.IDs)
		if r.asJSON {
			if err := printJSON(cmd.OutOrStdout(), s); err != nil {
				return err
			}
		}
		if result.Err != nil {
			return result.Err
		}
		note(cmd, "%d tokens (%s), %.1f tokens/s, first after %.2f s, on %s",
			len(result.IDs), result.Finish, s.TokensPerSecond, s.FirstTokenSeconds, s.Backend)
		r.steer.noteEffects(cmd, result.Steering)
	}
	if r.samples > 1 {
		seconds := time.Since(start).Seconds()
		note(cmd, "%d samples, %d tokens in %.2f s, %.1f tokens/s together", r.samples, tokens, seconds, float64(tokens)/seconds)
	}
	return cmd.Context().Err()
}

// stream prints an answer as it comes, and a line end after it.
func stream(w io.Writer, m *engine.Model, r engine.Request, g *engine.Generation) error {
	a := newAnswer(w, opensReasoning(m, r))
	if m.Tokenizer() != nil {
		for piece, err := range g.Text() {
			if err != nil { // it is in the Result
				break
			}
			if err := a.print(piece); err != nil {
				return err
			}
		}
		return a.end()
	}
	separator := ""
	for token, err := range g.Tokens() {
		if err != nil {
			break
		}
		if err := a.print(separator + strconv.Itoa(int(token.ID))); err != nil {
			return err
		}
		separator = " "
	}
	return a.end()
}

// opensReasoning reports whether a conversation's prompt ends with the tag that begins reasoning, as some templates have it.
func opensReasoning(m *engine.Model, r engine.Request) bool {
	t, err := m.Template()
	if err != nil || r.Messages == nil {
		return false
	}
	prompt, err := t.Render(chat.Conversation{
		Messages: r.Messages, Tools: r.Tools, Kwargs: r.ChatTemplateKwargs, AddGenerationPrompt: true,
	})
	return err == nil && strings.HasSuffix(strings.TrimSpace(prompt), beginReasoning)
}
