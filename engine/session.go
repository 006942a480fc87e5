package engine

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/steerage/steerage/engine/schedule"
	"github.com/steerage/steerage/steering"
)

// Session keeps the keys and values of a conversation on the device between its turns, so that of the next prompt only what is new
// is run. A prompt that shares nothing with the last one is simply run whole; the result is the same either way.
//
// What is kept takes memory beside the cache that Stats plans, a row of the conversation's length: Close gives it back.
type Session struct {
	m *Model

	// Guarded by m.mu.
	busy   bool
	closed bool
	// tokens are those whose keys and values are kept; spec and prompt say how they were steered.
	tokens []int32
	spec   steering.Spec
	prompt int
}

// NewSession begins a conversation.
func (m *Model) NewSession() *Session { return &Session{m: m} }

// Close frees what is kept. The session must not be in use.
func (s *Session) Close() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.busy {
		return errors.New("engine: a session is closed while a request of it is under way")
	}
	if s.closed = true; s.tokens != nil {
		s.tokens = nil
		s.m.chores = append(s.m.chores, chore{session: s})
		s.m.signal()
	}
	return nil
}

// begin returns how many tokens of a request's prompt need not be run: those that are kept, were steered as the request would steer them,
// and leave at least one to run. The caller holds the lock.
func (s *Session) begin(m *Model, prompt []int32, spec steering.Spec, plan *steering.Plan) (int, error) {
	switch {
	case s.m != m:
		return 0, errors.New("engine: the session is of another model")
	case s.closed:
		return 0, errors.New("engine: the session is closed")
	case s.busy:
		return 0, errors.New("engine: the session has a request under way")
	}
	if !reflect.DeepEqual(s.spec, spec) {
		return 0, nil
	}
	n := 0
	for n < min(len(prompt)-1, len(s.tokens)) && prompt[n] == s.tokens[n] {
		n++
	}
	return plan.Agree(prompt[:n], s.prompt, len(prompt)), nil
}

// chore is something to do for a session before the next plan: to keep a row of a cache, or to free what is kept.
type chore struct {
	session *Session
	event   schedule.Event // where the row is; Nowhere: free
	tokens  int            // positions of the row to keep
}

// end releases the session of a finished request, and arranges for its row to be kept. The caller holds the lock.
func (m *Model) end(g *Generation, e schedule.Event) {
	s := g.session
	if s == nil {
		return
	}
	g.session = nil
	s.busy = false
	if e.Held == schedule.Nowhere {
		if g.restored { // what was kept went into the request's cache, and that is gone
			s.tokens = nil
		}
		return
	}
	// The last token was never fed back.
	s.tokens = append(append([]int32{}, g.prompt...), g.sampled[:len(g.sampled)-1]...)
	s.spec, s.prompt = g.spec, len(g.prompt)
	m.chores = append(m.chores, chore{session: s, event: e, tokens: len(s.tokens)})
}

// carryOutChores runs in the loop's goroutine, before the next plan changes the caches.
func (d *device) carryOutChores(chores []chore, lengths []int) {
	for _, c := range chores {
		old := d.kept[c.session]
		old.free()
		delete(d.kept, c.session)
		from := &d.main
		if c.event.Held == schedule.InStaged {
			from = &d.staged
		}
		if c.event.Held == schedule.Nowhere || from.buffers == nil {
			continue
		}
		row, err := d.copyRow(from, c.event.Row, c.tokens, ladder(lengths, c.tokens))
		if err != nil { // the next turn is run whole
			d.ps.log.Warn("a session's keys and values could not be kept", "error", err)
			continue
		}
		d.kept[c.session] = row
	}
}

// restore makes what a session kept the staged cache, with room for that many slots; only the first n positions count.
func (d *device) restore(s *Session, n, slots int) error {
	d.staged.free()
	kept, ok := d.kept[s]
	if !ok {
		return fmt.Errorf("engine: nothing is kept for a request that continues at %d", n)
	}
	delete(d.kept, s)
	d.staged = kept
	return d.relayout(&d.staged, []int32{0}, []int32{int32(n)}, slots)
}
