package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/parity"
)

func newParity() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "parity DIR...",
		Short: "Compare the engine with reference dumps of Hugging Face transformers",
		Long: `Parity runs each model folder that holds dump.safetensors and dump.json, and compares logits, the output of every layer,
greedy tokens and steered runs with what transformers computed, and directions with those of scikit-learn, within measured
tolerances. A mismatch names the first layer, or the steering site, that disagrees. A folder with logistic.safetensors and
no model holds embeddings: only the directions are compared. The exit status is 1 if anything disagrees or a folder
cannot be used.

With --dump, what the engine computed is written to OUT_DIR/<folder name>.safetensors under the dump's tensor names.`,
		Example: `  steerage parity parity/testdata/qwen3-tied-bf16
  steerage parity --backend go --dump /tmp/computed models/*`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeFolders,
	}
	var opt parity.Options
	cmd.Flags().StringVar(&opt.DumpDir, "dump", "", "write what was computed to this `folder`")
	_ = cmd.MarkFlagDirname("dump")
	backend, asJSON, log := backendFlag(cmd), jsonFlag(cmd), verboseFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, dirs []string) error {
		if opt.DumpDir != "" {
			if err := distinctNames(dirs); err != nil {
				return err
			}
		}
		opt.Backend, opt.Logger = *backend, log()
		report := parity.Report{Rows: []parity.Row{}}
		var failed []error
		for _, dir := range dirs {
			progress(cmd, "comparing %s", dir)
			r, err := parity.Run(cmd.Context(), dir, opt)
			report.Rows = append(report.Rows, r.Rows...)
			if errors.Is(err, context.Canceled) {
				return err
			}
			if err != nil { // the other folders can still be compared
				failed = append(failed, err)
				note(cmd, "%v", err)
			}
		}
		var err error
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), report)
		} else {
			err = report.Write(cmd.OutOrStdout())
		}
		switch bad := len(report.Failures()); {
		case err != nil:
			return err
		case len(failed) > 0:
			return fmt.Errorf("%d of %d folders could not be compared, the first: %w", len(failed), len(dirs), failed[0])
		case bad > 0:
			return fmt.Errorf("%d of %d parts disagree with the reference, the first: %s",
				bad, len(report.Rows), report.Failures()[0])
		case !report.OK():
			return errors.New("nothing was compared")
		}
		return nil
	}
	return cmd
}

// distinctNames refuses folders whose dumps would overwrite each other.
func distinctNames(dirs []string) error {
	seen := map[string]string{}
	for _, dir := range dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		name := filepath.Base(abs)
		if other, ok := seen[name]; ok {
			return badUsage("--dump: %s and %s would both be written as %s.safetensors", other, dir, name)
		}
		seen[name] = dir
	}
	return nil
}
