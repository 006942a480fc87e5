package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/steering"
)

// steerHelp explains --steer to whoever reads a command's help.
const steerHelp = `--steer FILE[:[-]METHOD[:COEFFICIENT]][@LAYERS][:POSITIONS] edits the residual stream with a vector from a safetensors
file or a GGUF control vector. It may be given several times; entries that meet on a layer act in the order given.

  METHOD       swfc (default) adds COEFFICIENT times the vector; sttp sets the projection to a target, stmp mirrors it at
               the boundary, both only where it lies on the wrong side; ablate removes it. A minus before METHOD pushes
               towards the other class.
  COEFFICIENT  1 by default; in units of the vector's own statistics
  LAYERS       26 or 20-24 or 3,20-24; all that the vector has by default
  POSITIONS    all (default), prompt, response, windows such as prompt/-16.. or response/..32, token ids such as
               all=128009; joined by + and, to exclude, by -

A vector that was made for another model is refused; --force takes it all the same where its hidden size and its layers
fit. After the answer a line for each entry says what it did; a token counts once for each layer.`

// steered is what a command line asks for with --steer.
type steered struct {
	texts     []string
	force     bool
	arguments []steering.Argument // of texts
	spec      steering.Spec
}

// steerFlags adds --steer and --force.
func steerFlags(cmd *cobra.Command) *steered {
	s := new(steered)
	cmd.Flags().StringArrayVar(&s.texts, "steer", nil, "steer with this vector, `FILE[:method[:coefficient]][@layers][:positions]`; "+
		"may be given several times")
	cmd.Flags().BoolVar(&s.force, "force", false, "steer with a vector that was made for another model of the same hidden size")
	return s
}

// parse checks the wording of the flags, and opens nothing.
func (s *steered) parse() error {
	if s.force && len(s.texts) == 0 {
		return badUsage("--force is for --steer, which is missing")
	}
	for _, text := range s.texts {
		a, err := steering.ParseArgument(text)
		if err != nil {
			return badUsage("--steer: %w", err)
		}
		s.arguments = append(s.arguments, a)
	}
	return nil
}

// load reads the vectors.
func (s *steered) load() (err error) {
	s.spec, err = steering.LoadSpec(s.texts...)
	return err
}

// check compares the vectors with the model.
func (s *steered) check(c steering.Config) error {
	for i := range s.spec {
		if err := s.spec[i].Vector.Check(c, s.force); err != nil {
			if mismatch := (*steering.MismatchError)(nil); errors.As(err, &mismatch) && mismatch.Forceable {
				return fmt.Errorf("%s: %w; --force steers with it all the same", s.arguments[i].File, err)
			}
			return fmt.Errorf("%s: %w", s.arguments[i].File, err)
		}
	}
	return nil
}

// effect is what --json prints of one --steer: the entry, in the words of a request's JSON, and what it did.
type effect struct {
	Vector      string  `json:"vector"` // the file
	Method      string  `json:"method"`
	Coefficient float64 `json:"coefficient"`
	Negative    bool    `json:"negative"`
	Layers      []int   `json:"layers"` // never left out: those of the vector by default
	Positions   string  `json:"positions"`

	Eligible  int     `json:"eligible"` // tokens at its positions, once for each layer
	Moved     int     `json:"moved"`    // of these
	Capped    int     `json:"capped"`   // of these
	MeanDelta float64 `json:"mean_delta"`
}

// effects describes what the entries did, in their order.
func (s *steered) effects(did []steering.Effect) []effect {
	var out []effect
	for i, d := range did {
		e := &s.spec[i]
		layers := e.Layers
		if layers == nil {
			layers = e.Vector.Indices()
		}
		out = append(out, effect{
			Vector: s.arguments[i].File, Method: e.Method.String(), Coefficient: e.Coefficient, Negative: e.Negative,
			Layers: layers, Positions: e.Positions.String(),
			Eligible: d.Eligible, Moved: d.Moved, Capped: d.Capped, MeanDelta: d.Mean(),
		})
	}
	return out
}

// readout says what each entry did, in a line.
func (s *steered) readout(did []steering.Effect) []string {
	var lines []string
	for i, d := range did {
		lines = append(lines, fmt.Sprintf("steer %s: %d tokens eligible, %d moved, %d capped, mean |delta| %.4g",
			s.texts[i], d.Eligible, d.Moved, d.Capped, d.Mean()))
	}
	return lines
}

// noteEffects writes a line for each entry to standard error.
func (s *steered) noteEffects(cmd *cobra.Command, did []steering.Effect) {
	for _, line := range s.readout(did) {
		note(cmd, "%s", line)
	}
}
