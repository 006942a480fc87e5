package schedule

// shrinkAfter is how many decode plans in a row must find a dimension of the main cache twice too large before it is
// made smaller: a copy of the cache costs about as much as a step, and whoever just left is often replaced at once.
const shrinkAfter = 32

// patience counts decode plans in a row that found a dimension too large.
type patience int

// ends counts one plan and reports whether it is the one to shrink.
func (p *patience) ends(roomy bool) bool {
	if !roomy {
		*p = 0
		return false
	}
	*p = (*p + 1) % shrinkAfter
	return *p == 0
}

// layout gives the main cache room for rows, who are in it, and for c.staged. Each dimension grows at once, shrinks
// after shrinkAfter plans, and is as small as can be when no row has to survive. It returns nil if nothing changes.
func (c *Core) layout(rows []*request) *Layout {
	n := len(rows) + len(c.staged)
	now, ahead := 0, 0
	for _, group := range [][]*request{rows, c.staged} {
		for _, r := range group {
			now, ahead = max(now, r.now()), max(ahead, r.ahead(c.cfg.Horizon))
		}
	}
	batch, kvLen := len(c.slots), c.kvLen
	fitBatch, fitLen := atLeast(c.cfg.Batches, n), atLeast(c.cfg.Lengths, ahead)

	fewer := c.spareRows.ends(2*n <= batch && fitBatch < batch)
	shorter := c.spareLength.ends(2*ahead <= kvLen && fitLen < kvLen)
	if len(rows) == 0 || n > batch || fewer {
		batch = fitBatch
	}
	if len(rows) == 0 || now > kvLen || shorter {
		kvLen = fitLen
	}
	if batch == len(c.slots) && kvLen == c.kvLen {
		return nil
	}

	l := &Layout{Batch: batch, KVLen: kvLen, From: make([]int, batch)}
	for i := range l.From {
		l.From[i] = -1
	}
	slots := make([]*request, batch)
	for i, r := range rows {
		to := r.slot
		if batch != len(c.slots) {
			to = i
		}
		l.From[to], slots[to] = r.slot, r
		r.slot = to
	}
	c.slots, c.kvLen = slots, kvLen
	return l
}
