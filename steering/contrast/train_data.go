package contrast

import (
	"encoding/binary"
	"fmt"
	"hash"
	"math/rand/v2"

	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/steering"
)

// text is one row of a batch: a prompt, and what the model is judged on behind it.
type text struct {
	prompt, response []int32
}

func (t text) tokens() []int32 { return append(append([]int32{}, t.prompt...), t.response...) }

// where says which positions of a text are picked.
type where int

const (
	predicting where = iota // what predicts the response: the prompt's last token up to the one before the response's last
	after                   // and the last: the distribution after the prompt and after each further token
)

func (w where) of(t text) (from, to int) {
	p, n := len(t.prompt), len(t.prompt)+len(t.response)
	switch {
	case p == 0:
		return 0, 0
	case w == predicting:
		return p - 1, n - 1
	default:
		return p - 1, n
	}
}

// batch is what a program runs on, padded to a shape.
type batch struct {
	shape
	ids    []int32   // [rows, tokens]
	count  []int32   // [rows]: tokens that are not padding
	steer  []float32 // [rows, tokens]: 1 or -1 where the vector is added or subtracted, 0 elsewhere
	pick   []int32   // [picked, 2]: row and position
	target []int32   // [picked]: the token that follows there
	share  []float32 // [rows, picked]: 1 where the position is the row's; padding is nobody's
}

// newBatch pads texts to the next rungs. Texts without a prompt, and rows without a text, are empty. signs, one for
// each row or nil, multiply the vectors.
func newBatch(rows int, texts []text, at where, positions steering.Positions, signs []float32) *batch {
	longest, picked := 0, 0
	for _, t := range texts {
		from, to := at.of(t)
		longest, picked = max(longest, to), picked+to-from
	}
	b := &batch{shape: shape{rows, rung(longest), rung(picked)}}
	b.ids, b.count = make([]int32, rows*b.tokens), make([]int32, rows)
	b.steer = make([]float32, rows*b.tokens)
	b.pick, b.target = make([]int32, 0, 2*b.picked), make([]int32, b.picked)
	b.share = make([]float32, rows*b.picked)
	for r, t := range texts {
		from, to := at.of(t)
		all := t.tokens()
		b.count[r] = int32(to)
		copy(b.ids[r*b.tokens:], all[:to])
		sign := float32(1)
		if signs != nil {
			sign = signs[r]
		}
		for i, id := range all[:to] {
			if positions.Mask(i, len(t.prompt), id) {
				b.steer[r*b.tokens+i] = sign
			}
		}
		for i := from; i < to; i++ {
			n := len(b.pick) / 2
			b.pick = append(b.pick, int32(r), int32(i))
			b.share[r*b.picked+n] = 1
			if i+1 < len(all) {
				b.target[n] = all[i+1]
			}
		}
	}
	b.pick = append(b.pick, make([]int32, 2*b.picked-len(b.pick))...)
	return b
}

// inputs are the program's, in the order of shape.inputs.
func (b *batch) inputs(rope *ropeTables) []any {
	cos, sin := rope.of(b.tokens)
	return []any{b.ids, b.count, b.steer, cos, sin, b.pick, b.target, b.share}
}

// rung is the padded length of n: powers of two and their halfway points, so that few programs are compiled and at most
// a third of a batch is padding.
func rung(n int) int {
	for r := 16; ; r *= 2 {
		if n <= r {
			return r
		}
		if n <= r+r/2 {
			return r + r/2
		}
	}
}

// ropeTables keeps the rotary tables of each length.
type ropeTables struct {
	cfg    *model.Config
	tables map[int][2][]float32
}

func (r *ropeTables) of(tokens int) (cos, sin []float32) {
	t, ok := r.tables[tokens]
	if !ok {
		t[0], t[1] = r.cfg.RopeTables(tokens)
		r.tables[tokens] = t
	}
	return t[0], t[1]
}

// streams of random numbers, each a function of the seed and a counter alone, so that nothing about them has to be kept
// to go on where a run was stopped.
const (
	streamSplit   uint64 = iota + 1 // which pairs are held out
	streamOrder                     // of pairs in an epoch
	streamSigns                     // of the pairs of a step
	streamNeutral                   // order of neutral texts in a round through them
)

func random(seed, stream, counter uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, stream<<48^counter))
}

// digest writes texts to a hash, without ambiguity.
func digest(h hash.Hash, parts ...[]int32) {
	for _, p := range parts {
		_ = binary.Write(h, binary.LittleEndian, int64(len(p)))
		_ = binary.Write(h, binary.LittleEndian, p)
	}
}

// check says what of a text the model cannot run.
func (t text) check(cfg *model.Config, context int) error {
	if len(t.prompt) == 0 {
		return fmt.Errorf("the prompt is empty; a response needs at least one token before it")
	}
	if n := len(t.prompt) + len(t.response); n > context {
		return fmt.Errorf("prompt and response have %d + %d = %d tokens, the context has %d",
			len(t.prompt), len(t.response), n, context)
	}
	for i, id := range t.tokens() {
		if id < 0 || int(id) >= cfg.VocabSize {
			return fmt.Errorf("id %d at %d lies outside the vocabulary of %d", id, i, cfg.VocabSize)
		}
	}
	return nil
}
