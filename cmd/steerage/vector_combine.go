package main

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/steering"
)

func newVectorCombine() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "combine OUT FILE[:FACTOR]...",
		Short: "Add, scale, negate and orthogonalise vectors",
		Long: `Combine adds vectors, each with its length times FACTOR (1 by default), layer by layer. A layer that only some of them
have is the sum of those. So

  combine OUT a b          adds
  combine OUT a b:-0.5     subtracts half of b
  combine OUT a:3          scales
  combine OUT a:-1         negates: the classes change places

With --orthogonal-to the part of the result along another vector is taken out, at every layer. A result that points in
a new direction has no statistics, since no data have been projected on it: only swfc and ablate can use it. One vector
that is scaled or negated keeps its statistics.

The vectors must be of one model. OUT, a .safetensors or .gguf file, is not overwritten without --force. Standard output
gets its name.`,
		Example: `  steerage vector combine both.safetensors honest.safetensors calm.safetensors:0.5
  steerage vector combine dishonest.safetensors honest.safetensors:-1
  steerage vector combine honest-only.safetensors honest.safetensors --orthogonal-to polite.safetensors`,
		Args: cobra.MinimumNArgs(2),
	}
	orthogonalTo := cmd.Flags().String("orthogonal-to", "", "take out what lies along the vector of this `file`")
	out := outputFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var terms []term
		for _, text := range args[1:] {
			t, err := parseTerm(text)
			if err != nil {
				return badUsage("%w", err)
			}
			terms = append(terms, t)
		}
		if cmd.Flags().Changed("orthogonal-to") && *orthogonalTo == "" {
			return badUsage("--orthogonal-to is empty, want a file")
		}
		if err := out.check(args[0]); err != nil {
			return err
		}
		v, err := combine(terms, *orthogonalTo)
		if err != nil {
			return err
		}
		return out.finish(cmd, v, args[0])
	}
	return cmd
}

// term is a vector times a factor.
type term struct {
	file   string
	factor float64
	vector *steering.Vector
}

// parseTerm reads FILE[:FACTOR]. As in --steer, a file's name holds no colon.
func parseTerm(text string) (term, error) {
	file, factor, scaled := strings.Cut(text, ":")
	t := term{file: file, factor: 1}
	if file == "" {
		return t, fmt.Errorf("%q has no file, want FILE[:FACTOR]", text)
	}
	if scaled {
		var err error
		if t.factor, err = strconv.ParseFloat(factor, 64); err != nil || math.IsNaN(t.factor) || math.IsInf(t.factor, 0) {
			return t, fmt.Errorf("%q: factor %q is not a finite number, want FILE[:FACTOR]", text, factor)
		}
	}
	return t, nil
}

// combine loads the terms, adds them and makes the sum orthogonal to the vector of a file, if there is one.
func combine(terms []term, orthogonalTo string) (*steering.Vector, error) {
	var scaled []*steering.Vector
	for i := range terms {
		t := &terms[i]
		var err error
		if t.vector, err = steering.Load(t.file); err != nil {
			return nil, err
		}
		for j := range terms[:i] {
			if err := sameModel(&terms[j], t); err != nil {
				return nil, err
			}
		}
		v := t.vector
		if t.factor != 1 {
			if v, err = v.Scale(t.factor); err != nil {
				return nil, fmt.Errorf("%s: %w", t.file, err)
			}
		}
		scaled = append(scaled, v)
	}
	sum := scaled[0]
	if len(scaled) > 1 {
		var err error
		if sum, err = steering.Sum(scaled...); err != nil {
			return nil, err
		}
		sum.Notes = nil // they were the first vector's
	}
	for _, t := range terms { // any of them may know the model
		sum.Model = cmp.Or(sum.Model, t.vector.Model)
		sum.Fingerprint = cmp.Or(sum.Fingerprint, t.vector.Fingerprint)
		sum.NumHiddenLayers = cmp.Or(sum.NumHiddenLayers, t.vector.NumHiddenLayers)
	}
	how := describe(terms)
	if orthogonalTo != "" {
		other := term{file: orthogonalTo}
		var err error
		if other.vector, err = steering.Load(other.file); err != nil {
			return nil, err
		}
		if err := sameModel(&terms[0], &other); err != nil {
			return nil, err
		}
		if sum, err = sum.Orthogonalise(other.vector); err != nil {
			return nil, fmt.Errorf("orthogonal to %s: %w", orthogonalTo, err)
		}
		how += ", orthogonal to " + filepath.Base(orthogonalTo)
	}
	sum.Method, sum.Data, sum.Date = how, dataOf(terms), time.Now().UTC().Format(time.RFC3339)
	return sum, nil
}

// sameModel refuses vectors of different models. What a vector does not say is not compared.
func sameModel(a, b *term) error {
	differ := func(field string, x, y any) error {
		return fmt.Errorf("%s and %s are of different models: %s is %v and %v", a.file, b.file, field, x, y)
	}
	v, w := a.vector, b.vector
	switch {
	case v.Hidden != w.Hidden:
		return differ("hidden_size", v.Hidden, w.Hidden)
	case v.NumHiddenLayers != w.NumHiddenLayers && v.NumHiddenLayers > 0 && w.NumHiddenLayers > 0:
		return differ("num_hidden_layers", v.NumHiddenLayers, w.NumHiddenLayers)
	case v.Fingerprint != w.Fingerprint && v.Fingerprint != "" && w.Fingerprint != "":
		return differ("fingerprint", v.Fingerprint, w.Fingerprint)
	}
	return nil
}

// describe writes a sum as the method of its result.
func describe(terms []term) string {
	var parts []string
	for _, t := range terms {
		part := filepath.Base(t.file)
		if t.factor != 1 {
			part += ":" + strconv.FormatFloat(t.factor, 'g', -1, 64)
		}
		if t.vector.Method != "" {
			part += " (" + t.vector.Method + ")"
		}
		parts = append(parts, part)
	}
	return "combined: " + strings.Join(parts, " + ")
}

// dataOf joins what the vectors were made from.
func dataOf(terms []term) string {
	var all []string
	for _, t := range terms {
		if d := t.vector.Data; d != "" && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return strings.Join(all, " + ")
}
