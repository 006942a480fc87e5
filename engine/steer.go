package engine

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/steerage/steerage/steering"
)

// How steering reaches the device. A program is compiled with or without it; one that steers takes a batch's table as
// inputs, and what they hold is no concern of the program.

// steer is how a program steers: with this many slots, and directions to choose from. The zero value is a program that does not.
type steer struct{ slots, directions int }

func (s steer) String() string {
	if s.slots == 0 {
		return ""
	}
	return fmt.Sprintf(" slots=%d directions=%d", s.slots, s.directions)
}

// helm is the steering of a program under construction: its inputs, and what each block's edit was.
type helm struct {
	directions, site, gate, mask *Node
	edits                        []steering.Edit // of each layer
}

// helm declares the inputs directions [P, hidden], site [layers, S, rows], gate [layers, S, rows, 4] and mask [S, rows, tokens].
// It returns nil for a program that does not steer.
func (b *builder) helm(s steer, rows, tokens int) *helm {
	if s.slots == 0 {
		return nil
	}
	layers := b.cfg.NumHiddenLayers
	return &helm{
		directions: b.input("directions", dtypes.Float32, s.directions, b.cfg.HiddenSize),
		site:       b.input("site", dtypes.Int32, layers, s.slots, rows),
		gate:       b.input("gate", dtypes.Float32, layers, s.slots, rows, 4),
		mask:       b.input("mask", dtypes.Bool, s.slots, rows, tokens),
	}
}

// afterBlock is model.Inputs.AfterBlock.
func (h *helm) afterBlock(layer int, hidden *Node) *Node {
	at := func(x *Node) *Node { return Squeeze(Slice(x, AxisRange(layer, layer+1)), 0) }
	hidden, edit := steering.Apply(hidden, h.directions, at(h.site), at(h.gate), h.mask)
	h.edits = append(h.edits, edit)
	return hidden
}

// readout is what Plan.Collect reads, [layers, S, rows, 3].
func (h *helm) readout() *Node {
	return h.stack(steering.Edit.Readout)
}

func (h *helm) stack(of func(steering.Edit) *Node) *Node {
	var all []*Node
	for _, e := range h.edits {
		all = append(all, of(e))
	}
	return Stack(all, 0)
}

// course is the steering of one request, and what it has done so far. The loop's goroutine fills effects.
type course struct {
	plan    *steering.Plan // nil: not steered
	prompt  int            // tokens of the prompt
	effects []steering.Effect
}

func newCourse(plan *steering.Plan, prompt int) *course {
	return &course{plan: plan, prompt: prompt, effects: plan.Effects()}
}

// steer checks a spec against the model.
func (m *Model) steer(spec steering.Spec) (*steering.Plan, error) {
	plan, err := steering.NewPlan(spec, m.cfg.NumHiddenLayers, m.cfg.HiddenSize)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return plan, nil
}

// helmsman keeps the table of a batch on the device, and uploads only what has changed.
type helmsman struct {
	table                  *steering.Table
	directions, site, gate compute.Buffer
}

func (h *helmsman) free() {
	finalize(slices.DeleteFunc([]compute.Buffer{h.directions, h.site, h.gate}, func(b compute.Buffer) bool { return b == nil }))
	h.directions, h.site, h.gate = nil, nil, nil
}

// watch is one call of a program that may steer.
type watch struct {
	steer   steer
	inputs  []compute.Buffer // directions, site, gate
	mask    []bool           // [S, rows, tokens]
	rows    int
	courses []*course // by row; nil or shorter: not steered
}

// row is what one row of a call runs.
type row struct {
	course *course
	start  int // position of its first token
	tokens []int32
}

// set prepares a call of a program on `total` rows of `width` tokens: uploads what has changed and fills the mask. If nobody is
// steered the call is the zero watch.
func (h *helmsman) set(d *device, total, width int, rows []row) (*watch, error) {
	plans := make([]*steering.Plan, total)
	steered := false
	for i, r := range rows {
		if r.course != nil {
			plans[i] = r.course.plan
			steered = steered || plans[i] != nil
		}
	}
	if !steered {
		return &watch{}, nil
	}
	h.table.Set(plans)
	in := h.table.Inputs()
	layers, hidden := d.cfg.NumHiddenLayers, d.cfg.HiddenSize
	replace := func(b *compute.Buffer, flat any, dims ...int) error {
		if *b != nil {
			_ = (*b).Finalize()
			*b = nil
		}
		fresh, err := d.upload(flat, dims...)
		if err == nil {
			*b = fresh
		}
		return err
	}
	var err error
	if in.DirectionsChanged || h.directions == nil {
		err = replace(&h.directions, in.Directions, in.P, hidden)
	}
	if err == nil && (in.RowsChanged || h.site == nil || h.gate == nil) {
		if err = replace(&h.site, in.Site, layers, in.S, total); err == nil {
			err = replace(&h.gate, in.Gate, layers, in.S, total, 4)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("engine: steering: %w", err)
	}
	w := &watch{
		steer:  steer{in.S, in.P},
		inputs: []compute.Buffer{h.directions, h.site, h.gate},
		mask:   make([]bool, in.S*total*width), rows: total,
	}
	for i, r := range rows {
		w.courses = append(w.courses, r.course)
		if plans[i] != nil {
			h.table.Mask(w.mask, i, r.start, r.course.prompt, r.tokens)
		}
	}
	return w, nil
}

// collect adds to each course what the call did; out is the program's readout, which it frees.
func (w *watch) collect(out compute.Buffer) error {
	defer func() { _ = out.Finalize() }()
	readout, err := toHost(out)
	if err != nil {
		return fmt.Errorf("engine: steering: %w", err)
	}
	for i, c := range w.courses {
		if c != nil {
			c.plan.Collect(c.effects, w.mask, readout, w.steer.slots, w.rows, i)
		}
	}
	return nil
}

// SteeringConfig is what identifies the model to vectors made for it, see steering.Vector.Check.
func (m *Model) SteeringConfig() steering.Config {
	c := m.cfg
	return steering.Config{
		Architecture: c.Architecture, HiddenSize: c.HiddenSize, IntermediateSize: c.IntermediateSize, NumHiddenLayers: c.NumHiddenLayers,
		NumAttentionHeads: c.NumAttentionHeads, NumKeyValueHeads: c.NumKeyValueHeads, HeadDim: c.HeadDim, VocabSize: c.VocabSize,
	}
}
