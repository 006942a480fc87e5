package main

import (
	"embed"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/engine"
)

// demoFiles holds stories260K, a Llama of 260 thousand parameters that was trained on children's stories (MIT; see
// LICENSE there).
//
//go:embed demo/stories260k
var demoFiles embed.FS

// demoTokens is how far the demo's story is told; demoBatch and demoContext are for its second part.
const (
	demoTokens  = 200
	demoBatch   = 32
	demoContext = 256
)

func newDemo() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Tell and steer stories with a small model inside this binary",
		Long: `Demo writes stories260K, a Llama of 1 MB that is embedded in this binary, to a temporary folder, loads it like any
model and lets it tell its greedy story. Then it extracts the direction from sad to happy stories out of the model's hidden states,
chooses a layer, and continues other stories with that vector, against it, and along a random direction of the same length. It needs
no network; without an XLA plugin it runs on the Go backend.`,
		Example: `  steerage demo
  steerage demo --backend go --json`,
		Args: cobra.NoArgs,
	}
	backend, asJSON, log := backendFlag(cmd), jsonFlag(cmd), verboseFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := os.MkdirTemp("", "steerage-demo-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if err := writeDemo(dir); err != nil {
			return fmt.Errorf("writing the demo's model: %w", err)
		}
		opt := engine.Options{Backend: *backend, MaxBatch: 1, Logger: log()}
		story := request{Request: engine.Request{MaxTokens: demoTokens}, steer: &steered{}, samples: 1, asJSON: *asJSON}
		if err := generate(cmd, dir, opt, story); err != nil {
			return err
		}
		opt.MaxBatch, opt.MaxContext = demoBatch, demoContext
		m, err := engine.Open(cmd.Context(), dir, opt)
		if err != nil {
			return err
		}
		defer func() { _ = m.Close() }()
		d, err := demoMoods(cmd.Context(), m)
		if err != nil {
			return err
		}
		return d.write(cmd.OutOrStdout(), *asJSON)
	}
	return cmd
}

// writeDemo writes the embedded model into a folder.
func writeDemo(dir string) error {
	files, err := fs.Sub(demoFiles, "demo/stories260k")
	if err != nil {
		return err
	}
	return os.CopyFS(dir, files)
}
