package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/bench"
	"github.com/steerage/steerage/hub"
)

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench [MODEL]",
		Short: "Measure how fast a model runs on this machine",
		Long: `Bench says first what the machine can do (read bandwidth, rate of matrix products) and what the model could reach on it
at best, then what it reaches: decode and the time between tokens, prefill, the time to the first token, and peak memory.
MBU and MFU are the shares of bandwidth and of the matmul rate. With --steering K,… it measures what steering costs with K
distinct configurations over all layers and rows, as ratios of runs that alternate, with 95% bootstrap intervals.

Each rate is the median of several runs, with the least and the greatest beside it. Compiling is in the time to the first token
and in nothing else. Where runs of the same work lie further apart than --spread allows, nothing is reported and the
exit status is 1: the machine was busy with something else.

Instead of a MODEL, --config measures a shape with random weights, without any checkpoint: one of
` + strings.Join(bench.Configs(), ", ") + `,
or the path of a config.json.

The table goes to standard error. The last line of standard output is JSON.`,
		Example: `  steerage bench ./Qwen3-0.6B
  steerage bench ./Qwen3-0.6B --batch 1,4,16 --context 128,2048 --prompt 512,2048
  steerage bench --config qwen3-0.6b --dtype float32 --batch 8,16 --steering 1,16,64,256 --json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeFolders,
	}
	var opt bench.Options
	f := cmd.Flags()
	f.StringVar(&opt.Config, "config", "", "shape to measure with random weights, instead of a MODEL")
	f.IntSliceVar(&opt.Batch, "batch", []int{1, 8}, "requests at the same time, one decode figure for each number")
	f.IntSliceVar(&opt.Context, "context", []int{16}, "tokens in each row's cache when decoding begins, one decode figure for each")
	f.IntVar(&opt.Tokens, "tokens", 32, "decode steps of a run")
	f.IntSliceVar(&opt.Prompt, "prompt", []int{512}, "tokens of the prompts whose prefill is measured")
	f.IntSliceVar(&opt.Steering, "steering", nil, "numbers of distinct configurations whose cost is measured")
	f.IntVar(&opt.Repeats, "repeats", 5, "runs of each figure, rounds of steering")
	f.Float64Var(&opt.Spread, "spread", 0.2, "how far apart the runs of a figure may be, relative to their median")
	f.StringVar(&opt.DType, "dtype", "", "compute in this type: float32 (default as stored)")
	backend, log := backendFlag(cmd), verboseFlag(cmd)
	asJSON := f.Bool("json", false, "print the JSON alone, without the table")
	fixed := func(words ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(words, cobra.ShellCompDirectiveDefault)
	}
	_ = cmd.RegisterFlagCompletionFunc("dtype", fixed("float32"))
	_ = cmd.RegisterFlagCompletionFunc("config", fixed(bench.Configs()...))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch { // zero means a default to the package, and nothing that can be measured to a user
		case (len(args) == 1) == (opt.Config != ""):
			return badUsage("give a MODEL or a --config, one of them")
		case opt.Tokens == 0:
			return badUsage("--tokens is 0, want at least 2")
		case opt.Repeats == 0:
			return badUsage("--repeats is 0, want at least 1")
		case opt.Spread == 0:
			return badUsage("--spread is 0, want more")
		case opt.DType != "" && opt.DType != "float32":
			return badUsage("--dtype is %q, want float32 or none", opt.DType)
		}
		opt.Backend, opt.Logger = *backend, log()
		if err := opt.Validate(); err != nil {
			return badUsage("%w", err)
		}
		dir := ""
		if len(args) == 1 {
			var err error
			if dir, err = resolve(cmd, args[0], hub.Model); err != nil {
				return err
			}
		}
		table := cmd.ErrOrStderr()
		if *asJSON {
			table = io.Discard
		}
		progress(cmd, "measuring %s%s", dir, opt.Config)
		r, err := bench.Run(cmd.Context(), dir, opt, table)
		if err != nil {
			return err
		}
		return printJSON(cmd.OutOrStdout(), r)
	}
	return cmd
}
