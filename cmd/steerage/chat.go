package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/chat"
	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/hub"
)

func newChat() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chat MODEL",
		Short: "Talk with a model, and steer it meanwhile",
		Long: `Chat reads a message from each line of standard input and streams the model's answer to standard output. On a terminal
lines can be edited, a pasted text of several lines is one message, and reasoning is shown dim. Ctrl-C stops an answer,
of which the part that was shown stays in the conversation; at the prompt, Ctrl-D or a second Ctrl-C leaves.

Lines that begin with a slash are commands: /steer, /system, /set, /reset, /save, /help and /quit. Lines of a pipe work
the same, blank ones are left out, and the exit status is 1 if any of them failed.

The keys and values of a conversation are kept between its turns. What a turn runs is its new tokens, and all of them
where the prompt changed before: after /system, and after /steer, which acts on the whole conversation.

` + samplingHelp + `
Answer i, counted from 0, has seed + i.

With --json each answer is one line, as run prints it.

` + steerHelp,
		Example: `  steerage chat Qwen/Qwen3-0.6B
  steerage chat ./Qwen3-0.6B --system "You are terse." --steer honesty.safetensors:stmp:4@14
  printf '%s\n' "Hello" "/steer honesty.safetensors:swfc:4" "Hello again" | steerage chat ./Qwen3-0.6B --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFolders,
	}
	t := &talk{cmd: cmd, saved: map[string]bool{}}
	f := cmd.Flags()
	f.StringVar(&t.system, "system", "", "system message")
	kwargs := templateFlag(cmd)
	chosen := newSamplingFlags(cmd)
	f.Uint64Var(&t.req.Seed, "seed", 0, "of the first answer")
	f.IntVar(&t.req.MaxTokens, "max-tokens", 0, "end an answer after so many tokens (default what the context holds)")
	f.StringArrayVar(&t.req.Stop, "stop", nil, "end an answer before this text; may be given several times")
	options := engineFlags(cmd)
	t.steer = steerFlags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := chosen.check(); err != nil {
			return err
		}
		if f.Changed("max-tokens") && t.req.MaxTokens < 1 {
			return badUsage("--max-tokens is %d, want at least 1", t.req.MaxTokens)
		}
		if t.req.ChatTemplateKwargs, err = kwargs(); err != nil {
			return err
		}
		opt, err := options()
		if err != nil {
			return err
		}
		if len(t.steer.texts) > 0 { // without, --force is for /steer
			if err := t.steer.parse(); err != nil {
				return err
			}
			if err := t.steer.load(); err != nil {
				return err
			}
		}
		dir, err := resolve(cmd, args[0], hub.Model)
		if err != nil {
			return err
		}
		if _, err := chat.Open(dir); errors.Is(err, chat.ErrNoTemplate) {
			return fmt.Errorf("%w: this model continues texts, which `steerage run --raw` does", err)
		} else if err != nil {
			return err
		}
		opt.MaxBatch = 2 // memory for two rows: that of the answer, and the one that the session keeps
		t.asJSON = *asJSON
		return t.open(dir, opt, chosen)
	}
	return cmd
}

// talk is a conversation under way.
type talk struct {
	cmd    *cobra.Command
	asJSON bool
	in     *input

	m       *engine.Model
	session *engine.Session

	system   string
	messages []chat.Message // without the system message
	steer    *steered
	chosen   sampling
	req      engine.Request // what all answers have in common; the seed is that of the next
	saved    map[string]bool
}

// open opens the model, talks until the end of the input, and closes it.
func (t *talk) open(dir string, opt engine.Options, flags *samplingFlags) (err error) {
	if t.m, err = openModel(t.cmd, dir, opt); err != nil {
		return err
	}
	defer func() {
		if e := t.m.Close(); err == nil {
			err = e
		}
	}()
	if t.m.Tokenizer() == nil {
		return fmt.Errorf("%s: no tokenizer.json, without which there is no text", dir)
	}
	if err := t.steer.check(t.m.SteeringConfig()); err != nil {
		return err
	}
	if err := t.cmd.Context().Err(); err != nil {
		return err
	}
	t.chosen = flags.over(t.m.Config().Generation)
	t.session = t.m.NewSession()

	// Up to here Ctrl-C ends the command, as everywhere. From here on it is not looked at in the command's context, which it cancels.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(t.cmd.Context()), syscall.SIGTERM)
	defer stop()
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	t.in = newInput(t.cmd.InOrStdin(), t.cmd.ErrOrStderr(), interrupts)
	return t.loop(ctx, interrupts)
}

// loop takes line after line.
func (t *talk) loop(ctx context.Context, interrupts <-chan os.Signal) error {
	_, person := t.in.lines.(*editor)
	if person {
		t.remark("/help lists the commands, /quit leaves")
	}
	failed, firstFailed := 0, 0
	fail := func(err error) {
		if failed++; failed == 1 {
			firstFailed = t.in.number
		}
		note(t.cmd, "steerage: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	interrupted := false
	for {
		line, err := t.in.next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			line = "/quit"
		case errors.Is(err, errInterrupt) && !person:
			return err
		case errors.Is(err, errInterrupt) && interrupted:
			line = "/quit"
		case errors.Is(err, errInterrupt):
			interrupted = true
			t.remark("Ctrl-C again, Ctrl-D or /quit leaves")
			continue
		case errors.Is(err, errTooLong):
			fail(err)
			continue
		case ctx.Err() != nil:
			return errInterrupt
		case err != nil:
			return err
		}
		interrupted = false
		switch {
		case strings.TrimSpace(line) == "":
			continue
		case strings.HasPrefix(line, "/") && !strings.HasPrefix(line, "//"):
			err = t.command(line)
		default:
			if strings.HasPrefix(line, "//") {
				line = line[1:]
			}
			err = t.answer(ctx, interrupts, line)
		}
		printing := (*printError)(nil)
		switch {
		case ctx.Err() != nil:
			return errInterrupt
		case errors.Is(err, errQuit) && failed > 0 && !person:
			return fmt.Errorf("%d of %d lines failed, the first is line %d", failed, t.in.number, firstFailed)
		case errors.Is(err, errQuit):
			return nil
		case errors.As(err, &printing):
			return err
		case err != nil:
			fail(err)
		}
	}
}

// printError is an error of standard output, after which there is nobody to answer to.
type printError struct{ error }

func (e *printError) Unwrap() error { return e.error }

// answer sends a message and prints the answer. Both enter the conversation, unless there is no answer.
func (t *talk) answer(ctx context.Context, interrupts <-chan os.Signal, message string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-interrupts: // of before
	default:
	}
	asked := append(slices.Clone(t.messages), chat.Message{Role: "user", Content: message})
	req := t.req
	req.Messages, req.Session, req.Steering = conversation(t.system, asked...), t.session, t.steer.spec
	t.chosen.put(&req)
	g, err := t.m.Generate(ctx, req)
	if err != nil {
		return fmt.Errorf("%w (the message is not kept; /reset begins a new conversation)", err)
	}
	t.req.Seed++
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-interrupts:
			g.Cancel()
		case <-over:
		}
	}()
	if !t.asJSON {
		if err := stream(t.cmd.OutOrStdout(), t.m, req, g); err != nil {
			return &printError{err}
		}
	}
	r := g.Result()
	s := newSample(t.m, req, t.chosen, t.steer, r)
	if t.asJSON {
		if err := printJSON(t.cmd.OutOrStdout(), s); err != nil {
			return &printError{err}
		}
	}
	if r.Err != nil {
		return r.Err
	}
	if r.Text == "" {
		t.remark("no answer (%s); the message is not kept", r.Finish)
		return nil
	}
	t.messages = append(asked, chat.Message{Role: "assistant", Content: r.Text})
	t.remark("%d tokens (%s), %.1f tokens/s, first after %.2f s; %d of %d prompt tokens kept", len(r.IDs), r.Finish,
		s.TokensPerSecond, s.FirstTokenSeconds, r.CachedTokens, r.PromptTokens)
	for _, line := range t.steer.readout(r.Steering) {
		t.remark("%s", line)
	}
	return nil
}

// remark writes a line to standard error, dim on a terminal.
func (t *talk) remark(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if isTerminal(t.cmd.ErrOrStderr()) {
		text = faint(text)
	}
	note(t.cmd, "%s", text)
}
