package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
)

// printJSON writes v as one line.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print the result as JSON")
}

// backendFlag adds --backend, in the spelling of pjrt.Select.
func backendFlag(cmd *cobra.Command) *string {
	spec := cmd.Flags().String("backend", "", "xla, xla:cpu, xla:cuda, xla:/path/to/plugin.so or go "+
		"(default $GOMLX_BACKEND, else the best plugin found, else go)")
	_ = cmd.RegisterFlagCompletionFunc("backend", cobra.FixedCompletions(
		[]string{"xla", "xla:cpu", "xla:cuda", "go"}, cobra.ShellCompDirectiveNoFileComp))
	return spec
}

// verboseFlag adds --verbose. The function it returns makes the engine's logger, which is nil without the flag.
func verboseFlag(cmd *cobra.Command) func() *slog.Logger {
	verbose := cmd.Flags().BoolP("verbose", "v", false, "log what is loaded and compiled, and how long it takes")
	return func() *slog.Logger {
		if !*verbose {
			return nil
		}
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	}
}

// completeFolders completes arguments that are folders.
func completeFolders(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// checkFolder says early and plainly that a MODEL is not a folder.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("model: %s is a file; a model is a folder with config.json and safetensors", dir)
	}
	return nil
}

// progress writes a passing note, only where a person watches.
func progress(cmd *cobra.Command, format string, args ...any) {
	f, ok := cmd.ErrOrStderr().(*os.File)
	if !ok {
		return
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return
	}
	_, _ = fmt.Fprintf(f, format+"\n", args...)
}

// note writes a line to standard error.
func note(cmd *cobra.Command, format string, args ...any) {
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
}

// size spells bytes for a person, in powers of 1024.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}
