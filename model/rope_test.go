package model

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestInverseFrequencies compares with transformers 5.23.0, which computes in float32. The numbers are what
//
//	from transformers import LlamaConfig
//	from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
//	c = LlamaConfig(hidden_size=2*d, num_attention_heads=2, head_dim=d, max_position_embeddings=n, rope_parameters=p)
//	r = LlamaRotaryEmbedding(c)
//	print(r.attention_scaling, ["%.8g" % x for x in r.inv_freq.tolist()])
//
// prints for head_dim d, rope_parameters p and max_position_embeddings n of each case.
func TestInverseFrequencies(t *testing.T) {
	for _, c := range []struct {
		name         string
		headDim      int
		maxPositions int
		parameters   fields
		attention    float64
		want         []float64
	}{
		{"default", 16, 4096, fields{"rope_type": "default", "rope_theta": 10000.0}, 1,
			[]float64{1.0, 0.31622776, 0.1, 0.031622779, 0.0099999998, 0.0031622779, 0.001, 0.00031622779}},
		{"linear", 16, 4096, fields{"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, 1,
			[]float64{0.25, 0.079056941, 0.025, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001, 7.9056947e-05}},
		{"llama3", 32, 131072, fields{"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
			"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, 1,
			[]float64{1.0, 0.44036663, 0.19392276, 0.085397102, 0.037606031, 0.016560441, 0.0072926651, 0.0032114461, 0.00052484602,
				7.7846555e-05, 3.4281024e-05, 1.5096218e-05, 6.6478697e-06, 2.9274997e-06, 1.2891732e-06, 5.6770881e-07}},
		{"yarn", 32, 131072, fields{"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0,
			"original_max_position_embeddings": 32768}, 1.138629436111989,
			[]float64{1.0, 0.42169651, 0.17782794, 0.074989416, 0.031622779, 0.013335215, 0.0047799014, 0.0016599617, 0.00055,
				0.00016867858, 4.4456985e-05, 1.8747356e-05, 7.9056936e-06, 3.3338035e-06, 1.4058534e-06, 5.9284343e-07}},
		{"yarn, untruncated, attention_factor", 32, 131072, fields{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.5,
			"original_max_position_embeddings": 2048, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": false, "attention_factor": 1.5}, 1.5,
			[]float64{1.0, 0.56234133, 0.31622776, 0.17782794, 0.1, 0.056234129, 0.027610553, 0.012572897, 0.0054092957, 0.0022493652,
				0.0012649111, 0.00071131176, 0.00039999999, 0.00022493652, 0.00012649111, 7.1131173e-05}},
		{"yarn, mscale", 16, 131072, fields{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0,
			"original_max_position_embeddings": 2048, "mscale": 2.0, "mscale_all_dim": 0.5}, 1.2825399643040467,
			[]float64{1.0, 0.31622776, 0.1, 0.024705295, 0.0056249998, 0.001087033, 0.00012500001, 3.9528473e-05}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := tiny.with("head_dim", c.headDim, "max_position_embeddings", c.maxPositions, "rope_parameters", c.parameters).parse(t)
			require.InDelta(t, c.attention, config.Rope.AttentionFactor, 1e-15)
			got := config.Rope.InverseFrequencies(c.headDim)
			require.Len(t, got, len(c.want))
			for i := range got {
				require.InEpsilon(t, c.want[i], got[i], 1e-6, "pair %d", i)
			}
		})
	}
}

// TestRopeTables: to the last position of a Llama-3.1 context, cos and sin are the float64 ones of transformers' float32 angle, rounded
// once, and the angle itself is off by no more than float32's rounding of two factors and their product.
func TestRopeTables(t *testing.T) {
	c := llama31.parse(t)
	half := c.HeadDim / 2
	cos, sin := c.RopeTables(131072)
	require.Len(t, cos, 131072*half)
	require.Len(t, sin, 131072*half)
	inv := c.Rope.InverseFrequencies(c.HeadDim)
	for _, p := range []int{0, 1, 2, 1023, 8191, 65537, 131071} {
		for i := range half {
			angle := float64(float32(p) * float32(inv[i]))
			require.InDelta(t, float64(p)*inv[i], angle, 0x1p-23*angle, "position %d pair %d", p, i)
			require.Equal(t, float32(math.Cos(angle)), cos[p*half+i], "position %d pair %d", p, i)
			require.Equal(t, float32(math.Sin(angle)), sin[p*half+i], "position %d pair %d", p, i)
		}
	}

	// Position 1 of the first pair is one radian; yarn scales both tables.
	yarn := tiny.with("head_dim", 4, "rope_scaling", fields{"type": "yarn", "factor": 2, "attention_factor": 1.5}).parse(t)
	cos, sin = yarn.RopeTables(2)
	require.Equal(t, float32(1.5), cos[0])
	require.Equal(t, float32(0), sin[0])
	require.InDelta(t, 1.5*0.5403023058681398, cos[2], 1e-7)
	require.InDelta(t, 1.5*0.8414709848078965, sin[2], 1e-7)
}
