package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Rope describes the rotary position embedding: rope_theta and rope_scaling of the hub's config style, or
// rope_parameters of transformers 5's. Type is one of "default", "linear", "llama3", "yarn".
type Rope struct {
	Type                          string  `json:"rope_type"`
	Theta                         float64 `json:"rope_theta"`
	Factor                        float64 `json:"factor,omitempty"`                           // linear, llama3, yarn
	LowFreqFactor                 float64 `json:"low_freq_factor,omitempty"`                  // llama3
	HighFreqFactor                float64 `json:"high_freq_factor,omitempty"`                 // llama3
	OriginalMaxPositionEmbeddings int     `json:"original_max_position_embeddings,omitempty"` // llama3, yarn
	BetaFast                      float64 `json:"beta_fast,omitempty"`                        // yarn
	BetaSlow                      float64 `json:"beta_slow,omitempty"`                        // yarn
	AttentionFactor               float64 `json:"attention_factor"`                           // yarn: multiplies cos and sin; else 1
	Truncate                      bool    `json:"truncate,omitempty"`                         // yarn: ramp between whole dimensions
}

type rawRope struct {
	RopeType                      *string  `json:"rope_type"`
	Type                          *string  `json:"type"`
	RopeTheta                     *float64 `json:"rope_theta"`
	Factor                        *float64 `json:"factor"`
	LowFreqFactor                 *float64 `json:"low_freq_factor"`
	HighFreqFactor                *float64 `json:"high_freq_factor"`
	OriginalMaxPositionEmbeddings *int     `json:"original_max_position_embeddings"`
	AttentionFactor               *float64 `json:"attention_factor"`
	BetaFast                      *float64 `json:"beta_fast"`
	BetaSlow                      *float64 `json:"beta_slow"`
	MScale                        *float64 `json:"mscale"`
	MScaleAllDim                  *float64 `json:"mscale_all_dim"`
	PartialRotaryFactor           *float64 `json:"partial_rotary_factor"`
	Truncate                      *bool    `json:"truncate"`
}

func present(m json.RawMessage) bool { return len(m) > 0 && string(m) != "null" }

func (c *Config) setRope(raw *rawConfig) error {
	key, msg := "rope_scaling", raw.RopeScaling
	if present(raw.RopeParameters) {
		if present(raw.RopeScaling) {
			return errors.New("config.json: both rope_scaling and rope_parameters are given")
		}
		key, msg = "rope_parameters", raw.RopeParameters
	}
	var r rawRope
	if present(msg) {
		if err := json.Unmarshal(msg, &r); err != nil {
			return fmt.Errorf("config.json: %s: %w", key, err)
		}
	}
	rope := Rope{Type: "default", Theta: 10000, AttentionFactor: 1}
	switch {
	case r.RopeType != nil:
		rope.Type = *r.RopeType
	case r.Type != nil:
		rope.Type = *r.Type
	case present(raw.RopeScaling):
		return errors.New("config.json: rope_scaling has no rope_type")
	}
	for _, theta := range []*float64{raw.RopeTheta, r.RopeTheta} {
		if theta != nil {
			rope.Theta = *theta
		}
	}
	if !finitePositive(rope.Theta) || rope.Theta <= 1 {
		return fmt.Errorf("config.json: rope_theta = %g, want a number above 1", rope.Theta)
	}
	if r.PartialRotaryFactor != nil && *r.PartialRotaryFactor != 1 {
		return fmt.Errorf("config.json: %s.partial_rotary_factor = %g is not supported", key, *r.PartialRotaryFactor)
	}
	need := func(name string, p *float64, dst *float64) error {
		if p == nil {
			return fmt.Errorf("config.json: %s: rope type %q needs %s", key, rope.Type, name)
		}
		if !finitePositive(*p) {
			return fmt.Errorf("config.json: %s.%s = %g, want a positive number", key, name, *p)
		}
		*dst = *p
		return nil
	}
	// transformers falls back to max_position_embeddings when the original length is not given.
	original := func() error {
		rope.OriginalMaxPositionEmbeddings = c.MaxPositionEmbeddings
		if p := r.OriginalMaxPositionEmbeddings; p != nil {
			if *p < 1 || *p > maxPositions {
				return fmt.Errorf("config.json: %s.original_max_position_embeddings = %d, want 1 to %d", key, *p, maxPositions)
			}
			rope.OriginalMaxPositionEmbeddings = *p
		}
		return nil
	}
	switch rope.Type {
	case "default":
	case "linear":
		if err := need("factor", r.Factor, &rope.Factor); err != nil {
			return err
		}
	case "llama3":
		if err := errors.Join(need("factor", r.Factor, &rope.Factor), need("low_freq_factor", r.LowFreqFactor, &rope.LowFreqFactor),
			need("high_freq_factor", r.HighFreqFactor, &rope.HighFreqFactor), original()); err != nil {
			return err
		}
		if rope.HighFreqFactor <= rope.LowFreqFactor {
			return fmt.Errorf("config.json: %s: high_freq_factor = %g must exceed low_freq_factor = %g", key, rope.HighFreqFactor,
				rope.LowFreqFactor)
		}
	case "yarn":
		if err := errors.Join(need("factor", r.Factor, &rope.Factor), original(), rope.setYarn(key, &r)); err != nil {
			return err
		}
	default:
		return fmt.Errorf("config.json: %s: rope type %q is not supported (supported: default, linear, llama3, yarn)", key, rope.Type)
	}
	c.Rope = rope
	return nil
}

func (rope *Rope) setYarn(key string, r *rawRope) error {
	if r.Factor == nil {
		return nil // already reported
	}
	rope.BetaFast, rope.BetaSlow, rope.Truncate = 32, 1, true
	if r.BetaFast != nil {
		rope.BetaFast = *r.BetaFast
	}
	if r.BetaSlow != nil {
		rope.BetaSlow = *r.BetaSlow
	}
	if !finitePositive(rope.BetaFast) || !finitePositive(rope.BetaSlow) || rope.BetaFast <= rope.BetaSlow {
		return fmt.Errorf("config.json: %s: beta_fast = %g must exceed beta_slow = %g, both positive", key, rope.BetaFast, rope.BetaSlow)
	}
	if r.Truncate != nil {
		rope.Truncate = *r.Truncate
	}
	mscale := func(scale float64) float64 { // get_mscale of transformers' modeling_rope_utils.py
		if *r.Factor <= 1 {
			return 1
		}
		return 0.1*scale*math.Log(*r.Factor) + 1
	}
	switch {
	case r.AttentionFactor != nil:
		rope.AttentionFactor = *r.AttentionFactor
	case r.MScale != nil && r.MScaleAllDim != nil && *r.MScale != 0 && *r.MScaleAllDim != 0:
		rope.AttentionFactor = mscale(*r.MScale) / mscale(*r.MScaleAllDim)
	default:
		rope.AttentionFactor = mscale(1)
	}
	if !finitePositive(rope.AttentionFactor) {
		return fmt.Errorf("config.json: %s: attention_factor = %g, want a positive number", key, rope.AttentionFactor)
	}
	return nil
}

// InverseFrequencies returns the rotary embedding's frequencies, one per pair of dimensions (headDim/2), in float64
// where transformers computes in float32 (modeling_rope_utils.py: default, linear, llama3, yarn).
func (rope Rope) InverseFrequencies(headDim int) []float64 {
	inv := make([]float64, headDim/2)
	for i := range inv {
		inv[i] = math.Pow(rope.Theta, -float64(2*i)/float64(headDim))
	}
	switch rope.Type {
	case "linear":
		for i := range inv {
			inv[i] /= rope.Factor
		}
	case "llama3":
		length := float64(rope.OriginalMaxPositionEmbeddings)
		for i, f := range inv {
			wavelength := 2 * math.Pi / f
			switch {
			case wavelength < length/rope.HighFreqFactor: // high frequencies stay
			case wavelength > length/rope.LowFreqFactor:
				inv[i] = f / rope.Factor
			default:
				smooth := (length/wavelength - rope.LowFreqFactor) / (rope.HighFreqFactor - rope.LowFreqFactor)
				inv[i] = (1-smooth)*f/rope.Factor + smooth*f
			}
		}
	case "yarn":
		// The dimension at which a rotation completes `turns` over the original context.
		dimension := func(turns float64) float64 {
			return float64(headDim) * math.Log(float64(rope.OriginalMaxPositionEmbeddings)/(turns*2*math.Pi)) / (2 * math.Log(rope.Theta))
		}
		low, high := dimension(rope.BetaFast), dimension(rope.BetaSlow)
		if rope.Truncate {
			low, high = math.Floor(low), math.Ceil(high)
		}
		low, high = max(low, 0), min(high, float64(headDim-1))
		if low == high {
			high += 0.001
		}
		for i, f := range inv {
			ramp := min(max((float64(i)-low)/(high-low), 0), 1)
			inv[i] = f/rope.Factor*ramp + f*(1-ramp)
		}
	}
	return inv
}

// RopeTables returns cos and sin of the rotary angles for positions 0 to n-1, each [n, head_dim/2] row-major. Angles are
// float32 products as in transformers; cos and sin are then taken in float64 and rounded once, so that both backends
// and any position see the same, correctly rounded values.
func (c *Config) RopeTables(n int) (cos, sin []float32) {
	inv := c.Rope.InverseFrequencies(c.HeadDim)
	half := len(inv)
	cos, sin = make([]float32, n*half), make([]float32, n*half)
	for p := range n {
		for i, f := range inv {
			s, co := math.Sincos(float64(float32(p) * float32(f)))
			cos[p*half+i] = float32(co * c.Rope.AttentionFactor)
			sin[p*half+i] = float32(s * c.Rope.AttentionFactor)
		}
	}
	return cos, sin
}
