package steering

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// slotLadder holds the numbers of slots for which there are programs.
var slotLadder = []int{1, 2, 4, 8}

// MaxSlots is how many entries can act on one layer of one row.
const MaxSlots = 8

// Plan is a Spec checked against a model, with its numbers worked out. It is made once for a request and does not change.
type Plan struct {
	hidden, layers int
	entries        int
	positions      []Positions // of each slot
	sites          []site
}

// site is one entry at one layer.
type site struct {
	entry, layer, slot int
	direction          []float32
	key                contentKey // of the direction
	row                Row
}

// contentKey identifies a direction by its bits.
type contentKey [sha256.Size]byte

// NewPlan makes the plan of a spec for a model with that many layers and that hidden size. A spec without entries has a nil plan,
// which is a row that nobody steers.
func NewPlan(spec Spec, layers, hidden int) (*Plan, error) {
	if len(spec) == 0 {
		return nil, nil
	}
	if len(spec) > maxEntries {
		return nil, fmt.Errorf("steering: %d entries are more than %d", len(spec), maxEntries)
	}
	p := &Plan{hidden: hidden, layers: layers, entries: len(spec)}
	next := make([]int, layers) // first slot of each layer that no entry has taken
	for i := range spec {
		if err := p.add(i, &spec[i], next); err != nil {
			return nil, fmt.Errorf("steering: entry %d: %w", i, err)
		}
	}
	return p, nil
}

func (p *Plan) add(entry int, e *Entry, next []int) error {
	if err := e.validate(); err != nil {
		return err
	}
	if e.Vector.Hidden != p.hidden {
		return fmt.Errorf("the vector has hidden_size %d, the model has %d", e.Vector.Hidden, p.hidden)
	}
	layers, err := e.layers()
	if err != nil {
		return err
	}
	slot := 0
	for i := range layers {
		l := layers[i].Index
		if l >= p.layers {
			return fmt.Errorf("layer %d: the model has layers 0 to %d", l, p.layers-1)
		}
		slot = max(slot, next[l])
	}
	// A slot has one mask for all layers; an entry takes the first that comes after those of earlier entries on its layers and
	// has its positions.
	text := e.Positions.String()
	for slot < len(p.positions) && p.positions[slot].String() != text {
		slot++
	}
	if slot >= MaxSlots {
		return fmt.Errorf("more than %d entries act on one layer", MaxSlots)
	}
	if slot == len(p.positions) {
		p.positions = append(p.positions, e.Positions)
	}
	for i := range layers {
		l := &layers[i]
		row, negate, err := Gate(e, l)
		if err != nil {
			return err
		}
		direction := l.Direction
		if negate {
			direction = negated(direction)
		}
		p.sites = append(p.sites, site{entry, l.Index, slot, direction, keyOf(direction), row})
		next[l.Index] = slot + 1
	}
	return nil
}

func keyOf(direction []float32) contentKey {
	data := make([]byte, 0, 4*len(direction))
	for _, x := range direction {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
	}
	return sha256.Sum256(data)
}

// slots returns how many slots the plan takes.
func (p *Plan) slots() int {
	if p == nil {
		return 0
	}
	return len(p.positions)
}

// Effect is what one entry did. A token counts once for each layer at which the entry acts.
type Effect struct {
	Eligible int     // tokens at its positions
	Moved    int     // of these, tokens whose hidden state was changed
	Capped   int     // of these, tokens that were held at the cap
	Sum      float64 // of |delta|, which is the distance |h' − h| that a token was moved
}

// Mean returns the mean distance by which eligible tokens were moved, 0 if there were none.
func (e Effect) Mean() float64 {
	if e.Eligible == 0 {
		return 0
	}
	return e.Sum / float64(e.Eligible)
}

// Effects returns a zero Effect for each entry, for Collect to add to; none for a nil plan.
func (p *Plan) Effects() []Effect {
	if p == nil {
		return nil
	}
	return make([]Effect, p.entries)
}

// Collect adds to effects what one call of a program did in a row: mask [S, rows, tokens] as Table.Mask filled it, and
// readout [layers, S, rows, 3] as Edit.Readout gave it, stacked over the layers.
func (p *Plan) Collect(effects []Effect, mask []bool, readout []float32, slots, rows, row int) {
	if p == nil {
		return
	}
	tokens := len(mask) / (slots * rows)
	eligible := make([]int, len(p.positions))
	for s := range eligible {
		at := (s*rows + row) * tokens
		for _, m := range mask[at : at+tokens] {
			if m {
				eligible[s]++
			}
		}
	}
	for i := range p.sites {
		at := &p.sites[i]
		did := readout[((at.layer*slots+at.slot)*rows+row)*ReadoutSize:]
		e := &effects[at.entry]
		e.Eligible += eligible[at.slot]
		e.Moved += int(did[0])
		e.Capped += int(did[1])
		e.Sum += float64(did[2])
	}
}

// rung returns the first number of a ladder that is at least n.
func rung(ladder []int, n int) int {
	i, _ := slices.BinarySearch(ladder, n)
	return ladder[i]
}

// Site is one entry at one layer of a plan.
type Site struct {
	Entry, Layer int
	Slot         int // of the inputs and of the readout
}

// Sites returns the sites entry by entry, each in the order of its layers.
func (p *Plan) Sites() []Site {
	if p == nil {
		return nil
	}
	sites := make([]Site, len(p.sites))
	for i := range p.sites {
		sites[i] = Site{p.sites[i].entry, p.sites[i].layer, p.sites[i].slot}
	}
	return sites
}

// Agree returns how many of a row's first tokens are steered alike whether its prompt has one length or another.
func (p *Plan) Agree(tokens []int32, promptLen, otherLen int) int {
	if p == nil {
		return len(tokens)
	}
	for i, token := range tokens {
		for _, at := range p.positions {
			if at.Mask(i, promptLen, token) != at.Mask(i, otherLen, token) {
				return i
			}
		}
	}
	return len(tokens)
}
