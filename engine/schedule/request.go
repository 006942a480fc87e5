package schedule

import "fmt"

// ID names a request from Submit to its Finish event; the caller chooses it. It may be used again afterwards.
type ID uint64

// Request is one prompt to continue.
type Request struct {
	ID     ID
	Prompt []int32 // at least one token, fewer than Config.MaxContext

	// MaxTokens is the most tokens to generate, at least 1. More than the context has room for is not an error:
	// the request then finishes by Length where prompt and answer together reach Config.MaxContext.
	MaxTokens int

	// StopIDs end the request with Stop as soon as one is sampled. The event carries the stop token.
	StopIDs []int32

	// Kept is how many tokens at the prompt's beginning need no prefill, as the device has kept their KV; fewer than there are. The request's
	// first plan restores them. It may be that fewer are used, where the rest would be padded beyond the cache.
	Kept int
}

// TooLongError reports a prompt that leaves no room for a single token.
type TooLongError struct {
	ID      ID
	Prompt  int // tokens
	Context int // Config.MaxContext
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("request %d: prompt has %d tokens; a context of %d has room for %d and one answer token",
		e.ID, e.Prompt, e.Context, e.Context-1)
}

// QueueFullError reports that as many requests wait as the configuration allows. Try again later.
type QueueFullError struct {
	ID       ID
	MaxQueue int // Config.MaxQueue
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("request %d: queue is full: %d requests are waiting", e.ID, e.MaxQueue)
}

// Finish says how a request ended.
type Finish uint8

const (
	None      Finish = iota // it goes on
	Stop                    // it sampled one of its StopIDs
	Length                  // it has MaxTokens tokens, or the context is full
	Cancelled               // by Cancel
	Error                   // Event.Err says which
)

func (f Finish) String() string {
	return [...]string{None: "none", Stop: "stop", Length: "length", Cancelled: "cancelled", Error: "error"}[f]
}

// Event is news of one request: a token, its end, or both at once.
type Event struct {
	ID       ID
	HasToken bool
	Token    int32 // if HasToken
	Index    int   // of Token in the answer, from 0; without a token, how many were generated
	Finish   Finish
	Err      error // if Finish is Error

	// Where the KV of a request that has finished is, until the next plan: row Row of the main cache or of the last prefill.
	Held Place
	Row  int
}

// Place is a cache.
type Place uint8

const (
	Nowhere Place = iota // a part of the prompt at most has been run, or the plan failed
	InMain
	InStaged
)

// phase is where a live request is held.
type phase uint8

const (
	queued   phase = iota
	filling        // its prompt is being prefilled
	staged         // prefilled; joins the main cache with the next plan
	decoding       // owns a slot
)

type request struct {
	id     ID
	prompt []int32 // nil once prefilled
	length int     // of the prompt
	limit  int     // tokens to generate, clamped to the context
	stop   []int32

	phase     phase
	cancelled bool // while its plan runs
	kept      int  // prompt tokens whose KV is restored
	filled    int  // prompt tokens prefilled or restored
	row, held int  // staged: row of the prefill plan, and positions that its KV takes there
	slot      int  // decoding: row of the main cache
	generated int  // tokens
	last      int32
}

// position is where the KV of the last token goes: the answer's token i is at length+i.
func (r *request) position() int { return r.length + r.generated - 1 }

// now is how many positions the main cache must have for the request's next step.
func (r *request) now() int {
	if r.phase == staged {
		return max(r.position()+1, r.held) // a Join copies all that was held, padding included
	}
	return r.position() + 1
}

// ahead is now and the horizon, but never more than the request can still come to write: its last token is never
// written.
func (r *request) ahead(horizon int) int {
	return max(r.now(), min(r.position()+1+horizon, r.length+r.limit-1))
}
