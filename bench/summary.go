package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Summary of the runs of one figure.
type Summary struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"` // the mean of the middle two, of an even number
	Max    float64 `json:"max"`
	Runs   int     `json:"runs"`
}

// Summarize sums up the runs of one figure; of none it returns zeros.
func Summarize(runs []float64) Summary {
	if len(runs) == 0 {
		return Summary{}
	}
	s := slices.Sorted(slices.Values(runs))
	return Summary{Min: s[0], Median: quantile(s, 0.5), Max: s[len(s)-1], Runs: len(s)}
}

// Spread is the range of the runs relative to their median.
func (s Summary) Spread() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Max - s.Min) / s.Median
}

// quantile of sorted values, between two of them by interpolation.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

// Interval is the median of a ratio over rounds, and its 95% bootstrap interval.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Rounds int     `json:"rounds"`
}

func (i Interval) String() string { return fmt.Sprintf("%.3f [%.3f, %.3f]", i.Median, i.Low, i.High) }

// ratios returns the interval of the ratios of two figures, round by round. The resampling has a fixed seed.
func ratios(a, b []float64) Interval {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	const resamples = 4000
	rng := rand.New(rand.NewPCG(1, 2))
	medians, again := make([]float64, resamples), make([]float64, len(r))
	for i := range medians {
		for j := range again {
			again[j] = r[rng.IntN(len(r))]
		}
		medians[i] = Summarize(again).Median
	}
	slices.Sort(medians)
	return Interval{Summarize(r).Median, quantile(medians, 0.025), quantile(medians, 0.975), len(r)}
}

// SpreadError says that runs of the same work disagreed by more than was allowed.
type SpreadError struct {
	Limit   float64
	Figures []string // each with its range
}

func (e *SpreadError) Error() string {
	return fmt.Sprintf("bench: runs of the same work lie further apart than %.0f%% of their median, so nothing is reported: %s; "+
		"measure on a quiet machine, or allow a wider spread", 100*e.Limit, strings.Join(e.Figures, "; "))
}
