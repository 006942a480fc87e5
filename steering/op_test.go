package steering

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

func eachBackend(t *testing.T, test func(t *testing.T, backend compute.Backend)) {
	for name, backend := range pjrttest.Backends(t) {
		t.Run(name, func(t *testing.T) { test(t, backend) })
	}
}

// batch is a batch of rows that pass a model of several blocks; block l is h -> h + bias[l], so that each layer sees another state.
type batch struct {
	layers, rows, tokens, hidden int
	h                            []float32   // [rows, tokens, hidden]
	bias                         [][]float32 // [layers][hidden]; nil to hand the state to the op untouched
	start, promptLen             []int       // of each row
	ids                          [][]int32   // of each row: at most tokens
}

func newBatch(rng *rand.Rand, layers, rows, tokens, hidden int) *batch {
	b := &batch{layers: layers, rows: rows, tokens: tokens, hidden: hidden}
	for range rows * tokens * hidden {
		b.h = append(b.h, float32(rng.NormFloat64()))
	}
	for range layers {
		bias := make([]float32, hidden)
		for i := range bias {
			bias[i] = float32(rng.NormFloat64())
		}
		b.bias = append(b.bias, bias)
	}
	for range rows {
		b.start = append(b.start, rng.IntN(3))
		b.promptLen = append(b.promptLen, 1+rng.IntN(tokens+2))
		var ids []int32
		for range 1 + rng.IntN(tokens) {
			ids = append(ids, int32(rng.IntN(4)))
		}
		b.ids = append(b.ids, ids)
	}
	return b
}

// stack returns a program that steers the outputs of the blocks of a batch; it is compiled once for each shape.
func stack(t *testing.T, backend compute.Backend) *graph.Exec {
	if exec := stacks[backend]; exec != nil {
		return exec
	}
	exec, err := graph.NewExec(backend, func(x []*graph.Node) []*graph.Node {
		h, directions, site, gate, mask := x[0], x[1], x[2], x[3], x[4]
		layers, hidden := site.Shape().Dim(0), h.Shape().Dim(2)
		var done []*graph.Node
		for l := range layers {
			at := func(x *graph.Node) *graph.Node { return graph.Squeeze(graph.Slice(x, graph.AxisRange(l, l+1)), 0) }
			if len(x) > 5 {
				h = graph.Add(h, graph.BroadcastToShape(graph.Reshape(at(x[5]), 1, 1, hidden), h.Shape()))
			}
			var edit Edit
			h, edit = Apply(h, directions, at(site), at(gate), mask)
			done = append(done, edit.Readout())
		}
		return []*graph.Node{h, graph.Stack(done, 0)}
	})
	require.NoError(t, err)
	stacks[backend] = exec
	return exec
}

var stacks = make(map[compute.Backend]*graph.Exec)

type result struct {
	out     []float32 // [rows, tokens, hidden]
	effects [][]Effect
}

// run steers the batch on a backend, with a table that may have been used before.
func (b *batch) run(t *testing.T, backend compute.Backend, table *Table, plans []*Plan) result {
	t.Helper()
	table.Set(plans)
	in := table.Inputs()
	mask := make([]bool, in.S*b.rows*b.tokens)
	for row := range b.rows {
		table.Mask(mask, row, b.start[row], b.promptLen[row], b.ids[row])
	}
	var bias []float32
	for _, x := range b.bias {
		bias = append(bias, x...)
	}
	args := []any{
		tensors.FromFlatDataAndDimensions(append([]float32{}, b.h...), b.rows, b.tokens, b.hidden),
		tensors.FromFlatDataAndDimensions(append([]float32{}, in.Directions...), in.P, b.hidden),
		tensors.FromFlatDataAndDimensions(append([]int32{}, in.Site...), b.layers, in.S, b.rows),
		tensors.FromFlatDataAndDimensions(append([]float32{}, in.Gate...), b.layers, in.S, b.rows, 4),
		tensors.FromFlatDataAndDimensions(mask, in.S, b.rows, b.tokens),
	}
	if bias != nil {
		args = append(args, tensors.FromFlatDataAndDimensions(bias, b.layers, b.hidden))
	}
	outs, err := stack(t, backend).Call(args...)
	require.NoError(t, err)
	require.Equal(t, []int{b.layers, in.S, b.rows, ReadoutSize}, outs[1].Shape().Dimensions)
	readout := tensors.MustCopyFlatData[float32](outs[1])
	r := result{out: tensors.MustCopyFlatData[float32](outs[0])}
	for row, p := range plans {
		effects := p.Effects()
		p.Collect(effects, mask, readout, in.S, b.rows, row)
		r.effects = append(r.effects, effects)
	}
	return r
}

// reference is the same in float64, straight from the equations of the package comment. It returns how near a token came to a
// gate or a cap, where float32 may decide otherwise.
func (b *batch) reference(specs []Spec) (out []float64, effects [][]Effect, margin float64) {
	margin = math.Inf(1)
	for _, x := range b.h {
		out = append(out, float64(x))
	}
	for row, spec := range specs {
		did := make([]Effect, len(spec))
		for i := range b.tokens {
			h := out[(row*b.tokens+i)*b.hidden:][:b.hidden]
			for l := range b.layers {
				for j := range h {
					h[j] += float64(b.bias[l][j])
				}
				for n := range spec {
					e := &spec[n]
					at, ok := e.Vector.layer(l)
					if !ok || e.Layers != nil && !contains(e.Layers, l) || i >= len(b.ids[row]) ||
						!e.Positions.Mask(b.start[row]+i, b.promptLen[row], b.ids[row][i]) {
						continue
					}
					did[n].Eligible++
					rho := 0.0
					for j := range h {
						rho += h[j] * float64(at.Direction[j])
					}
					delta, capped, near := equation(e, at, rho)
					margin = min(margin, near)
					if delta == 0 {
						continue
					}
					for j := range h {
						h[j] += delta * float64(at.Direction[j])
					}
					did[n].Moved++
					did[n].Sum += math.Abs(delta)
					if capped {
						did[n].Capped++
					}
				}
			}
		}
		effects = append(effects, did)
	}
	return out, effects, margin
}

func contains(layers []int, l int) bool {
	for _, x := range layers {
		if x == l {
			return true
		}
	}
	return false
}

// equation is one edit as the paper and the authors' kernel write it: the step along v̂, whether it was cut short, and the
// distance of rho from where the answer changes.
func equation(e *Entry, l *Layer, rho float64) (delta float64, capped bool, near float64) {
	s, alpha := l.Statistics, e.Coefficient
	near = math.Inf(1)
	switch e.Method {
	case SwFC:
		delta = alpha * l.DeltaMu
		if e.Negative {
			delta = -delta
		}
	case Ablation:
		delta = -alpha * rho
	case StTP:
		near = math.Abs(rho - s.M)
		switch {
		case !e.Negative && rho < s.M:
			delta = s.MuPos + alpha*s.SigmaPos - rho
		case e.Negative && rho > s.M:
			delta = s.MuNeg + alpha*s.SigmaNeg - rho
		}
	case StMP:
		near = math.Abs(rho - s.M)
		target := rho + 2*alpha*(s.M-rho)
		limit := s.MuPos + 40*s.SigmaPos
		switch {
		case !e.Negative && rho < s.M:
			capped = target > limit
			delta = min(target, limit) - rho
			near = min(near, math.Abs(target-limit))
		case e.Negative && rho > s.M:
			limit = s.MuNeg - 40*s.SigmaNeg
			capped = target < limit
			delta = max(target, limit) - rho
			near = min(near, math.Abs(target-limit))
		}
	}
	return delta, capped, near
}

// randomVector makes a vector with statistics at some layers.
func randomVector(rng *rand.Rand, layers, hidden int) *Vector {
	v := &Vector{Hidden: hidden}
	for l := range layers {
		if rng.IntN(3) == 0 && (l < layers-1 || len(v.Layers) > 0) {
			continue
		}
		x := make([]float64, hidden)
		for i := range x {
			x[i] = rng.NormFloat64()
		}
		at, err := NewLayer(l, x)
		if err != nil {
			panic(err)
		}
		m := rng.NormFloat64()
		s := &Statistics{M: m, MuPos: m + 1 + rng.Float64(), MuNeg: m - 1 - rng.Float64(), SigmaPos: 0.02 + 0.1*rng.Float64(),
			SigmaNeg: 0.02 + 0.1*rng.Float64(), CohensD: 2}
		at.Statistics, at.DeltaMu = s, s.MuPos-s.MuNeg
		v.Layers = append(v.Layers, at)
	}
	return v
}

var somePositions = []string{"all", "prompt", "response", "all-prompt/0..2", "prompt/-2..+response=1,2", "response/..2", "all-all=0,3"}

func randomSpec(rng *rand.Rand, vectors []*Vector) Spec {
	var spec Spec
	for range rng.IntN(4) {
		e := Entry{
			Vector:      vectors[rng.IntN(len(vectors))],
			Method:      SwFC + Method(rng.IntN(4)),
			Coefficient: math.Round(8*rng.NormFloat64()) / 4,
			Negative:    rng.IntN(3) == 0,
		}
		if e.Method == StMP {
			e.Coefficient = 4 * math.Abs(e.Coefficient) // high enough to meet the cap
		}
		for _, l := range e.Vector.Indices() {
			if rng.IntN(2) == 0 {
				e.Layers = append(e.Layers, l)
			}
		}
		var err error
		if e.Positions, err = ParsePositions(somePositions[rng.IntN(len(somePositions))]); err != nil {
			panic(err)
		}
		spec = append(spec, e)
	}
	return spec
}

// TestApplyRandom compares random specs with plain Go in float64. The table lives on, so that pages are reused and evicted.
func TestApplyRandom(t *testing.T) {
	const (
		rounds     = 60
		layers     = 3
		hidden     = 24
		tolerance  = 2e-6 // relative to a number of 10 or more; measured 2e-7
		minMargin  = 1e-3 // nearer to a gate, float32 may decide otherwise
		wantTested = 30
	)
	eachBackend(t, func(t *testing.T, backend compute.Backend) {
		rng := rand.New(rand.NewPCG(1, 2))
		table := NewTable(layers, hidden)
		tested, compared, moved, capped, worst := 0, 0, 0, 0, 0.0
		for range rounds {
			var vectors []*Vector
			for range 4 {
				vectors = append(vectors, randomVector(rng, layers, hidden))
			}
			b := newBatch(rng, layers, 1+2*rng.IntN(2), 5, hidden)
			var specs []Spec
			var plans []*Plan
			for range b.rows {
				specs = append(specs, randomSpec(rng, vectors))
				p, err := NewPlan(specs[len(specs)-1], layers, hidden)
				require.NoError(t, err)
				plans = append(plans, p)
			}
			want, effects, margin := b.reference(specs)
			got := b.run(t, backend, table, plans)
			if margin < minMargin {
				continue
			}
			tested++
			for i := range want {
				// Coefficients multiply what a layer before got wrong; hence relative to the row's size.
				scale := math.Max(10, math.Abs(want[i]))
				worst = max(worst, math.Abs(float64(got.out[i])-want[i])/scale)
				require.InDelta(t, want[i], got.out[i], tolerance*scale, "element %d", i)
			}
			for row := range specs {
				for n := range specs[row] {
					w, g := effects[row][n], got.effects[row][n]
					require.InDelta(t, w.Sum, g.Sum, 1e-5*math.Max(10, w.Sum))
					g.Sum = w.Sum
					require.Equal(t, w, g, "row %d entry %d of %v", row, n, specs[row][n].Method)
					moved, capped = moved+g.Moved, capped+g.Capped
				}
			}
			// No other row matters, nor what the table held before: the same bits in the same program.
			for row := range specs {
				alone := make([]*Plan, b.rows)
				alone[row] = plans[row]
				if rung(slotLadder, max(1, plans[row].slots())) != table.slots {
					continue
				}
				n := b.tokens * hidden
				lone := b.run(t, backend, NewTable(layers, hidden), alone)
				requireSameBits(t, got.out[row*n:(row+1)*n], lone.out[row*n:(row+1)*n], "alone")
				require.Equal(t, got.effects[row], lone.effects[row])
				compared++
			}
		}
		t.Logf("%d rounds, %d moved, %d capped, worst error %.2g", tested, moved, capped, worst)
		require.GreaterOrEqual(t, tested, wantTested)
		require.Greater(t, compared, 10)
		require.Greater(t, moved, 100)
		require.Greater(t, capped, 10)
	})
}

// hostileStates has the numbers whose bits an edit could lose.
func hostileStates(n int) []float32 {
	odd := []float32{float32(math.Copysign(0, -1)), 0, 1e-45, -1e-45, 3.4e38, -3.4e38, float32(math.Inf(1)), float32(math.NaN()), 1, -2.5}
	h := make([]float32, n)
	for i := range h {
		h[i] = odd[i%len(odd)]
	}
	return h
}

func requireSameBits(t *testing.T, want, got []float32, of string) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		if math.IsNaN(float64(want[i])) && math.IsNaN(float64(got[i])) {
			continue
		}
		require.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]), "%s: element %d: %v, want %v", of, i, got[i], want[i])
	}
}

// TestApplyKeepsBits: what is not steered, or is by nothing, keeps its bits, in the same program as rows that are steered.
func TestApplyKeepsBits(t *testing.T) {
	const layers, tokens, hidden = 1, 3, 10
	rng := rand.New(rand.NewPCG(3, 4))
	v := randomVector(rng, layers, hidden)
	at := &v.Layers[0]
	at.Statistics.M = -1e6 // nothing is below it
	never, ok := ParsePositions("response/1000..")
	require.NoError(t, ok)
	huge := &Vector{Hidden: hidden, Layers: []Layer{{Index: 0, Direction: at.Direction, DeltaMu: 3e38}}}
	specs := map[string]Spec{
		"none":                  nil,
		"SwFC 0":                {{Vector: v, Method: SwFC}},
		"SwFC -0":               {{Vector: v, Method: SwFC, Coefficient: math.Copysign(0, -1), Negative: true}},
		"ablation 0":            {{Vector: v, Method: Ablation}},
		"StMP gate shut":        {{Vector: v, Method: StMP, Coefficient: 4}},
		"StTP gate shut":        {{Vector: v, Method: StTP, Coefficient: 4}},
		"StMP 0":                {{Vector: v.Negate(), Method: StMP}},
		"no such position":      {{Vector: huge, Method: SwFC, Coefficient: 1, Positions: never}},
		"SwFC of a zero length": {{Vector: mustScale(t, v, 0), Method: SwFC, Coefficient: 5}},
	}
	active := Spec{{Vector: v, Method: SwFC, Coefficient: 2}, {Vector: v, Method: Ablation, Coefficient: 0.5}}
	eachBackend(t, func(t *testing.T, backend compute.Backend) {
		for name, spec := range specs {
			b := newBatch(rng, layers, 2, tokens, hidden)
			b.bias = nil
			b.h = append(hostileStates(tokens*hidden), b.h[tokens*hidden:]...)
			b.ids = [][]int32{{1, 2, 3}, {1, 2, 3}}
			idle, err := NewPlan(spec, layers, hidden)
			require.NoError(t, err)
			busy, err := NewPlan(active, layers, hidden)
			require.NoError(t, err)
			got := b.run(t, backend, NewTable(layers, hidden), []*Plan{idle, busy})
			requireSameBits(t, b.h[:tokens*hidden], got.out[:tokens*hidden], name)
			require.NotEqual(t, b.h[tokens*hidden:], got.out[tokens*hidden:], "%s: the other row is steered", name)
			for _, e := range got.effects[0] {
				require.Zero(t, e.Moved, name)
				require.Zero(t, e.Sum, name)
			}
			require.Equal(t, tokens, got.effects[1][0].Moved)
		}
	})
}

// TestApplyNotFinite: a state that is not finite goes through every method unchanged, and steering never makes NaN of numbers.
func TestApplyNotFinite(t *testing.T) {
	const layers, hidden = 1, 4
	v := &Vector{Hidden: hidden, Layers: []Layer{{
		Direction: []float32{0.5, 0.5, 0.5, 0.5}, DeltaMu: 2, Statistics: &Statistics{M: 1, MuPos: 2, MuNeg: -2, SigmaPos: 1, SigmaNeg: 1},
	}}}
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	states := []float32{inf, 0, 0, 0, -inf, 0, 0, 0, nan, 0, 0, 0, inf, -inf, 0, 0, 3e38, 3e38, 3e38, 3e38}
	eachBackend(t, func(t *testing.T, backend compute.Backend) {
		for m := SwFC; m <= Ablation; m++ {
			for _, negative := range []bool{false, true} {
				b := &batch{layers: 1, rows: 1, tokens: 5, hidden: hidden, h: states,
					start: []int{0}, promptLen: []int{9}, ids: [][]int32{{1, 1, 1, 1, 1}}}
				p, err := NewPlan(Spec{{Vector: v, Method: m, Coefficient: 1, Negative: negative}}, layers, hidden)
				require.NoError(t, err)
				got := b.run(t, backend, NewTable(layers, hidden), []*Plan{p})
				for i, x := range states[:16] {
					if y := float64(got.out[i]); math.IsNaN(float64(x)) {
						require.True(t, math.IsNaN(y))
					} else if math.IsInf(float64(x), 0) || m == SwFC || m == Ablation {
						require.Equal(t, x, got.out[i], "%v negative=%v element %d", m, negative, i)
					}
				}
				require.False(t, math.IsNaN(got.effects[0][0].Sum))
				require.False(t, math.IsInf(got.effects[0][0].Sum, 0))
			}
		}
	})
}

// TestApplyGateIsStrict: a projection on the boundary is not edited, nor counted.
func TestApplyGateIsStrict(t *testing.T) {
	v := &Vector{Hidden: 2, Layers: []Layer{{
		Direction: []float32{1, 0}, DeltaMu: 2, Statistics: &Statistics{M: 1, MuPos: 2, MuNeg: 0.5, SigmaPos: 1, SigmaNeg: 0.25},
	}}}
	b := &batch{layers: 1, rows: 1, tokens: 3, hidden: 2, h: []float32{1, 7, 0.75, 7, 1.25, 7},
		start: []int{0}, promptLen: []int{1}, ids: [][]int32{{0, 0, 0}}}
	eachBackend(t, func(t *testing.T, backend compute.Backend) {
		for _, c := range []struct {
			entry Entry
			want  []float32
		}{
			{Entry{Method: StTP, Coefficient: 3}, []float32{1, 7, 5, 7, 1.25, 7}},
			{Entry{Method: StTP, Coefficient: 2, Negative: true}, []float32{1, 7, 0.75, 7, 1, 7}},
			{Entry{Method: StMP, Coefficient: 1}, []float32{1, 7, 1.25, 7, 1.25, 7}},
			{Entry{Method: StMP, Coefficient: 1, Negative: true}, []float32{1, 7, 0.75, 7, 0.75, 7}},
			{Entry{Method: StMP, Coefficient: 1000}, []float32{1, 7, 42, 7, 1.25, 7}},
			{Entry{Method: StMP, Coefficient: 1000, Negative: true}, []float32{1, 7, 0.75, 7, -9.5, 7}},
			{Entry{Method: SwFC, Coefficient: 1.5}, []float32{4, 7, 3.75, 7, 4.25, 7}},
			{Entry{Method: SwFC, Coefficient: 1.5, Negative: true}, []float32{-2, 7, -2.25, 7, -1.75, 7}},
			{Entry{Method: Ablation, Coefficient: 1}, []float32{0, 7, 0, 7, 0, 7}},
			{Entry{Method: Ablation, Coefficient: 1, Negative: true}, []float32{0, 7, 0, 7, 0, 7}},
		} {
			c.entry.Vector = v
			p, err := NewPlan(Spec{c.entry}, 1, 2)
			require.NoError(t, err)
			got := b.run(t, backend, NewTable(1, 2), []*Plan{p})
			require.Equal(t, c.want, got.out, fmt.Sprint(c.entry.Method, c.entry.Negative))
		}
	})
}

// TestApplyGradient compares gradients with differences, of a loss through all methods at once.
func TestApplyGradient(t *testing.T) {
	const layers, tokens, hidden = 2, 4, 12
	rng := rand.New(rand.NewPCG(5, 6))
	v := randomVector(rng, 1, hidden)
	v.Layers = append(v.Layers, v.Layers[0])
	v.Layers[1].Index = 1
	spec := Spec{{Vector: v, Method: SwFC, Coefficient: 1}, {Vector: v, Method: StMP, Coefficient: 2}, {Vector: v, Method: StTP, Coefficient: 1, Negative: true}}
	p, err := NewPlan(spec, layers, hidden)
	require.NoError(t, err)
	table := NewTable(layers, hidden)
	table.Set([]*Plan{p})
	in := table.Inputs()
	b := newBatch(rng, layers, 1, tokens, hidden)
	mask := make([]bool, in.S*tokens)
	table.Mask(mask, 0, 0, tokens, []int32{1, 2, 3})
	loss := func(h, directions *graph.Node, site, gate, mask *graph.Node) *graph.Node {
		for l := range layers {
			at := func(x *graph.Node) *graph.Node { return graph.Squeeze(graph.Slice(x, graph.AxisRange(l, l+1)), 0) }
			h, _ = Apply(h, directions, at(site), at(gate), mask)
		}
		weight := graph.Sin(graph.IotaFull(h.Graph(), h.Shape()))
		return graph.ReduceAllSum(graph.Mul(weight, graph.Square(h)))
	}
	eachBackend(t, func(t *testing.T, backend compute.Backend) {
		exec, err := graph.NewExec(backend, func(x []*graph.Node) []*graph.Node {
			l := loss(x[0], x[1], x[2], x[3], x[4])
			return append([]*graph.Node{l}, graph.Gradient(l, x[0], x[1])...)
		})
		require.NoError(t, err)
		defer exec.Finalize()
		call := func(h, directions []float32) (float64, []float32, []float32) {
			outs, err := exec.Call(
				tensors.FromFlatDataAndDimensions(append([]float32{}, h...), 1, tokens, hidden),
				tensors.FromFlatDataAndDimensions(append([]float32{}, directions...), in.P, hidden),
				tensors.FromFlatDataAndDimensions(append([]int32{}, in.Site...), layers, in.S, 1),
				tensors.FromFlatDataAndDimensions(append([]float32{}, in.Gate...), layers, in.S, 1, 4),
				tensors.FromFlatDataAndDimensions(append([]bool{}, mask...), in.S, 1, tokens),
			)
			require.NoError(t, err)
			return float64(tensors.ToScalar[float32](outs[0])), tensors.MustCopyFlatData[float32](outs[1]), tensors.MustCopyFlatData[float32](outs[2])
		}
		_, dh, dv := call(b.h, in.Directions)
		const step = 1e-2
		for name, c := range map[string]struct {
			x, gradient []float32
			at          int
		}{"h": {b.h, dh, 5}, "h of another token": {b.h, dh, 2*hidden + 3}, "padding": {b.h, dh, 3*hidden + 1}, "direction": {in.Directions, dv, hidden + 4},
			"another element": {in.Directions, dv, 2*hidden - 1}} {
			was := c.x[c.at]
			c.x[c.at] = was + step
			up, _, _ := call(b.h, in.Directions)
			c.x[c.at] = was - step
			down, _, _ := call(b.h, in.Directions)
			c.x[c.at] = was
			want := (up - down) / (2 * step)
			require.InDelta(t, want, c.gradient[c.at], 0.02*math.Max(1, math.Abs(want)), name)
		}
		require.NotZero(t, dv[hidden+4])
	})
}

func mustScale(t *testing.T, v *Vector, factor float64) *Vector {
	t.Helper()
	out, err := v.Scale(factor)
	require.NoError(t, err)
	return out
}
