package schedule

import (
	"fmt"
	"slices"
)

// Core is the state machine. It is not safe for concurrent use.
type Core struct {
	cfg  Config
	live map[ID]*request // everyone unfinished

	queue   []*request // in order of arrival
	filling []*request // one long prompt, or the short ones of the running plan
	staged  []*request // of the last prefill, until the decode plan that follows

	slots                  []*request // the main cache's rows; nil is empty
	kvLen                  int
	spareRows, spareLength patience

	afterPrefill bool       // the last plan was a prefill
	number       uint64     // of the last plan
	running      []*request // of the outstanding plan, in the order of its rows; nil: none
}

// New returns an idle Core, or the error of cfg.Validate.
func New(cfg Config) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Core{cfg: cfg, live: make(map[ID]*request)}, nil
}

// Submit queues a request; the Core keeps a copy of its slices. It is refused if the prompt is empty or too long
// (*TooLongError), MaxTokens is below 1, Kept is not below the prompt's length, the ID is that of an unfinished request, or
// the queue is full (*QueueFullError).
func (c *Core) Submit(r Request) error {
	room := c.cfg.MaxContext - len(r.Prompt)
	switch {
	case len(r.Prompt) == 0:
		return fmt.Errorf("request %d: prompt is empty", r.ID)
	case room < 1:
		return &TooLongError{ID: r.ID, Prompt: len(r.Prompt), Context: c.cfg.MaxContext}
	case r.MaxTokens < 1:
		return fmt.Errorf("request %d: MaxTokens is %d, want at least 1", r.ID, r.MaxTokens)
	case r.Kept < 0 || r.Kept >= len(r.Prompt):
		return fmt.Errorf("request %d: %d tokens are kept, want 0 to %d of a prompt of %d", r.ID, r.Kept, len(r.Prompt)-1, len(r.Prompt))
	case c.live[r.ID] != nil:
		return fmt.Errorf("request %d: another request of this ID is not finished", r.ID)
	case len(c.queue) >= c.cfg.MaxQueue:
		return &QueueFullError{ID: r.ID, MaxQueue: c.cfg.MaxQueue}
	}
	q := &request{
		id:     r.ID,
		prompt: slices.Clone(r.Prompt),
		length: len(r.Prompt),
		limit:  min(r.MaxTokens, room),
		stop:   slices.Clone(r.StopIDs),
	}
	if q.kept = r.Kept; c.cfg.paddedFrom(q.kept, q.length) > c.cfg.Lengths[len(c.cfg.Lengths)-1] {
		q.kept -= q.kept % c.cfg.Chunk // whole chunks fit, as they do without anything kept
	}
	q.filled = q.kept
	c.live[q.id] = q
	c.queue = append(c.queue, q)
	return nil
}

// Cancel ends a request, wherever it is, before the next plan. It returns the request's Cancelled event; or nothing,
// if the request is part of the outstanding plan, whose Done will then return that event in place of a token. An
// unknown or finished ID changes nothing.
func (c *Core) Cancel(id ID) []Event {
	r := c.live[id]
	switch {
	case r == nil:
		return nil
	case slices.Contains(c.running, r):
		r.cancelled = true // the device still holds its memory
		return nil
	}
	return []Event{c.finish(r, Event{Index: r.generated, Finish: Cancelled})}
}

// Next returns the next plan, or false if there is nothing to do. When it returns false, the main cache is empty and
// may be released: the next decode plan has a Layout that keeps no row. Each plan must be given to Done before Next
// is called again; it panics otherwise.
func (c *Core) Next() (Plan, bool) {
	if c.running != nil {
		panic(fmt.Sprintf("schedule: Next before Done of plan %d", c.number))
	}
	rows := c.rows()
	canDecode := len(rows)+len(c.staged) > 0
	canPrefill := len(c.filling) > 0 || len(c.queue) > 0 && len(c.live)-len(c.queue) < c.cfg.MaxBatch

	var p Plan
	switch {
	case canPrefill && !(canDecode && c.afterPrefill):
		p = c.prefill()
	case canDecode:
		p = c.decode(rows)
	default:
		c.slots, c.kvLen, c.afterPrefill = nil, 0, false
		return Plan{}, false
	}
	c.number++
	p.Number = c.number
	c.afterPrefill = p.Kind == Prefill
	return p, true
}

// prefill plans the next chunk of the long prompt in progress, or admits from the queue.
func (c *Core) prefill() Plan {
	if len(c.filling) == 0 {
		c.admit()
	}
	c.running = slices.Clone(c.filling)

	head := c.filling[0]
	p := Plan{
		Kind: Prefill, R: c.cfg.prefillRows(len(c.filling)),
		First: head.filled == 0, Restore: head.kept > 0 && head.filled == head.kept,
	}
	for _, r := range c.filling {
		end := min(r.filled+c.cfg.Chunk, r.length)
		p.Rows = append(p.Rows, ChunkRow{
			ID: r.id, Start: r.filled, Tokens: r.prompt[r.filled:end], Last: end == r.length,
		})
		p.T = max(p.T, atLeast(c.cfg.Tokens, end-r.filled))
	}
	if head.kept > 0 || head.length > c.cfg.Chunk {
		p.Staging = atLeast(c.cfg.Lengths, c.cfg.paddedFrom(head.kept, head.length))
	}
	for i, r := range c.filling {
		r.row, r.held = i, max(p.T, p.Staging)
	}
	return p
}

// admit moves the head of the queue to filling and, if its prompt is short and nothing of it is kept, those like it directly behind
// that fit in the same plan.
func (c *Core) admit() {
	free := c.cfg.MaxBatch - (len(c.live) - len(c.queue))
	n, longest := 1, c.queue[0].length
	for longest <= c.cfg.Chunk && c.queue[0].kept == 0 && n < min(free, c.cfg.PrefillRows, len(c.queue)) && c.queue[n].kept == 0 {
		longest = max(longest, c.queue[n].length)
		if longest > c.cfg.Chunk || c.cfg.prefillRows(n+1)*atLeast(c.cfg.Tokens, longest) > c.cfg.Chunk {
			break
		}
		n++
	}
	c.filling = slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	for _, r := range c.filling {
		r.phase = filling
	}
}

// decode plans one step of everyone in the main cache (rows) and of those who join it.
func (c *Core) decode(rows []*request) Plan {
	p := Plan{Kind: Decode, Layout: c.layout(rows)}
	slot := 0
	for _, r := range c.staged {
		for c.slots[slot] != nil {
			slot++
		}
		c.slots[slot] = r
		r.slot, r.phase = slot, decoding
		p.Joins = append(p.Joins, Join{ID: r.id, Row: r.row, Slot: slot})
	}
	c.staged = nil

	p.Batch, p.KVLen = len(c.slots), c.kvLen
	c.running = c.rows()
	for _, r := range c.running {
		p.Slots = append(p.Slots, SlotRow{
			ID: r.id, Slot: r.slot, Token: r.last, Position: r.position(), Step: uint64(r.generated),
		})
	}
	return p
}

// rows returns the main cache's requests in the order of their slots.
func (c *Core) rows() []*request {
	var rows []*request
	for _, r := range c.slots {
		if r != nil {
			rows = append(rows, r)
		}
	}
	return rows
}

// Done takes the result of the outstanding plan and returns what it means for the requests in it, in the order of
// the plan's rows. A result with the wrong number of tokens counts as a failed plan. It panics if p is not the
// outstanding plan.
func (c *Core) Done(p Plan, result Result) []Event {
	if c.running == nil || p.Number != c.number {
		panic(fmt.Sprintf("schedule: Done of plan %d, which is not outstanding (the last was %d)", p.Number, c.number))
	}
	running, prefill := c.running, c.afterPrefill
	c.running = nil

	last := true // does the plan sample?
	if prefill {
		r := running[0]
		last = r.length-r.filled <= c.cfg.Chunk
	}
	tokens := 0
	if last {
		tokens = len(running)
	}
	err := result.Err
	if err == nil {
		err = checkResult(p, result, tokens)
	}

	var events []Event
	for i, r := range running {
		switch {
		case r.cancelled:
			events = append(events, c.finish(r, Event{Index: r.generated, Finish: Cancelled}))
		case err != nil:
			events = append(events, c.finish(r, Event{Index: r.generated, Finish: Error, Err: err}))
		case !last:
			r.filled += c.cfg.Chunk
		case result.Errs != nil && result.Errs[i] != nil:
			events = append(events, c.finish(r, Event{Index: r.generated, Finish: Error, Err: result.Errs[i]}))
		default:
			if prefill {
				r.phase, r.prompt = staged, nil
				c.staged = append(c.staged, r)
			}
			events = append(events, c.sampled(r, result.Tokens[i]))
		}
	}
	if err != nil { // whatever the caches held is lost, to those who were cancelled meanwhile, too
		for i := range events {
			events[i].Held, events[i].Row = Nowhere, 0
		}
	}
	if prefill && last {
		c.filling = nil
	}
	if !prefill && err != nil {
		c.slots, c.kvLen = nil, 0 // donated buffers: what the main cache held is lost
	}
	return events
}

func checkResult(p Plan, result Result, tokens int) error {
	if n := len(result.Tokens); n != tokens {
		return fmt.Errorf("%s plan %d returned %d tokens, want %d", p.Kind, p.Number, n, tokens)
	}
	if n := len(result.Errs); result.Errs != nil && n != tokens {
		return fmt.Errorf("%s plan %d returned %d row errors, want %d", p.Kind, p.Number, n, tokens)
	}
	return nil
}

// sampled gives the request its next token.
func (c *Core) sampled(r *request, token int32) Event {
	e := Event{HasToken: true, Token: token, Index: r.generated}
	r.generated++
	r.last = token
	switch {
	case slices.Contains(r.stop, token):
		e.Finish = Stop
	case r.generated == r.limit:
		e.Finish = Length
	default:
		e.ID = r.id
		return e
	}
	return c.finish(r, e)
}

// finish forgets the request and completes its last event.
func (c *Core) finish(r *request, e Event) Event {
	delete(c.live, r.id)
	is := func(other *request) bool { return other == r }
	switch r.phase {
	case queued:
		c.queue = slices.DeleteFunc(c.queue, is)
	case filling:
		c.filling = slices.DeleteFunc(c.filling, is)
	case staged:
		c.staged = slices.DeleteFunc(c.staged, is)
		e.Held, e.Row = InStaged, r.row
	case decoding:
		c.slots[r.slot] = nil
		e.Held, e.Row = InMain, r.slot
	}
	if e.Finish == Error {
		e.Held, e.Row = Nowhere, 0
	}
	e.ID = r.id
	return e
}

// Stats is a Core's state in numbers.
type Stats struct {
	Queued, Prefilling, Decoding int // requests
	Batch, KVLen                 int // shape of the main cache; 0 if there is none
}

// Stats counts. A request whose prefill is done and who has yet to join the main cache counts as decoding.
func (c *Core) Stats() Stats {
	return Stats{
		Queued:     len(c.queue),
		Prefilling: len(c.filling),
		Decoding:   len(c.live) - len(c.queue) - len(c.filling),
		Batch:      len(c.slots),
		KVLen:      c.kvLen,
	}
}
