package tokenizer

import "slices"

// Merging: of all adjacent pairs that have a merge, the one of lowest rank is merged first, the leftmost of equal
// ones, until none is left. Hugging Face's priority queue does the same.

// Below this many symbols a scan for the smallest merge beats the heap (measured: they cross near 50).
const smallWord = 48

// merge merges ids in place and returns the shortened slice.
func (t *pairTable) merge(ids []int32, s *scratch) []int32 {
	if len(ids) > smallWord {
		ids = t.mergeRounds(ids)
	}
	if len(ids) <= smallWord {
		return t.mergeSmall(ids)
	}
	return t.mergeLarge(ids, s)
}

// mergeRounds does the first merges of a large word, each everywhere in one pass, for as long as a pass removes at
// least an eighth of the symbols. Of a hundred million equal letters it leaves few, and needs no memory of its own; of
// ordinary text it does one merge. A pass is right only if every pair that the merged token can be part of has a higher
// rank, so that all places of this merge come before anything new.
func (t *pairTable) mergeRounds(ids []int32) []int32 {
	for len(ids) > smallWord {
		best := noMerge
		var a, b int32
		for i := range len(ids) - 1 {
			if i > 0 && ids[i] == ids[i-1] && ids[i+1] == ids[i] {
				continue // the pair was looked up just before
			}
			if m := t.get(ids[i], ids[i+1]); m < best {
				best, a, b = m, ids[i], ids[i+1]
			}
		}
		if best == noMerge || t.firstUse[uint32(best)] <= uint32(best>>32) {
			break
		}
		out := 0
		for i := 0; i < len(ids); i++ {
			if ids[i] == a && i+1 < len(ids) && ids[i+1] == b {
				ids[out] = int32(uint32(best))
				i++
			} else {
				ids[out] = ids[i]
			}
			out++
		}
		few := len(ids)-out < len(ids)/8
		ids = ids[:out]
		if few {
			break
		}
	}
	return ids
}

// mergeSmall is quadratic in a number that is small.
func (t *pairTable) mergeSmall(ids []int32) []int32 {
	if len(ids) < 2 {
		return ids
	}
	var space [smallWord]uint64
	merges := space[:len(ids)-1] // merges[i] joins ids[i] and ids[i+1]
	for i := range merges {
		merges[i] = t.get(ids[i], ids[i+1])
	}
	for {
		best, at := noMerge, 0
		for i, m := range merges {
			if m < best {
				best, at = m, i
			}
		}
		if best == noMerge {
			return ids
		}
		ids[at] = int32(uint32(best))
		ids = slices.Delete(ids, at+1, at+2)
		merges = slices.Delete(merges, at, at+1)
		if at > 0 {
			merges[at-1] = t.get(ids[at-1], ids[at])
		}
		if at < len(merges) {
			merges[at] = t.get(ids[at], ids[at+1])
		}
	}
}

// scratch holds the memory of large words between calls.
type scratch struct {
	ids        []int32
	next, prev []int32
	queue      []uint64
	pieces     [2][]piece
	text       []byte
}

// maxKept is the number of symbols above which scratch memory is given back.
const maxKept = 1 << 16

func (s *scratch) trim() {
	if cap(s.ids) > maxKept || cap(s.queue) > maxKept || cap(s.text) > maxKept || cap(s.pieces[0]) > maxKept || cap(s.pieces[1]) > maxKept {
		*s = scratch{}
		return
	}
	// Pieces point into the text of the caller.
	for i := range s.pieces {
		clear(s.pieces[i][:cap(s.pieces[i])])
	}
}

// mergeLarge is O(n log n): a linked list of symbols and a heap of rank<<32 | position.
func (t *pairTable) mergeLarge(ids []int32, s *scratch) []int32 {
	n := len(ids)
	s.next, s.prev = slices.Grow(s.next[:0], n)[:n], slices.Grow(s.prev[:0], n)[:n]
	// next is n after the last symbol, and removed for a symbol that was merged into its left neighbour.
	next, prev := s.next, s.prev
	const removed = -1
	q := heap(slices.Grow(s.queue[:0], n))
	for i := range ids {
		next[i], prev[i] = int32(i+1), int32(i-1)
		if i+1 < n {
			if m := t.get(ids[i], ids[i+1]); m != noMerge {
				q = append(q, m>>32<<32|uint64(i))
			}
		}
	}
	q.init()
	for len(q) > 0 {
		top := q.pop()
		at := int32(uint32(top))
		right := next[at]
		if right == removed || int(right) == n {
			continue
		}
		// An entry is stale when its pair is gone. The pair there now has the same rank only if it is the same pair.
		m := t.get(ids[at], ids[right])
		if m == noMerge || m>>32 != top>>32 {
			continue
		}
		ids[at] = int32(uint32(m))
		after := next[right]
		next[at], next[right] = after, removed
		if int(after) < n {
			prev[after] = at
			if m := t.get(ids[at], ids[after]); m != noMerge {
				q.push(m>>32<<32 | uint64(at))
			}
		}
		if before := prev[at]; before >= 0 {
			if m := t.get(ids[before], ids[at]); m != noMerge {
				q.push(m>>32<<32 | uint64(before))
			}
		}
	}
	s.queue = q
	out := 0
	for i := int32(0); int(i) < n; i = next[i] {
		ids[out] = ids[i]
		out++
	}
	return ids[:out]
}

// heap is a 4-ary min-heap; container/heap costs an interface call per comparison.
type heap []uint64

func (h heap) init() {
	for i := (len(h) - 2) / 4; i >= 0 && len(h) > 1; i-- {
		h.down(i)
	}
}

func (h heap) down(i int) {
	x := h[i]
	for {
		first := 4*i + 1
		if first >= len(h) {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, len(h)); c++ {
			if h[c] < h[least] {
				least = c
			}
		}
		if h[least] >= x {
			break
		}
		h[i], i = h[least], least
	}
	h[i] = x
}

func (h *heap) push(x uint64) {
	*h = append(*h, x)
	q, i := *h, len(*h)-1
	for i > 0 && q[(i-1)/4] > x {
		q[i], i = q[(i-1)/4], (i-1)/4
	}
	q[i] = x
}

func (h *heap) pop() uint64 {
	q := *h
	top, last := q[0], q[len(q)-1]
	*h = q[:len(q)-1]
	if len(*h) > 0 {
		(*h)[0] = last
		h.down(0)
	}
	return top
}
