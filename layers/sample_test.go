package layers

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

// almostOne is the largest u that Uniform returns.
const almostOne = 1 - 0x1p-24

func ExampleSampleHost() {
	logits := []float32{1, 4, 2, 3.5, -1}
	params := Params{Temperature: 0.8, TopK: 3, TopP: 0.95}
	const seed = 42
	fmt.Println("greedy:", SampleHost(logits, Params{}, 0))
	for step := range uint64(5) {
		fmt.Print(SampleHost(logits, params, Uniform(seed, step)), " ")
	}
	// Output:
	// greedy: 1
	// 1 3 3 3 1
}

// TestPhilox checks the known answers of Random123's kat_vectors, and that the streams of Uniform have not changed.
func TestPhilox(t *testing.T) {
	const ones = math.MaxUint32
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{want: [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{ones, ones, ones, ones}, [2]uint32{ones, ones},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		require.Equal(t, c.want, philox4x32(c.counter, c.key))
	}

	for _, c := range []struct {
		seed, step uint64
		want       float32
	}{
		{0, 0, 0x6627e8p-24},
		{0, 1, 0xf8e4ccp-24},
		{1, 0, 0xe3e806p-24},
		{42, 7, 0x5bbd83p-24},
		{math.MaxUint64, math.MaxUint64, 0x4d18d7p-24},
	} {
		require.Equal(t, c.want, Uniform(c.seed, c.step), "seed %d step %d", c.seed, c.step)
	}
}

func TestUniformIsUniform(t *testing.T) {
	const draws, bins = 1 << 16, 64
	counts := make([]int, bins)
	probs := make([]float64, bins)
	for i := range draws {
		u := Uniform(uint64(i%256), uint64(i/256)) // many short streams, as a server has
		require.True(t, u >= 0 && u < 1, "u %v", u)
		counts[int(u*bins)]++
	}
	for i := range probs {
		probs[i] = 1.0 / bins
	}
	requireChiSquare(t, counts, probs)
}

// TestExp2 tries every fraction that exp2 can see: its error, and that it strictly increases, so that a likelier token
// never has less mass.
func TestExp2(t *testing.T) {
	worst, last := 0.0, int64(0)
	for f := range int32(1 << log2Bits) {
		got := exp2Host(f - 1<<log2Bits)
		if got <= last {
			require.Failf(t, "exp2 does not increase", "at fraction %d: %d after %d", f, got, last)
		}
		last = got
		want := math.Exp2(float64(f)/(1<<log2Bits) - 1 + massBits)
		worst = max(worst, math.Abs(float64(got)/want-1))
	}
	require.Less(t, worst, 5e-9)
	require.Equal(t, int64(1)<<massBits, exp2Host(0))
	require.Equal(t, int64(1)<<(massBits-1), exp2Host(-1<<log2Bits))
	require.Equal(t, int64(1), exp2Host(log2Floor))
}

func TestKeysOrder(t *testing.T) {
	ordered := []float32{-inf, -math.MaxFloat32, -1, -0x1p-149, 0, 0x1p-149, 1, math.MaxFloat32, inf}
	for i, x := range ordered {
		require.Equal(t, x, keyValueHost(keyHost(x)))
		require.Greater(t, keyHost(x), keyHost(nan))
		if i > 0 {
			require.Greater(t, keyHost(x), keyHost(ordered[i-1]), "%v", x)
		}
	}
	require.Equal(t, keyHost(0), keyHost(float32(math.Copysign(0, -1))))
	require.Equal(t, int32(negInfKey), keyHost(-inf))
}

func TestParams(t *testing.T) {
	for _, c := range []struct {
		params Params
		want   string // "" for valid
	}{
		{Params{}, ""},
		{Params{Temperature: 2, TopK: 50, TopP: 1, MinP: 1}, ""},
		{Params{Temperature: -0.5}, "temperature -0.5"},
		{Params{Temperature: nan}, "temperature NaN"},
		{Params{Temperature: inf}, "temperature +Inf"},
		{Params{TopK: -1}, "top_k -1"},
		{Params{TopP: 1.5}, "top_p 1.5"},
		{Params{TopP: nan}, "top_p NaN"},
		{Params{MinP: -0.1}, "min_p -0.1"},
		{Params{MinP: nan}, "min_p NaN"},
	} {
		err := c.params.Validate()
		if c.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.want)
		}
	}
	require.False(t, Params{Temperature: 1, TopP: 1}.Filters())
	for _, p := range []Params{{TopK: 1}, {TopP: 0.5}, {MinP: 0.1}} {
		require.True(t, p.Filters(), "%+v", p)
	}
	require.Equal(t, [4]float32{0.5, 1 << 24, 0.25, 0.125}, Params{0.5, 1 << 40, 0.25, 0.125}.Row())
}

// edgeVocab is a vocabulary that fills no level of the tree of sums: 4099 = 64·64 + 3.
const edgeVocab = fanOut*fanOut + 3

// edges are rows of logits, filled up with -Inf to edgeVocab, and the id that must come out.
var edges = []struct {
	name   string
	logits []float32
	params Params
	u      float32
	want   int32
}{
	{"greedy", []float32{1, 3, 2}, Params{}, 0.9, 1},
	{"greedy takes the lowest id of a tie", []float32{1, 3, 3}, Params{}, 0.9, 1},
	{"greedy ignores filters", []float32{1, 3, 2}, Params{TopK: 2, TopP: 0.5, MinP: 0.5}, 0.9, 1},
	{"-0 equals 0", []float32{float32(math.Copysign(0, -1)), 0}, Params{}, 0, 0},
	{"greedy passes over NaN", []float32{nan, 1, 2, nan}, Params{}, 0, 2},
	{"greedy with +Inf", []float32{1, inf, inf}, Params{}, 0, 1},
	{"all NaN", slices.Repeat([]float32{nan}, edgeVocab), Params{Temperature: 1}, 0.9, 0},
	{"all -Inf", nil, Params{Temperature: 1, TopK: 5}, 0.9, 0},
	{"NaN is never drawn, low u", []float32{nan, 1, nan, 1}, Params{Temperature: 1}, 0, 1},
	{"NaN is never drawn, high u", []float32{nan, 1, 1, nan}, Params{Temperature: 1}, almostOne, 2},
	{"one possible token", []float32{-inf, -inf, 7}, Params{Temperature: 1}, almostOne, 2},
	{"+Inf is certain", []float32{1, inf, 3}, Params{Temperature: 1}, almostOne, 1},
	{"two +Inf share", []float32{1, inf, 3, inf}, Params{Temperature: 1}, 0.5, 3},
	{"first", []float32{0, 0, 0, 0}, Params{Temperature: 1}, 0, 0},
	{"below a boundary", []float32{0, 0, 0, 0}, Params{Temperature: 1}, 0.25 - 0x1p-24, 0},
	{"on a boundary", []float32{0, 0, 0, 0}, Params{Temperature: 1}, 0.25, 1},
	{"last", []float32{0, 0, 0, 0}, Params{Temperature: 1}, almostOne, 3},
	{"u of 1 is cut", []float32{0, 0, 0, 0}, Params{Temperature: 1}, 1, 3},
	{"u of +Inf is cut", []float32{0, 0, 0, 0}, Params{Temperature: 1}, inf, 3},
	{"u below 0 is cut", []float32{0, 0, 0, 0}, Params{Temperature: 1}, -1, 0},
	{"u of NaN is 0", []float32{0, 0, 0, 0}, Params{Temperature: 1}, nan, 0},
	{"all equal, whole vocabulary, first block", make([]float32, edgeVocab), Params{Temperature: 1}, 63.5 / edgeVocab, 63},
	{"all equal, whole vocabulary, second block", make([]float32, edgeVocab), Params{Temperature: 1}, 64.5 / edgeVocab, 64},
	{"all equal, whole vocabulary, last full", make([]float32, edgeVocab), Params{Temperature: 1}, 4095.5 / edgeVocab, 4095},
	{"all equal, whole vocabulary, last", make([]float32, edgeVocab), Params{Temperature: 1}, almostOne, edgeVocab - 1},
	{"huge logits", []float32{1e30, 2e30, -1e30}, Params{Temperature: 1}, almostOne, 1},
	{"the difference overflows", []float32{3e38, -3e38, 3e38}, Params{Temperature: 1}, almostOne, 2},
	{"tiny temperature", []float32{1, 1.0001, 1}, Params{Temperature: 1e-6}, almostOne, 1},
	{"smallest temperature", []float32{1, 3, 2, 3}, Params{Temperature: 1e-37}, almostOne, 3},
	{"huge temperature is uniform", []float32{-50, 50, 0, 10}, Params{Temperature: 1e30}, 0.1, 0},
	{"huge temperature keeps -Inf out", []float32{-inf, 50, 0, 10}, Params{Temperature: 1e30}, 0, 1},
	{"tail below 2^-40 is never drawn", []float32{-28, 0, -28}, Params{Temperature: 1}, 0, 1},
	{"top_k 1", []float32{1, 3, 2.9}, Params{Temperature: 5, TopK: 1}, almostOne, 1},
	{"top_k keeps ties", []float32{1, 3, 3, 3}, Params{Temperature: 1, TopK: 1}, almostOne, 3},
	{"top_k drops the low", []float32{2, 3, 1, 0}, Params{Temperature: 1, TopK: 2}, almostOne, 1},
	{"top_k beyond the vocabulary", []float32{0, 0}, Params{Temperature: 1, TopK: 1 << 30}, almostOne, 1},
	{"top_k of what -Inf leaves", []float32{0, 0}, Params{Temperature: 1, TopK: 100}, almostOne, 1},
	{"top_k among negatives", []float32{-5, -1, -3, -2}, Params{Temperature: 9, TopK: 2}, almostOne, 3},
	{"top_p tiny", []float32{1, 1.5, 1}, Params{Temperature: 1, TopP: 1e-30}, almostOne, 1},
	{"top_p keeps ties", []float32{1, 1.5, 1.5}, Params{Temperature: 1, TopP: 0.01}, almostOne, 2},
	{"top_p reached exactly stops", []float32{0, 0, -math.Ln2, -inf}, Params{Temperature: 1, TopP: 0.79}, almostOne, 1},
	{"top_p not reached goes on", []float32{0, 0, -math.Ln2, -inf}, Params{Temperature: 1, TopP: 0.81}, almostOne, 2},
	{"top_p is of what top_k left", []float32{2, 2, 0, 0, 0, 0}, Params{Temperature: 1, TopK: 2, TopP: 0.9}, almostOne, 1},
	{"min_p 1 keeps only ties", []float32{1, 2, 2, 1.999}, Params{Temperature: 1, MinP: 1}, almostOne, 2},
	{"min_p just below", []float32{0, -0.6}, Params{Temperature: 1, MinP: 0.54}, almostOne, 1}, // e^-0.6 = 0.549
	{"min_p just above", []float32{0, -0.6}, Params{Temperature: 1, MinP: 0.56}, almostOne, 0},
	{"min_p after temperature", []float32{0, -0.6}, Params{Temperature: 0.5, MinP: 0.54}, almostOne, 0},
}

func edgeLogits(logits []float32) []float32 {
	return append(slices.Clone(logits), slices.Repeat([]float32{-inf}, edgeVocab-len(logits))...)
}

func TestEdges(t *testing.T) {
	for _, e := range edges {
		require.Equal(t, e.want, SampleHost(edgeLogits(e.logits), e.params, e.u), e.name)
	}
}

func TestVocabularyOfOne(t *testing.T) {
	var b batch
	for _, u := range []float32{0, 0.5, almostOne} {
		b.add([]float32{3}, Params{Temperature: 1, TopK: 1, TopP: 0.5, MinP: 0.5}, u)
	}
	for name, backend := range pjrttest.Backends(t) {
		require.Equal(t, []int32{0, 0, 0}, b.run(t, graph.MustNewExec(backend, SampleFiltered)), name)
	}
}

// TestTransformers compares what can be drawn with what Hugging Face transformers 5.23's TemperatureLogitsWarper,
// TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper leave, applied in this order. Its top_p cuts ties by the order of
// a sort; ours keeps them, so the ties of its least likely token are added.
func TestTransformers(t *testing.T) {
	rows := [][]float32{
		{2, 1, 0.5, 0.25, -1, 3, 1, -4},
		{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7},
		{5, -3, 4.5, 4, -2, 0, 1.5, 3.5},
	}
	for _, c := range []struct {
		row    int
		params Params
		want   []int32
	}{
		{0, Params{1, 3, 0, 0}, []int32{0, 1, 5, 6}},
		{0, Params{1, 4, 0, 0}, []int32{0, 1, 5, 6}},
		{0, Params{0.7, 0, 0.9, 0}, []int32{0, 5, 6}},
		{0, Params{1.5, 0, 0.6, 0}, []int32{0, 5}},
		{0, Params{1, 0, 0, 0.1}, []int32{0, 1, 5, 6}},
		{0, Params{2, 0, 0, 0.5}, []int32{0, 5}},
		{0, Params{0.8, 5, 0.9, 0}, []int32{0, 5, 6}},
		{0, Params{1.3, 6, 0.95, 0.2}, []int32{0, 1, 5, 6}},
		{0, Params{1, 0, 0.05, 0}, []int32{5}},
		{1, Params{1, 3, 0, 0}, []int32{5, 6, 7}},
		{1, Params{1, 4, 0, 0}, []int32{4, 5, 6, 7}},
		{1, Params{0.7, 0, 0.9, 0}, []int32{1, 2, 3, 4, 5, 6, 7}},
		{1, Params{1.5, 0, 0.6, 0}, []int32{3, 4, 5, 6, 7}},
		{1, Params{1, 0, 0, 0.1}, []int32{0, 1, 2, 3, 4, 5, 6, 7}},
		{1, Params{2, 0, 0, 0.5}, []int32{0, 1, 2, 3, 4, 5, 6, 7}},
		{1, Params{0.8, 5, 0.9, 0}, []int32{3, 4, 5, 6, 7}},
		{1, Params{1.3, 6, 0.95, 0.2}, []int32{2, 3, 4, 5, 6, 7}},
		{1, Params{1, 0, 0.05, 0}, []int32{7}},
		{2, Params{1, 3, 0, 0}, []int32{0, 2, 3}},
		{2, Params{1, 4, 0, 0}, []int32{0, 2, 3, 7}},
		{2, Params{0.7, 0, 0.9, 0}, []int32{0, 2, 3}},
		{2, Params{1.5, 0, 0.6, 0}, []int32{0, 2}},
		{2, Params{1, 0, 0, 0.1}, []int32{0, 2, 3, 7}},
		{2, Params{2, 0, 0, 0.5}, []int32{0, 2, 3}},
		{2, Params{0.8, 5, 0.9, 0}, []int32{0, 2, 3}},
		{2, Params{1.3, 6, 0.95, 0.2}, []int32{0, 2, 3, 7}},
		{2, Params{1, 0, 0.05, 0}, []int32{0}},
	} {
		row := rows[c.row]
		least := inf
		for _, id := range c.want {
			least = min(least, row[id])
		}
		for i, l := range row {
			if l == least && !slices.Contains(c.want, int32(i)) {
				c.want = append(c.want, int32(i))
			}
		}
		slices.Sort(c.want)

		var got []int32
		for i := range 1 << 12 { // no token here is rarer than 2^-12
			if id := SampleHost(row, c.params, float32(i)/(1<<12)); !slices.Contains(got, id) {
				got = append(got, id)
			}
		}
		slices.Sort(got)
		require.Equal(t, c.want, got, "row %d %+v", c.row, c.params)
	}
}

// TestReference draws random rows with random parameters on the host. It must agree with the sorted float64 reference but
// where the answer is within 1e-6 of changing, and such cases must be rare.
func TestReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	const draws, vocab = 3000, 1000
	near := 0
	for range draws {
		logits, params, u := randomRow(rng, vocab)
		if got := SampleHost(logits, params, u); got != reference(logits, params, float64(u), 0, 0) {
			require.True(t, within(logits, params, float64(u), got, 1e-6), "%+v u %v: %d", params, u, got)
			near++
		}
	}
	t.Logf("%d of %d draws, all within 1e-6 of a boundary, differ from float64", near, draws)
	require.LessOrEqual(t, near, draws/500)
}

// TestGraphEqualsHost: every form of the graph draws what the host draws, always, on every backend: the edge cases and
// random rows in one batch. A row alone, which is another shape and another compilation, draws the same.
func TestGraphEqualsHost(t *testing.T) {
	var filtered, plain, greedy batch
	add := func(logits []float32, params Params, u float32) {
		filtered.add(logits, params, u)
		plain.add(logits, Params{Temperature: params.Temperature}, u)
		greedy.add(logits, Params{}, u)
	}
	for _, e := range edges {
		add(edgeLogits(e.logits), e.params, e.u)
	}
	rng := rand.New(rand.NewPCG(7, 9))
	for range 64 {
		add(randomRow(rng, edgeVocab))
	}
	for name, backend := range pjrttest.Backends(t) {
		exec := graph.MustNewExec(backend, SampleFiltered)
		require.Equal(t, filtered.host(), filtered.run(t, exec), "%s: filtered", name)
		for i := range edges {
			one := filtered.row(i)
			require.Equal(t, one.host(), one.run(t, exec), "%s: %s, alone", name, edges[i].name)
		}
		require.Equal(t, plain.host(), filtered.run(t, graph.MustNewExec(backend, SampleTemperature)), "%s: plain", name)
		out, err := graph.MustNewExec(backend, Greedy).Call1(greedy.args()[0])
		require.NoError(t, err)
		require.Equal(t, greedy.host(), tensors.MustCopyFlatData[int32](out), "%s: greedy", name)
	}
}

// TestChiSquare draws many times from one distribution under each filter.
func TestChiSquare(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 13))
	logits := make([]float32, 40)
	for i := range logits {
		logits[i] = float32(2 * rng.NormFloat64())
	}
	unfiltered := distribution(logits, Params{Temperature: 1}, 0)
	for i, params := range []Params{
		{Temperature: 1},
		{Temperature: 0.6},
		{Temperature: 1.7},
		{Temperature: 1, TopK: 7},
		{Temperature: 1, TopP: 0.8},
		{Temperature: 1, MinP: 0.1},
		{Temperature: 1.4, TopK: 20, TopP: 0.9, MinP: 0.03},
	} {
		counts := make([]int, len(logits))
		for step := range uint64(50_000) {
			counts[SampleHost(logits, params, Uniform(uint64(i), step))]++
		}
		requireChiSquare(t, counts, distribution(logits, params, 0))
		if i > 0 { // and the test can tell one distribution from another
			x, limit := chiSquare(counts, unfiltered)
			require.Greater(t, x, limit, "%+v", params)
		}
	}
}

func TestLogProb(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 19))
	const rows, vocab = 8, 20011
	logits := make([]float32, 0, rows*vocab)
	ids := make([]int32, rows)
	for r := range rows {
		for range vocab {
			logits = append(logits, float32(3*rng.NormFloat64()))
		}
		ids[r] = int32(rng.IntN(vocab))
	}
	row := func(r int) []float32 { return logits[r*vocab : (r+1)*vocab] }
	ids[1], ids[2] = 0, vocab-1
	ids[3], ids[4] = -1, vocab     // outside
	row(5)[ids[5]] = -inf          // impossible
	row(6)[(ids[6]+1)%vocab] = nan // broken
	row(7)[ids[7]] = 1e30          // certain
	for name, backend := range pjrttest.Backends(t) {
		out, err := graph.MustNewExec(backend, LogProb).Call1(
			tensors.FromFlatDataAndDimensions(slices.Clone(logits), rows, vocab), tensors.FromValue(ids))
		require.NoError(t, err, name)
		got := tensors.MustCopyFlatData[float32](out)
		for r := range 3 {
			require.InDelta(t, LogProbHost(row(r), ids[r]), got[r], 4e-6, "%s row %d", name, r) // |logprob| is up to 20
		}
		require.Equal(t, []float32{-inf, -inf, -inf}, got[3:6], name)
		require.True(t, math.IsNaN(float64(got[6])), "%s: %v", name, got[6])
		require.Equal(t, float32(0), got[7], name)
	}

	for r := range rows {
		switch want := LogProbHost(row(r), ids[r]); r {
		case 3, 4, 5:
			require.Equal(t, -inf, want)
		case 6:
			require.True(t, math.IsNaN(float64(want)))
		case 7:
			require.Equal(t, float32(0), want)
		default:
			var sum float64
			for _, l := range row(r) {
				sum += math.Exp(float64(l))
			}
			require.InDelta(t, float64(row(r)[ids[r]])-math.Log(sum), want, 1e-6)
		}
	}
}

func TestTopLogProbs(t *testing.T) {
	logits := []float32{1, 3, 2, 3, -inf, 2, 0.5}
	ids := func(n int) (ids []int32) {
		for _, p := range TopLogProbs(logits, n) {
			ids = append(ids, p.ID)
			require.Equal(t, LogProbHost(logits, p.ID), p.LogProb)
		}
		return ids
	}
	for n, want := range [][]int32{nil, {1}, {1, 3}, {1, 3, 2}, {1, 3, 2, 5}, {1, 3, 2, 5, 0}} {
		require.Equal(t, want, ids(n))
	}
	require.Equal(t, []int32{1, 3, 2, 5, 0, 6, 4}, ids(100))
	require.Empty(t, TopLogProbs(logits, -1))
	require.Empty(t, TopLogProbs(nil, 5))

	rng := rand.New(rand.NewPCG(23, 29))
	logits = make([]float32, 5000)
	order := make([]int32, len(logits))
	for i := range logits {
		logits[i], order[i] = float32(rng.IntN(200)-100)/8, int32(i) // many ties
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(logits[b], logits[a]) })
	require.Equal(t, order[:300], ids(300))
}

func TestShapesAreChecked(t *testing.T) {
	backend := pjrttest.Backends(t)["go"]
	logits := tensors.FromShape(shapes.Make(dtypes.Float32, 2, 8))
	for _, c := range []struct {
		name string
		fn   func(l, p, u *graph.Node) *graph.Node
		args []any
		want string
	}{
		{"rows of params", SampleTemperature, []any{logits, tensors.FromShape(shapes.Make(dtypes.Float32, 3, 4)), []float32{0, 0}}, "[3, 4]"},
		{"columns of params", SampleFiltered, []any{logits, tensors.FromShape(shapes.Make(dtypes.Float32, 2, 3)), []float32{0, 0}}, "[2, 3]"},
		{"rows of u", SampleFiltered, []any{logits, tensors.FromShape(shapes.Make(dtypes.Float32, 2, 4)), []float32{0}}, "[1]"},
		{"rank of logits", SampleFiltered, []any{[]float32{1}, tensors.FromShape(shapes.Make(dtypes.Float32, 2, 4)), []float32{0, 0}}, "[1]"},
	} {
		_, err := graph.MustNewExec(backend, c.fn).Call(c.args...)
		require.ErrorContains(t, err, c.want, c.name)
	}
}

// FuzzSampleHost looks for a panic, an id outside of the vocabulary, or a token that cannot be: NaN, -Inf.
func FuzzSampleHost(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 0, 64}, float32(1), 1, float32(0.5), float32(0.1), float32(0.5))
	f.Add([]byte{0, 0, 128, 255, 0, 0, 192, 127}, float32(1e-30), -5, nan, inf, nan)
	f.Fuzz(func(t *testing.T, data []byte, temperature float32, k int, p, minP, u float32) {
		var logits []float32
		possible := false
		for ; len(data) >= 4; data = data[4:] {
			bits := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
			logits = append(logits, math.Float32frombits(bits))
			possible = possible || keyHost(logits[len(logits)-1]) > negInfKey
		}
		if len(logits) == 0 {
			return
		}
		id := SampleHost(logits, Params{temperature, k, p, minP}, u)
		require.True(t, id >= 0 && int(id) < len(logits), "id %d of %d", id, len(logits))
		require.Equal(t, possible, keyHost(logits[id]) > negInfKey, "id %d of %v", id, logits)
	})
}

// batch is a batch of rows to sample.
type batch struct {
	logits [][]float32
	params []Params
	u      []float32
}

func (b *batch) add(logits []float32, params Params, u float32) {
	b.logits, b.params, b.u = append(b.logits, logits), append(b.params, params), append(b.u, u)
}

func (b *batch) row(i int) *batch {
	return &batch{b.logits[i : i+1], b.params[i : i+1], b.u[i : i+1]}
}

func (b *batch) host() []int32 {
	ids := make([]int32, len(b.u))
	for i := range ids {
		ids[i] = SampleHost(b.logits[i], b.params[i], b.u[i])
	}
	return ids
}

func (b *batch) run(t *testing.T, exec *graph.Exec) []int32 {
	t.Helper()
	out, err := exec.Call1(b.args()...)
	require.NoError(t, err)
	defer out.MustFinalizeAll()
	return tensors.MustCopyFlatData[int32](out)
}

// args returns logits, params and u as tensors.
func (b *batch) args() []any {
	rows := make([][]float32, len(b.params))
	for i, p := range b.params {
		row := p.Row()
		rows[i] = row[:]
	}
	return []any{tensors.FromValue(b.logits), tensors.FromValue(rows), tensors.FromValue(b.u)}
}

// randomRow returns logits of one of several kinds, with ties in some, and random parameters, each filter on half the time.
func randomRow(rng *rand.Rand, vocab int) ([]float32, Params, float32) {
	logits := make([]float32, vocab)
	kind, scale := rng.IntN(4), math.Exp(2*rng.NormFloat64())
	for i := range logits {
		x := scale * rng.NormFloat64()
		switch kind {
		case 1:
			x = math.Round(4*x) / 4 // ties
		case 2:
			if rng.IntN(3) == 0 {
				x = math.Inf(-1)
			}
		case 3:
			x *= 1e-3 * rng.ExpFloat64() // many small differences
		}
		logits[i] = float32(x)
	}
	params := Params{Temperature: float32(math.Exp(rng.NormFloat64()))}
	if rng.IntN(8) == 0 {
		params.Temperature = 0
	}
	if rng.IntN(2) == 0 {
		params.TopK = 1 + int(math.Exp(rng.Float64()*9))
	}
	if rng.IntN(2) == 0 {
		params.TopP = rng.Float32()
	}
	if rng.IntN(2) == 0 {
		params.MinP = float32(math.Pow(rng.Float64(), 3))
	}
	return logits, params, Uniform(rng.Uint64(), 0)
}

// distribution is the reference: the filtered probabilities in float64, by sorting. Slack moves the thresholds of top_p and
// min_p by that much.
func distribution(logits []float32, params Params, slack float64) []float64 {
	probs := make([]float64, len(logits))
	order := make([]int, len(logits))
	top := slices.Max(logits)
	for i, l := range logits {
		order[i] = i
		if params.Temperature > 0 {
			probs[i] = math.Exp((float64(l) - float64(top)) / float64(params.Temperature))
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	if params.Temperature == 0 {
		probs[order[0]] = 1
		return probs
	}
	keep := len(order) // of order
	growTies := func() {
		for keep > 0 && keep < len(order) && logits[order[keep]] == logits[order[keep-1]] {
			keep++
		}
	}
	if params.TopK > 0 && params.TopK < keep {
		keep = params.TopK
		growTies()
	}
	if params.TopP > 0 && params.TopP < 1 {
		var total, sum float64
		for _, i := range order[:keep] {
			total += probs[i]
		}
		for n, i := range order[:keep] {
			if n > 0 && sum >= (float64(params.TopP)+slack)*total {
				keep = n
				growTies()
				break
			}
			sum += probs[i]
		}
	}
	for keep > 1 && probs[order[keep-1]] < float64(params.MinP)+min(slack, float64(params.MinP)) {
		keep--
	}
	var total float64
	for _, i := range order[:keep] {
		total += probs[i]
	}
	for n, i := range order {
		if n < keep {
			probs[i] /= total
		} else {
			probs[i] = 0
		}
	}
	return probs
}

// reference returns the token at u, and at u+du for thresholds moved by slack.
func reference(logits []float32, params Params, u, du, slack float64) int32 {
	last, sum := 0, 0.0
	for i, p := range distribution(logits, params, slack) {
		if p == 0 {
			continue
		}
		if sum += p; sum > u+du {
			return int32(i)
		}
		last = i
	}
	return int32(last)
}

// within says whether id lies between the reference's answers for u ± eps, with thresholds moved by 0 or ± eps.
func within(logits []float32, params Params, u float64, id int32, eps float64) bool {
	for _, slack := range []float64{-eps, 0, eps} {
		if reference(logits, params, u, -eps, slack) <= id && id <= reference(logits, params, u, eps, slack) {
			return true
		}
	}
	return false
}

// chiSquare returns the statistic of the counts against probs, and its quantile at 1 - 1e-6 (Wilson and Hilferty 1931).
func chiSquare(counts []int, probs []float64) (x, limit float64) {
	total := 0
	for _, c := range counts {
		total += c
	}
	var restCount, restWant, cells float64 // cells of fewer than 5 expected are pooled
	add := func(count, want float64) {
		x += (count - want) * (count - want) / want
		cells++
	}
	for i, p := range probs {
		count, want := float64(counts[i]), p*float64(total)
		if want < 5 {
			restCount, restWant = restCount+count, restWant+want
			continue
		}
		add(count, want)
	}
	if restWant > 0 {
		add(restCount, max(restWant, 1))
	} else if restCount > 0 {
		return math.Inf(1), 0 // an impossible token was drawn
	}
	const z = 4.7534 // standard normal quantile at 1 - 1e-6
	df := cells - 1
	return x, df * math.Pow(1-2/(9*df)+z*math.Sqrt(2/(9*df)), 3)
}

func requireChiSquare(t *testing.T, counts []int, probs []float64) {
	t.Helper()
	for i, p := range probs {
		require.False(t, p == 0 && counts[i] > 0, "id %d of probability 0 was drawn %d times", i, counts[i])
	}
	x, limit := chiSquare(counts, probs)
	require.Less(t, x, limit)
}
