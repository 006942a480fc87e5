// Command steerage runs Llama-3 and Qwen3 language models from Hugging Face safetensors. See `steerage --help`.
//
// This file knows how a command begins and ends: signals, the exit status and the one line of an error. Each command
// has a file of its own, which holds its flags and its printing and leaves the work to the packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitOK          = 0
	exitFailure     = 1   // the command could not do what it was asked
	exitUsage       = 2   // it was asked wrongly
	exitInterrupted = 130 // Ctrl-C or SIGTERM: 128 + SIGINT, as shells have it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal asks; from then on the next one kills
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	line := strings.Join(strings.Fields(err.Error()), " ") // some errors of C libraries and cobra have several lines
	var failed *failure
	if !errors.As(err, &failed) {
		_, _ = fmt.Fprintf(stderr, "steerage: %s (see `%s --help`)\n", line, cmd.CommandPath())
		return exitUsage
	}
	if errors.Is(err, errInterrupt) || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		_, _ = fmt.Fprintln(stderr, "steerage: interrupted")
		return exitInterrupted
	}
	_, _ = fmt.Fprintf(stderr, "steerage: %s\n", line)
	return exitFailure
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "steerage",
		Short: "Run and steer Llama-3 and Qwen3 language models",
		Long: `Steerage runs Llama-3 and Qwen3 language models from Hugging Face safetensors, compiled for XLA.

MODEL is a folder with config.json, the weights as safetensors and, for text, tokenizer.json; or org/name[@revision] on
the Hugging Face hub, which is fetched once (see pull). A folder of that name comes first. Layers are numbered from 0, and
"layer l" is the output of block l. Results go to standard output, everything else to standard error. The exit status is
0, 1 for a failure, 2 for a wrong command line and 130 after Ctrl-C; a second Ctrl-C kills.`,
		Example: `  steerage demo
  steerage setup
  steerage run Qwen/Qwen3-0.6B "The capital of France is"`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newDemo(), newRun(), newChat(), newTokenize(), newRender(), newInspect(), newExtract(), newTrain(), newVector(),
		newParity(), newPull(), newBench(), newSetup(), newDoctor(), newVersion())
	markFailures(root)
	return root
}

// markFailures makes every error of the commands below c a failure, unless it is one of usage.
func markFailures(c *cobra.Command) {
	for _, c := range c.Commands() {
		inner := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			err := inner(cmd, args)
			if usage := (*usageError)(nil); err == nil || errors.As(err, &usage) {
				return err
			}
			return &failure{err}
		}
		markFailures(c)
	}
}

// failure is an error of a command that was asked rightly. Every other error, cobra's included, is one of usage.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// usageError is a wrong command line that only the command itself could notice.
type usageError struct{ error }

func badUsage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }
