package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/hub"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

func newTrain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "train MODEL PAIRS OUT --layer LAYERS",
		Short: "Train a vector by gradient on pairs of responses",
		Long: `Train finds a vector for each of the layers by gradient descent through the frozen model, and writes them to OUT, a
.safetensors or .gguf file. swfc at coefficient 1 adds exactly what was trained.

PAIRS is a file of JSON lines:

  {"prompt": "How old is the Earth?", "positive": " 4.5 billion years.", "negative": " I do not know."}

The loss is contrastive, -log sigmoid of beta times how much steering moves the positive response's log-probability
against the negative one's (BiPO, DPO); or ce, the negative log-probability of a token of the positive response, which
does not look at the negative one. With --neutral the model is also held to what it says without steering, on lines

  {"prompt": "The capital of France is", "response": " Paris, a city"}

of which the response may be missing. ` + formatHelp + ` With --held-out a share of the pairs is set aside; the result is then the vector of
the epoch that did best on them.

Training is kept in OUT's name with .checkpoint.safetensors as it goes on. After Ctrl-C, or whatever else ends it, the
same command goes on from there, to the same vector bit for bit. The checkpoint is removed once OUT is written. A plot of
the loss goes to OUT's name with .svg. Nothing is overwritten without --force.`,
		Example: `  steerage train ./Qwen3-0.6B pairs.jsonl honest.safetensors --layer 14
  steerage train ./Qwen3-0.6B pairs.jsonl honest.safetensors --layer 12-16 --both-signs --held-out 0.2 --patience 3
  steerage train ./Qwen3-0.6B pairs.jsonl honest.safetensors --layer 14 --loss ce --neutral plain.jsonl --kl-weight 0.1`,
		Args:              cobra.ExactArgs(3),
		ValidArgsFunction: completeModelThenFiles,
	}
	var opt contrast.TrainOptions
	var model engine.Options
	var n trainNames
	f := cmd.Flags()
	f.StringVar(&n.layer, "layer", "", "layers to train a vector at, such as 26 or 3,20-24")
	f.StringVar(&n.loss, "loss", contrast.Contrastive.String(), "contrastive or ce")
	f.StringVar(&n.positions, "positions", "all", "tokens at which the vector is added, as in --steer of `steerage run`")
	f.Float64Var(&opt.Beta, "beta", 0.1, "of the contrastive loss")
	f.BoolVar(&opt.BothSigns, "both-signs", false, "train the vector's negative to do the opposite; contrastive loss only")
	f.Float64Var(&opt.MaxNorm, "max-norm", 0, "greatest length of a layer's vector; 0 is no bound")
	f.StringVar(&n.neutral, "neutral", "", "`file` of texts that the vector should leave alone; needs --kl-weight")
	f.Float64Var(&opt.KLWeight, "kl-weight", 0, "weight of the divergence on the neutral texts; needs --neutral")
	f.Float64Var(&opt.LearningRate, "learning-rate", 5e-4, "of Adam")
	f.IntVar(&opt.Warmup, "warmup", 0, "steps in which the learning rate rises")
	f.StringVar(&n.schedule, "schedule", contrast.Cosine.String(), "of the learning rate: cosine or constant")
	f.IntVar(&opt.Epochs, "epochs", 10, "passes through the pairs")
	f.IntVar(&opt.Batch, "batch", 4, "pairs that run together")
	f.IntVar(&opt.Accumulate, "accumulate", 1, "batches whose gradients make a step")
	f.StringVar(&n.start, "start", "", "begin from the vector of this `file` instead of from zero")
	f.Float64Var(&opt.HeldOutFraction, "held-out", 0, "share of the pairs that is set aside to judge by")
	f.IntVar(&opt.Patience, "patience", 0, "end after so many epochs without a better one; needs --held-out")
	f.Uint64Var(&opt.Seed, "seed", 0, "of the order of pairs, of the split and of signs")
	f.StringVar(&opt.Checkpoint, "checkpoint", "", "keep the training in this `file` (default OUT's name with .checkpoint.safetensors)")
	f.StringVar(&n.plot, "plot", "", "draw to this .svg or .png `file` (default OUT's name with .svg)")
	f.IntVar(&model.MaxContext, "context", 0, "most tokens of prompt and response together (default the model's, at most 8192)")
	out := outputFlags(cmd)
	n.format = formatFlags(cmd)
	backend, log := backendFlag(cmd), verboseFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("loss", cobra.FixedCompletions([]string{"contrastive", "ce"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("schedule", cobra.FixedCompletions([]string{"cosine", "constant"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := n.parse(&opt); err != nil {
			return err
		}
		switch {
		case !(opt.LearningRate > 0): // 0 would be the default
			return badUsage("--learning-rate is %g, want above 0", opt.LearningRate)
		case !(opt.Beta > 0):
			return badUsage("--beta is %g, want above 0", opt.Beta)
		case opt.Epochs < 1 || opt.Batch < 1 || opt.Accumulate < 1:
			return badUsage("--epochs is %d, --batch %d and --accumulate %d, want at least 1 each", opt.Epochs, opt.Batch, opt.Accumulate)
		case model.MaxContext < 0:
			return badUsage("--context is %d, want at least 1", model.MaxContext)
		case (n.neutral != "") != (opt.KLWeight != 0):
			return badUsage("--neutral and --kl-weight need each other")
		}
		opt.Provenance = steering.Provenance{
			Model: folderName(args[0]), Data: filepath.Base(args[1]), Date: time.Now().UTC().Format(time.RFC3339),
		}
		if opt.Checkpoint == "" {
			opt.Checkpoint = beside(args[2], ".checkpoint.safetensors")
		}
		t := training{out: out, file: args[2]}
		var err error
		if t.texts, err = n.format(); err != nil {
			return err
		}
		if t.plot, t.format, err = plotFile(n.plot, t.file); err != nil {
			return err
		}
		if err := out.check(t.file, t.plot); err != nil {
			return err
		}
		if t.pairs, err = loadPairs(args[1]); err != nil {
			return err
		}
		if n.neutral != "" {
			if t.neutral, err = loadNeutral(n.neutral); err != nil {
				return err
			}
		}
		if n.start != "" {
			if opt.Start, err = steering.Load(n.start); err != nil {
				return err
			}
		}
		dir, err := resolve(cmd, args[0], hub.Model)
		if err != nil {
			return err
		}
		model.Backend, model.Logger = *backend, log()
		return t.run(cmd, dir, model, opt)
	}
	return cmd
}

// trainNames are the flags of train that are names of something.
type trainNames struct {
	layer, loss, schedule, positions, neutral, start, plot string

	format func() (contrast.Format, error)
}

// parse reads those that are no files.
func (n *trainNames) parse(opt *contrast.TrainOptions) (err error) {
	if n.layer == "" {
		return badUsage("--layer is missing")
	}
	if opt.Layers, err = steering.ParseLayers(n.layer); err != nil {
		return badUsage("--layer: %w", err)
	}
	if opt.Loss, err = contrast.ParseLoss(n.loss); err != nil {
		return badUsage("--loss: %w", err)
	}
	if opt.Schedule, err = contrast.ParseSchedule(n.schedule); err != nil {
		return badUsage("--schedule: %w", err)
	}
	if opt.Positions, err = steering.ParsePositions(n.positions); err != nil {
		return badUsage("--positions: %w", err)
	}
	return nil
}

// loadPairs reads scenarios whose texts are given.
func loadPairs(file string) ([]contrast.Scenario, error) {
	scenarios, err := contrast.LoadScenarios(file)
	if err != nil {
		return nil, err
	}
	for i := range scenarios {
		if !scenarios[i].Given() {
			return nil, fmt.Errorf("%s: pair %d has a prompt but not its positive and negative texts", file, i)
		}
	}
	return scenarios, nil
}

// neutralText is a line of --neutral.
type neutralText struct {
	Prompt   string `json:"prompt"`
	Response string `json:"response"`
}

// maxNeutral bounds the lines of --neutral.
const maxNeutral = 100_000

func loadNeutral(file string) ([]neutralText, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	texts, err := readNeutral(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return texts, nil
}

// readNeutral reads JSON lines; blank ones are passed over.
func readNeutral(r io.Reader) (texts []neutralText, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	n := 1
	for ; lines.Scan(); n++ {
		data := bytes.TrimSpace(lines.Bytes())
		if len(data) == 0 {
			continue
		}
		var t neutralText
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		err := d.Decode(&t)
		switch {
		case !utf8.Valid(data):
			err = errors.New("not UTF-8")
		case err == nil && d.InputOffset() != int64(len(data)):
			err = errors.New("more than one object")
		case err == nil && t.Prompt == "":
			err = errors.New("no prompt")
		case err == nil && len(texts) == maxNeutral:
			err = fmt.Errorf("more than %d texts", maxNeutral)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		texts = append(texts, t)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n, err)
	}
	if len(texts) == 0 {
		return nil, errors.New("no texts")
	}
	return texts, nil
}

// training is one run of the command.
type training struct {
	texts        contrast.Format
	pairs        []contrast.Scenario
	neutral      []neutralText
	out          *output
	file         string
	plot, format string
}

// trained is what `steerage train --json` prints. Losses that were not measured are null.
type trained struct {
	Vector        written        `json:"vector"`
	Plot          string         `json:"plot"`            // the file
	Step          int            `json:"step"`            // after which the vector was taken
	HeldOut       contrast.Known `json:"held_out"`        // its loss on the held-out pairs
	HeldOutBefore contrast.Known `json:"held_out_before"` // the unsteered model's
	History       []trainedPoint `json:"history"`
}

// trainedPoint is contrast.Point.
type trainedPoint struct {
	Step    int            `json:"step"`
	Epoch   int            `json:"epoch"`
	Rate    float64        `json:"learning_rate"`
	Loss    float64        `json:"loss"`
	KL      float64        `json:"kl"`
	HeldOut contrast.Known `json:"held_out"`
}

func (t *training) run(cmd *cobra.Command, dir string, model engine.Options, opt contrast.TrainOptions) (err error) {
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
	pairs, err := t.encode(m, &opt)
	if err != nil {
		return err
	}
	b := newBar(cmd)
	opt.Progress = func(done, total int, p contrast.Point) {
		b.show("train", done, total, fmt.Sprintf("loss %.4f", p.Loss))
	}
	x, err := contrast.Train(ctx, m, pairs, opt)
	b.clear()
	if err != nil {
		if _, e := os.Stat(opt.Checkpoint); ctx.Err() != nil && e == nil {
			note(cmd, "the training so far is in %s; the same command goes on from there", opt.Checkpoint)
		}
		return err
	}
	result := trained{Plot: t.plot, Step: x.Step, HeldOut: contrast.Known(x.HeldOut), HeldOutBefore: contrast.Known(x.Before)}
	for _, p := range x.History {
		result.History = append(result.History, trainedPoint{p.Step, p.Epoch, p.Rate, p.Loss, p.KL, contrast.Known(p.HeldOut)})
	}
	if result.Vector, err = t.out.write(x.Vector, t.file); err != nil {
		return err
	}
	if err := writePlot(t.plot, t.format, x.WritePlot); err != nil {
		return err
	}
	if err := os.Remove(opt.Checkpoint); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if *t.out.asJSON {
		return printJSON(cmd.OutOrStdout(), result)
	}
	if err := result.writeText(cmd.OutOrStdout(), x.Vector); err != nil {
		return err
	}
	result.Vector.note(cmd)
	for _, l := range x.Vector.Layers {
		if l.Statistics != nil && l.Statistics.CohensD <= 0 {
			note(cmd, "layer %d: the positive texts do not lie further along the vector than the negative ones (cohens_d %.2f): "+
				"use swfc with it; sttp and stmp have no side to push to", l.Index, l.Statistics.CohensD)
		}
	}
	note(cmd, "wrote %s and %s", t.file, t.plot)
	return nil
}

// encode turns the texts into token ids.
func (t *training) encode(m *engine.Model, opt *contrast.TrainOptions) ([]contrast.Pair, error) {
	e, err := contrast.NewEncoder(m, t.texts)
	if err != nil {
		return nil, err
	}
	var pairs []contrast.Pair
	for i := range t.pairs {
		p, err := e.Pair(&t.pairs[i])
		if err != nil {
			return nil, fmt.Errorf("pair %d: %w", i, err)
		}
		pairs = append(pairs, p)
	}
	for i, text := range t.neutral {
		var s engine.Sequence
		if s.Prompt, s.Continuation, err = e.Answer("", text.Prompt, text.Response); err != nil {
			return nil, fmt.Errorf("neutral text %d: %w", i, err)
		}
		opt.Neutral = append(opt.Neutral, s)
	}
	return pairs, nil
}

func (r *trained) writeText(w io.Writer, v *steering.Vector) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { // tab keeps the error for Flush
		_, _ = fmt.Fprintf(tab, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	first, last := r.History[0], r.History[len(r.History)-1]
	line("steps", "%d in %d epochs, vector of step %d", last.Step, last.Epoch, r.Step)
	line("loss", "%.4f in the first step, %.4f in the last", first.Loss, last.Loss)
	if r.HeldOut == r.HeldOut { // not NaN
		line("held out", "%.4f without the vector, %.4f with it", float64(r.HeldOutBefore), float64(r.HeldOut))
	}
	for _, l := range v.Layers {
		d := ""
		if l.Statistics != nil {
			d = fmt.Sprintf(", cohens_d %.2f", l.Statistics.CohensD)
		}
		line(fmt.Sprintf("layer %d", l.Index), "length %.4g%s", l.DeltaMu, d)
	}
	return tab.Flush()
}
