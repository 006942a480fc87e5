package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/engine"
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

// completeModelThenFiles completes the first argument with folders and the others with files.
func completeModelThenFiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// openModel opens a model and says on which backend.
func openModel(cmd *cobra.Command, dir string, opt engine.Options) (*engine.Model, error) {
	progress(cmd, "loading %s", dir)
	m, err := engine.Open(cmd.Context(), dir, opt)
	if err != nil {
		return nil, err
	}
	note(cmd, "%s", m.Backend())
	return m, nil
}

// folderName is the name of a model in a folder.
func folderName(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return filepath.Base(dir)
}

// watched returns standard error where a person watches it, else nil.
func watched(cmd *cobra.Command) *os.File {
	f, ok := cmd.ErrOrStderr().(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}

// progress writes a passing note, only where a person watches.
func progress(cmd *cobra.Command, format string, args ...any) {
	if f := watched(cmd); f != nil {
		_, _ = fmt.Fprintf(f, format+"\n", args...)
	}
}

// bar says how far long work has come, on one line that is written again and again, only where a person watches.
type bar struct {
	w     io.Writer // nil: nobody watches
	drawn time.Time
}

func newBar(cmd *cobra.Command) *bar {
	b := new(bar)
	if f := watched(cmd); f != nil {
		b.w = f
	}
	return b
}

// show draws "what [####    ] 12/30 more", at most ten times a second except at the end of a piece of work.
func (b *bar) show(what string, done, total int, more string) {
	const width = 30
	if b.w == nil || total < 1 || done < total && time.Since(b.drawn) < 100*time.Millisecond {
		return
	}
	b.drawn = time.Now()
	full := width * done / total
	_, _ = fmt.Fprintf(b.w, "\r\x1b[K%-9s[%s%s] %d/%d %s", what, strings.Repeat("#", full), strings.Repeat(" ", width-full), done, total, more)
}

// clear takes the line away.
func (b *bar) clear() {
	if b.w != nil && !b.drawn.IsZero() {
		_, _ = fmt.Fprint(b.w, "\r\x1b[K")
	}
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
