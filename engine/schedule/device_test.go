package schedule

import (
	"fmt"
	"hash/fnv"
	"slices"
)

// device executes plans as a real one would, on a fake KV: each position remembers which token was written there. Its
// model's next token is a hash of everything that the row attends to, so a row that was lost, moved, joined or
// overwritten wrongly gives wrong tokens; and most mistakes are errors before that.
type device struct {
	cfg    Config
	choose func(n int) int

	main      [][]cell // the main cache
	owner     []ID     // of its rows, 0 is none: what the plans have said, to catch a row given away while in use
	fresh     [][]cell // KV of the last prefill, for the next plan only
	freshIDs  []ID
	staging   []cell
	stagingID ID

	kept map[ID][]int32 // tokens whose KV the device has kept for requests to come
}

type cell struct {
	token    int32
	position int
}

var poison = cell{token: -1, position: -1}

// garbage returns n positions of garbage.
func garbage(n int) []cell { return slices.Repeat([]cell{poison}, n) }

// continuation is the toy model: the token after these.
func continuation(history []int32) int32 {
	h := fnv.New64a()
	for _, token := range history {
		h.Write([]byte{byte(token), byte(token >> 8)})
	}
	return int32(h.Sum64() % vocabulary)
}

const vocabulary = 97

// attend is the model's answer to positions 0 to last of a row.
func attend(row []cell, last int) (int32, error) {
	history := make([]int32, last+1)
	for i := range history {
		if row[i].position != i {
			return 0, fmt.Errorf("attends to position %d, which holds %+v", i, row[i])
		}
		history[i] = row[i].token
	}
	return continuation(history), nil
}

func (d *device) execute(p Plan) ([]int32, error) {
	if p.Kind == Prefill {
		return d.prefill(p)
	}
	return d.decode(p)
}

func (d *device) prefill(p Plan) ([]int32, error) {
	switch {
	case p.R != 1 && !slices.Contains(d.cfg.Batches, p.R), !slices.Contains(d.cfg.Tokens, p.T):
		return nil, fmt.Errorf("program (%d,%d) is not on the ladders", p.R, p.T)
	case p.R*p.T > d.cfg.Chunk:
		return nil, fmt.Errorf("program (%d,%d) exceeds the chunk %d", p.R, p.T, d.cfg.Chunk)
	case len(p.Rows) < 1 || len(p.Rows) > p.R || len(p.Rows) > d.cfg.PrefillRows:
		return nil, fmt.Errorf("%d rows in a program of %d", len(p.Rows), p.R)
	case p.Layout != nil || p.Joins != nil || p.Slots != nil:
		return nil, fmt.Errorf("prefill with fields of a decode")
	}
	kv := make([][]cell, p.R)
	switch {
	case p.Staging == 0:
		for i := range kv {
			kv[i] = garbage(p.T)
		}
	case p.R != 1 || !slices.Contains(d.cfg.Lengths, p.Staging):
		return nil, fmt.Errorf("staging cache [%d,%d]", p.R, p.Staging)
	case p.Restore:
		r := p.Rows[0]
		if d.staging != nil || p.First || r.Start < 1 || r.Start > len(d.kept[r.ID]) {
			return nil, fmt.Errorf("restores %d positions of the %d kept for %d, while %d has a staging cache", r.Start, len(d.kept[r.ID]), r.ID,
				d.stagingID)
		}
		d.staging, d.stagingID = garbage(p.Staging), r.ID
		for i, token := range d.kept[r.ID][:r.Start] {
			d.staging[i] = cell{token, i}
		}
		kv[0] = d.staging
	case p.First:
		if d.staging != nil {
			return nil, fmt.Errorf("second staging cache, while %d has one", d.stagingID)
		}
		d.staging, d.stagingID = garbage(p.Staging), p.Rows[0].ID
		kv[0] = d.staging
	default:
		if d.stagingID != p.Rows[0].ID || len(d.staging) != p.Staging {
			return nil, fmt.Errorf("staging cache of %d has %d positions; plan wants that of %d with %d",
				d.stagingID, len(d.staging), p.Rows[0].ID, p.Staging)
		}
		kv[0] = d.staging
	}

	var tokens []int32
	d.fresh, d.freshIDs = kv, nil
	for i, r := range p.Rows {
		n := len(r.Tokens)
		if n < 1 || n > p.T || p.First != (r.Start == 0) || r.Start+p.T > len(kv[i]) || !r.Last && p.Staging == 0 {
			return nil, fmt.Errorf("row %+v in program (%d,%d), staging %d", r, p.R, p.T, p.Staging)
		}
		for j := range p.T { // the program writes its padding, too
			kv[i][r.Start+j] = poison
			if j < n {
				kv[i][r.Start+j] = cell{r.Tokens[j], r.Start + j}
			}
		}
		if r.Last {
			token, err := attend(kv[i], r.Start+n-1)
			if err != nil {
				return nil, fmt.Errorf("request %d %w", r.ID, err)
			}
			tokens = append(tokens, token)
		}
		d.freshIDs = append(d.freshIDs, r.ID)
	}
	return tokens, nil
}

func (d *device) decode(p Plan) ([]int32, error) {
	if p.Rows != nil || p.Staging != 0 || p.First || p.Restore {
		return nil, fmt.Errorf("decode with fields of a prefill")
	}
	if p.Layout != nil {
		if err := d.layout(*p.Layout); err != nil {
			return nil, err
		}
	}
	if len(d.main) != p.Batch || p.Batch == 0 || len(d.main[0]) != p.KVLen {
		return nil, fmt.Errorf("main cache has %d rows, plan says [%d,%d]", len(d.main), p.Batch, p.KVLen)
	}
	for _, j := range p.Joins {
		if j.Row >= len(d.freshIDs) || d.freshIDs[j.Row] != j.ID {
			return nil, fmt.Errorf("%+v, but the last prefill had rows %v", j, d.freshIDs)
		}
		if d.owner[j.Slot] != 0 {
			return nil, fmt.Errorf("%+v, but the slot is that of %d", j, d.owner[j.Slot])
		}
		if len(d.fresh[j.Row]) > p.KVLen {
			return nil, fmt.Errorf("%+v brings %d positions, room is for %d", j, len(d.fresh[j.Row]), p.KVLen)
		}
		copy(d.main[j.Slot], d.fresh[j.Row])
		d.owner[j.Slot] = j.ID
		if j.ID == d.stagingID {
			d.staging, d.stagingID = nil, 0
		}
	}
	d.fresh, d.freshIDs = nil, nil

	// The program computes empty rows, too: they write anywhere.
	for i := range d.main {
		if d.owner[i] == 0 {
			d.main[i][d.choose(p.KVLen)] = poison
		}
	}
	var tokens []int32
	below := -1
	for _, s := range p.Slots {
		if s.Slot <= below || d.owner[s.Slot] != s.ID {
			return nil, fmt.Errorf("%+v, but slots belong to %v", s, d.owner)
		}
		below = s.Slot
		d.main[s.Slot][s.Position] = cell{s.Token, s.Position}
		token, err := attend(d.main[s.Slot], s.Position)
		if err != nil {
			return nil, fmt.Errorf("request %d %w", s.ID, err)
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}

func (d *device) layout(l Layout) error {
	if !slices.Contains(d.cfg.Batches, l.Batch) || !slices.Contains(d.cfg.Lengths, l.KVLen) || len(l.From) != l.Batch {
		return fmt.Errorf("layout %+v is not on the ladders", l)
	}
	main, owner := make([][]cell, l.Batch), make([]ID, l.Batch)
	moved := 0
	for i, from := range l.From {
		main[i] = garbage(l.KVLen)
		if from < 0 {
			continue
		}
		if from >= len(d.main) || d.owner[from] == 0 {
			return fmt.Errorf("layout %+v keeps row %d of %v", l, from, d.owner)
		}
		if l.Batch == len(d.main) && from != i || l.Batch != len(d.main) && i != moved {
			return fmt.Errorf("layout %+v of %v: unnecessary move, or a gap", l, d.owner)
		}
		copy(main[i], d.main[from])
		owner[i] = d.owner[from]
		d.owner[from] = 0 // twice is an error
		moved++
	}
	d.main, d.owner = main, owner
	return nil
}

// lose is what a failed plan does to the caches it was working on.
func (d *device) lose(p Plan) {
	d.fresh, d.freshIDs = nil, nil
	if p.Kind == Decode {
		d.main, d.owner = nil, nil
	}
}

// held returns the row that an event of a finished request speaks of.
func (d *device) held(e Event) []cell {
	switch {
	case e.Held == InMain && e.Row < len(d.main) && d.owner[e.Row] == e.ID:
		return d.main[e.Row]
	case e.Held == InStaged && e.Row < len(d.fresh) && d.freshIDs[e.Row] == e.ID:
		return d.fresh[e.Row]
	}
	return nil
}

// drop forgets a finished request.
func (d *device) drop(id ID) {
	if d.stagingID == id {
		d.staging, d.stagingID = nil, 0
	}
	if i := slices.Index(d.owner, id); i >= 0 {
		d.owner[i] = 0
	}
}
