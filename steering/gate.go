package steering

import (
	"fmt"
	"math"
)

// Row is how one entry acts at one layer, as the graph operation takes it: along a direction,
//
//	delta = min(A + B·rho, Cap − rho)   if rho < Theta, else 0
type Row struct{ Theta, A, B, Cap float32 }

// capSigmas is how many standard deviations beyond its class mean a mirrored projection may land (the authors' kernel).
const capSigmas = 40

// Gate works out the row of an entry at a layer of its vector, and whether it acts along the negated direction −v̂. All is
// computed in float64 and rounded once.
//
//	method    Theta  A         B     Cap
//	SwFC      +Inf   α·Δμ      0     +Inf
//	StTP      m      μ+ + α·σ+ −1    +Inf
//	StMP      m      2·α·m     −2·α  μ+ + 40·σ+
//	Ablation  +Inf   0         −α    +Inf
//
// The gate is a strict inequality. The cap of StMP bounds the projection from above, as in the authors' kernel, not the size
// of the step: a token beyond the cap, if one passed the gate, would be pulled back.
//
// In the negative sense the roles are exchanged: the gate is rho > m, and the edit moves towards smaller projections. It is
// expressed by the same formula along −v̂, where every projection and with it m changes sign:
//
//	SwFC      h − α·Δμ·v̂
//	StTP      h + (μ- + α·σ- − rho)·v̂    if rho > m: the authors' sign of α, so a target beyond μ- takes a negative α
//	StMP      h + 2·α·(m − rho)·v̂        if rho > m, but never below μ- − 40·σ-
//	Ablation  the same as in the positive sense
//
// The floor of the negative StMP is the mirror image of the cap. The authors' kernel keeps its upper cap there, which a token
// on its way down does not meet.
func Gate(e *Entry, l *Layer) (row Row, negated bool, err error) {
	inf := math.Inf(1)
	theta, a, b, limit := inf, 0.0, 0.0, inf
	alpha, sign := e.Coefficient, 1.0
	s := l.Statistics
	if e.Negative {
		sign = -1
	}
	if e.Method.gated() {
		if s == nil {
			return Row{}, false, fmt.Errorf("layer %d: %v needs the vector's statistics (m, mu, sigma), and it has none", l.Index, e.Method)
		}
		theta = sign * s.M
	}
	switch e.Method {
	case SwFC:
		a = alpha * l.DeltaMu
	case StTP:
		b = -1
		if a = s.MuPos + alpha*s.SigmaPos; e.Negative {
			a = -(s.MuNeg + alpha*s.SigmaNeg)
		}
	case StMP:
		a, b = 2*alpha*theta, -2*alpha
		if limit = s.MuPos + capSigmas*s.SigmaPos; e.Negative {
			limit = -(s.MuNeg - capSigmas*s.SigmaNeg)
		}
	case Ablation:
		b = -alpha
	default:
		return Row{}, false, fmt.Errorf("method %v is none of swfc, sttp, stmp, ablate", e.Method)
	}
	for _, x := range []struct {
		name  string
		value float64
		open  bool // +Inf stands for none
	}{{"theta", theta, true}, {"a", a, false}, {"b", b, false}, {"cap", limit, true}} {
		if !(math.Abs(x.value) <= math.MaxFloat32) && !(x.open && x.value == inf) {
			return Row{}, false, fmt.Errorf("layer %d: %v with coefficient %g: %s = %g is not a finite float32", l.Index, e.Method,
				alpha, x.name, x.value)
		}
	}
	return Row{float32(theta), float32(a), float32(b), float32(limit)}, e.Negative, nil
}
