package steering

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func mustPlan(t testing.TB, layers, hidden int, spec ...Entry) *Plan {
	t.Helper()
	p, err := NewPlan(spec, layers, hidden)
	require.NoError(t, err)
	return p
}

// slotsOf returns the slot of each entry.
func (p *Plan) slotsOf() []int {
	out := make([]int, p.entries)
	for _, s := range p.sites {
		out[s.entry] = s.slot
	}
	return out
}

func TestPlanSlots(t *testing.T) {
	v := testVector()
	e := func(positions Positions, layers ...int) Entry {
		return Entry{Vector: v, Method: SwFC, Coefficient: 1, Positions: positions, Layers: layers}
	}
	for _, c := range []struct {
		spec Spec
		want []int
	}{
		{Spec{e(nil, 1), e(nil, 2), e(nil, 4)}, []int{0, 0, 0}},      // no two meet
		{Spec{e(nil, 1), e(All, 2)}, []int{0, 0}},                    // nil is All
		{Spec{e(nil, 1), e(nil, 1), e(nil, 1)}, []int{0, 1, 2}},      // one after the other
		{Spec{e(nil, 1), e(Response, 2)}, []int{0, 1}},               // a slot has one mask
		{Spec{e(nil, 1), e(Response, 2), e(nil, 2)}, []int{0, 1, 2}}, // slot 0 would act before the second entry
		{Spec{e(nil, 1), e(Response, 2), e(nil, 4), e(Response, 1)}, []int{0, 1, 0, 1}},
	} {
		require.Equal(t, c.want, mustPlan(t, 6, 4, c.spec...).slotsOf())
	}
	var many Spec
	for range MaxSlots + 1 {
		many = append(many, e(nil, 1))
	}
	_, err := NewPlan(many, 6, 4)
	require.ErrorContains(t, err, "entry 8: more than 8 entries act on one layer")
	p, err := NewPlan(nil, 6, 4)
	require.NoError(t, err)
	require.Nil(t, p)
	_, err = NewPlan(make(Spec, 65), 6, 4)
	require.ErrorContains(t, err, "65 entries are more than 64")
}

// TestTable holds the arrays of a table that lives through random changes against the plans.
func TestTable(t *testing.T) {
	const layers, hidden = 5, 8
	rng := rand.New(rand.NewPCG(9, 10))
	table := NewTable(layers, hidden)
	var pool []*Plan
	for len(pool) < 40 {
		vectors := []*Vector{randomVector(rng, layers, hidden), randomVector(rng, layers, hidden)}
		p, err := NewPlan(randomSpec(rng, vectors), layers, hidden)
		require.NoError(t, err)
		pool = append(pool, p)
	}
	plans := make([]*Plan, 3)
	for round := range 300 {
		if round%50 == 49 {
			plans = make([]*Plan, 1+rng.IntN(8))
		}
		plans[rng.IntN(len(plans))] = pool[rng.IntN(len(pool))]
		table.Set(plans)
		in := table.Inputs()
		require.Len(t, in.Directions, in.P*hidden)
		require.Len(t, in.Site, layers*in.S*len(plans))
		require.Len(t, in.Gate, 4*len(in.Site))
		require.Equal(t, make([]float32, hidden), in.Directions[:hidden], "row 0 is zero")
		sites := 0
		for row, p := range plans {
			if p == nil {
				continue
			}
			for _, s := range p.sites {
				at := (s.layer*in.S+s.slot)*len(plans) + row
				page := int(in.Site[at])
				require.NotZero(t, page)
				require.Equal(t, s.direction, in.Directions[page*hidden:(page+1)*hidden])
				require.Equal(t, s.row, Row{in.Gate[4*at], in.Gate[4*at+1], in.Gate[4*at+2], in.Gate[4*at+3]})
				sites++
			}
		}
		for _, page := range in.Site {
			if page != 0 {
				sites--
			}
		}
		require.Zero(t, sites, "every other site is 0")
		uses := 0
		for _, n := range table.uses {
			require.GreaterOrEqual(t, n, 0)
			uses += n
		}
		for _, p := range plans {
			if p != nil {
				uses -= len(p.sites)
			}
		}
		require.Zero(t, uses)
	}
	require.LessOrEqual(t, table.pages(), 256)
}

// TestTableIncremental: what does not change is not sent again.
func TestTableIncremental(t *testing.T) {
	v := testVector()
	a := mustPlan(t, 6, 4, Entry{Vector: v, Method: StMP, Coefficient: 1})
	b := mustPlan(t, 6, 4, Entry{Vector: v, Method: SwFC, Coefficient: 2, Layers: []int{4}})
	negative := mustPlan(t, 6, 4, Entry{Vector: v, Method: SwFC, Coefficient: 2, Layers: []int{4}, Negative: true})
	table := NewTable(6, 4)
	changed := func(plans ...*Plan) [2]bool {
		table.Set(plans)
		in := table.Inputs()
		return [2]bool{in.DirectionsChanged, in.RowsChanged}
	}
	require.False(t, table.Steered())
	require.Equal(t, [2]bool{true, true}, changed(nil, nil), "the first time all is new")
	require.False(t, table.Steered())
	require.Equal(t, [2]bool{true, true}, changed(a, nil))
	require.True(t, table.Steered())
	require.Equal(t, [2]bool{false, false}, changed(a, nil))
	require.Equal(t, [2]bool{false, true}, changed(a, b), "its direction is one of a's")
	require.Equal(t, [2]bool{false, true}, changed(nil, b))
	require.Equal(t, [2]bool{false, true}, changed(a, a), "the directions are still there")
	require.Equal(t, [2]bool{true, true}, changed(a, negative))
	require.Equal(t, 5, table.used, "three directions, a negated one, and none")
	require.Equal(t, [2]bool{false, true}, changed(b, a, negative))

	// Many directions come and go, and the table does not grow.
	rng := rand.New(rand.NewPCG(11, 12))
	for range 100 {
		p := mustPlan(t, 6, 4, Entry{Vector: randomVector(rng, 6, 4), Method: SwFC, Coefficient: 1})
		table.Set([]*Plan{p, a})
		require.Equal(t, firstPages, table.Inputs().P)
	}
	require.PanicsWithError(t, "steering: a plan for 5 layers of hidden_size 4 in a table for 6 of 4", func() {
		table.Set([]*Plan{mustPlan(t, 5, 4, Entry{Vector: v, Method: SwFC})})
	})
}

// TestTableMask: blocks of a prompt see the mask of the whole, and padding is never steered.
func TestTableMask(t *testing.T) {
	v := testVector()
	p := mustPlan(t, 6, 4,
		Entry{Vector: v, Method: SwFC, Coefficient: 1, Positions: mustPositions(t, "prompt/-3..+response=7")},
		Entry{Vector: v, Method: SwFC, Coefficient: 1})
	table := NewTable(6, 4)
	table.Set([]*Plan{nil, p})
	ids := []int32{1, 2, 3, 4, 5, 7, 8}
	const promptLen = 5
	whole := make([]bool, 2*2*8)
	for row := range 2 {
		table.Mask(whole, row, 0, promptLen, ids)
	}
	want := []bool{false, false, true, true, true, true, false, false}
	require.Equal(t, make([]bool, 8), whole[:8])
	require.Equal(t, want, whole[8:16])
	require.Equal(t, make([]bool, 8), whole[16:24])
	require.Equal(t, []bool{true, true, true, true, true, true, true, false}, whole[24:])
	for start := range ids {
		block := make([]bool, 2*2*3)
		for i := range block {
			block[i] = true // what was there before is overwritten
		}
		end := min(start+3, len(ids))
		table.Mask(block, 1, start, promptLen, ids[start:end])
		require.Equal(t, append(append([]bool{}, want[start:end]...), make([]bool, 3-(end-start))...), block[3:6])
	}
}

func TestCollect(t *testing.T) {
	v := testVector()
	p := mustPlan(t, 6, 4,
		Entry{Vector: v, Method: SwFC, Coefficient: 1, Layers: []int{1, 2}},
		Entry{Vector: v, Method: SwFC, Coefficient: 1, Layers: []int{2}, Positions: Response})
	const slots, rows, tokens = 2, 3, 2
	mask := make([]bool, slots*rows*tokens)
	mask[(0*rows+1)*tokens], mask[(0*rows+1)*tokens+1], mask[(1*rows+1)*tokens] = true, true, true
	readout := make([]float32, 6*slots*rows*ReadoutSize)
	put := func(layer, slot int, values ...float32) {
		copy(readout[((layer*slots+slot)*rows+1)*ReadoutSize:], values)
	}
	put(1, 0, 2, 1, 8)
	put(2, 0, 1, 0, 4)
	put(2, 1, 1, 1, 0.5)
	effects := p.Effects()
	p.Collect(effects, mask, readout, slots, rows, 1)
	require.Equal(t, []Effect{{Eligible: 4, Moved: 3, Capped: 1, Sum: 12}, {Eligible: 1, Moved: 1, Capped: 1, Sum: 0.5}}, effects)
	require.Equal(t, 3.0, effects[0].Mean())
	require.Zero(t, Effect{}.Mean())
	p.Collect(effects, mask, readout, slots, rows, 1)
	require.Equal(t, 8, effects[0].Eligible, "calls add up")
	(*Plan)(nil).Collect(nil, mask, readout, slots, rows, 0)
}
