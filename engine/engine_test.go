package engine

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/chat"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/safetensors"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

const (
	llamaF32  = "../parity/testdata/llama-linear-f32"
	llamaBF16 = "../parity/testdata/llama3-mqa-bf16-sharded"
	stories   = "../cmd/steerage/demo/stories260k"
)

func open(t *testing.T, dir string, opt Options) *Model {
	t.Helper()
	m, err := Open(context.Background(), dir, opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func generate(t *testing.T, m *Model, r Request) Result {
	t.Helper()
	g, err := m.Generate(context.Background(), r)
	require.NoError(t, err)
	return g.Result()
}

func TestStory(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			m := open(t, stories, Options{Backend: b})
			g, err := m.Generate(context.Background(), Request{MaxTokens: 60})
			require.NoError(t, err)
			var text strings.Builder
			for piece, err := range g.Text() {
				require.NoError(t, err)
				text.WriteString(piece)
			}
			require.True(t, strings.HasPrefix(text.String(), "Once upon a time, there was a little girl named Lily. "+
				"She loved to play outside in the park. One day, she saw a big, red ball."), text.String())
			r := g.Result()
			require.Equal(t, text.String(), r.Text)
			require.Equal(t, "length", r.Finish)
			require.Len(t, r.IDs, 60)
			require.Equal(t, 1, r.PromptTokens)

			// A continued text keeps its leading space.
			require.Equal(t, ", there", generate(t, m, Request{Prompt: "Once upon a time", MaxTokens: 2}).Text[:7])
		})
	}
}

func TestStops(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			m := open(t, stories, Options{Backend: b})
			full := generate(t, m, Request{MaxTokens: 60})
			for name, c := range map[string]struct {
				r    Request
				text string
			}{
				"text inside a token run": {Request{Stop: []string{"named Li"}}, "Once upon a time, there was a little girl "},
				"first of two":            {Request{Stop: []string{"park", "girl"}}, "Once upon a time, there was a little "},
				"never":                   {Request{Stop: []string{"zebra"}}, full.Text},
				"id":                      {Request{StopIDs: []int32{full.IDs[4]}}, ""},
			} {
				c.r.MaxTokens = 60
				r := generate(t, m, c.r)
				if name == "id" {
					require.Equal(t, full.IDs[:4], r.IDs)
				} else {
					require.Equal(t, c.text, r.Text, name)
				}
				require.Equal(t, name == "never", r.Finish == "length", name)
			}
		})
	}
}

// The log-probabilities of decoding with a cache are those of scoring the whole text at once.
func TestScore(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			m := open(t, stories, Options{Backend: b})
			g, err := m.Generate(context.Background(), Request{IDs: []int32{1, 403, 407}, MaxTokens: 40, Temperature: 1, Seed: 7, Logprobs: true})
			require.NoError(t, err)
			ids := g.Result().IDs
			var got []float32
			for tok, err := range g.Tokens() {
				require.NoError(t, err)
				if tok.ID >= 0 {
					got = append(got, tok.Logprob)
				}
			}
			scored, err := m.Score(context.Background(), Sequence{Prompt: []int32{1, 403, 407}, Continuation: ids})
			require.NoError(t, err)
			want := scored.LogProbs
			require.Len(t, want, len(ids))
			require.InDeltaSlice(t, want, got, 5e-5)

			trace, err := m.Trace(context.Background(), Sequence{Prompt: []int32{1, 403, 407}, Continuation: ids})
			require.NoError(t, err)
			v := m.Config().VocabSize
			for i, id := range ids {
				row := trace.Logits[(2+i)*v : (3+i)*v]
				var sum float64
				for _, x := range row {
					sum += math.Exp(float64(x))
				}
				require.InDelta(t, float64(row[id])-math.Log(sum), want[i], 5e-5)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	m := open(t, stories, Options{Backend: "go", MaxContext: 64, MaxBatch: 2})
	ctx := context.Background()
	for want, r := range map[string]Request{
		"64":               {IDs: make([]int32, 64)},
		"id 512 at 1":      {IDs: []int32{1, 512}},
		"id -1 at 0":       {IDs: []int32{-1}},
		"more than one of": {Prompt: "a", IDs: []int32{1}},
		"no chat template": {Messages: []chat.Message{{Role: "user", Content: "hello"}}},
		"with messages":    {Prompt: "a", ChatTemplateKwargs: map[string]any{"a": 1}},
		"max tokens = -1":  {MaxTokens: -1},
		"temperature":      {Temperature: float32(math.NaN())},
		"empty stop":       {Stop: []string{""}},
		"65 stop ids":      {StopIDs: make([]int32, 65)},
	} {
		_, err := m.Generate(ctx, r)
		require.ErrorContains(t, err, want)
	}
	_, err := m.Score(ctx, Sequence{Continuation: []int32{1}})
	require.ErrorContains(t, err, "at least one token")
	_, err = m.Trace(ctx, Sequence{Prompt: make([]int32, 65)})
	require.ErrorContains(t, err, "65")
	require.Len(t, generate(t, m, Request{}).IDs, 63, "the context ends it")

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = m.Generate(cancelled, Request{})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	_, err = m.Generate(ctx, Request{})
	require.ErrorIs(t, err, ErrClosed)
	_, err = m.Score(ctx, Sequence{Prompt: []int32{1}, Continuation: []int32{1}})
	require.ErrorIs(t, err, ErrClosed)
}

func TestOpenErrors(t *testing.T) {
	for want, opt := range map[string]Options{
		"float8":                  {Backend: "go", DType: "float8"},
		"nonsense":                {Backend: "nonsense"},
		"max_position_embeddings": {Backend: "go", MaxContext: 1 << 20},
		"there are 1.0 KiB":       {Backend: "go", MemoryLimit: 1 << 10},
	} {
		_, err := Open(context.Background(), stories, opt)
		require.ErrorContains(t, err, want)
	}
	_, err := Open(context.Background(), filepath.Join(t.TempDir(), "none"), Options{})
	require.ErrorContains(t, err, "none")
}

// A checkpoint that does not fit its configuration is refused with the tensor's name.
func TestCheckWeights(t *testing.T) {
	ck, err := safetensors.Open(llamaF32)
	require.NoError(t, err)
	defer func() { _ = ck.Close() }()
	for name, c := range map[string]struct {
		change func(ts map[string]*safetensors.Tensor)
		want   string
	}{
		"whole":   {func(map[string]*safetensors.Tensor) {}, ""},
		"missing": {func(ts map[string]*safetensors.Tensor) { delete(ts, "model.norm.weight") }, `"model.norm.weight"`},
		"surplus": {func(ts map[string]*safetensors.Tensor) {
			ts["extra"] = &safetensors.Tensor{Name: "extra", DType: safetensors.U8, Shape: []int{1}, Data: []byte{1}}
		}, `"extra"`},
		"old rope": {func(ts map[string]*safetensors.Tensor) {
			n := "model.layers.0.self_attn.rotary_emb.inv_freq"
			ts[n] = &safetensors.Tensor{Name: n, DType: safetensors.U8, Shape: []int{1}, Data: []byte{1}}
		}, ""},
		"transpose": {func(ts map[string]*safetensors.Tensor) {
			s := ts["model.layers.0.mlp.up_proj.weight"].Shape
			s[0], s[1] = s[1], s[0]
		}, `"model.layers.0.mlp.up_proj.weight" has shape`},
		"type": {func(ts map[string]*safetensors.Tensor) {
			w := ts["model.layers.0.mlp.up_proj.weight"]
			w.DType, w.Data = safetensors.BF16, w.Data[:len(w.Data)/2]
		}, "all matrices must have one type"},
		"integer": {func(ts map[string]*safetensors.Tensor) { ts["model.norm.weight"].DType = safetensors.I32 }, "has type I32"},
	} {
		t.Run(name, func(t *testing.T) {
			ts := map[string]*safetensors.Tensor{}
			for _, n := range ck.Names() {
				x, _ := ck.Tensor(n)
				x.Shape = append([]int{}, x.Shape...)
				ts[n] = &x
			}
			c.change(ts)
			var list []safetensors.Tensor
			for _, x := range ts {
				list = append(list, *x)
			}
			dir := t.TempDir()
			require.NoError(t, safetensors.WriteFile(filepath.Join(dir, safetensors.SingleName), list, nil))
			for _, f := range []string{"config.json", "generation_config.json"} {
				if data, err := os.ReadFile(filepath.Join(llamaF32, f)); err == nil {
					require.NoError(t, os.WriteFile(filepath.Join(dir, f), data, 0o600))
				}
			}
			m, err := Open(context.Background(), dir, Options{Backend: "go"})
			if c.want == "" {
				require.NoError(t, err)
				require.NoError(t, m.Close())
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

// Half-precision checkpoints load in every dtype they may compute in, and agree.
func TestDTypes(t *testing.T) {
	src, err := safetensors.Open(llamaBF16)
	require.NoError(t, err)
	defer func() { _ = src.Close() }()
	dir := t.TempDir() // the same weights as float16, exactly
	var list []safetensors.Tensor
	for _, n := range src.Names() {
		x, _ := src.Tensor(n)
		half := make([]byte, len(x.Data))
		for i := 0; i < len(half); i += 2 {
			h := float16Bits(math.Float32frombits(uint32(x.Data[i])<<16 | uint32(x.Data[i+1])<<24))
			half[i], half[i+1] = byte(h), byte(h>>8)
		}
		x.DType, x.Data = safetensors.F16, half
		list = append(list, x)
	}
	require.NoError(t, safetensors.WriteFile(filepath.Join(dir, safetensors.SingleName), list, nil))
	data, err := os.ReadFile(filepath.Join(llamaBF16, "config.json"))
	require.NoError(t, err)
	var cfg map[string]any
	require.NoError(t, json.Unmarshal(data, &cfg))
	delete(cfg, "dtype")
	cfg["torch_dtype"] = "float16"
	data, err = json.Marshal(cfg)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600))

	ids := []int32{5, 17, 3, 150, 41}
	for _, b := range pjrttest.Specs(t) {
		want, err := open(t, llamaBF16, Options{Backend: b, DType: "float32"}).Trace(context.Background(), Sequence{Prompt: ids})
		require.NoError(t, err)
		got, err := open(t, dir, Options{Backend: b}).Trace(context.Background(), Sequence{Prompt: ids})
		require.NoError(t, err)
		require.InDeltaSlice(t, want.Logits, got.Logits, 1e-2, "float16 on %s", b) // small weights lose bits as float16
		got, err = open(t, llamaBF16, Options{Backend: b}).Trace(context.Background(), Sequence{Prompt: ids})
		require.NoError(t, err)
		require.InDeltaSlice(t, want.Logits, got.Logits, 1, "bfloat16 on %s", b)
	}
}

// float16Bits converts a float32 of moderate size to float16, rounding towards zero.
func float16Bits(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b >> 16 & 0x8000)
	exp := int(b>>23&0xff) - 127 + 15
	if exp <= 0 {
		return sign
	}
	return sign | uint16(exp)<<10 | uint16(b>>13&0x3ff)
}

func TestPlanMemory(t *testing.T) {
	cfg, err := model.LoadConfig(stories)
	require.NoError(t, err)
	p, err := PlanMemory(cfg, dtypes.Float32, Options{MaxBatch: 4, MaxContext: 256})
	require.NoError(t, err)
	require.Equal(t, 4*cfg.Parameters(), p.Weights)
	require.Equal(t, int64(4*256)*4*2*5*4*8, p.KV)
	for _, share := range []float64{0.999, 1} {
		_, err = PlanMemory(cfg, dtypes.Float32, Options{MaxBatch: 4, MaxContext: 256, MemoryLimit: int64(share * float64(p.Total()))})
		require.Equal(t, share == 1, err == nil)
	}
	big := *cfg
	big.MaxPositionEmbeddings = 1 << 17
	auto, err := PlanMemory(&big, dtypes.Float32, Options{MaxBatch: 64, MemoryLimit: p.Weights + p.Workspace + 256<<20})
	require.NoError(t, err)
	require.Less(t, auto.MaxContext, 8192)
	require.GreaterOrEqual(t, auto.MaxContext, 512)
}
