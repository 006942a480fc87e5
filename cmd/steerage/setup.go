package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/pjrt"
)

func newSetup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "setup [cpu|cuda]",
		Short: "Fetch the XLA plugin (PJRT) that computes",
		Long: `Setup fetches a pinned, hash-checked wheel with pip and unpacks its XLA plugin into the user's cache folder. It
takes 260 MB for cpu, which is the default, and 3.6 GB for cuda, which needs NVIDIA's driver besides. What is there
already is kept. Standard output gets the plugin's path.`,
		Example: `  steerage setup
  steerage setup cuda`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"cpu", "cuda"},
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind := "cpu"
		if len(args) == 1 {
			kind = args[0]
		}
		plugin, err := pjrt.Setup(cmd.Context(), kind, func(what string) { note(cmd, "%s", what) })
		if err != nil {
			return fmt.Errorf("setup %s: %w", kind, err)
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), plugin)
		}
		note(cmd, "the %s plugin %s is ready", plugin.Kind, plugin.Version)
		_, err = fmt.Fprintln(cmd.OutOrStdout(), plugin.Path)
		return err
	}
	return cmd
}
