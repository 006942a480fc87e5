package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/cobra"

	"github.com/steerage/steerage/chat"
	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/hub"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/safetensors"
)

// inspection is what `steerage inspect --json` prints. Sizes are bytes.
type inspection struct {
	Config     *model.Config `json:"config"`
	Parameters int64         `json:"parameters"` // what the configuration declares
	Tensors    int           `json:"tensors"`    // what the files hold; 0 without weights
	Files      []string      `json:"files"`
	Stored     []storedDType `json:"stored"`            // by dtype, the largest first
	Problem    string        `json:"problem,omitempty"` // why the weights are not those of the configuration
	Template   bool          `json:"chat_template"`
	Backend    string        `json:"backend"` // pjrt.Choice.Kind; the plan is for it
	DType      string        `json:"dtype"`   // of matrices and cache there
	Plan       engine.Plan   `json:"plan"`    // its limit is what is free there
	Fits       bool          `json:"fits"`    // true if the limit is not known
	// The longest context that fits: of the plan's requests at the same time, and of one. 0: none.
	LargestContext    int `json:"largest_context"`
	LargestContextOne int `json:"largest_context_batch_1"`
}

type storedDType struct {
	DType    string `json:"dtype"`
	Tensors  int    `json:"tensors"`
	Elements int64  `json:"elements"`
	Bytes    int64  `json:"bytes"`
}

func newInspect() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Show a model's configuration, weights and need of memory",
		Long: `Inspect reads config.json and the headers of the safetensors files, and none of their data. It prints the configuration,
the weights by type, the memory that the engine plans for --batch requests of --context tokens each on the backend's device,
whether that fits what is free there now, and the largest context that does. A folder with config.json alone gives a
plan too.`,
		Example: `  steerage inspect ./Qwen3-0.6B
  steerage inspect ./Llama-3.1-8B --context 32768 --batch 4
  steerage inspect ./Llama-3.1-8B --backend xla:cuda --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFolders,
	}
	var opt engine.Options
	cmd.Flags().IntVar(&opt.MaxContext, "context", 0, "tokens of one request (default the model's, at most 8192)")
	cmd.Flags().IntVar(&opt.MaxBatch, "batch", 0, "requests at the same time (default 16)")
	cmd.Flags().StringVar(&opt.DType, "dtype", "", "plan for computing in this type: float32 (default as stored)")
	backend, asJSON := backendFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case opt.MaxContext < 0 || opt.MaxBatch < 0:
			return badUsage("--context is %d and --batch %d, want at least 1", opt.MaxContext, opt.MaxBatch)
		case opt.DType != "" && opt.DType != "float32":
			return badUsage("--dtype is %q, want float32 or none", opt.DType)
		}
		dir, err := resolve(cmd, args[0], hub.Model)
		if err != nil {
			return err
		}
		opt.Backend = *backend
		in, err := inspect(dir, opt)
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), in)
		} else {
			err = in.write(cmd.OutOrStdout())
		}
		if err == nil && in.Problem != "" {
			err = errors.New(in.Problem)
		}
		return err
	}
	return cmd
}

func inspect(dir string, opt engine.Options) (*inspection, error) {
	cfg, err := model.LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	in := &inspection{Config: cfg, Parameters: cfg.Parameters(), DType: cfg.DType, Files: []string{}, Stored: []storedDType{}}
	ck, err := safetensors.OpenHeaders(dir)
	switch {
	case err == nil:
		defer func() { _ = ck.Close() }()
		in.count(ck)
		if in.Problem = mismatch(cfg, ck); in.Problem == "" {
			embedding, _ := ck.Tensor(model.EmbedTokens)
			in.DType = embedding.DType.String()
		}
	case !errors.Is(err, fs.ErrNotExist): // a folder without weights is fine, one with broken weights is not
		return nil, err
	}
	if in.DType == "" {
		in.DType = "float32" // as transformers takes a configuration that does not say
	}
	stored, ok := dtypes.MapOfNames[in.DType]
	if !ok || !slices.Contains([]dtypes.DType{dtypes.Float32, dtypes.BFloat16, dtypes.Float16}, stored) {
		return nil, fmt.Errorf("%s: matrices of type %s: want F32, BF16 or F16", dir, in.DType)
	}
	switch _, err := chat.Open(dir); {
	case err == nil:
		in.Template = true
	case !errors.Is(err, chat.ErrNoTemplate) && in.Problem == "":
		in.Problem = err.Error()
	}
	s, err := engine.SurveyModel(cfg, stored, opt)
	if err != nil {
		return nil, err
	}
	p := s.Plan
	in.Backend, in.DType, in.Plan = s.Backend.Kind, strings.ToLower(s.DType.String()), p
	in.Fits = p.Limit == 0 || p.Total() <= p.Limit
	in.LargestContext = p.LargestContext(p.MaxBatch, cfg.MaxPositionEmbeddings)
	in.LargestContextOne = p.LargestContext(1, cfg.MaxPositionEmbeddings)
	return in, nil
}

// mismatch says how the weights differ from the configuration's declaration, in one sentence for the first of each kind;
// "" if they do not.
func mismatch(cfg *model.Config, ck *safetensors.Checkpoint) string {
	declared := map[string]bool{}
	var missing, misshapen, surplus []string
	for _, w := range cfg.Weights() {
		declared[w.Name] = true
		if t, ok := ck.Tensor(w.Name); !ok {
			missing = append(missing, fmt.Sprintf("%s %v", w.Name, w.Shape))
		} else if !slices.Equal(t.Shape, w.Shape) {
			misshapen = append(misshapen, fmt.Sprintf("%s, which should be %v", t, w.Shape))
		}
	}
	for _, name := range ck.Names() {
		if !declared[name] && !cfg.Superfluous(name) {
			surplus = append(surplus, name)
		}
	}
	var b []string
	for _, kind := range []struct {
		what    string
		tensors []string
	}{{"missing", missing}, {"of the wrong shape", misshapen}, {"not declared", surplus}} {
		if n := len(kind.tensors); n > 0 {
			b = append(b, fmt.Sprintf("%d tensors are %s, the first: %s", n, kind.what, kind.tensors[0]))
		}
	}
	return strings.Join(b, "; ")
}

// count adds up the tensors of a checkpoint.
func (in *inspection) count(ck *safetensors.Checkpoint) {
	in.Tensors, in.Files = len(ck.Names()), ck.Files()
	by := map[safetensors.DType]*storedDType{}
	for _, name := range ck.Names() {
		t, _ := ck.Tensor(name)
		s := by[t.DType]
		if s == nil {
			s = &storedDType{DType: t.DType.String()}
			by[t.DType] = s
		}
		s.Tensors++
		s.Elements += int64(t.Elements())
		s.Bytes += t.Size()
	}
	for _, s := range by {
		in.Stored = append(in.Stored, *s)
	}
	slices.SortFunc(in.Stored, func(a, b storedDType) int {
		if a.Bytes != b.Bytes {
			return int(min(max(b.Bytes-a.Bytes, -1), 1))
		}
		return strings.Compare(a.DType, b.DType)
	})
}

func (in *inspection) write(w io.Writer) error {
	c, p := in.Config, in.Plan
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { // tab keeps the error for Flush
		_, _ = fmt.Fprintf(tab, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("architecture", "%s", c.Architecture)
	line("num_hidden_layers", "%d", c.NumHiddenLayers)
	line("hidden_size", "%d", c.HiddenSize)
	line("intermediate_size", "%d", c.IntermediateSize)
	line("attention heads", "%d, %d for keys and values, head_dim %d", c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim)
	line("vocab_size", "%d, head %s", c.VocabSize, map[bool]string{true: "tied to the embedding", false: "of its own"}[c.TieWordEmbeddings])
	line("max_position_embeddings", "%d", c.MaxPositionEmbeddings)
	rope := c.Rope.Type
	if rope != "default" {
		rope += fmt.Sprintf(", factor %g", c.Rope.Factor)
	}
	line("rope", "%s, theta %g", rope, c.Rope.Theta)
	line("bos_token_id, eos_token_id", "%v, %v", c.BOSTokenID, c.EOSTokenID)
	line("generation_config", "%s", samplingOf(c.Generation))
	line("chat template", "%s", yes(in.Template))
	line("parameters", "%d", in.Parameters)
	for i, s := range in.Stored {
		line(first(i, "stored"), "%s: %d tensors, %d elements, %s", s.DType, s.Tensors, s.Elements, size(s.Bytes))
	}
	if in.Tensors == 0 {
		line("stored", "no weights in this folder")
	}
	line("plan", "%s on %s, %s of %d tokens", in.DType, in.Backend, requests(p.MaxBatch), p.MaxContext)
	line("  weights", "%s", size(p.Weights))
	line("  keys and values", "%s (%s a token)", size(p.KV), size(p.KVPerToken))
	line("  workspace", "%s, estimated", size(p.Workspace))
	line("  total", "%s", size(p.Total()))
	if p.Limit == 0 {
		line("  free", "not known")
		return tab.Flush()
	}
	line("  free", "%s: %s", size(p.Limit), map[bool]string{true: "it fits", false: "it does not fit"}[in.Fits])
	largest := fmt.Sprintf("%d tokens of %s", in.LargestContext, requests(p.MaxBatch))
	if p.MaxBatch > 1 {
		largest += fmt.Sprintf(", %d of one", in.LargestContextOne)
	}
	if in.LargestContextOne == 0 {
		largest = "none: the weights do not leave room for one token"
	}
	line("largest context", "%s", largest)
	return tab.Flush()
}

func requests(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}
