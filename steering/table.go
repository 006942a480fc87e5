package steering

import (
	"fmt"
	"slices"
)

// firstPages is the smallest number of directions for which there are programs; each next is four times as large.
const firstPages = 16

// Table holds the steering of the rows of a batch as the inputs of a program. It is incremental: a row that keeps its plan costs
// nothing, and directions stay where they are for as long as there is room, so that the next request with the same
// vector uploads none. It is not safe for concurrent use.
type Table struct {
	layers, hidden int
	plans          []*Plan

	directions []float32 // [P, hidden]
	page       map[contentKey]int32
	keys       []contentKey // of each page; page 0 is no direction
	uses       []int        // sites that use each page
	used       int          // pages that ever held something, page 0 included

	slots int
	site  []int32   // [layers, S, rows]
	gate  []float32 // [layers, S, rows, 4]

	directionsChanged, rowsChanged bool
}

// Inputs are the arrays of a table. They are views: read them before the next call of Set.
type Inputs struct {
	P, S, Rows int
	Directions []float32 // [P, hidden]
	Site       []int32   // [layers, S, rows]
	Gate       []float32 // [layers, S, rows, 4]
	// Whether the arrays differ from those of the last call of Inputs.
	DirectionsChanged, RowsChanged bool
}

// NewTable returns a table without rows for a model with that many layers and that hidden size.
func NewTable(layers, hidden int) *Table {
	t := &Table{layers: layers, hidden: hidden, page: make(map[contentKey]int32), used: 1}
	t.grow(firstPages)
	return t
}

func (t *Table) pages() int { return len(t.uses) }

func (t *Table) grow(pages int) {
	t.directions = append(t.directions, make([]float32, pages*t.hidden-len(t.directions))...)
	t.keys = append(t.keys, make([]contentKey, pages-len(t.keys))...)
	t.uses = append(t.uses, make([]int, pages-len(t.uses))...)
	t.directionsChanged = true
}

// Set makes plans the plans of the rows; a nil plan is a row that nobody steers. Plans are compared by identity.
// It panics if a plan was made for a model of another size.
func (t *Table) Set(plans []*Plan) {
	if slices.Equal(plans, t.plans) {
		return
	}
	slots := 1
	for _, p := range plans {
		if p != nil && (p.layers != t.layers || p.hidden != t.hidden) {
			panic(fmt.Errorf("steering: a plan for %d layers of hidden_size %d in a table for %d of %d", p.layers, p.hidden, t.layers, t.hidden))
		}
		slots = max(slots, p.slots())
	}
	slots = rung(slotLadder, slots)
	anew := slots != t.slots || len(plans) != len(t.plans)
	if anew {
		t.slots = slots
		t.site = make([]int32, t.layers*slots*len(plans))
		t.gate = make([]float32, 4*len(t.site))
	}
	old := t.plans
	t.plans = slices.Clone(plans)
	at := func(plans []*Plan, row int) *Plan {
		if row < len(plans) {
			return plans[row]
		}
		return nil
	}
	// What goes is let go first, then what is there already is counted, so that it is not evicted for what comes.
	var coming []*site
	for row := range max(len(plans), len(old)) {
		before, now := at(old, row), at(plans, row)
		if before == now {
			continue
		}
		if before != nil {
			for i := range before.sites {
				t.uses[t.page[before.sites[i].key]]--
			}
		}
		if now != nil {
			for i := range now.sites {
				coming = append(coming, &now.sites[i])
			}
		}
	}
	var missing []*site
	for _, s := range coming {
		if page, ok := t.page[s.key]; ok {
			t.uses[page]++
		} else {
			missing = append(missing, s)
		}
	}
	for _, s := range missing {
		t.uses[t.acquire(s)]++
	}
	for row, p := range plans {
		if anew || p != at(old, row) {
			t.write(row, p)
		}
	}
	t.rowsChanged = true
}

// acquire returns the page of a site's direction, giving it one if it has none.
func (t *Table) acquire(s *site) int32 {
	if page, ok := t.page[s.key]; ok {
		return page
	}
	page := t.used
	switch {
	case t.used < t.pages():
		t.used++
	default:
		if page = slices.Index(t.uses[1:], 0) + 1; page > 0 {
			delete(t.page, t.keys[page])
			break
		}
		page = t.used
		t.used++
		t.grow(4 * t.pages())
	}
	t.page[s.key], t.keys[page] = int32(page), s.key
	copy(t.directions[page*t.hidden:], s.direction)
	t.directionsChanged = true
	return int32(page)
}

// write fills the column of one row.
func (t *Table) write(row int, p *Plan) {
	rows := len(t.plans)
	for at := row; at < len(t.site); at += rows {
		t.site[at] = 0
		clear(t.gate[4*at : 4*at+4])
	}
	if p == nil {
		return
	}
	for i := range p.sites {
		s := &p.sites[i]
		at := (s.layer*t.slots+s.slot)*rows + row
		t.site[at] = t.page[s.key]
		copy(t.gate[4*at:], []float32{s.row.Theta, s.row.A, s.row.B, s.row.Cap})
	}
}

// Inputs returns the arrays.
func (t *Table) Inputs() Inputs {
	in := Inputs{
		P: t.pages(), S: t.slots, Rows: len(t.plans),
		Directions: t.directions, Site: t.site, Gate: t.gate,
		DirectionsChanged: t.directionsChanged, RowsChanged: t.rowsChanged,
	}
	t.directionsChanged, t.rowsChanged = false, false
	return in
}

// Steered reports whether any row is steered. If none is, a program without steering gives the same.
func (t *Table) Steered() bool {
	return slices.ContainsFunc(t.plans, func(p *Plan) bool { return p != nil })
}

// Mask fills a row of the position mask, mask [S, rows, tokens], for tokens that begin at position start of a row whose prompt
// has promptLen tokens. The mask is false behind them, where there is only padding.
func (t *Table) Mask(mask []bool, row, start, promptLen int, tokens []int32) {
	rows := len(t.plans)
	width := len(mask) / (t.slots * rows)
	p := t.plans[row]
	for s := range t.slots {
		line := mask[(s*rows+row)*width:][:width]
		clear(line)
		if s >= p.slots() {
			continue
		}
		for i, token := range tokens {
			line[i] = p.positions[s].Mask(start+i, promptLen, token)
		}
	}
}
