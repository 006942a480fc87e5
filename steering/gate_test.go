package steering

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// step is the formula of the graph operation, in float64: what is added along the direction that the row acts on.
func (r Row) step(rho float64) float64 {
	if !(rho < float64(r.Theta)) {
		return 0
	}
	return min(float64(r.A)+float64(r.B)*rho, float64(r.Cap)-rho)
}

// TestGate compares the rows of each method in each sense with the equations as the paper and the authors' kernel write them.
func TestGate(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	fired := 0
	for range 2000 {
		at := &randomVector(rng, 1, 3).Layers[0]
		e := &Entry{Method: SwFC + Method(rng.IntN(4)), Coefficient: 5 * rng.NormFloat64(), Negative: rng.IntN(2) == 0}
		row, negated, err := Gate(e, at)
		require.NoError(t, err)
		require.Equal(t, e.Negative, negated)
		sign := 1.0
		if negated {
			sign = -1
		}
		for range 4 {
			rho := 4 * rng.NormFloat64()
			want, _, near := equation(e, at, rho)
			if near < 1e-5 {
				continue
			}
			got := sign * row.step(sign*rho)
			scale := 1 + math.Abs(e.Coefficient)*(math.Abs(rho)+10)
			require.InDelta(t, want, got, 1e-6*scale, "%v %+v rho=%g", e.Method, *e, rho)
			if want != 0 {
				fired++
			}
		}
	}
	require.Greater(t, fired, 1000)
}

func TestGateRows(t *testing.T) {
	inf := float32(math.Inf(1))
	at := &Layer{DeltaMu: 3, Statistics: &Statistics{M: 0.5, MuPos: 2, MuNeg: -1, SigmaPos: 0.25, SigmaNeg: 0.5}}
	for _, c := range []struct {
		method   Method
		alpha    float64
		positive Row
		negative Row // along −v̂
	}{
		{SwFC, 2, Row{inf, 6, 0, inf}, Row{inf, 6, 0, inf}},
		{SwFC, -2, Row{inf, -6, 0, inf}, Row{inf, -6, 0, inf}},
		{StTP, 4, Row{0.5, 3, -1, inf}, Row{-0.5, -1, -1, inf}},
		{StMP, 3, Row{0.5, 3, -6, 12}, Row{-0.5, -3, -6, 21}},
		{Ablation, 1, Row{inf, 0, -1, inf}, Row{inf, 0, -1, inf}},
	} {
		got, negated, err := Gate(&Entry{Method: c.method, Coefficient: c.alpha}, at)
		require.NoError(t, err)
		require.False(t, negated)
		require.Equal(t, c.positive, got, c.method)
		got, negated, err = Gate(&Entry{Method: c.method, Coefficient: c.alpha, Negative: true}, at)
		require.NoError(t, err)
		require.True(t, negated)
		require.Equal(t, c.negative, got, c.method)
	}
	_, _, err := Gate(&Entry{Method: StMP, Coefficient: 1e300}, at)
	require.ErrorContains(t, err, "a = 1e+300 is not a finite float32")
}
