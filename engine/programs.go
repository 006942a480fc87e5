package engine

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/steering"
)

// program is one compiled graph. Its inputs are the model's weights, if it uses them, followed by its own.
type program struct {
	name    string
	weights bool
	exec    compute.Executable
	graph   *Graph
}

// programs builds and keeps the compiled graphs of one model: the one place that compiles.
type programs struct {
	backend  compute.Backend
	platform layers.Platform
	cfg      *model.Config
	weights  []model.Weight
	stored   []shapes.Shape // of each weight on the device
	kv       dtypes.DType
	log      *slog.Logger

	mu      sync.Mutex
	cache   map[string]*program
	seconds float64
}

// builder is the view that a graph function has of the program under construction.
type builder struct {
	*programs
	g *Graph
	w model.Params
}

// get returns the named program, building and compiling it on first use. It is the border at which GoMLX's panics become errors.
func (ps *programs) get(name string, weights bool, build func(b *builder) []*Node) (p *program, err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p = ps.cache[name]; p != nil {
		return p, nil
	}
	began := time.Now()
	g := NewGraph(ps.backend, strings.NewReplacer(" ", "_", "=", "").Replace(name))
	err = ps.compile(g, weights, build)
	if err != nil {
		g.Finalize()
		return nil, fmt.Errorf("engine: program %s: %w", name, err)
	}
	took := time.Since(began).Seconds()
	ps.seconds += took
	ps.log.Info("compiled", "program", name, "seconds", fmt.Sprintf("%.2f", took))
	p = &program{name: name, weights: weights, exec: g.Executable(), graph: g}
	ps.cache[name] = p
	return p, nil
}

func (ps *programs) compile(g *Graph, weights bool, build func(b *builder) []*Node) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case error:
			err = r
		default:
			err = fmt.Errorf("%v", r)
		}
	}()
	b := &builder{programs: ps, g: g, w: model.Params{}}
	if weights {
		for i, w := range ps.weights {
			b.w[w.Name] = Parameter(g, "w_"+strings.ReplaceAll(w.Name, ".", "_"), ps.stored[i])
		}
	}
	return g.Compile(build(b)...)
}

func (ps *programs) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.cache {
		p.graph.Finalize()
	}
	ps.cache = nil
}

// input declares an input that is read only.
func (b *builder) input(name string, dtype dtypes.DType, dims ...int) *Node {
	return Parameter(b.g, name, shapes.Make(dtype, dims...))
}

// state declares an input that is donated, and shares the memory of output `out` (package pjrt reads the name).
func (b *builder) state(out int, name string, dtype dtypes.DType, dims ...int) *Node {
	return b.input(fmt.Sprintf("alias_%d__%s", out, name), dtype, dims...)
}

func (b *builder) keyDims(rows, slots int) []int {
	return layers.KeyDims(b.platform, rows, b.cfg.NumKeyValueHeads, b.cfg.HeadDim, slots)
}

func (b *builder) valueDims(rows, slots int) []int {
	return layers.ValueDims(rows, b.cfg.NumKeyValueHeads, b.cfg.HeadDim, slots)
}

// caches declares the key/value cache as state; outputs 2l and 2l+1 are its successors.
func (b *builder) caches(rows, slots int) *model.Cache {
	c := &model.Cache{}
	for l := range b.cfg.NumHiddenLayers {
		c.K = append(c.K, b.state(2*l, fmt.Sprintf("k_%d", l), b.kv, b.keyDims(rows, slots)...))
		c.V = append(c.V, b.state(2*l+1, fmt.Sprintf("v_%d", l), b.kv, b.valueDims(rows, slots)...))
	}
	return c
}

func interleave(c model.Cache) []*Node {
	var out []*Node
	for l := range c.K {
		out = append(out, c.K[l], c.V[l])
	}
	return out
}

// head says what a prefill program returns after the cache.
type head int

const (
	headLast   head = iota // logits of each row's last real token, [rows, vocab]
	headScore              // log-probability of a given next token at each position, [rows, tokens]
	headTrace              // logits at every position [rows, tokens, vocab], then the output of each block [rows, tokens, hidden]
	headPools              // weighted sums of the outputs of the blocks, [layers, rows, pools, hidden]
	headStates             // the output of each block
)

func (h head) String() string { return [...]string{"last", "score", "trace", "pools", "states"}[h] }

// form is what distinguishes prefill programs of one shape.
type form struct {
	head  head
	pools int // of headPools
	steer steer
}

func (f form) String() string {
	name := f.head.String()
	if f.pools > 0 {
		name = fmt.Sprintf("%s=%d", name, f.pools)
	}
	return name + f.steer.String()
}

// first is the program first(R, T). Inputs: tokens [R, T], count [R], cos and sin [T, head_dim/2], then those of steering
// (helm) and of the head: for headScore targets [R, T], for headPools weights [pools, R, T]. Outputs: K and V of each layer with
// T slots, then the head's, then those of steering: for headTrace rho and delta [layers, S, R, T] each, and the readout.
func (ps *programs) first(rows, tokens int, f form) (*program, error) {
	return ps.get(fmt.Sprintf("first R=%d T=%d %s", rows, tokens, f), true, func(b *builder) []*Node {
		ids := b.input("tokens", dtypes.Int32, rows, tokens)
		count := b.input("count", dtypes.Int32, rows)
		cos := b.input("cos", dtypes.Float32, tokens, b.cfg.HeadDim/2)
		sin := b.input("sin", dtypes.Float32, tokens, b.cfg.HeadDim/2)
		in := model.Inputs{
			Tokens: ids,
			Cos:    InsertAxes(cos, 0), Sin: InsertAxes(sin, 0),
			Count: count, KV: b.kv,
		}
		return b.prefill(in, f)
	})
}

// next is the program next(T, S). Inputs: the cache, tokens [1, T], start [1], count [1], cos and sin [S, head_dim/2], then
// as first's. Outputs as first's.
func (ps *programs) next(tokens, slots int, f form) (*program, error) {
	return ps.get(fmt.Sprintf("next T=%d S=%d %s", tokens, slots, f), true, func(b *builder) []*Node {
		cache := b.caches(1, slots)
		ids := b.input("tokens", dtypes.Int32, 1, tokens)
		start, count := b.input("start", dtypes.Int32, 1), b.input("count", dtypes.Int32, 1)
		position := Add(Iota(b.g, shapes.Make(dtypes.Int32, 1, tokens), 1), Reshape(start, 1, 1))
		cos, sin := b.rotary(slots, position)
		return b.prefill(model.Inputs{Tokens: ids, Position: position, Cos: cos, Sin: sin, Cache: cache, Start: start, Count: count, KV: b.kv}, f)
	})
}

func (b *builder) prefill(in model.Inputs, f form) []*Node {
	rows, tokens := in.Tokens.Shape().Dim(0), in.Tokens.Shape().Dim(1)
	helm := b.helm(f.steer, rows, tokens)
	var weights *Node
	if f.head == headPools {
		weights = b.input("weights", dtypes.Float32, f.pools, rows, tokens)
	}
	var blocks []*Node // what the head makes of each block's output
	in.AfterBlock = func(layer int, hidden *Node) *Node {
		if helm != nil {
			hidden = helm.afterBlock(layer, hidden)
		}
		switch f.head {
		case headTrace, headStates:
			blocks = append(blocks, hidden)
		case headPools:
			blocks = append(blocks, pool(hidden, weights))
		}
		return hidden
	}
	out := b.cfg.Forward(b.platform, b.w, in)
	result := interleave(out.Cache)
	switch f.head {
	case headLast:
		last := MaxScalar(AddScalar(in.Count, -1), 0)                                    // padding rows have count 0
		index := Stack([]*Node{Iota(b.g, shapes.Make(dtypes.Int32, rows), 0), last}, -1) // [rows, 2]
		result = append(result, b.cfg.Head(b.platform, b.w, Gather(out.Hidden, index)))
	case headScore:
		targets := b.input("targets", dtypes.Int32, rows, tokens)
		logits := b.cfg.Head(b.platform, b.w, Reshape(out.Hidden, rows*tokens, b.cfg.HiddenSize))
		result = append(result, Reshape(layers.LogProb(logits, Reshape(targets, rows*tokens)), rows, tokens))
	case headTrace:
		result = append(result, b.cfg.Head(b.platform, b.w, out.Hidden))
		result = append(result, blocks...)
	case headPools:
		result = append(result, Stack(blocks, 0))
	case headStates:
		result = append(result, blocks...)
	}
	if helm == nil {
		return result
	}
	if f.head == headTrace {
		result = append(result,
			helm.stack(func(e steering.Edit) *Node { return e.Rho }), helm.stack(func(e steering.Edit) *Node { return e.Delta }))
	}
	return append(result, helm.readout())
}

// pool returns the sums of hidden [rows, tokens, hidden] over the tokens with each of the weights [pools, rows, tokens]: [rows, pools,
// hidden]. Not a matrix product, which a GPU might compute in TF32; and what has weight 0 is left out, whatever it is.
func pool(hidden, weights *Node) *Node {
	var sums []*Node
	for i := range weights.Shape().Dim(0) {
		w := InsertAxes(Squeeze(Slice(weights, AxisRange(i, i+1)), 0), -1) // [rows, tokens, 1]
		used := BroadcastToShape(NotEqual(w, ZerosLike(w)), hidden.Shape())
		sums = append(sums, ReduceSum(Where(used, Mul(hidden, w), ZerosLike(hidden)), 1))
	}
	return Stack(sums, 1)
}

// decode is the program decode(B, S). Inputs: the cache, tokens [B], position [B] (the slot each token's key goes to), cos and
// sin [S, head_dim/2], and those of steering. Outputs: the cache, logits [B, vocab], and the readout of steering.
func (ps *programs) decode(rows, slots int, s steer) (*program, error) {
	return ps.get(fmt.Sprintf("decode B=%d S=%d%s", rows, slots, s), true, func(b *builder) []*Node {
		cache := b.caches(rows, slots)
		ids := b.input("tokens", dtypes.Int32, rows)
		start := b.input("position", dtypes.Int32, rows)
		position := Reshape(start, rows, 1)
		cos, sin := b.rotary(slots, position)
		in := model.Inputs{
			Tokens: Reshape(ids, rows, 1), Position: position, Cos: cos, Sin: sin,
			Cache: cache, Start: start, Count: OnesLike(start), KV: b.kv,
		}
		helm := b.helm(s, rows, 1)
		if helm != nil {
			in.AfterBlock = helm.afterBlock
		}
		out := b.cfg.Forward(b.platform, b.w, in)
		logits := b.cfg.Head(b.platform, b.w, Reshape(out.Hidden, rows, b.cfg.HiddenSize))
		result := append(interleave(out.Cache), logits)
		if helm != nil {
			result = append(result, helm.readout())
		}
		return result
	})
}

// rotary declares the rotary tables of `slots` positions as inputs and returns their rows at position [rows, tokens].
func (b *builder) rotary(slots int, position *Node) (cos, sin *Node) {
	half := b.cfg.HeadDim / 2
	at := InsertAxes(position, -1)
	cos = Gather(b.input("cos", dtypes.Float32, slots, half), at)
	sin = Gather(b.input("sin", dtypes.Float32, slots, half), at)
	return cos, sin
}

// part is one of the two tensors of a layer's cache.
type part int

const (
	keys part = iota
	values
)

// view reshapes a cache tensor to [rows, kv_heads, …] and returns its slot axis with it.
func (b *builder) view(x *Node, which part, rows int) (*Node, int) {
	dims := x.Shape().Dimensions
	last := dims[len(dims)-2:]
	axis := 2
	if which == keys && b.platform != layers.Go {
		axis = 3
	}
	return Reshape(x, rows, b.cfg.NumKeyValueHeads, last[0], last[1]), axis
}

func (b *builder) dims(which part, rows, slots int) []int {
	if which == keys {
		return b.keyDims(rows, slots)
	}
	return b.valueDims(rows, slots)
}

// resize cuts or zero-pads an axis.
func resize(x *Node, axis, size int) *Node {
	now := x.Shape().Dim(axis)
	if now >= size {
		return SliceAxis(x, axis, AxisRange(0, size))
	}
	pad := x.Shape().Clone()
	pad.Dimensions[axis] = size - now
	return Concatenate([]*Node{x, Zeros(x.Graph(), pad)}, axis)
}

// relayout turns one cache tensor of R rows and S slots into one of B rows and N slots. Inputs: the tensor, from [B], keep [B]: row i
// becomes what row from[i] was, or zero where from[i] is -1 and from slot keep[i] on.
func (ps *programs) relayout(which part, rows, slots, newRows, newSlots int) (*program, error) {
	name := fmt.Sprintf("relayout %d R=%d S=%d B=%d N=%d", which, rows, slots, newRows, newSlots)
	return ps.get(name, false, func(b *builder) []*Node {
		x, axis := b.view(b.input("x", b.kv, b.dims(which, rows, slots)...), which, rows)
		from := b.input("from", dtypes.Int32, newRows)
		keep := b.input("keep", dtypes.Int32, newRows)
		y := resize(Gather(x, Reshape(MaxScalar(from, 0), newRows, 1)), axis, newSlots)
		dims := y.Shape().Dimensions
		slot := Iota(b.g, shapes.Make(dtypes.Int32, dims...), axis)
		used := LessThan(slot, BroadcastToDims(Reshape(keep, newRows, 1, 1, 1), dims...))
		used = LogicalAnd(used, BroadcastToDims(Reshape(GreaterOrEqual(from, ZerosLike(from)), newRows, 1, 1, 1), dims...))
		y = Where(used, y, ZerosLike(y))
		return []*Node{Reshape(y, b.dims(which, newRows, newSlots)...)}
	})
}

// place copies one row of a prefill's keys and values (R rows, T slots) into one row of the main cache (B rows, S slots),
// whole: slots behind the prefill's become zero. Inputs: the main cache, the prefill's, row [1], slot [1]. Outputs: the main cache.
func (ps *programs) place(rows, slots, fromRows, fromSlots int) (*program, error) {
	name := fmt.Sprintf("place R=%d T=%d B=%d S=%d", fromRows, fromSlots, rows, slots)
	return ps.get(name, false, func(b *builder) []*Node {
		main := interleave(*b.caches(rows, slots))
		var staged []*Node
		for i := range main {
			staged = append(staged, b.input(fmt.Sprintf("staged_%d", i), b.kv, b.dims(part(i%2), fromRows, fromSlots)...))
		}
		row, slot := b.input("row", dtypes.Int32, 1), b.input("slot", dtypes.Int32, 1)
		for i := range main {
			which := part(i % 2)
			from, axis := b.view(staged[i], which, fromRows)
			to, _ := b.view(main[i], which, rows)
			src := resize(Gather(from, Reshape(row, 1, 1)), axis, slots) // [1, kv_heads, …]
			here := Equal(Iota(b.g, shapes.Make(dtypes.Int32, rows, 1, 1, 1), 0), Reshape(slot, 1, 1, 1, 1))
			dims := to.Shape().Dimensions
			to = Where(BroadcastToDims(here, dims...), BroadcastToDims(src, dims...), to)
			main[i] = Reshape(to, b.dims(which, rows, slots)...)
		}
		return main
	})
}

// sampling forms that run on the device; a batch that needs more is sampled on the host where that is faster (device.go).
type sampling int

const (
	sampleGreedy sampling = iota
	sampleTemperature
	sampleFiltered
)

// sample is the program that turns logits [rows, vocab] into ids [rows]; -1 marks a row whose logits are not all finite.
// Inputs: logits; but for sampleGreedy also params [rows, 4] and u [rows].
func (ps *programs) sample(rows int, form sampling) (*program, error) {
	return ps.get(fmt.Sprintf("sample B=%d form=%d", rows, form), false, func(b *builder) []*Node {
		logits := b.input("logits", dtypes.Float32, rows, b.cfg.VocabSize)
		var ids *Node
		if form == sampleGreedy {
			ids = layers.Greedy(logits)
		} else {
			params, u := b.input("params", dtypes.Float32, rows, 4), b.input("u", dtypes.Float32, rows)
			f := layers.SampleTemperature
			if form == sampleFiltered {
				f = layers.SampleFiltered
			}
			ids = f(logits, params, u)
		}
		finite := LogicalAll(IsFinite(logits), -1)
		return []*Node{Where(finite, ids, AddScalar(ZerosLike(ids), -1))}
	})
}
