package steering

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Vector is a steering vector: at some layers, a direction of the residual stream. It is not changed once it is made, so many
// requests share one.
type Vector struct {
	Hidden int     // hidden_size: elements of every direction
	Layers []Layer // ascending by Index
	Provenance
}

// Layer is a vector at the output of one block.
type Layer struct {
	Index     int       // of the block, from 0
	Direction []float32 // v̂, a unit vector [hidden]
	// DeltaMu is the length of the vector: what SwFC adds at coefficient 1 is DeltaMu·v̂. For an extracted vector it is
	// Δμ = μ+ − μ- (negative only if v̂ points the wrong way), for a trained one the length that training gave it.
	DeltaMu float64
	// Statistics of the data along v̂; nil if they are not known. Either all layers have them or none.
	Statistics *Statistics
}

// Statistics describe the projections rho = <h, v̂> of the data that a vector was made from.
type Statistics struct {
	M                  float64 // boundary between the classes
	MuPos, MuNeg       float64 // means of the classes
	SigmaPos, SigmaNeg float64 // standard deviations of the classes (population)
	CohensD            float64 // (μ+ − μ-) in units of the pooled standard deviation; a diagnostic, used by nothing here
}

// Provenance says where a vector comes from.
type Provenance struct {
	Model           string            // name of the model
	Fingerprint     string            // of the model's configuration (Config.Fingerprint); "" is not known, and not checked
	NumHiddenLayers int               // num_hidden_layers; 0 is not known, and not checked
	Data            string            // what it was made from
	Date            string            // when, RFC 3339
	Method          string            // how
	Notes           map[string]string // any other metadata of its file
}

// Limits of a vector, far beyond any model.
const (
	maxHidden = 1 << 20
	maxLayers = 1 << 12
	unitSlack = 1e-4 // by how much the norm of a direction may differ from 1
)

// Validate checks that the vector is one: unit directions, finite numbers, layers in order.
func (v *Vector) Validate() error {
	switch {
	case len(v.Layers) == 0:
		return errors.New("vector: no layers")
	case v.Hidden < 1 || v.Hidden > maxHidden:
		return fmt.Errorf("vector: hidden_size %d is not between 1 and %d", v.Hidden, maxHidden)
	case v.NumHiddenLayers < 0 || v.NumHiddenLayers > maxLayers:
		return fmt.Errorf("vector: num_hidden_layers %d is not between 0 and %d", v.NumHiddenLayers, maxLayers)
	}
	for i := range v.Layers {
		l := &v.Layers[i]
		limit := maxLayers
		if v.NumHiddenLayers > 0 {
			limit = v.NumHiddenLayers
		}
		switch {
		case l.Index < 0 || l.Index >= limit:
			return fmt.Errorf("vector: layer %d is not between 0 and %d", l.Index, limit-1)
		case i > 0 && l.Index <= v.Layers[i-1].Index:
			return fmt.Errorf("vector: layer %d follows layer %d: layers must ascend", l.Index, v.Layers[i-1].Index)
		case (l.Statistics == nil) != (v.Layers[0].Statistics == nil):
			return fmt.Errorf("vector: of layers %d and %d only one has statistics", v.Layers[0].Index, l.Index)
		}
		if err := l.validate(v.Hidden); err != nil {
			return fmt.Errorf("vector: layer %d: %w", l.Index, err)
		}
	}
	return nil
}

func (l *Layer) validate(hidden int) error {
	if len(l.Direction) != hidden {
		return fmt.Errorf("direction has %d elements, hidden_size is %d", len(l.Direction), hidden)
	}
	for i, x := range l.Direction {
		if x := float64(x); math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("direction[%d] is %v", i, x)
		}
	}
	if n := norm(l.Direction); math.Abs(n-1) > unitSlack {
		return fmt.Errorf("direction has norm %g, not 1", n)
	}
	values := map[string]float64{"delta_mu": l.DeltaMu}
	if s := l.Statistics; s != nil {
		for _, f := range statisticFields {
			values[f.name] = *f.of(s)
		}
		if s.SigmaPos < 0 || s.SigmaNeg < 0 {
			return fmt.Errorf("sigma_pos %g, sigma_neg %g: a standard deviation is not negative", s.SigmaPos, s.SigmaNeg)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !(math.Abs(values[name]) <= math.MaxFloat32) {
			return fmt.Errorf("%s is %g, not a finite float32", name, values[name])
		}
	}
	return nil
}

// statisticFields are the statistics by their names in files.
var statisticFields = []struct {
	name string
	of   func(s *Statistics) *float64
}{
	{"m", func(s *Statistics) *float64 { return &s.M }},
	{"mu_pos", func(s *Statistics) *float64 { return &s.MuPos }},
	{"mu_neg", func(s *Statistics) *float64 { return &s.MuNeg }},
	{"sigma_pos", func(s *Statistics) *float64 { return &s.SigmaPos }},
	{"sigma_neg", func(s *Statistics) *float64 { return &s.SigmaNeg }},
	{"cohens_d", func(s *Statistics) *float64 { return &s.CohensD }},
}

// Indices returns the layers that the vector has, ascending.
func (v *Vector) Indices() []int {
	out := make([]int, len(v.Layers))
	for i := range v.Layers {
		out[i] = v.Layers[i].Index
	}
	return out
}

func (v *Vector) layer(index int) (*Layer, bool) {
	i, ok := slices.BinarySearchFunc(v.Layers, index, func(l Layer, index int) int { return l.Index - index })
	if !ok {
		return nil, false
	}
	return &v.Layers[i], true
}

// Config is what identifies the model that a vector was made for. The field names are those of Hugging Face's config.json.
type Config struct {
	Architecture      string
	HiddenSize        int
	IntermediateSize  int
	NumHiddenLayers   int
	NumAttentionHeads int
	NumKeyValueHeads  int
	HeadDim           int
	VocabSize         int
}

// Fingerprint returns a short hash of the configuration. Models that differ in their weights alone share it: a vector of a
// base model may be tried on its chat model.
func (c Config) Fingerprint() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %d %d %d %d %d %d", c.Architecture, c.HiddenSize, c.IntermediateSize,
		c.NumHiddenLayers, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim, c.VocabSize))
	return hex.EncodeToString(sum[:8])
}

// MismatchError is a vector that was made for another model.
type MismatchError struct {
	Name      string // the vector's model, as its file says; may be ""
	Field     string // hidden_size, num_hidden_layers, fingerprint, or layers
	Have      string // the vector's
	Want      string // the model's
	Forceable bool   // whether the vector could be applied all the same, by who knows better
}

func (e *MismatchError) Error() string {
	made := ""
	if e.Name != "" {
		made = " (it was made for " + quote(e.Name) + ")"
	}
	return fmt.Sprintf("steering: the vector does not fit the model: %s is %s, the model's %s%s", e.Field, e.Have, e.Want, made)
}

// Check compares the vector with the model it shall steer and returns a *MismatchError. What a vector does not say is not checked; its
// hidden size and layers always are. With force, only what makes it impossible to apply is an error.
func (v *Vector) Check(c Config, force bool) error {
	mismatch := func(field string, have, want any, forceable bool) error {
		if forceable && force {
			return nil
		}
		return &MismatchError{v.Model, field, fmt.Sprint(have), fmt.Sprint(want), forceable}
	}
	if v.Hidden != c.HiddenSize {
		return mismatch("hidden_size", v.Hidden, c.HiddenSize, false)
	}
	if n := len(v.Layers); n > 0 && v.Layers[n-1].Index >= c.NumHiddenLayers {
		return mismatch("highest layer", v.Layers[n-1].Index, c.NumHiddenLayers-1, false)
	}
	if v.NumHiddenLayers != 0 && v.NumHiddenLayers != c.NumHiddenLayers {
		if err := mismatch("num_hidden_layers", v.NumHiddenLayers, c.NumHiddenLayers, true); err != nil {
			return err
		}
	}
	if v.Fingerprint != "" && v.Fingerprint != c.Fingerprint() {
		return mismatch("fingerprint", v.Fingerprint, c.Fingerprint(), true)
	}
	return nil
}

// norm returns the Euclidean norm.
func norm(x []float32) float64 { return math.Sqrt(dot(x, x)) }

func dot(x, y []float32) (sum float64) {
	for i := range x {
		sum += float64(x[i]) * float64(y[i])
	}
	return sum
}

// unit splits a vector into its direction and its length, which must be a normal float32 so that nothing is lost.
func unit(x []float64) ([]float32, float64, error) {
	largest := 0.0
	for i, a := range x {
		if math.IsNaN(a) || math.IsInf(a, 0) {
			return nil, 0, fmt.Errorf("element %d is %v", i, a)
		}
		largest = max(largest, math.Abs(a))
	}
	if largest < 0x1p-126 {
		return nil, 0, fmt.Errorf("the vector is zero (its largest element is %g), so it has no direction", largest)
	}
	sum := 0.0
	for _, a := range x {
		sum += (a / largest) * (a / largest)
	}
	length := largest * math.Sqrt(sum)
	if length > math.MaxFloat32 {
		return nil, 0, fmt.Errorf("its length %g is not a finite float32", length)
	}
	direction := make([]float32, len(x))
	for i, a := range x {
		direction[i] = float32(a / length)
	}
	return direction, length, nil
}

// NewLayer makes a layer without statistics from a vector of any length [hidden].
func NewLayer(index int, vector []float64) (Layer, error) {
	direction, length, err := unit(vector)
	if err != nil {
		return Layer{}, fmt.Errorf("vector: layer %d: %w", index, err)
	}
	return Layer{Index: index, Direction: direction, DeltaMu: length}, nil
}

// formatLayers writes ascending layers shortly, as ParseLayers reads them: "0-3,7".
func formatLayers(layers []int) string {
	var parts []string
	for i := 0; i < len(layers); {
		j := i + 1
		for j < len(layers) && layers[j] == layers[j-1]+1 {
			j++
		}
		if j-i > 1 {
			parts = append(parts, fmt.Sprintf("%d-%d", layers[i], layers[j-1]))
		} else {
			parts = append(parts, strconv.Itoa(layers[i]))
		}
		i = j
	}
	return strings.Join(parts, ",")
}
