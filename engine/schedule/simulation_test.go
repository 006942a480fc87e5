package schedule

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSimulation drives random configurations with random arrivals, cancellations and failures against the fake
// device. It checks after every call that no token is lost, doubled, wrong or given to another request, that each
// request finishes exactly once and for the right reason, and the promises of doc.go on order and fairness.
func TestSimulation(t *testing.T) {
	seen := make(map[string]int)
	for seed := range uint64(4000) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := newSimulation(t, random.IntN, seen)
		s.seed = seed
		for range 40 + random.IntN(400) {
			s.act()
		}
		s.drain()
	}
	// A simulation that never comes to the interesting places proves nothing.
	for _, what := range []string{
		"refused: too long", "refused: queue full", "refused: duplicate", "ID used again",
		"cancelled in a plan", "cancelled queued", "cancelled prefilling", "cancelled decoding",
		"prefill of several rows", "prefill of a later chunk", "prefill between decodes", "join", "join from staging",
		"prefill failed", "decode failed", "row failed",
		"layout grows rows", "layout grows length", "layout shrinks rows", "layout shrinks length",
		"layout moves rows", "restored", "restored in part", "nothing restored", "held in main", "held in staged",
		"finish stop", "finish length", "finish cancelled", "finish error", "context full", "idle",
	} {
		require.Greater(t, seen[what], 20, what)
	}
}

// FuzzCore is the same simulation with the choices taken from the input. When it is used up, no more arrives and all
// must end.
func FuzzCore(f *testing.F) {
	f.Add([]byte{})
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 2))
		data := make([]byte, 64<<seed%512)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newSimulation(t, func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := int(data[0])
			data = data[1:]
			return b % n
		}, make(map[string]int))
		for len(data) > 0 {
			s.act()
		}
		s.drain()
	})
}

// simulation is the world around a Core: its users, its device, and a bookkeeper who believes nothing.
type simulation struct {
	t      *testing.T
	seed   uint64
	choose func(n int) int // 0 to n-1
	seen   map[string]int

	cfg    Config
	core   *Core
	device *device
	calm   bool // no more failures

	arrived []*user // unfinished, in order of arrival
	lastID  ID
	plans   int // all
	work    int // what is the most that they can have been
	after   Kind
	any     bool // was there a plan since the last idle
}

// user is who waits for one request.
type user struct {
	request   Request
	answer    []int32
	cancelled bool
	restored  int // prompt tokens that needed no prefill
	filled    int // prompt tokens restored or seen in plans
	firstPlan int // number of the plan in which the prefill began
	doomed    error
}

func newSimulation(t *testing.T, choose func(int) int, seen map[string]int) *simulation {
	s := &simulation{t: t, choose: choose, seen: seen}
	c := Config{
		MaxBatch:   1 + choose(6),
		MaxContext: 2 + choose(150),
		MaxQueue:   1 + choose(8),
		Chunk:      1 + choose(24),
	}
	c.Horizon = choose(min(9, c.MaxContext))
	c.Batches = s.ladder(3, c.MaxBatch+choose(3))
	c.Tokens = s.ladder(8, c.Chunk)
	c.Lengths = s.ladder(40, max(c.MaxContext, c.padded(c.MaxContext-1)))
	c.PrefillRows = 1
	if n := c.Batches[choose(len(c.Batches))]; n <= c.MaxBatch {
		c.PrefillRows = n
	}
	core, err := New(c)
	require.NoError(t, err, "%+v", c)
	s.cfg, s.core, s.device = c, core, &device{cfg: c, choose: choose, kept: make(map[ID][]int32)}
	return s
}

// ladder rises to last in random steps.
func (s *simulation) ladder(step, last int) []int {
	var ladder []int
	for n := 1 + s.choose(step); n < last; n += 1 + s.choose(step) {
		ladder = append(ladder, n)
	}
	return append(ladder, last)
}

func (s *simulation) require(ok bool, format string, args ...any) {
	if !ok {
		s.t.Helper()
		s.t.Fatalf("seed %d, plan %d, config %+v: "+format, append([]any{s.seed, s.plans, s.cfg}, args...)...)
	}
}

func (s *simulation) act() {
	switch s.choose(16) {
	case 0, 1, 2:
		s.submit()
	case 3:
		s.cancel()
	default:
		s.step()
	}
}

// drain lets everyone finish, in no more plans than their work can take.
func (s *simulation) drain() {
	s.calm = true
	for s.step() {
	}
	s.require(len(s.arrived) == 0, "idle, but %d requests are unfinished", len(s.arrived))
	s.require(s.core.Stats() == Stats{}, "idle with %+v", s.core.Stats())
	s.require(len(s.core.live)+len(s.core.running)+cap(s.core.slots) == 0, "memory is held")
}

func (s *simulation) submit() {
	r := Request{ID: s.lastID + 1, MaxTokens: 1 + s.choose(20)}
	if s.choose(4) == 0 {
		r.MaxTokens = 1 + s.choose(200)
	}
	n := 1 + s.choose(min(s.cfg.MaxContext, s.cfg.Chunk+1))
	if s.choose(3) == 0 {
		n = 1 + s.choose(s.cfg.MaxContext+1)
	}
	for range n {
		r.Prompt = append(r.Prompt, int32(s.choose(256)))
	}
	if s.choose(3) == 0 {
		r.Kept = s.choose(n)
	}
	for range s.choose(3) {
		r.StopIDs = append(r.StopIDs, int32(s.choose(vocabulary)))
	}
	if s.choose(8) == 0 && r.ID > 1 { // an ID that was used before
		r.ID = ID(1 + s.choose(int(r.ID)-1))
	}

	mine := r
	mine.Prompt, mine.StopIDs = slices.Clone(r.Prompt), slices.Clone(r.StopIDs)
	before := s.core.Stats()
	err := s.core.Submit(r)
	for i := range r.Prompt { // the caller may do what it likes with its slices
		r.Prompt[i] = -7
	}
	clear(r.StopIDs)

	var tooLong *TooLongError
	var full *QueueFullError
	switch {
	case n >= s.cfg.MaxContext:
		s.require(errors.As(err, &tooLong) && *tooLong == TooLongError{r.ID, n, s.cfg.MaxContext},
			"prompt of %d: %v", n, err)
		s.seen["refused: too long"]++
	case s.user(r.ID) != nil:
		s.require(err != nil, "duplicate %d accepted", r.ID)
		s.seen["refused: duplicate"]++
	case before.Queued == s.cfg.MaxQueue:
		s.require(errors.As(err, &full), "queue of %d: %v", before.Queued, err)
		s.seen["refused: queue full"]++
	default:
		s.require(err == nil, "%v", err)
		if r.ID <= s.lastID {
			s.seen["ID used again"]++
		}
		s.lastID = max(s.lastID, r.ID)
		s.arrived = append(s.arrived, &user{request: mine})
		s.device.kept[r.ID] = mine.Prompt[:r.Kept]
		s.work += (n+s.cfg.Chunk-1)/s.cfg.Chunk + mine.MaxTokens
		return
	}
	s.require(before == s.core.Stats(), "a refused request left a trace")
}

func (s *simulation) user(id ID) *user {
	for _, u := range s.arrived {
		if u.request.ID == id {
			return u
		}
	}
	return nil
}

func (s *simulation) cancel() {
	if len(s.arrived) == 0 || s.choose(10) == 0 {
		s.require(s.core.Cancel(s.lastID+1) == nil, "cancelled an unknown request")
		return
	}
	u := s.arrived[s.choose(len(s.arrived))]
	again := u.cancelled
	u.cancelled = true
	events := s.core.Cancel(u.request.ID)
	switch {
	case len(events) == 0:
		s.require(s.core.running != nil, "no event of cancelling %d, which is in no plan", u.request.ID)
		s.seen["cancelled in a plan"]++
	case u.filled == 0:
		s.seen["cancelled queued"]++
	case u.answer == nil:
		s.seen["cancelled prefilling"]++
	default:
		s.seen["cancelled decoding"]++
	}
	s.require(!again || len(events) == 0, "cancelled %d twice", u.request.ID)
	s.events(events)
	if len(events) > 0 {
		s.require(s.user(u.request.ID) == nil, "%d lives on after its cancellation", u.request.ID)
	}
}

// step is one plan, from Next to Done, with things happening in between. It reports whether there was one.
func (s *simulation) step() bool {
	p, ok := s.core.Next()
	if !ok {
		s.require(len(s.arrived) == 0, "idle, but %d requests are unfinished", len(s.arrived))
		s.require(s.device.staging == nil, "idle with a staging cache")
		s.device.main, s.device.owner, s.device.fresh, s.device.freshIDs = nil, nil, nil, nil
		s.any = false
		s.seen["idle"]++
		return false
	}
	s.plans++
	s.require(s.plans <= s.work, "%d plans for work that takes %d", s.plans, s.work)
	s.require(p.Number == uint64(s.plans), "plan is numbered %d", p.Number)
	s.fair(p)
	s.note(p)
	inPlan := s.check(p)

	tokens, err := s.device.execute(p)
	s.require(err == nil, "%s: %v\n%+v", p.Kind, err, p)
	if !s.calm {
		for range s.choose(3) {
			switch s.choose(6) {
			case 0:
				s.submit()
			case 1:
				s.cancel()
			}
		}
	}
	result := s.fail(p, Result{Tokens: tokens}, inPlan)
	events := s.core.Done(p, result)
	if u := inPlan[0]; p.Kind == Prefill && !p.Rows[0].Last && !u.cancelled && u.doomed == nil {
		s.require(len(events) == 0, "a chunk gave %+v", events)
	} else {
		s.require(len(events) == len(inPlan), "%d events for %d rows", len(events), len(inPlan))
	}
	for i, e := range events {
		s.require(e.ID == inPlan[i].request.ID, "event %d is %+v, want one of %d", i, e, inPlan[i].request.ID)
	}
	s.events(events)
	for _, u := range inPlan {
		s.require(u.doomed == nil && !u.cancelled || s.user(u.request.ID) != u, "%d should have ended", u.request.ID)
	}
	return true
}

// fair checks the promises on order between plans.
func (s *simulation) fair(p Plan) {
	active, filling, decoding := 0, false, false
	for _, u := range s.arrived {
		if u.filled > 0 {
			active++
		}
		filling = filling || u.filled > 0 && u.answer == nil
		decoding = decoding || u.answer != nil
	}
	waiting := len(s.arrived) > active
	if p.Kind == Prefill {
		s.require(!(decoding && s.any && s.after == Prefill), "two prefills in a row, while someone is decoding")
		if decoding {
			s.seen["prefill between decodes"]++
		}
	} else if !s.any || s.after == Decode {
		s.require(!filling && !(waiting && active < s.cfg.MaxBatch), "a second decode, while a prompt waits")
	}
	s.after, s.any = p.Kind, true
}

// check compares what the plan says of each request with what its user knows, and returns the users in the order of
// the plan's rows.
func (s *simulation) check(p Plan) []*user {
	var users []*user
	for _, r := range p.Rows {
		u := s.user(r.ID)
		s.require(u != nil, "%d is in the plan, but finished", r.ID)
		prompt := u.request.Prompt
		end := r.Start + len(r.Tokens)
		fresh := u.filled == 0
		if p.Restore {
			s.require(fresh && r.Start <= u.request.Kept, "%+v of a prompt prefilled to %d, of which %d were kept", r, u.filled, u.request.Kept)
			u.filled, u.restored = r.Start, r.Start
		}
		if fresh && u.request.Kept > 0 {
			s.seen[map[bool]string{true: "restored", false: "restored in part"}[u.restored == u.request.Kept]]++
			if u.restored == 0 {
				s.seen["nothing restored"]++
			}
			s.require(u.restored > u.request.Kept-s.cfg.Chunk, "%d of %d kept tokens are restored", u.restored, u.request.Kept)
		}
		s.require(u.filled == r.Start && slices.Equal(r.Tokens, prompt[r.Start:end]) && r.Last == (end == len(prompt)),
			"%+v of a prompt prefilled to %d of %d", r, u.filled, len(prompt))
		if fresh {
			u.firstPlan = s.plans
			for _, other := range s.arrived { // first come, first served
				if other == u {
					break
				}
				s.require(other.filled > 0, "%d overtakes %d", r.ID, other.request.ID)
			}
		}
		u.filled += len(r.Tokens)
		chunks := (u.filled - u.restored + s.cfg.Chunk - 1) / s.cfg.Chunk
		s.require(s.plans-u.firstPlan <= 2*(chunks-1), "%d waited for plan %d since %d", r.ID, s.plans, u.firstPlan)
		users = append(users, u)
	}
	decoding := 0
	for _, u := range s.arrived {
		if u.answer != nil {
			decoding++
		}
	}
	if p.Kind == Decode {
		s.require(len(p.Slots) == decoding, "%d rows, but %d requests are decoding", len(p.Slots), decoding)
	}
	for _, r := range p.Slots {
		u := s.user(r.ID)
		s.require(u != nil, "%d is in the plan, but finished", r.ID)
		n := len(u.answer)
		s.require(n > 0 && r.Step == uint64(n) && r.Token == u.answer[n-1] && r.Position == len(u.request.Prompt)+n-1,
			"%+v for a prompt of %d and %d tokens", r, len(u.request.Prompt), n)
		users = append(users, u)
	}
	active := 0
	for _, u := range s.arrived {
		if u.filled > 0 {
			active++
		}
	}
	s.require(active <= s.cfg.MaxBatch, "%d requests at once", active)
	return users
}

// fail turns some results into failures.
func (s *simulation) fail(p Plan, result Result, inPlan []*user) Result {
	if s.calm {
		return result
	}
	failure := errors.New("simulated failure")
	switch s.choose(40) {
	case 0:
		result = Result{Err: failure}
	case 1: // a broken driver is a failed plan, too
		result.Tokens = append(result.Tokens, 1)
		failure = nil
	case 2:
		if len(result.Tokens) == 0 {
			return result
		}
		result.Errs = make([]error, len(result.Tokens))
		i := s.choose(len(result.Tokens))
		result.Errs[i] = failure
		result.Tokens[i] = -99
		inPlan[i].doomed = failure
		s.seen["row failed"]++
		return result
	default:
		return result
	}
	s.device.lose(p)
	for _, u := range inPlan {
		u.doomed = failure
		if failure == nil {
			u.doomed = errAny
		}
	}
	s.seen[p.Kind.String()+" failed"]++
	return result
}

var errAny = errors.New("any error")

// events is the users' side: each token is the right one, and each end has its reason.
func (s *simulation) events(events []Event) {
	for _, e := range events {
		u := s.user(e.ID)
		s.require(u != nil, "%+v of a finished request", e)
		s.require(e.Index == len(u.answer), "%+v after %d tokens", e, len(u.answer))
		want := None
		switch {
		case u.cancelled:
			want = Cancelled
		case u.doomed != nil:
			want = Error
			s.require(errors.Is(u.doomed, errAny) && e.Err != nil || errors.Is(e.Err, u.doomed), "%+v, want %v", e, u.doomed)
		}
		if want != None {
			s.require(!e.HasToken && e.Finish == want, "%+v, want %s", e, want)
		} else {
			history := append(slices.Clone(u.request.Prompt), u.answer...)
			s.require(e.HasToken && e.Token == continuation(history), "%+v is not the token that follows", e)
			u.answer = append(u.answer, e.Token)
			if room := s.cfg.MaxContext - len(history); slices.Contains(u.request.StopIDs, e.Token) {
				want = Stop
			} else if room == 1 || len(u.answer) == u.request.MaxTokens {
				want = Length
				if len(u.answer) < u.request.MaxTokens {
					s.seen["context full"]++
				}
			}
			s.require(e.Finish == want && e.Err == nil, "%+v, want %s", e, want)
		}
		if want != None {
			s.held(u, e)
			s.seen["finish "+want.String()]++
			s.arrived = slices.DeleteFunc(s.arrived, func(other *user) bool { return other == u })
			s.device.drop(e.ID)
		}
	}
}

// held checks that the KV of a finished request is where its event says.
func (s *simulation) held(u *user, e Event) {
	if e.Held == Nowhere {
		s.require(len(u.answer) == 0 || e.Finish == Error || s.device.main == nil, "%+v: nothing is held of %d tokens", e, len(u.answer))
		return
	}
	s.seen[map[Place]string{InMain: "held in main", InStaged: "held in staged"}[e.Held]]++
	row := s.device.held(e)
	history := append(slices.Clone(u.request.Prompt), u.answer...)
	for i, token := range history[:len(history)-1] { // the last was never fed back
		s.require(i < len(row) && row[i] == cell{token, i}, "%+v: position %d is not held", e, i)
	}
}

// note counts what a plan is an example of.
func (s *simulation) note(p Plan) {
	if len(p.Rows) > 1 {
		s.seen["prefill of several rows"]++
	}
	if p.Kind == Prefill && !p.First {
		s.seen["prefill of a later chunk"]++
	}
	for _, j := range p.Joins {
		s.seen["join"]++
		if j.ID == s.device.stagingID {
			s.seen["join from staging"]++
		}
	}
	if l := p.Layout; l != nil && len(s.device.main) > 0 && slices.Max(l.From) >= 0 {
		rows, length := len(s.device.main), len(s.device.main[0])
		for name, change := range map[string]int{"rows": l.Batch - rows, "length": l.KVLen - length} {
			if change > 0 {
				s.seen["layout grows "+name]++
			}
			if change < 0 {
				s.seen["layout shrinks "+name]++
			}
		}
		for i, from := range l.From {
			if from >= 0 && from != i {
				s.seen["layout moves rows"]++
			}
		}
	}
}
