package schedule

import (
	"fmt"
	"slices"
)

// Config fixes the sizes that a Core may ask for. Every shape in a Plan is a value of one of the three ladders, so
// the number of programs that can ever be compiled is known beforehand.
type Config struct {
	MaxBatch    int // requests that prefill or decode at the same time
	MaxContext  int // tokens of one request, prompt and answer together
	MaxQueue    int // requests that wait for admission
	Chunk       int // padded prompt tokens of one prefill plan: what a decode step may have to wait for
	PrefillRows int // short prompts in one prefill plan: 1, or a value of Batches
	Horizon     int // positions reserved ahead of need when KVLen grows, so that it does not change every few tokens

	Batches []int // ladder of Batch, ascending; the last is at least MaxBatch
	Tokens  []int // ladder of prefill tokens per row, ascending; the last is Chunk
	Lengths []int // ladder of KVLen and of Staging, ascending; the last holds MaxContext and the longest padded prompt
}

// Bounds of what Validate accepts: positions must fit an int32 with room for padding, and nobody decodes more rows
// than this.
const (
	maxLength = 1 << 30
	maxRows   = 1 << 16
)

// DefaultConfig returns ladders of powers of two for a context of maxContext tokens and maxBatch rows.
// Unusable arguments give a Config that Validate refuses.
func DefaultConfig(maxContext, maxBatch int) Config {
	c := Config{
		MaxBatch:   maxBatch,
		MaxContext: maxContext,
		MaxQueue:   1024,
		Chunk:      min(512, maxContext),
		Horizon:    min(64, maxContext),
		Batches:    doubling(1, maxBatch),
	}
	c.Tokens = doubling(32, c.Chunk)
	c.PrefillRows = c.Batches[min(2, len(c.Batches)-1)] // 4, or fewer
	if maxContext >= 2 {
		c.Lengths = doubling(256, max(maxContext, c.padded(maxContext-1)))
	}
	return c
}

// doubling returns first, 2 first, 4 first, … and last as the final value.
func doubling(first, last int) []int {
	var ladder []int
	for n := first; n < last && n <= maxLength; n *= 2 {
		ladder = append(ladder, n)
	}
	return append(ladder, last)
}

// Validate reports the first field that cannot work, with the numbers.
func (c Config) Validate() error {
	for _, f := range []struct {
		name            string
		value, low, top int
	}{
		{"MaxBatch", c.MaxBatch, 1, maxRows},
		{"MaxContext", c.MaxContext, 2, maxLength},
		{"MaxQueue", c.MaxQueue, 1, maxLength},
		{"Chunk", c.Chunk, 1, maxLength},
		{"PrefillRows", c.PrefillRows, 1, c.MaxBatch},
		{"Horizon", c.Horizon, 0, c.MaxContext},
	} {
		if f.value < f.low || f.value > f.top {
			return fmt.Errorf("schedule: Config.%s is %d, want %d to %d", f.name, f.value, f.low, f.top)
		}
	}
	for _, l := range []struct {
		name   string
		ladder []int
		top    int
	}{{"Batches", c.Batches, maxRows}, {"Tokens", c.Tokens, maxLength}, {"Lengths", c.Lengths, 2 * maxLength}} {
		if err := checkLadder(l.name, l.ladder, l.top); err != nil {
			return err
		}
	}
	if last := c.Batches[len(c.Batches)-1]; last < c.MaxBatch {
		return fmt.Errorf("schedule: Config.Batches ends at %d, below MaxBatch %d", last, c.MaxBatch)
	}
	if c.PrefillRows != 1 && !slices.Contains(c.Batches, c.PrefillRows) {
		return fmt.Errorf("schedule: Config.PrefillRows is %d, want 1 or a value of Batches %v",
			c.PrefillRows, c.Batches)
	}
	if last := c.Tokens[len(c.Tokens)-1]; last != c.Chunk {
		return fmt.Errorf("schedule: Config.Tokens ends at %d, want Chunk %d", last, c.Chunk)
	}
	last, longest := c.Lengths[len(c.Lengths)-1], c.padded(c.MaxContext-1)
	if last < c.MaxContext {
		return fmt.Errorf("schedule: Config.Lengths ends at %d, below MaxContext %d", last, c.MaxContext)
	}
	if last < longest {
		return fmt.Errorf("schedule: Config.Lengths ends at %d, but a prompt of %d tokens takes %d when padded",
			last, c.MaxContext-1, longest)
	}
	return nil
}

func checkLadder(name string, ladder []int, top int) error {
	if len(ladder) == 0 {
		return fmt.Errorf("schedule: Config.%s is empty", name)
	}
	below := 0
	for i, n := range ladder {
		if n <= below || n > top {
			return fmt.Errorf("schedule: Config.%s[%d] is %d, want %d to %d (ascending)", name, i, n, below+1, top)
		}
		below = n
	}
	return nil
}

// padded is the number of positions that prefilling n tokens writes: whole chunks, then the last one on the ladder.
func (c Config) padded(n int) int { return c.paddedFrom(0, n) }

// paddedFrom is padded for a prompt whose first `kept` tokens are there already.
func (c Config) paddedFrom(kept, n int) int {
	start := kept + (n-kept-1)/c.Chunk*c.Chunk
	return start + atLeast(c.Tokens, n-start)
}

// prefillRows is the R of the program that prefills n prompts: a single one never pays for empty rows.
func (c Config) prefillRows(n int) int {
	if n == 1 {
		return 1
	}
	return atLeast(c.Batches, n)
}

// atLeast returns the smallest value of the ladder that is not below n. Validate guarantees that there is one.
func atLeast(ladder []int, n int) int {
	i, _ := slices.BinarySearch(ladder, n)
	return ladder[i]
}
