package schedule

// Kind is what a Plan does.
type Kind uint8

const (
	Prefill Kind = iota // run prompt tokens; sample a first token for each row that is Last
	Decode              // change the layout, join, then one token for every row of the main cache
)

func (k Kind) String() string { return [...]string{Prefill: "prefill", Decode: "decode"}[k] }

// Plan is one piece of work for the device. It is executed as it stands: nothing needs to be remembered but the main
// cache, the KV of the last prefill, the staging cache of the one long prompt, and what is kept for requests to come.
type Plan struct {
	Number uint64 // 1, 2, 3, …
	Kind   Kind

	// Prefill: program first(R, T) if First, else next(1, T, Staging).
	Rows    []ChunkRow // at most R; the program's remaining rows are padding
	R, T    int        // rows (of Batches) and tokens per row (of Tokens) of the program
	First   bool       // rows start at position 0
	Restore bool       // the row's KV before Start is what the device has kept; it becomes the staging cache
	Staging int        // positions (of Lengths, >= Start+T, the same for all chunks) of the staging cache; 0: none

	// Decode, in this order: Layout, Joins, then program decode(Batch, KVLen).
	Layout       *Layout // nil: the main cache keeps its shape and rows
	Joins        []Join
	Batch, KVLen int       // of the main cache, after Layout
	Slots        []SlotRow // ascending by Slot, never empty; what is computed for other rows is dropped
}

// ChunkRow is a part of one prompt.
type ChunkRow struct {
	ID     ID
	Start  int     // position of Tokens[0]
	Tokens []int32 // 1 to T tokens; read only
	Last   bool    // the prompt ends here: sample the request's token number 0
}

// Layout is a new shape of the main cache. Where Batch stays the same, rows keep their places; otherwise survivors
// move up to the front, in their old order.
type Layout struct {
	Batch, KVLen int
	// From[i], for each of the Batch rows, is the old row that becomes row i, with as many positions as both shapes
	// have; -1 is an empty row.
	From []int
}

// Join copies the KV of a finished prefill into the main cache, from position 0. The KV is row Row of the plan
// executed just before: all its T positions (or Staging positions, then Row is 0), which KVLen has room for.
type Join struct {
	ID   ID
	Row  int
	Slot int
}

// SlotRow is one request's part in a decode step.
type SlotRow struct {
	ID       ID
	Slot     int
	Token    int32  // the last token of the request: the program's input
	Position int    // where Token's KV is written; the row attends to positions 0 to Position
	Step     uint64 // number of the token to be sampled, from 0 (it is 1 at least: the prefill samples number 0)
}

// Result is what came of a Plan.
type Result struct {
	Tokens []int32 // one for each Rows that is Last, or for each of Slots, in their order
	Errs   []error // nil, or one for each of Tokens: not nil ends that request only
	Err    error   // the plan failed: every request in it ends, and Tokens is ignored
}
