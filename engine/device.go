package engine

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/steerage/steerage/engine/schedule"
	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
)

// kvCache is a key/value cache on the device: K and V of each layer, interleaved, all of [rows, slots].
type kvCache struct {
	buffers     []compute.Buffer
	rows, slots int
}

func (c *kvCache) free() {
	finalize(c.buffers)
	*c = kvCache{}
}

// device carries plans out. It belongs to the loop's goroutine.
type device struct {
	backend compute.Backend
	cfg     *model.Config
	ps      *programs
	weights []compute.Buffer

	main   kvCache // rows that decode
	staged kvCache // what the last prefill left, until its rows have joined
	whole  bool    // staged holds whole prompts: the next decode plan joins them, or never
	rope   map[int][2]compute.Buffer

	steerMain, steerPrompt helmsman // the steering of the rows that decode, and of those that prefill

	kept map[*Session]kvCache // one row each
}

// sampler says how one row's token is drawn.
type sampler struct {
	params  layers.Params
	seed    uint64
	logprob bool
}

// drawn is one sampled token; logprob only if it was asked for.
type drawn struct {
	id      int32
	logprob float32
	err     error
}

// run executes a program. `state` is donated: whatever happens, it is gone afterwards, and the first len(state) results are
// its successors. inputs are read; those made by upload are freed.
func (d *device) run(p *program, state []compute.Buffer, inputs ...compute.Buffer) (out []compute.Buffer, err error) {
	var all []compute.Buffer
	if p.weights {
		all = append(all, d.weights...)
	}
	fixed := len(all)
	all = append(append(all, state...), inputs...)
	donate := make([]bool, len(all))
	for i := range state {
		donate[fixed+i] = true
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("engine: program %s: %v", p.name, r)
		}
	}()
	out, err = p.exec.Execute(all, donate, 0)
	if err != nil {
		return nil, fmt.Errorf("engine: program %s: %w", p.name, err)
	}
	return out, nil
}

func (d *device) upload(flat any, dims ...int) (compute.Buffer, error) {
	dtype := dtypes.Int32
	switch flat.(type) {
	case []float32:
		dtype = dtypes.Float32
	case []float64:
		dtype = dtypes.Float64
	case []bool:
		dtype = dtypes.Bool
	}
	return d.backend.BufferFromFlatData(0, flat, shapes.Make(dtype, dims...))
}

// uploads collects small inputs of one call, so that the first error wins and all are freed together.
type uploads struct {
	d   *device
	all []compute.Buffer
	err error
}

func (u *uploads) add(flat any, dims ...int) {
	if u.err != nil {
		return
	}
	b, err := u.d.upload(flat, dims...)
	u.all, u.err = append(u.all, b), err
}

func (u *uploads) free() { finalize(u.all) }

// ropeTables returns cos and sin for positions below n, on the device.
func (d *device) ropeTables(n int) ([2]compute.Buffer, error) {
	if t, ok := d.rope[n]; ok {
		return t, nil
	}
	cos, sin := d.cfg.RopeTables(n)
	var t [2]compute.Buffer
	var err error
	for i, flat := range [][]float32{cos, sin} {
		if t[i], err = d.upload(flat, n, d.cfg.HeadDim/2); err != nil {
			return t, err
		}
	}
	d.rope[n] = t
	return t, nil
}

// prefill carries out a prefill plan and returns the logits of its rows, [R, vocab] on the device (nil if no row is at its end).
// The keys and values stay in d.staged.
func (d *device) prefill(p schedule.Plan, c crew) (compute.Buffer, error) {
	d.whole = p.Rows[0].Last
	rows := make([]row, len(p.Rows))
	for i, r := range p.Rows {
		rows[i] = row{c.courses[i], r.Start, r.Tokens}
	}
	if p.Restore {
		if err := d.restore(c.session, p.Rows[0].Start, p.Staging); err != nil {
			return nil, err
		}
	}
	if p.First {
		d.staged.free()
		cache, out, err := d.first(rows, p.R, p.T, form{head: headLast}, nil)
		if err != nil {
			return nil, err
		}
		d.staged = cache
		if p.Staging > p.T {
			if err := d.relayout(&d.staged, []int32{0}, nil, p.Staging); err != nil {
				finalize(out)
				return nil, err
			}
		}
		return out[0], nil
	}
	out, err := d.next(&d.staged, rows[0], p.T, form{head: headLast}, nil)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// first runs program first on at most R rows of at most T tokens. head is the head's own input: targets [r, t] or weights
// [pools, r, t], or nil.
func (d *device) first(rows []row, r, t int, f form, head any) (kvCache, []compute.Buffer, error) {
	w, err := d.steerPrompt.set(d, r, t, rows)
	if err != nil {
		return kvCache{}, nil, err
	}
	f.steer = w.steer
	prog, err := d.ps.first(r, t, f)
	if err != nil {
		return kvCache{}, nil, err
	}
	rope, err := d.ropeTables(t)
	if err != nil {
		return kvCache{}, nil, err
	}
	tokens, count := make([]int32, r*t), make([]int32, r)
	for i, row := range rows {
		copy(tokens[i*t:(i+1)*t], row.tokens)
		count[i] = int32(len(row.tokens))
	}
	u := uploads{d: d}
	defer u.free()
	u.add(tokens, r, t)
	u.add(count, r)
	out, err := d.runPrefill(prog, nil, &u, rope, w, f, r, t, head)
	if err != nil {
		return kvCache{}, nil, err
	}
	kv := 2 * d.cfg.NumHiddenLayers
	return kvCache{out[:kv:kv], r, t}, out[kv:], nil
}

// next runs program next on cache, in place.
func (d *device) next(cache *kvCache, r row, t int, f form, head any) ([]compute.Buffer, error) {
	w, err := d.steerPrompt.set(d, 1, t, []row{r})
	if err != nil {
		return nil, err
	}
	f.steer = w.steer
	prog, err := d.ps.next(t, cache.slots, f)
	if err != nil {
		return nil, err
	}
	rope, err := d.ropeTables(cache.slots)
	if err != nil {
		return nil, err
	}
	u := uploads{d: d}
	defer u.free()
	u.add(pad(r.tokens, t), 1, t)
	u.add([]int32{int32(r.start)}, 1)
	u.add([]int32{int32(len(r.tokens))}, 1)
	return d.runPrefill(prog, cache, &u, rope, w, f, 1, t, head)
}

// runPrefill completes the inputs of a prefill program, runs it, in place if it has a cache, and takes in what steering did. The results
// are the program's, without those of the cache it was given and without the readout.
func (d *device) runPrefill(prog *program, cache *kvCache, u *uploads, rope [2]compute.Buffer, w *watch, f form, r, t int,
	head any) ([]compute.Buffer, error) {
	n := len(u.all)
	if w.mask != nil {
		u.add(w.mask, w.steer.slots, r, t)
	}
	steers := len(u.all)
	switch f.head {
	case headScore:
		u.add(head, r, t)
	case headPools:
		u.add(head, f.pools, r, t)
	}
	if u.err != nil {
		return nil, u.err
	}
	inputs := slices.Concat(u.all[:n], rope[:], w.inputs, u.all[n:steers], u.all[steers:])
	var out []compute.Buffer
	var err error
	if cache == nil {
		out, err = d.run(prog, nil, inputs...)
	} else {
		out, err = d.runOn(prog, cache, inputs...)
	}
	if err != nil || w.mask == nil {
		return out, err
	}
	last := len(out) - 1
	if err := w.collect(out[last]); err != nil {
		finalize(out[:last])
		return nil, err
	}
	return out[:last], nil
}

// runOn runs a program whose state is a cache, which it replaces; on failure the cache is empty. It returns the other results.
func (d *device) runOn(prog *program, cache *kvCache, inputs ...compute.Buffer) ([]compute.Buffer, error) {
	state := cache.buffers
	rows, slots := cache.rows, cache.slots
	*cache = kvCache{}
	out, err := d.run(prog, state, inputs...)
	if err != nil {
		return nil, err
	}
	*cache = kvCache{out[:len(state):len(state)], rows, slots}
	return out[len(state):], nil
}

func pad(ids []int32, n int) []int32 {
	return append(append(make([]int32, 0, n), ids...), make([]int32, n-len(ids))...)
}

// decode carries out a decode plan: layout, joins, one step. It returns the logits of all rows, [Batch, vocab], on the device.
func (d *device) decode(p schedule.Plan, c crew) (compute.Buffer, error) {
	if d.whole {
		defer d.staged.free()
	}
	joins := p.Joins
	if p.Layout != nil {
		var err error
		if joins, err = d.layout(*p.Layout, joins); err != nil {
			d.main.free()
			return nil, err
		}
	}
	for _, j := range joins {
		if err := d.join(j); err != nil {
			d.main.free()
			return nil, err
		}
	}
	if d.main.rows != p.Batch || d.main.slots != p.KVLen {
		return nil, fmt.Errorf("engine: cache is [%d, %d], the plan wants [%d, %d]", d.main.rows, d.main.slots, p.Batch, p.KVLen)
	}
	rows := make([]row, p.Batch)
	tokens, positions := make([]int32, p.Batch), make([]int32, p.Batch)
	for i, s := range p.Slots {
		tokens[s.Slot], positions[s.Slot] = s.Token, int32(s.Position)
		rows[s.Slot] = row{c.courses[i], s.Position, []int32{s.Token}}
	}
	w, err := d.steerMain.set(d, p.Batch, 1, rows)
	if err != nil {
		return nil, err
	}
	prog, err := d.ps.decode(p.Batch, p.KVLen, w.steer)
	if err != nil {
		return nil, err
	}
	rope, err := d.ropeTables(p.KVLen)
	if err != nil {
		return nil, err
	}
	u := uploads{d: d}
	defer u.free()
	u.add(tokens, p.Batch)
	u.add(positions, p.Batch)
	if w.mask != nil {
		u.add(w.mask, w.steer.slots, p.Batch, 1)
	}
	if u.err != nil {
		return nil, u.err
	}
	out, err := d.runOn(prog, &d.main, slices.Concat(u.all[:2], rope[:], w.inputs, u.all[2:])...)
	if err != nil {
		return nil, err
	}
	if w.mask != nil {
		if err := w.collect(out[1]); err != nil {
			_ = out[0].Finalize()
			return nil, err
		}
	}
	return out[0], nil
}

// layout gives the main cache a new shape and returns the joins still to be done: when no row survives, the staged
// rows become the main cache directly.
func (d *device) layout(l schedule.Layout, joins []schedule.Join) ([]schedule.Join, error) {
	from := make([]int32, l.Batch)
	survivors := false
	for i, f := range l.From {
		from[i] = int32(f)
		survivors = survivors || f >= 0
	}
	if survivors {
		return joins, d.relayout(&d.main, from, nil, l.KVLen)
	}
	for _, j := range joins {
		from[j.Slot] = int32(j.Row)
	}
	d.main.free()
	d.main, d.staged = d.staged, kvCache{}
	return nil, d.relayout(&d.main, from, nil, l.KVLen)
}

// relayout replaces a cache by one whose row i is the old row from[i], of which the first keep[i] positions count (nil: all), tensor by
// tensor, so that at most one tensor exists twice.
func (d *device) relayout(c *kvCache, from, keep []int32, slots int) error {
	return d.rearrange(c, from, keep, slots, func(i int, fresh compute.Buffer) {
		_ = c.buffers[i].Finalize()
		c.buffers[i] = fresh
	}, func() { c.rows, c.slots = len(from), slots })
}

// copyRow returns the first n positions of a cache's row as a cache of their own.
func (d *device) copyRow(c *kvCache, row, n, slots int) (kvCache, error) {
	out := kvCache{rows: 1, slots: slots}
	err := d.rearrange(c, []int32{int32(row)}, []int32{int32(n)}, slots, func(_ int, fresh compute.Buffer) {
		out.buffers = append(out.buffers, fresh)
	}, func() {})
	if err != nil {
		out.free()
	}
	return out, err
}

// rearrange computes the tensors of a cache in another layout and hands them to `take`, one by one.
func (d *device) rearrange(c *kvCache, from, keep []int32, slots int, take func(i int, fresh compute.Buffer), done func()) error {
	if keep == nil {
		keep = slices.Repeat([]int32{int32(slots)}, len(from))
	}
	u := uploads{d: d}
	defer u.free()
	u.add(from, len(from))
	u.add(keep, len(keep))
	if u.err != nil {
		return u.err
	}
	for i, old := range c.buffers {
		prog, err := d.ps.relayout(part(i%2), c.rows, c.slots, len(from), slots)
		if err != nil {
			return err
		}
		out, err := d.run(prog, nil, append([]compute.Buffer{old}, u.all...)...)
		if err != nil {
			return err
		}
		take(i, out[0])
	}
	done()
	return nil
}

// join copies one staged row into the main cache.
func (d *device) join(j schedule.Join) error {
	prog, err := d.ps.place(d.main.rows, d.main.slots, d.staged.rows, d.staged.slots)
	if err != nil {
		return err
	}
	u := uploads{d: d}
	defer u.free()
	u.add([]int32{int32(j.Row)}, 1)
	u.add([]int32{int32(j.Slot)}, 1)
	if u.err != nil {
		return u.err
	}
	_, err = d.runOn(prog, &d.main, append(append([]compute.Buffer{}, d.staged.buffers...), u.all...)...)
	return err
}

// errNotFinite is what a request gets whose logits hold NaN or infinity.
var errNotFinite = errors.New("the model computed logits that are not finite")

// sample draws one token for each given row of logits [rows, vocab], which it frees. rows[i] is the row of samplers[i], steps[i]
// the number of the token in its answer.
func (d *device) sample(logits compute.Buffer, total int, rows []int, samplers []sampler, steps []uint64) ([]drawn, error) {
	defer func() { _ = logits.Finalize() }()
	form, logprobs := sampleGreedy, false
	for _, s := range samplers {
		logprobs = logprobs || s.logprob
		if s.params.Temperature > 0 {
			form = max(form, sampleTemperature)
		}
		if s.params.Filters() {
			form = sampleFiltered
		}
	}
	// The Go backend samples slower than Go itself, and XLA's CPU filters slower (docs/log.md, 2026-11-24).
	p := d.ps.platform
	if logprobs || p == layers.Go || (p == layers.XLACPU && form == sampleFiltered) {
		return d.sampleOnHost(logits, rows, samplers, steps)
	}
	prog, err := d.ps.sample(total, form)
	if err != nil {
		return nil, err
	}
	u := uploads{d: d}
	defer u.free()
	if form != sampleGreedy {
		params, uniform := make([]float32, 4*total), make([]float32, total)
		for i, r := range rows {
			row := samplers[i].params.Row()
			copy(params[4*r:], row[:])
			uniform[r] = layers.Uniform(samplers[i].seed, steps[i])
		}
		u.add(params, total, 4)
		u.add(uniform, total)
	}
	if u.err != nil {
		return nil, u.err
	}
	out, err := d.run(prog, nil, append([]compute.Buffer{logits}, u.all...)...)
	if err != nil {
		return nil, err
	}
	defer finalize(out)
	ids := make([]int32, total)
	if err := out[0].ToFlatData(ids); err != nil {
		return nil, err
	}
	result := make([]drawn, len(rows))
	for i, r := range rows {
		result[i].id = ids[r]
		if ids[r] < 0 {
			result[i] = drawn{err: errNotFinite}
		}
	}
	return result, nil
}

func (d *device) sampleOnHost(logits compute.Buffer, rows []int, samplers []sampler, steps []uint64) ([]drawn, error) {
	flat, err := toHost(logits)
	if err != nil {
		return nil, err
	}
	vocab := d.cfg.VocabSize
	result := make([]drawn, len(rows))
	var wg sync.WaitGroup
	limit := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, r := range rows {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			row, s := flat[r*vocab:(r+1)*vocab], samplers[i]
			if !finite(row) {
				result[i].err = errNotFinite
				return
			}
			result[i].id = layers.SampleHost(row, s.params, layers.Uniform(s.seed, steps[i]))
			if s.logprob {
				result[i].logprob = layers.LogProbHost(row, result[i].id)
			}
		})
	}
	wg.Wait()
	return result, nil
}

func finite(x []float32) bool {
	for _, v := range x {
		if v-v != 0 {
			return false
		}
	}
	return true
}

// toHost copies a float32 buffer to the host.
func toHost(b compute.Buffer) ([]float32, error) {
	shape, err := b.Shape()
	if err != nil {
		return nil, err
	}
	flat := make([]float32, shape.Size())
	return flat, b.ToFlatData(flat)
}

func (d *device) close() {
	d.main.free()
	d.staged.free()
	d.steerMain.free()
	d.steerPrompt.free()
	for _, c := range d.kept {
		c.free()
	}
	for _, t := range d.rope {
		finalize(t[:])
	}
	finalize(d.weights)
	d.ps.close()
}
