package main

import (
	"github.com/spf13/cobra"

	"github.com/steerage/steerage/bench"
)

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench MODEL",
		Short: "Measure how fast a model runs on this machine",
		Long: `Bench opens a model and measures: decode, in tokens per second of all requests of a batch together; prefill of one long
prompt; the time from opening to the first token; and peak memory. Each rate is the median of several runs, with the
least and the greatest beside it. Compiling is in the time to the first token and in nothing else.

The table goes to standard error. The last line of standard output is JSON.`,
		Example: `  steerage bench ./Qwen3-0.6B
  steerage bench ./Qwen3-0.6B --batch 1,4,16 --tokens 64 --prompt 2048 --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFolders,
	}
	var opt bench.Options
	f := cmd.Flags()
	f.IntSliceVar(&opt.Batch, "batch", []int{1, 8}, "requests at the same time, one decode figure for each number")
	f.IntVar(&opt.Tokens, "tokens", 32, "tokens that each request generates")
	f.IntVar(&opt.Prompt, "prompt", 512, "tokens of the prefill's prompt")
	f.StringVar(&opt.DType, "dtype", "", "compute in this type: float32 (default as stored)")
	backend, log := backendFlag(cmd), verboseFlag(cmd)
	asJSON := f.Bool("json", false, "print the JSON alone, without the table")
	_ = cmd.RegisterFlagCompletionFunc("dtype", cobra.FixedCompletions([]string{"float32"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch { // zero means a default to the package, and nothing that can be measured to a user
		case opt.Tokens == 0:
			return badUsage("--tokens is 0, want at least 2")
		case opt.Prompt == 0:
			return badUsage("--prompt is 0, want at least 1")
		case opt.DType != "" && opt.DType != "float32":
			return badUsage("--dtype is %q, want float32 or none", opt.DType)
		}
		opt.Backend, opt.Logger = *backend, log()
		if err := opt.Validate(); err != nil {
			return badUsage("%w", err)
		}
		if err := checkFolder(args[0]); err != nil {
			return err
		}
		progress(cmd, "measuring %s", args[0])
		r, err := bench.Run(cmd.Context(), args[0], opt)
		if err != nil {
			return err
		}
		if !*asJSON {
			if err := r.Write(cmd.ErrOrStderr()); err != nil {
				return err
			}
		}
		return printJSON(cmd.OutOrStdout(), r)
	}
	return cmd
}
