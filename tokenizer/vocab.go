package tokenizer

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
)

// vocabulary is the model's "vocab": tokens as the file spells them, and their ids.
type vocabulary struct {
	ids    map[string]int32
	tokens []string // by id
	known  []bool   // by id: published vocabularies may have holes
}

// readVocab reads {"token": id, …}. All tokens share one allocation.
func readVocab(r *reader) (*vocabulary, error) {
	type entry struct {
		start, end int
		id         int32
	}
	var entries []entry
	var text []byte
	top := int32(-1)
	err := r.object(func(key []byte) error {
		start := len(text)
		text = append(text, key...)
		id, err := r.id()
		if err != nil {
			return fmt.Errorf("model vocab %.100q: %w", text[start:], err)
		}
		entries = append(entries, entry{start, len(text), id})
		top = max(top, id)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("model vocab is empty")
	}
	// Tables are indexed by id, so ids far beyond the number of tokens would cost memory that the file did not pay for.
	if limit := 8*len(entries) + 1<<16; int(top) >= limit {
		return nil, fmt.Errorf("model vocab: id %d is too large for %d tokens, limit %d", top, len(entries), limit)
	}
	all := string(text)
	v := &vocabulary{
		ids:    make(map[string]int32, len(entries)),
		tokens: make([]string, top+1),
		known:  make([]bool, top+1),
	}
	for i, e := range entries {
		token := all[e.start:e.end]
		if v.known[e.id] {
			return nil, fmt.Errorf("model vocab: %.100q and %.100q both have id %d", v.tokens[e.id], token, e.id)
		}
		v.tokens[e.id], v.known[e.id] = token, true
		if v.ids[token] = e.id; len(v.ids) != i+1 {
			return nil, fmt.Errorf("model vocab: token %.100q occurs twice", token)
		}
	}
	return v, nil
}

// readMerges reads [["a", "b"], …] or ["a b", …]. The place in the list is the rank; of a pair that occurs twice the
// last one counts, as in Hugging Face.
func readMerges(r *reader, v *vocabulary) (*pairTable, error) {
	type pair struct{ a, b, merged int32 }
	var pairs []pair
	var buf []byte
	lookup := func(token []byte) (int32, error) {
		id, ok := v.ids[string(token)]
		if !ok {
			return 0, fmt.Errorf("model merges %d: token %.100q is not in the vocabulary", len(pairs), token)
		}
		return id, nil
	}
	add := func(joined []byte, split int) error {
		a, err := lookup(joined[:split])
		if err != nil {
			return err
		}
		b, err := lookup(joined[split:])
		if err != nil {
			return err
		}
		merged, err := lookup(joined)
		pairs = append(pairs, pair{a, b, merged})
		return err
	}
	form := byte(0)
	err := r.array(func() error {
		c := r.peek()
		if form == 0 {
			form = c
		}
		if c != form {
			return r.errorf("model merges mixes strings and pairs")
		}
		buf = buf[:0]
		if c == '"' {
			s, err := r.str()
			if err != nil || strings.HasPrefix(string(s), "#version") {
				return err
			}
			left, right, ok := strings.Cut(string(s), " ")
			if !ok || strings.Contains(right, " ") {
				return fmt.Errorf("model merges %d: %.100q is not two tokens with one space", len(pairs), s)
			}
			buf = append(append(buf, left...), right...)
			return add(buf, len(left))
		}
		split, n := 0, 0
		err := r.array(func() error {
			s, err := r.str()
			if n++; n == 1 {
				split = len(s)
			}
			buf = append(buf, s...)
			return err
		})
		if err != nil {
			return err
		}
		if n != 2 {
			return fmt.Errorf("model merges %d: %d tokens, want 2", len(pairs), n)
		}
		return add(buf, split)
	})
	if err != nil {
		return nil, err
	}
	table := newPairTable(len(pairs))
	for rank, p := range pairs {
		table.set(p.a, p.b, uint32(rank), p.merged)
	}
	table.firstUse = slices.Repeat([]uint32{math.MaxUint32}, len(v.tokens))
	for _, s := range table.slots {
		if s.pair != noPair {
			for _, id := range []uint32{uint32(s.pair >> 32), uint32(s.pair)} {
				table.firstUse[id] = min(table.firstUse[id], uint32(s.merge>>32))
			}
		}
	}
	return table, nil
}

// pairTable maps an adjacent pair of ids to its merge, by open addressing: it is read once per symbol and merge.
type pairTable struct {
	slots    []pairSlot
	multiply uint64 // random and odd: a file cannot be built to collide
	shift    int

	firstUse []uint32 // by id: the lowest rank of a pair that the id is part of
}

type pairSlot struct {
	pair  uint64 // a<<32 | b, noPair when free
	merge uint64 // rank<<32 | merged id, so that a smaller merge goes first
}

const (
	noPair  = ^uint64(0)
	noMerge = ^uint64(0)
)

func newPairTable(n int) *pairTable {
	log := max(4, bits.Len(uint(n+n/2))) // load below 2/3
	t := &pairTable{slots: make([]pairSlot, 1<<log), multiply: rand.Uint64() | 1, shift: 64 - log}
	for i := range t.slots {
		t.slots[i] = pairSlot{noPair, noMerge}
	}
	return t
}

func (t *pairTable) set(a, b int32, rank uint32, merged int32) {
	key := uint64(a)<<32 | uint64(b)
	for i := key * t.multiply >> t.shift; ; i = (i + 1) & uint64(len(t.slots)-1) {
		if s := &t.slots[i]; s.pair == noPair || s.pair == key {
			*s = pairSlot{key, uint64(rank)<<32 | uint64(merged)}
			return
		}
	}
}

// get returns rank<<32 | merged id, or noMerge.
func (t *pairTable) get(a, b int32) uint64 {
	key := uint64(a)<<32 | uint64(b)
	for i := key * t.multiply >> (t.shift & 63); ; i++ {
		s := &t.slots[i&uint64(len(t.slots)-1)]
		if s.pair == key {
			return s.merge
		}
		if s.pair == noPair {
			return noMerge
		}
	}
}
