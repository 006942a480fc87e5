package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/tokenizer"
)

// versions is what `steerage version --json` prints.
type versions struct {
	Version  string            `json:"version"`          // of the module: a tag, a pseudo-version or "(devel)"
	Commit   string            `json:"commit,omitempty"` // empty in a binary that was not built in a repository
	Time     string            `json:"time,omitempty"`   // of the commit
	Modified bool              `json:"modified"`         // the working tree had changes
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	Modules  map[string]string `json:"modules"` // what computes

	Tokenizers []string `json:"tokenizers"` // the implementations linked, the default first
}

func newVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of steerage, Go, GoMLX and go-xla, and which tokenizers are linked",
		Example: `  steerage version
  steerage version --json`,
		Args: cobra.NoArgs,
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := readVersions()
		out := cmd.OutOrStdout()
		if *asJSON {
			return printJSON(out, v)
		}
		commit := v.Commit
		if commit == "" {
			commit = "unknown"
		}
		if v.Modified {
			commit += " and changes"
		}
		_, err := fmt.Fprintf(out, "steerage %s\ncommit   %s\n%s %s\n", v.Version, commit, v.Go, v.Platform)
		for _, m := range computing {
			if err == nil && v.Modules[m] != "" {
				_, err = fmt.Fprintf(out, "%s %s\n", m, v.Modules[m])
			}
		}
		if err == nil {
			_, err = fmt.Fprintf(out, "tokenizer %s\n", strings.Join(v.Tokenizers, ", "))
		}
		return err
	}
	return cmd
}

// computing are the modules whose versions decide what is computed.
var computing = []string{"github.com/gomlx/gomlx", "github.com/gomlx/compute", "github.com/gomlx/go-xla"}

func readVersions() versions {
	v := versions{Version: "(unknown)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Modules: map[string]string{}}
	for _, impl := range tokenizer.Implementations() {
		v.Tokenizers = append(v.Tokenizers, strings.TrimSpace(impl.Name+" "+impl.Version))
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	for _, d := range info.Deps {
		if slices.Contains(computing, d.Path) {
			if d.Replace != nil {
				d = d.Replace
			}
			v.Modules[d.Path] = d.Version
		}
	}
	return v
}
