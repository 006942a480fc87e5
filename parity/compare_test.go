package parity

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEqualPasses(t *testing.T) {
	report, err := runToy(t, toyDump(t, nil), toy{}, Options{})
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report.Failures())
	var parts []string
	for _, row := range report.Rows {
		parts = append(parts, row.DType+" "+row.Part)
		require.Equal(t, Pass, row.Verdict)
	}
	require.Equal(t, []string{"f32 config", "f32 hidden", "f32 logits", "f32 greedy", "f32 cached", "f32 score",
		"f32 batch.left", "f32 batch.left as single", "f32 batch.right", "f32 batch.right as single",
		"bf16 hidden", "bf16 logits", "bf16 greedy", "bf16 cached", "bf16 score"}, parts)
	require.Equal(t, Agreement{Equal: 18, Total: 18}, *report.Rows[3].Exact)
}

// addTo adds e to each value, with alternating sign.
func addTo(values []float32, e float32) {
	for i := range values {
		values[i] += e * float32(1-2*(i%2))
	}
}

func TestDifferencesFail(t *testing.T) {
	nan := float32(math.NaN())
	long := len(toyPrompts[2])
	tests := []struct {
		name string
		toy  toy
		// The row that must fail, and what its note must say. All rows that fail must be in also or be this one.
		part, note string
		also       []string
	}{
		{"layer 1 of one prompt", toy{layer: func(l int, ids []int32, h []float32) {
			if l >= 1 && len(ids) == long {
				addTo(h, 0.3)
			}
		}}, "f32 hidden", "first layer that disagrees: 1 (prompt 2", []string{"bf16 hidden"}},
		{"rms alone", toy{layer: func(l int, _ []int32, h []float32) {
			if l == 2 {
				addTo(h, 4e-5) // a fifth of the largest difference allowed, as a wrong epsilon is
			}
		}}, "f32 hidden", "first layer that disagrees: 2 (prompt 0: max 4e-05, rms 4e-05)", nil},
		{"one value", toy{layer: func(l int, ids []int32, h []float32) {
			if l == 0 && len(ids) == long {
				h[5] += 2.5e-4
			}
		}}, "f32 hidden", "first layer that disagrees: 0 (prompt 2", nil},
		{"logits", toy{logits: func(_ []int32, v []float32) { addTo(v, 3e-5) }},
			"f32 logits", "all layers agree: the final norm or the head",
			[]string{"f32 batch.left", "f32 batch.right", "f32 cached", "f32 score"}},
		{"NaN in a hidden state", toy{layer: func(l int, ids []int32, h []float32) {
			if l == 2 && len(ids) == long {
				h[0] = nan
			}
		}}, "f32 hidden", "1 of 56 not finite", []string{"bf16 hidden"}},
		{"NaN in logits", toy{logits: func(ids []int32, v []float32) {
			if len(ids) == long {
				v[0] = nan
			}
		}}, "bf16 logits", "1 of 168 not finite", []string{"f32 logits"}},
		{"a token", toy{decoding: func(ids, tokens []int32) {
			if len(ids) == long {
				tokens[4] = (tokens[4] + 1) % toyVocab
			}
		}}, "f32 greedy", "prompt 2: token 4 is", []string{"f32 batch.left", "f32 batch.right"}},
		{"log-probabilities", toy{logProb: func(_ []int32, p []float32) { p[len(p)-1] += 6e-5 }},
			"f32 cached", "max 6", []string{"f32 score"}},
		{"a NaN log-probability", toy{logProb: func(_ []int32, p []float32) { p[0] = nan }}, "bf16 cached", "not finite",
			[]string{"f32 cached", "f32 score", "bf16 score", "f32 batch.left as single", "f32 batch.right as single"}},
	}
	dir := toyDump(t, nil)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			report, err := runToy(t, dir, test.toy, Options{})
			require.NoError(t, err)
			require.False(t, report.OK())
			found := false
			for _, row := range report.Failures() {
				name := row.DType + " " + row.Part
				if name == test.part {
					found = true
					require.Contains(t, row.Note, test.note)
				} else {
					require.Contains(t, test.also, name, row.Note)
				}
			}
			require.True(t, found, "%s does not fail", test.part)
			_, err = json.Marshal(report) // whatever the numbers
			require.NoError(t, err)
			var text strings.Builder
			require.NoError(t, report.Write(&text))
			require.Contains(t, text.String(), test.note)
		})
	}
}

func TestPerturbedBF16Fails(t *testing.T) {
	// Noise of twice bf16's own rms leaves the float32 reference alone, which is not rounded.
	dir := toyDump(t, nil)
	var m toy
	m.layer = func(l int, ids []int32, h []float32) {
		if l < 1 {
			return
		}
		for i, v := range h {
			if v == fromBF16(toBF16(v)) { // only in the bf16 run
				h[i] += 0.04 * float32(1-2*(i%2))
			}
		}
	}
	report, err := runToy(t, dir, m, Options{})
	require.NoError(t, err)
	failed := report.Failures()
	require.Len(t, failed, 1)
	require.Equal(t, "bf16 hidden", failed[0].DType+" "+failed[0].Part)
	require.Contains(t, failed[0].Note, "first layer that disagrees: 1")
}

func TestForcedGreedy(t *testing.T) {
	// In bf16 the logits of the text's last token say the wrong id, above the margin that is bf16's own.
	dir := toyDump(t, nil)
	report, err := runToy(t, dir, toy{logits: func(ids []int32, v []float32) {
		if len(ids) > len(toyPrompts[2]) {
			best, _ := argMax(v[len(v)-toyVocab:])
			v[len(v)-toyVocab+int(best)] = -9
		}
	}}, Options{})
	require.NoError(t, err)
	at := slices.IndexFunc(report.Rows, func(r Row) bool { return r.DType == refBF16 && r.Part == "greedy" })
	row := report.Rows[at]
	require.Equal(t, Fail, row.Verdict)
	require.Contains(t, row.Note, "the arg-max for token 5 is")
	require.Greater(t, row.Exact.Equal, 0)
	require.Less(t, row.Exact.Equal, row.Exact.Total)
}

func TestAmbiguousTokens(t *testing.T) {
	margin := []float32{1, 1e-4, 1}
	tests := []struct {
		name          string
		got           []int32
		problem, note string
		agreement     Agreement
	}{
		{"equal", []int32{1, 2, 3}, "", "", Agreement{3, 3}},
		{"below the tolerance", []int32{1, 9, 9}, "", "token 1 is 9, want 2, whose margin is 0.0001: ambiguous", Agreement{1, 1}},
		{"above", []int32{1, 2, 9}, "token 2 is 9, want 3", "", Agreement{2, 3}},
		{"short", []int32{1}, "the engine gave 1 of 3 tokens", "", Agreement{1, 3}},
		{"empty", nil, "the engine gave 0 of 3 tokens", "", Agreement{0, 3}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var a Agreement
			problem, note := a.tokens(test.got, []int32{1, 2, 3}, margin)
			require.Equal(t, test.agreement, a)
			require.Contains(t, problem, test.problem)
			require.Contains(t, note, test.note)
			require.Equal(t, test.problem == "", problem == "")
			require.Equal(t, test.note == "", note == "")
		})
	}
}

func TestDiff(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	tests := []struct {
		name      string
		got, want []float32
		diff      Diff
		used      float64 // of Bound{Max: 0.5, RMS: 0.25}
	}{
		{"empty", nil, nil, Diff{Cosine: 1}, 0},
		{"zeros", []float32{0, 0}, []float32{0, 0}, Diff{Cosine: 1, N: 2}, 0},
		{"a zero", []float32{0, 0}, []float32{0, 1}, Diff{Max: 1, RMS: math.Sqrt(0.5), N: 2}, math.Sqrt(0.5) / 0.25},
		{"opposite", []float32{1, -2}, []float32{-1, 2}, Diff{Max: 4, RMS: math.Sqrt(10), Cosine: -1, N: 2}, math.Sqrt(10) / 0.25},
		{"max", []float32{0, 0, 0, 0.45}, []float32{0, 0, 0, 0}, Diff{Max: 0.45, RMS: 0.225, N: 4}, 0.9},
		{"NaN on one side", []float32{nan, 1}, []float32{1, 1}, Diff{Cosine: 1, N: 2, NotFinite: 1}, mismatch},
		{"NaN on both sides", []float32{nan, 1}, []float32{nan, 1}, Diff{Cosine: 1, N: 2, NotFinite: 1}, mismatch},
		{"equal infinities", []float32{inf, 1}, []float32{inf, 1}, Diff{Cosine: 1, N: 2, NotFinite: 1}, mismatch},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := diff(test.got, test.want)
			require.InDelta(t, test.diff.Max, d.Max, 1e-7)
			require.InDelta(t, test.diff.RMS, d.RMS, 1e-7)
			require.InDelta(t, test.diff.Cosine, d.Cosine, 1e-7)
			require.Equal(t, [2]int{test.diff.N, test.diff.NotFinite}, [2]int{d.N, d.NotFinite})
			require.InDelta(t, test.used, Bound{Max: 0.5, RMS: 0.25}.used(d), 1e-6)
		})
	}
	require.Equal(t, float64(mismatch), Bound{}.used(Diff{Max: 1e-9}))
}

func TestBF16Rounding(t *testing.T) {
	tests := []struct {
		bits uint32
		want uint16
	}{
		{0x3f800000, 0x3f80},
		{0x3f807fff, 0x3f80}, // below half
		{0x3f808000, 0x3f80}, // half, to even: down
		{0x3f818000, 0x3f82}, // half, to even: up
		{0x3f808001, 0x3f81}, // above half
		{0xbf808001, 0xbf81},
		{0x7f7fffff, 0x7f80}, // the largest float32 is nearest to infinity
		{0x7f800000, 0x7f80},
		{0x7f800001, 0x7fc0}, // a NaN whose payload would vanish
		{0x80000000, 0x8000},
		{0x00000001, 0x0000},
	}
	for _, test := range tests {
		require.Equal(t, test.want, toBF16(math.Float32frombits(test.bits)), "%#x", test.bits)
	}
}
