package steering

import (
	"errors"
	"fmt"
	"slices"
)

// Select returns the vector with only those of its layers.
func (v *Vector) Select(layers ...int) (*Vector, error) {
	e := Entry{Vector: v, Layers: layers}
	if layers == nil {
		e.Layers = []int{}
	}
	chosen, err := e.layers()
	if err != nil {
		return nil, fmt.Errorf("steering: %w", err)
	}
	return v.with(chosen), nil
}

// Negate returns the vector that points the other way: the classes change places. The statistics do, too, so StTP and StMP
// in the positive sense then push towards what was the negative class.
func (v *Vector) Negate() *Vector {
	layers := slices.Clone(v.Layers)
	for i := range layers {
		l := &layers[i]
		l.Direction = negated(l.Direction)
		if s := l.Statistics; s != nil {
			l.Statistics = &Statistics{
				M: -s.M, MuPos: -s.MuNeg, MuNeg: -s.MuPos, SigmaPos: s.SigmaNeg, SigmaNeg: s.SigmaPos, CohensD: s.CohensD,
			}
		}
	}
	return v.with(layers)
}

// Scale returns the vector with its length multiplied by factor; a negative one negates it as well. The statistics describe
// the direction, so they stay: of the methods, only SwFC sees a length.
func (v *Vector) Scale(factor float64) (*Vector, error) {
	out := v
	if factor < 0 {
		out, factor = v.Negate(), -factor
	}
	out = out.with(slices.Clone(out.Layers))
	for i := range out.Layers {
		out.Layers[i].DeltaMu *= factor
	}
	return out, out.valid(fmt.Sprintf("scaled by %g", factor))
}

// Sum adds vectors, each with its length, layer by layer; a layer that only some have is the sum of those. The sum has no
// statistics: nobody has projected the data on its direction.
func Sum(vectors ...*Vector) (*Vector, error) {
	if len(vectors) == 0 {
		return nil, errors.New("steering: a sum of no vectors")
	}
	sums := make(map[int][]float64)
	var indices []int
	for i, v := range vectors {
		if v.Hidden != vectors[0].Hidden {
			return nil, fmt.Errorf("steering: vector %d has hidden_size %d, vector 0 has %d", i, v.Hidden, vectors[0].Hidden)
		}
		for _, l := range v.Layers {
			if sums[l.Index] == nil {
				sums[l.Index] = make([]float64, v.Hidden)
				indices = append(indices, l.Index)
			}
			for j, x := range l.Direction {
				sums[l.Index][j] += l.DeltaMu * float64(x)
			}
		}
	}
	slices.Sort(indices)
	var layers []Layer
	for _, index := range indices {
		l, err := NewLayer(index, sums[index])
		if err != nil {
			return nil, fmt.Errorf("steering: sum: %w", err)
		}
		layers = append(layers, l)
	}
	out := vectors[0].with(layers)
	return out, out.valid("sum")
}

// parallel is the part of a direction below which what is left of it, in float32, is mostly rounding.
const parallel = 1e-5

// Orthogonalise returns the part of v that is orthogonal to other, layer by layer: v − <v, û>û. Other must have all layers of
// v. The result has no statistics, as a sum has none.
func (v *Vector) Orthogonalise(other *Vector) (*Vector, error) {
	if v.Hidden != other.Hidden {
		return nil, fmt.Errorf("steering: hidden_size %d cannot be orthogonal to %d", v.Hidden, other.Hidden)
	}
	layers := make([]Layer, len(v.Layers))
	for i := range v.Layers {
		l := &v.Layers[i]
		o, ok := other.layer(l.Index)
		if !ok {
			return nil, fmt.Errorf("steering: the other vector has no layer %d; it has %s", l.Index, formatLayers(other.Indices()))
		}
		along := dot(l.Direction, o.Direction) / dot(o.Direction, o.Direction)
		rest := make([]float64, v.Hidden)
		for j := range rest {
			rest[j] = float64(l.Direction[j]) - along*float64(o.Direction[j])
		}
		direction, length, err := unit(rest)
		if err != nil || length < parallel {
			return nil, fmt.Errorf("steering: layer %d: the vectors are parallel, so no part is orthogonal", l.Index)
		}
		layers[i] = Layer{Index: l.Index, Direction: direction, DeltaMu: l.DeltaMu * length}
	}
	out := v.with(layers)
	return out, out.valid("orthogonal part")
}

// with returns a vector of the same origin.
func (v *Vector) with(layers []Layer) *Vector {
	return &Vector{Hidden: v.Hidden, Layers: layers, Provenance: v.Provenance}
}

func (v *Vector) valid(of string) error {
	if err := v.Validate(); err != nil {
		return fmt.Errorf("steering: %s: %w", of, err)
	}
	return nil
}

func negated(x []float32) []float32 {
	out := make([]float32, len(x))
	for i := range x {
		out[i] = -x[i]
	}
	return out
}
