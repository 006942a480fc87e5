package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Architectures that [ParseConfig] accepts, as config.json's "architectures" names them.
const (
	Llama = "LlamaForCausalLM"
	Qwen3 = "Qwen3ForCausalLM"
)

// Config is a model's configuration. Field names follow the keys of Hugging Face's config.json; every value has been
// checked by [ParseConfig].
type Config struct {
	Architecture          string  `json:"architecture"`            // [Llama] or [Qwen3]
	HiddenSize            int     `json:"hidden_size"`             // hidden_size: width of the residual stream
	IntermediateSize      int     `json:"intermediate_size"`       // intermediate_size: width of the MLP
	NumHiddenLayers       int     `json:"num_hidden_layers"`       // num_hidden_layers
	NumAttentionHeads     int     `json:"num_attention_heads"`     // num_attention_heads: query heads
	NumKeyValueHeads      int     `json:"num_key_value_heads"`     // num_key_value_heads: each serves a group of query heads
	HeadDim               int     `json:"head_dim"`                // head_dim: may differ from hidden_size/num_attention_heads
	VocabSize             int     `json:"vocab_size"`              // vocab_size: rows of the embedding
	MaxPositionEmbeddings int     `json:"max_position_embeddings"` // max_position_embeddings: the longest context
	RMSNormEps            float64 `json:"rms_norm_eps"`            // rms_norm_eps
	TieWordEmbeddings     bool    `json:"tie_word_embeddings"`     // tie_word_embeddings: the head is the embedding
	QKNorm                bool    `json:"qk_norm"`                 // Qwen3 normalises each query and key head before the rotary embedding
	Rope                  Rope    `json:"rope_parameters"`         // rope_theta and rope_scaling, or rope_parameters
	DType                 string  `json:"dtype"`                   // torch_dtype or dtype; "" when not given
	BOSTokenID            []int32 `json:"bos_token_id"`            // bos_token_id: none or one
	EOSTokenID            []int32 `json:"eos_token_id"`            // eos_token_id: none, one or several

	Generation Generation `json:"generation_config"` // how its authors would sample from it
}

// Generation is what generation_config.json says of sampling; the zero value is greedy decoding, which is also what a model without that
// file gets. The keys are Hugging Face's.
type Generation struct {
	Temperature float32 `json:"temperature"` // 0 is greedy
	TopK        int     `json:"top_k"`       // 0 is off
	TopP        float32 `json:"top_p"`       // 0 or 1 is off
	MinP        float32 `json:"min_p"`       // 0 is off
}

// Limits on what a configuration may claim. They lie far above any model that this code can run and exist so that no
// product of config integers overflows and no hostile file drives an allocation.
const (
	maxConfigBytes = 4 << 20
	maxDim         = 1 << 24 // hidden, intermediate, vocab, heads*head_dim
	maxLayers      = 1 << 12
	maxHeads       = 1 << 14
	maxPositions   = 1 << 27
)

// LoadConfig reads and checks dir/config.json, and takes eos_token_id and the sampling defaults from dir/generation_config.json when
// that file has them (chat models stop at more tokens than config.json names; transformers' generate reads it the same way).
func LoadConfig(dir string) (*Config, error) {
	path := filepath.Join(dir, "config.json")
	data, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	c, err := ParseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	path = filepath.Join(dir, "generation_config.json")
	data, err = readLimited(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	var gen struct {
		EOS         tokenIDs `json:"eos_token_id"`
		BOS         tokenIDs `json:"bos_token_id"`
		DoSample    *bool    `json:"do_sample"`
		Temperature *float32 `json:"temperature"`
		TopK        *int     `json:"top_k"`
		TopP        *float32 `json:"top_p"`
		MinP        *float32 `json:"min_p"`
	}
	if err := json.Unmarshal(data, &gen); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(gen.EOS) > 0 {
		c.EOSTokenID = gen.EOS
	}
	if len(gen.BOS) > 0 {
		c.BOSTokenID = gen.BOS
	}
	if err := c.checkTokenIDs(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// Sampling is on where the file says so, or names a temperature and does not say otherwise.
	if gen.DoSample != nil && *gen.DoSample || gen.DoSample == nil && gen.Temperature != nil {
		c.Generation = Generation{Temperature: or(gen.Temperature, 1), TopK: or(gen.TopK, 0), TopP: or(gen.TopP, 0), MinP: or(gen.MinP, 0)}
		if err := c.Generation.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return c, nil
}

// or returns what is pointed to, or a default.
func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func (g *Generation) check() error {
	switch {
	case !(g.Temperature >= 0 && g.Temperature <= 100):
		return fmt.Errorf("temperature = %v, want 0 to 100", g.Temperature)
	case g.TopK < 0:
		return fmt.Errorf("top_k = %d, want at least 0", g.TopK)
	case !(g.TopP >= 0 && g.TopP <= 1):
		return fmt.Errorf("top_p = %v, want 0 to 1", g.TopP)
	case !(g.MinP >= 0 && g.MinP <= 1):
		return fmt.Errorf("min_p = %v, want 0 to 1", g.MinP)
	}
	return nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxConfigBytes)
	}
	return data, nil
}

// rawConfig mirrors the JSON. Pointers tell an absent key from a zero.
type rawConfig struct {
	Architectures         []string         `json:"architectures"`
	ModelType             string           `json:"model_type"`
	HiddenSize            *int             `json:"hidden_size"`
	IntermediateSize      *int             `json:"intermediate_size"`
	NumHiddenLayers       *int             `json:"num_hidden_layers"`
	NumAttentionHeads     *int             `json:"num_attention_heads"`
	NumKeyValueHeads      *int             `json:"num_key_value_heads"`
	HeadDim               *int             `json:"head_dim"`
	VocabSize             *int             `json:"vocab_size"`
	MaxPositionEmbeddings *int             `json:"max_position_embeddings"`
	RMSNormEps            *float64         `json:"rms_norm_eps"`
	RopeTheta             *float64         `json:"rope_theta"`
	RopeScaling           json.RawMessage  `json:"rope_scaling"`
	RopeParameters        json.RawMessage  `json:"rope_parameters"`
	PartialRotaryFactor   *float64         `json:"partial_rotary_factor"`
	TieWordEmbeddings     *bool            `json:"tie_word_embeddings"`
	TorchDType            *string          `json:"torch_dtype"`
	DType                 *string          `json:"dtype"`
	HiddenAct             *string          `json:"hidden_act"`
	AttentionBias         *bool            `json:"attention_bias"`
	MLPBias               *bool            `json:"mlp_bias"`
	UseSlidingWindow      *bool            `json:"use_sliding_window"`
	SlidingWindow         *int             `json:"sliding_window"`
	LayerTypes            []string         `json:"layer_types"`
	QuantizationConfig    *json.RawMessage `json:"quantization_config"`
	NumExperts            *int             `json:"num_experts"`
	NumLocalExperts       *int             `json:"num_local_experts"`
	BOSTokenID            tokenIDs         `json:"bos_token_id"`
	EOSTokenID            tokenIDs         `json:"eos_token_id"`
}

// tokenIDs is one id, a list of ids, or null.
type tokenIDs []int32

func (t *tokenIDs) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*t = nil
		return nil
	}
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]int32)(t))
	}
	var one int32
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*t = tokenIDs{one}
	return nil
}

// ParseConfig parses and checks a config.json, in the hub's key style (rope_theta, rope_scaling, torch_dtype) or
// transformers 5's (rope_parameters, dtype). Missing keys take the defaults of transformers' LlamaConfig and Qwen3Config where those
// are safe; sizes have no default. A feature that this package does not implement is an error that names it.
func ParseConfig(data []byte) (*Config, error) {
	var raw rawConfig
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	c := &Config{}
	if err := c.setArchitecture(&raw); err != nil {
		return nil, err
	}
	if err := raw.refuse(); err != nil {
		return nil, err
	}
	if err := c.setSizes(&raw); err != nil {
		return nil, err
	}
	if err := c.setRope(&raw); err != nil {
		return nil, err
	}
	if err := c.setDType(&raw); err != nil {
		return nil, err
	}
	c.TieWordEmbeddings = raw.TieWordEmbeddings != nil && *raw.TieWordEmbeddings
	c.BOSTokenID, c.EOSTokenID = raw.BOSTokenID, raw.EOSTokenID
	if err := c.checkTokenIDs(); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return c, nil
}

func (c *Config) setArchitecture(raw *rawConfig) error {
	byType := map[string]string{"llama": Llama, "qwen3": Qwen3}
	switch len(raw.Architectures) {
	case 0:
		arch, ok := byType[raw.ModelType]
		if !ok {
			return fmt.Errorf("config.json: no architectures, and model_type %q is not one of llama, qwen3", raw.ModelType)
		}
		c.Architecture = arch
	case 1:
		c.Architecture = raw.Architectures[0]
	default:
		return fmt.Errorf("config.json: %d architectures, want one: %q", len(raw.Architectures), raw.Architectures)
	}
	if c.Architecture != Llama && c.Architecture != Qwen3 {
		return fmt.Errorf("config.json: architecture %q is not supported (supported: %s, %s)", c.Architecture, Llama, Qwen3)
	}
	if raw.ModelType != "" && byType[raw.ModelType] != c.Architecture {
		return fmt.Errorf("config.json: model_type %q does not belong to architecture %q", raw.ModelType, c.Architecture)
	}
	c.QKNorm = c.Architecture == Qwen3
	return nil
}

// refuse names what the configuration switches on and the forward pass does not have.
func (raw *rawConfig) refuse() error {
	on := func(b *bool) bool { return b != nil && *b }
	switch {
	case raw.QuantizationConfig != nil && string(*raw.QuantizationConfig) != "null":
		return errors.New("config.json: quantization_config: quantised checkpoints are not supported")
	case raw.NumExperts != nil && *raw.NumExperts != 0, raw.NumLocalExperts != nil && *raw.NumLocalExperts != 0:
		return errors.New("config.json: num_experts: mixture-of-experts models are not supported")
	case on(raw.AttentionBias):
		return errors.New("config.json: attention_bias = true is not supported")
	case on(raw.MLPBias):
		return errors.New("config.json: mlp_bias = true is not supported")
	case raw.HiddenAct != nil && *raw.HiddenAct != "silu":
		return fmt.Errorf("config.json: hidden_act %q is not supported (supported: silu)", *raw.HiddenAct)
	case on(raw.UseSlidingWindow):
		return errors.New("config.json: use_sliding_window = true is not supported")
	case raw.UseSlidingWindow == nil && raw.SlidingWindow != nil:
		return fmt.Errorf("config.json: sliding_window = %d is not supported", *raw.SlidingWindow)
	case raw.PartialRotaryFactor != nil && *raw.PartialRotaryFactor != 1:
		return fmt.Errorf("config.json: partial_rotary_factor = %g is not supported", *raw.PartialRotaryFactor)
	}
	for l, t := range raw.LayerTypes {
		if t != "full_attention" {
			return fmt.Errorf("config.json: layer_types[%d] = %q is not supported (supported: full_attention)", l, t)
		}
	}
	return nil
}

func (c *Config) setSizes(raw *rawConfig) error {
	for _, f := range []struct {
		key   string
		value *int
		limit int
		dst   *int
	}{
		{"hidden_size", raw.HiddenSize, maxDim, &c.HiddenSize},
		{"intermediate_size", raw.IntermediateSize, maxDim, &c.IntermediateSize},
		{"num_hidden_layers", raw.NumHiddenLayers, maxLayers, &c.NumHiddenLayers},
		{"num_attention_heads", raw.NumAttentionHeads, maxHeads, &c.NumAttentionHeads},
		{"vocab_size", raw.VocabSize, maxDim, &c.VocabSize},
		{"max_position_embeddings", raw.MaxPositionEmbeddings, maxPositions, &c.MaxPositionEmbeddings},
	} {
		if f.value == nil {
			return fmt.Errorf("config.json: %s is missing", f.key)
		}
		if *f.value < 1 || *f.value > f.limit {
			return fmt.Errorf("config.json: %s = %d, want 1 to %d", f.key, *f.value, f.limit)
		}
		*f.dst = *f.value
	}
	c.NumKeyValueHeads = c.NumAttentionHeads
	if raw.NumKeyValueHeads != nil {
		c.NumKeyValueHeads = *raw.NumKeyValueHeads
	}
	if c.NumKeyValueHeads < 1 || c.NumAttentionHeads%c.NumKeyValueHeads != 0 {
		return fmt.Errorf("config.json: num_attention_heads = %d is not a multiple of num_key_value_heads = %d",
			c.NumAttentionHeads, c.NumKeyValueHeads)
	}
	switch {
	case raw.HeadDim != nil:
		c.HeadDim = *raw.HeadDim
	case c.Architecture == Qwen3:
		c.HeadDim = 128 // Qwen3Config's default; it does not follow from hidden_size
	case c.HiddenSize%c.NumAttentionHeads != 0:
		return fmt.Errorf("config.json: hidden_size = %d is not a multiple of num_attention_heads = %d and head_dim is not given",
			c.HiddenSize, c.NumAttentionHeads)
	default:
		c.HeadDim = c.HiddenSize / c.NumAttentionHeads
	}
	if c.HeadDim < 2 || c.HeadDim%2 != 0 || c.HeadDim > maxDim/c.NumAttentionHeads {
		return fmt.Errorf("config.json: head_dim = %d, want an even number from 2 to %d", c.HeadDim, maxDim/c.NumAttentionHeads)
	}
	c.RMSNormEps = 1e-6
	if raw.RMSNormEps != nil {
		c.RMSNormEps = *raw.RMSNormEps
	}
	if !(c.RMSNormEps > 0 && c.RMSNormEps < 1) {
		return fmt.Errorf("config.json: rms_norm_eps = %g, want a number between 0 and 1", c.RMSNormEps)
	}
	if raw.LayerTypes != nil && len(raw.LayerTypes) != c.NumHiddenLayers {
		return fmt.Errorf("config.json: layer_types has %d entries, num_hidden_layers = %d", len(raw.LayerTypes), c.NumHiddenLayers)
	}
	return nil
}

func (c *Config) setDType(raw *rawConfig) error {
	var names []string
	for _, p := range []*string{raw.DType, raw.TorchDType} {
		if p != nil {
			names = append(names, strings.TrimPrefix(*p, "torch."))
		}
	}
	if len(names) == 2 && names[0] != names[1] {
		return fmt.Errorf("config.json: dtype %q and torch_dtype %q disagree", names[0], names[1])
	}
	if len(names) == 0 {
		return nil
	}
	if !slices.Contains([]string{"float32", "bfloat16", "float16"}, names[0]) {
		return fmt.Errorf("config.json: dtype %q is not supported (supported: float32, bfloat16, float16)", names[0])
	}
	c.DType = names[0]
	return nil
}

func (c *Config) checkTokenIDs() error {
	check := func(key string, ids []int32, most int) error {
		if len(ids) > most {
			return fmt.Errorf("%s has %d ids, want at most %d", key, len(ids), most)
		}
		for _, id := range ids {
			if id < 0 || int(id) >= c.VocabSize {
				return fmt.Errorf("%s = %d lies outside the vocabulary of %d", key, id, c.VocabSize)
			}
		}
		return nil
	}
	if err := check("bos_token_id", c.BOSTokenID, 1); err != nil {
		return err
	}
	return check("eos_token_id", c.EOSTokenID, 1024)
}

func finitePositive(x float64) bool { return x > 0 && !math.IsInf(x, 0) }
