package steering

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Spec is what one request asks for. Entries that share a layer act one after the other, each on what the one before left.
// A nil Spec is no steering.
type Spec []Entry

// Entry is one use of one vector.
type Entry struct {
	Vector *Vector
	Method Method
	// Coefficient is α in the equations of the package comment, in units of the vector's own statistics: class separations
	// for SwFC, standard deviations for StTP, halves of the way through the mirror for StMP, the share that Ablation removes.
	Coefficient float64
	// Negative pushes towards the negative class, gated above the boundary; see Gate.
	Negative bool
	// Layers at which it acts; nil is every layer that the vector has.
	Layers []int
	// Positions at which it acts; nil is All.
	Positions Positions
}

// layers returns the layers of the vector at which the entry acts, ascending, or says why it cannot.
func (e *Entry) layers() ([]Layer, error) {
	if e.Layers == nil {
		return e.Vector.Layers, nil
	}
	if len(e.Layers) == 0 {
		return nil, errors.New("no layers: leave them out for all that the vector has")
	}
	chosen := slices.Sorted(slices.Values(e.Layers))
	out := make([]Layer, 0, len(chosen))
	for i, l := range chosen {
		if i > 0 && chosen[i-1] == l {
			return nil, fmt.Errorf("layer %d is given twice", l)
		}
		at, ok := e.Vector.layer(l)
		if !ok {
			return nil, fmt.Errorf("the vector has no layer %d (layer = block output, from 0); it has %s", l, formatLayers(e.Vector.Indices()))
		}
		out = append(out, *at)
	}
	return out, nil
}

func (e *Entry) validate() error {
	if e.Vector == nil {
		return errors.New("no vector")
	}
	if err := e.Vector.Validate(); err != nil {
		return err
	}
	if err := e.validateUse(); err != nil {
		return err
	}
	_, err := e.layers()
	return err
}

// validateUse checks all but the vector.
func (e *Entry) validateUse() error {
	if e.Method < SwFC || e.Method > Ablation {
		return fmt.Errorf("method %v is none of swfc, sttp, stmp, ablate", e.Method)
	}
	if math.IsNaN(e.Coefficient) || math.IsInf(e.Coefficient, 0) {
		return fmt.Errorf("coefficient %v is not a finite number", e.Coefficient)
	}
	return e.Positions.Validate()
}

// Validate checks all that can be checked without a model; NewPlan checks the rest.
func (s Spec) Validate() error {
	for i := range s {
		if err := s[i].validate(); err != nil {
			return fmt.Errorf("steering: entry %d: %w", i, err)
		}
	}
	return nil
}

// quote quotes a string of the user's for an error message, and keeps it short.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
