package main

import (
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/hub"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

func newExtract() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "extract MODEL SCENARIOS OUT",
		Short: "Make a vector from contrastive scenarios",
		Long: `Extract finds the direction between two behaviours of a model and writes it to OUT, a .safetensors or .gguf file.

SCENARIOS is a file of JSON lines. In each scenario the model answers under a positive and under a negative system
prompt, or the two texts are given:

  {"positive_system": ["Be honest.", "Never lie."], "negative_system": "Lie."}
  {"prompt": "How old is the Earth?"}
  {"prompt": "I lost your book.", "positive_system": "Be kind.", "negative_system": "Be cruel."}
  {"prompt": "Once upon a time", "positive": " all were glad.", "negative": " all were sad."}

A first line with system prompts alone is for all lines that have none; of a list the scenarios take turns. ` + formatHelp + `

The answers are kept in OUT's name with .responses.jsonl as they come, for anyone to read; after Ctrl-C the same command
goes on from there. Standard output gets a report: for each layer Cohen's d, the stability of the direction between
halves of the data, and how far the estimators agree. A plot of it goes to OUT's name with .svg. Nothing is overwritten
without --force, and the responses of other scenarios never are.

--layer auto keeps the one layer that does best in a small experiment: the statistics choose six candidates; at each,
steering is judged by how far it moves held-out texts' probabilities apart, and refused if it makes the model's words too
strange to itself. It is a heuristic at one coefficient, and judges likelihoods, not behaviour.

A pooling says which hidden states of a text are averaged: response (the paper's mean over the response), positions as
in --steer such as response/..8 or response=13,198, with :last for the last of them, such as prompt:last. The vector comes
from the first; the report compares all.`,
		Example: `  steerage extract ./Qwen3-0.6B honesty.jsonl honesty.safetensors
  steerage extract ./Qwen3-0.6B honesty.jsonl honesty.safetensors --layer auto --pooling response --pooling response/..8
  steerage extract ./Llama-3.2-1B moods.jsonl moods.gguf --estimator pca_center --layer 4-12 --json`,
		Args:              cobra.ExactArgs(3),
		ValidArgsFunction: completeModelThenFiles,
	}
	var opt contrast.ExtractOptions
	var model engine.Options
	var names extractNames
	f := cmd.Flags()
	f.StringVar(&names.estimator, "estimator", contrast.LogisticRegression.String(),
		"of the vector: logistic, diff_means, pca_diff or pca_center")
	f.StringArrayVar(&names.poolings, "pooling", nil, "which hidden states make a text's embedding; may be given several times "+
		"(default response, and others to compare)")
	f.StringVar(&names.layer, "layer", "all", "layers of the vector: all, auto for the most promising one, or such as 26 or 3,20-24")
	f.Float32Var(&opt.Temperature, "temperature", 0.6, "of the answers; 0 is greedy")
	f.Float32Var(&opt.TopP, "top-p", 0.9, "of the answers")
	f.Uint64Var(&opt.Seed, "seed", 42, "of the answers and of the halves")
	f.IntVar(&opt.MaxTokens, "max-tokens", 256, "of an answer")
	f.StringVar(&opt.Keep, "responses", "", "keep the answers in this `file` (default OUT's name with .responses.jsonl)")
	f.StringVar(&names.plot, "plot", "", "draw to this .svg or .png `file` (default OUT's name with .svg)")
	f.IntVar(&model.MaxContext, "context", 0, "most tokens of prompt and answer together (default the model's, at most 8192)")
	out := outputFlags(cmd)
	format := formatFlags(cmd)
	backend, log := backendFlag(cmd), verboseFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("estimator", cobra.FixedCompletions(
		[]string{"logistic", "diff_means", "pca_diff", "pca_center"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		choice, err := names.parse(&opt, args[2])
		if err != nil {
			return err
		}
		switch {
		case !(opt.Temperature >= 0):
			return badUsage("--temperature is %g, want at least 0", opt.Temperature)
		case !(opt.TopP > 0 && opt.TopP <= 1):
			return badUsage("--top-p is %g, want above 0 and at most 1", opt.TopP)
		case opt.Seed == 0:
			return badUsage("--seed is 0, want at least 1")
		case opt.MaxTokens < 1:
			return badUsage("--max-tokens is %d, want at least 1", opt.MaxTokens)
		case model.MaxContext < 0:
			return badUsage("--context is %d, want at least 1", model.MaxContext)
		}
		if opt.Temperature == 0 {
			opt.Temperature = -1 // greedy, as ExtractOptions has it
		}
		if opt.Format, err = format(); err != nil {
			return err
		}
		opt.Model, opt.Data = folderName(args[0]), filepath.Base(args[1])
		choice.out, choice.file = out, args[2]
		if opt.Keep == "" {
			opt.Keep = beside(args[2], ".responses.jsonl")
		}
		if err := out.check(args[2], choice.plot); err != nil {
			return err
		}
		scenarios, err := contrast.LoadScenarios(args[1])
		if err != nil {
			return err
		}
		dir, err := resolve(cmd, args[0], hub.Model)
		if err != nil {
			return err
		}
		model.Backend, model.Logger = *backend, log()
		return extract(cmd, dir, model, scenarios, opt, choice)
	}
	return cmd
}

// extractNames are the flags of extract that are names of something.
type extractNames struct {
	estimator, layer, plot string
	poolings               []string
}

// extractChoice is what becomes of an extraction.
type extractChoice struct {
	estimator contrast.Estimator
	auto      bool // keep the layer that ChooseLayer picks
	out       *output
	file      string
	plot      string
	format    string // of the plot
}

// parse reads the names, into opt where Extract asks for them.
func (n *extractNames) parse(opt *contrast.ExtractOptions, out string) (c extractChoice, err error) {
	if c.estimator, err = contrast.ParseEstimator(n.estimator); err != nil {
		return c, badUsage("--estimator: %w", err)
	}
	for _, text := range n.poolings {
		p, err := contrast.ParsePooling(text)
		if err != nil {
			return c, badUsage("--pooling: %w", err)
		}
		opt.Poolings = append(opt.Poolings, p)
	}
	switch n.layer {
	case "all":
	case "auto":
		c.auto = true
	default:
		if opt.Layers, err = steering.ParseLayers(n.layer); err != nil {
			return c, badUsage("--layer: %w (or all, or auto)", err)
		}
	}
	c.plot, c.format, err = plotFile(n.plot, out)
	return c, err
}

// extracted is what `steerage extract --json` prints.
type extracted struct {
	Vector    written          `json:"vector"`
	Estimator string           `json:"estimator"`
	Responses string           `json:"responses"` // the file
	Plot      string           `json:"plot"`      // the file
	LeftOut   []string         `json:"left_out"`  // pairs that were not used, and why
	Probes    []contrast.Probe `json:"probes,omitempty"`
	Report    *contrast.Report `json:"report"`
}

func extract(cmd *cobra.Command, dir string, model engine.Options, scenarios []contrast.Scenario,
	opt contrast.ExtractOptions, c extractChoice) (err error) {
	ctx := cmd.Context()
	m, err := openModel(cmd, dir, model)
	if err != nil {
		return err
	}
	defer func() {
		if e := m.Close(); err == nil {
			err = e
		}
	}()
	b := newBar(cmd)
	opt.Progress = func(s contrast.Step) { b.show(s.What, s.Done, s.Total, "") }
	x, err := contrast.Extract(ctx, m, scenarios, opt)
	b.clear()
	if err != nil {
		if ctx.Err() != nil {
			note(cmd, "the answers so far are in %s; the same command goes on from there", opt.Keep)
		}
		return err
	}
	result := extracted{Estimator: c.estimator.String(), Responses: opt.Keep, Plot: c.plot, LeftOut: x.LeftOut, Report: x.Report}
	v, err := x.Vector(c.estimator)
	if err != nil {
		return err
	}
	if c.auto {
		var layer int
		layer, result.Probes, err = x.ChooseLayer(ctx, m, c.estimator, opt.Progress)
		b.clear()
		if err != nil {
			return err
		}
		if v, err = v.Select(layer); err != nil {
			return err
		}
	}
	if result.Vector, err = c.out.write(v, c.file); err != nil {
		return err
	}
	if err := writePlot(c.plot, c.format, x.Report.WritePlot); err != nil {
		return err
	}
	for _, why := range x.LeftOut {
		note(cmd, "left out: %s", why)
	}
	if *c.out.asJSON {
		if result.LeftOut == nil {
			result.LeftOut = []string{}
		}
		return printJSON(cmd.OutOrStdout(), result)
	}
	if err := x.Report.WriteText(cmd.OutOrStdout()); err != nil {
		return err
	}
	if err := writeProbes(cmd.OutOrStdout(), result.Probes); err != nil {
		return err
	}
	result.Vector.note(cmd)
	note(cmd, "wrote %s, %s and %s", c.file, opt.Keep, c.plot)
	return nil
}

// writeProbes writes the experiment of --layer auto, the chosen layer first.
func writeProbes(w io.Writer, probes []contrast.Probe) error {
	if len(probes) == 0 {
		return nil
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(tab, "\nlayer %d is chosen; margin and drift in nats per token\n", probes[0].Layer)
	_, _ = fmt.Fprintln(tab, "layer\tmargin\tdrift\tscore\t")
	for _, p := range probes {
		_, _ = fmt.Fprintf(tab, "%d\t%.3f\t%.3f\t%.3f\t\n", p.Layer, p.Margin, p.Drift, p.Score)
	}
	return tab.Flush()
}
