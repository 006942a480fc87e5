package tokenizer

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
)

// wordCache remembers the ids of short words. It has a fixed number of slots and no lock: a word overwrites whatever
// was in its slot. Memory stays below about 16 MiB per tokenizer however varied the text.
type wordCache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cachedWord]
}

type cachedWord struct {
	word string
	ids  []int32
}

const (
	cacheSlots   = 1 << 15
	maxCacheWord = 64 // bytes
)

func newWordCache() *wordCache {
	return &wordCache{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[cachedWord], cacheSlots)}
}

func (c *wordCache) get(word string) (slot uint64, ids []int32, ok bool) {
	slot = maphash.String(c.seed, word) % cacheSlots
	if w := c.slots[slot].Load(); w != nil && w.word == word {
		return slot, w.ids, true
	}
	return slot, nil, false
}

func (c *wordCache) put(slot uint64, word string, ids []int32) {
	// Clones: word points into the caller's text, ids into the result.
	c.slots[slot].Store(&cachedWord{strings.Clone(word), slices.Clone(ids)})
}
