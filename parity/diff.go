package parity

import (
	"fmt"
	"math"
)

// Diff measures how far two arrays are apart.
type Diff struct {
	Max       float64 `json:"max"`        // largest |got - want|
	RMS       float64 `json:"rms"`        // root of the mean of (got - want)²
	Cosine    float64 `json:"cosine"`     // <got, want> / (|got| |want|); 1 if both are zero
	N         int     `json:"n"`          // elements compared
	NotFinite int     `json:"not_finite"` // pairs in which either is NaN or infinite; they count in nothing else
}

// diff compares two arrays of equal length in float64.
func diff[T float32 | float64](got, want []T) Diff {
	d := Diff{N: len(want)}
	var square, gg, ww, gw float64
	for i := range want {
		g, w := float64(got[i]), float64(want[i])
		if e := g - w; math.IsNaN(e) || math.IsInf(e, 0) {
			d.NotFinite++
		} else {
			d.Max = max(d.Max, math.Abs(e))
			square += e * e
			gg, ww, gw = gg+g*g, ww+w*w, gw+g*w
		}
	}
	if n := d.N - d.NotFinite; n > 0 {
		d.RMS = math.Sqrt(square / float64(n))
	}
	switch {
	case gg > 0 && ww > 0:
		d.Cosine = gw / math.Sqrt(gg*ww)
	case gg == 0 && ww == 0:
		d.Cosine = 1
	}
	return d
}

func (d Diff) String() string {
	s := fmt.Sprintf("max %.2g, rms %.2g", d.Max, d.RMS)
	if d.NotFinite > 0 {
		s += fmt.Sprintf(", %d of %d not finite", d.NotFinite, d.N)
	}
	return s
}

// Bound is what a Diff may be at most. A zero RMS is no bound.
type Bound struct{ Max, RMS float64 }

// The tolerances of README.md.
var (
	float32Bound = Bound{Max: 2e-4, RMS: 2e-5} // against transformers
	singleBound  = Bound{Max: 5e-5}            // cached and batched runs against single ones
)

const (
	// A bf16 run may be this many times as far from float32 as transformers' bf16 run is.
	bf16RMS, bf16Max = 1.5, 2
	// A float32 token may differ where the two best logits are closer than two errors at the bound.
	ambiguous = 2 * 2e-4
)

// bf16Bound is the bound of an engine's bf16 values against float32, from those of transformers.
func bf16Bound(reference Diff) Bound {
	return Bound{Max: bf16Max * reference.Max, RMS: bf16RMS * reference.RMS}
}

// mismatch is a used tolerance that stands for "nothing would have been enough".
const mismatch = 1e6

// used returns which share of the bound the difference takes: above 1 it disagrees.
func (b Bound) used(d Diff) float64 {
	share := func(value, limit float64) float64 {
		switch {
		case value == 0:
			return 0
		case limit == 0:
			return mismatch
		}
		return min(value/limit, mismatch)
	}
	if d.NotFinite > 0 {
		return mismatch
	}
	used := share(d.Max, b.Max)
	if b.RMS > 0 {
		used = max(used, share(d.RMS, b.RMS))
	}
	return used
}

// tally gathers the comparisons of one part: the largest differences, and where the bound was exceeded.
type tally struct {
	diff  Diff // Max, RMS: the largest; Cosine: the smallest; N, NotFinite: sums
	used  float64
	worst string // where used was the largest
	any   bool

	square float64 // sum of (got - want)²
}

// add compares two arrays of one block, which `where` names, and reports whether they agree.
func (t *tally) add(where string, got, want []float32, bound Bound) bool {
	d := diff(got, want)
	used := bound.used(d)
	t.put(where, d, used)
	return used <= 1
}

// put takes in a comparison.
func (t *tally) put(where string, d Diff, used float64) {
	if !t.any {
		t.diff.Cosine = 1
	}
	if !t.any || used > t.used {
		t.used, t.worst = used, fmt.Sprintf("%s: %s", where, d)
	}
	t.any = true
	t.diff.Max, t.diff.RMS = max(t.diff.Max, d.Max), max(t.diff.RMS, d.RMS)
	t.diff.Cosine = min(t.diff.Cosine, d.Cosine)
	t.square += d.RMS * d.RMS * float64(d.N-d.NotFinite)
	t.diff.N, t.diff.NotFinite = t.diff.N+d.N, t.diff.NotFinite+d.NotFinite
}

// addPooled bounds the rms of all that was added, as if it were one block.
func (t *tally) addPooled(where string, limit float64) {
	n := t.diff.N - t.diff.NotFinite
	if n == 0 {
		return
	}
	d := Diff{Max: t.diff.Max, RMS: math.Sqrt(t.square / float64(n))}
	if used := (Bound{Max: math.Inf(1), RMS: limit}).used(d); used > t.used {
		t.used, t.worst = used, fmt.Sprintf("%s: %s", where, d)
	}
}

// problems are those of the same row and, if the bound was exceeded, where that was worst.
func (t *tally) problems(others []string) []string {
	if t.used > 1 {
		return append([]string{t.worst}, others...)
	}
	return others
}

// Agreement counts what must be equal: tokens, gates, counts.
type Agreement struct {
	Equal int `json:"equal"`
	Total int `json:"total"`
}

// tokens compares a float32 continuation with the reference's. After a token that differs the two texts are different
// questions, so a difference at a margin below `ambiguous` ends the comparison, and any other is a mismatch.
func (a *Agreement) tokens(got, want []int32, margin []float32) (problem, note string) {
	for k, id := range want {
		if k < len(got) && got[k] == id {
			a.Equal, a.Total = a.Equal+1, a.Total+1
			continue
		}
		if k >= len(got) {
			a.Total += len(want) - k
			return fmt.Sprintf("the engine gave %d of %d tokens", len(got), len(want)), ""
		}
		where := fmt.Sprintf("token %d is %d, want %d, whose margin is %.2g", k, got[k], id, margin[k])
		if margin[k] < ambiguous {
			return "", where + ": ambiguous, the rest is not compared"
		}
		a.Total += len(want) - k
		return where, ""
	}
	return "", ""
}

// argMax returns the index of the largest value, the lowest on a tie, and whether all are finite.
func argMax(x []float32) (best int32, finite bool) {
	finite = true
	for i, v := range x {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			finite = false
		}
		if v > x[best] {
			best = int32(i)
		}
	}
	return best, finite
}

// logProb returns the logarithm of the softmax of a row of logits at one id, computed in float64.
func logProb(logits []float32, id int32) float32 {
	peak := math.Inf(-1)
	for _, v := range logits {
		peak = max(peak, float64(v))
	}
	var sum float64
	for _, v := range logits {
		sum += math.Exp(float64(v) - peak)
	}
	return float32(float64(logits[id]) - peak - math.Log(sum))
}
