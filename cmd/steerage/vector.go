package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/steering"
)

func newVector() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vector",
		Short: "Show, convert and combine steering vectors",
		Long: `Vector works on files of steering vectors, and needs no model: this package's own safetensors files, and the GGUF
control vectors of repeng and llama.cpp. Layers are numbered from 0, and "layer l" is the output of block l.`,
		Example: `  steerage vector inspect honesty.safetensors
  steerage vector convert honesty.safetensors honesty.gguf --layers 1-27
  steerage vector combine calm.safetensors angry.safetensors:-1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newVectorInspect(), newVectorConvert(), newVectorCombine())
	return cmd
}

// vectorInfo is what `steerage vector inspect --json` prints. What a file does not say is left out.
type vectorInfo struct {
	File            string            `json:"file"`
	HiddenSize      int               `json:"hidden_size"`
	NumHiddenLayers int               `json:"num_hidden_layers,omitempty"`
	Model           string            `json:"model,omitempty"`
	Fingerprint     string            `json:"fingerprint,omitempty"`
	Method          string            `json:"method,omitempty"`
	Data            string            `json:"data,omitempty"`
	Date            string            `json:"date,omitempty"`
	Notes           map[string]string `json:"notes,omitempty"`
	Layers          []vectorLayer     `json:"layers"`
}

type vectorLayer struct {
	Layer      int               `json:"layer"`    // output of this block, from 0
	DeltaMu    float64           `json:"delta_mu"` // length of the vector
	Statistics *vectorStatistics `json:"statistics,omitempty"`
}

// vectorStatistics is steering.Statistics under the names that files have.
type vectorStatistics struct {
	M        float64 `json:"m"`
	MuPos    float64 `json:"mu_pos"`
	MuNeg    float64 `json:"mu_neg"`
	SigmaPos float64 `json:"sigma_pos"`
	SigmaNeg float64 `json:"sigma_neg"`
	CohensD  float64 `json:"cohens_d"`
}

func newVectorInspect() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show a vector's layers, statistics and provenance",
		Long: `Inspect reads a vector, checks it, and prints what its file says of it, with a line for each layer:

  delta_mu               length of the vector: what swfc adds at coefficient 1
  m                      boundary between the classes, as a projection on the direction
  mu_pos, mu_neg         means of the classes' projections
  sigma_pos, sigma_neg   their standard deviations
  cohens_d               distance of the classes in units of their pooled standard deviation

A vector without statistics, such as every GGUF control vector, can be used with swfc and ablate only.`,
		Example: `  steerage vector inspect honesty.safetensors
  steerage vector inspect style.gguf --json`,
		Args: cobra.ExactArgs(1),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		v, err := steering.Load(args[0])
		if err != nil {
			return err
		}
		info := newVectorInfo(args[0], v)
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), info)
		}
		return info.write(cmd.OutOrStdout())
	}
	return cmd
}

func newVectorInfo(file string, v *steering.Vector) *vectorInfo {
	info := &vectorInfo{
		File: file, HiddenSize: v.Hidden, NumHiddenLayers: v.NumHiddenLayers, Model: v.Model, Fingerprint: v.Fingerprint,
		Method: v.Method, Data: v.Data, Date: v.Date, Notes: v.Notes,
	}
	for _, l := range v.Layers {
		layer := vectorLayer{Layer: l.Index, DeltaMu: l.DeltaMu}
		if l.Statistics != nil {
			s := vectorStatistics(*l.Statistics)
			layer.Statistics = &s
		}
		info.Layers = append(info.Layers, layer)
	}
	return info
}

func (v *vectorInfo) write(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) { // tab keeps the error for Flush
		if value != "" {
			_, _ = fmt.Fprintf(tab, "%s\t%s\n", printable(name), printable(value))
		}
	}
	line("hidden_size", strconv.Itoa(v.HiddenSize))
	if v.NumHiddenLayers > 0 {
		line("num_hidden_layers", strconv.Itoa(v.NumHiddenLayers))
	}
	line("model", v.Model)
	line("fingerprint", v.Fingerprint)
	line("method", v.Method)
	line("data", v.Data)
	line("date", v.Date)
	for _, key := range slices.Sorted(maps.Keys(v.Notes)) {
		line("note "+key, v.Notes[key])
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	tab = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...any) { // each ends with a tab, or the last would not be aligned
		_, _ = fmt.Fprintf(tab, strings.Repeat("%v\t", len(cells))+"\n", cells...)
	}
	row("layer", "delta_mu", "m", "mu_pos", "mu_neg", "sigma_pos", "sigma_neg", "cohens_d")
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', 5, 64) }
	for _, l := range v.Layers {
		if s := l.Statistics; s != nil {
			row(l.Layer, number(l.DeltaMu), number(s.M), number(s.MuPos), number(s.MuNeg), number(s.SigmaPos), number(s.SigmaNeg),
				number(s.CohensD))
		} else {
			row(l.Layer, number(l.DeltaMu), "-", "-", "-", "-", "-", "-")
		}
	}
	return tab.Flush()
}

// printable returns text of a file as it may stand in a table on a terminal: quoted if it holds anything but printable
// characters, and with its length if it is too long to be shown.
func printable(text string) string {
	const most = 300
	cut := text
	if len(text) > most {
		cut = strings.ToValidUTF8(text[:most], "")
	}
	if strings.ContainsFunc(cut, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(cut) {
		cut = strconv.Quote(cut)
	}
	if len(text) > most {
		cut += fmt.Sprintf(" … (%d bytes, all of them with --json)", len(text))
	}
	return cut
}
