package parity

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/safetensors"
	"github.com/stretchr/testify/require"
)

// The toy is a model without weights: its numbers are drawn from a hash of the tokens before. It stands in for both
// sides, so that a test can say exactly what differs: toyDump writes a dump of it, and a toy with a twist is compared.
const (
	toyLayers, toyHidden, toyVocab = 3, 8, 24
	toyGreedy                      = 6
)

const toyConfig = `{"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":16,"num_hidden_layers":3,
"num_attention_heads":2,"num_key_value_heads":2,"vocab_size":24,"max_position_embeddings":64,"rms_norm_eps":1e-5,
"rope_theta":10000.0,"torch_dtype":"bfloat16","tie_word_embeddings":false,"hidden_act":"silu"}`

var toyPrompts = [][]int32{{3}, {5, 1, 7, 2}, {9, 9, 4, 11, 20, 23, 1}}

// toy computes in float32, or rounds all values to bf16 where bf16 is set. The hooks change what it computes.
type toy struct {
	bf16     bool
	layer    func(layer int, ids []int32, h []float32) // h [T, H]
	logits   func(ids []int32, v []float32)            // v [T, V]
	logProb  func(ids []int32, p []float32)            // of continuation and Score
	decoding func(ids, tokens []int32)                 // tokens of a continuation
}

func (toy) backend() string { return "toy" }
func (toy) Close() error    { return nil }

// draw gives n numbers near normal that depend on where and on ids alone.
func draw(where string, ids []int32, n int) []float32 {
	h := fnv.New64a()
	fmt.Fprint(h, where, ids)
	rng := rand.New(rand.NewPCG(h.Sum64(), 0))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(3 * rng.NormFloat64())
	}
	return values
}

func (m toy) Trace(_ context.Context, ids []int32) (*engine.Trace, error) {
	t := &engine.Trace{Layers: make([][]float32, toyLayers)}
	for i := range ids {
		for l := range t.Layers {
			t.Layers[l] = append(t.Layers[l], draw(fmt.Sprint(l), ids[:i+1], toyHidden)...)
		}
		t.Logits = append(t.Logits, draw("logits", ids[:i+1], toyVocab)...)
	}
	for l, h := range t.Layers {
		m.round(h)
		if m.layer != nil {
			m.layer(l, ids, h)
		}
	}
	m.round(t.Logits)
	if m.logits != nil {
		m.logits(ids, t.Logits)
	}
	return t, nil
}

func (m toy) round(values []float32) {
	if m.bf16 {
		for i, v := range values {
			values[i] = fromBF16(toBF16(v))
		}
	}
}

func fromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

func (m toy) Score(ctx context.Context, prompt, continuation []int32) ([]float32, error) {
	t, err := toy{bf16: m.bf16}.Trace(ctx, slices.Concat(prompt, continuation))
	var p []float32
	for k, id := range continuation {
		i := len(prompt) - 1 + k
		p = append(p, logProb(t.Logits[i*toyVocab:(i+1)*toyVocab], id))
	}
	if m.logProb != nil {
		m.logProb(prompt, p)
	}
	return p, err
}

func (m toy) continuation(ctx context.Context, ids []int32, n int) (tokens []int32, logProbs []float32, err error) {
	for range n {
		t, _ := toy{bf16: m.bf16}.Trace(ctx, slices.Concat(ids, tokens))
		best, _ := argMax(t.Logits[len(t.Logits)-toyVocab:])
		tokens = append(tokens, best)
	}
	if m.decoding != nil {
		m.decoding(ids, tokens)
	}
	logProbs, err = m.Score(ctx, ids, tokens)
	return tokens, logProbs, err
}

// toyDump writes a folder with a dump of the toy, in both references, after `change`, if any.
func toyDump(t testing.TB, change func(tensors map[string]safetensors.Tensor, info map[string]any)) string {
	t.Helper()
	ctx, out := t.Context(), output{}
	var infos []any
	for i, ids := range toyPrompts {
		out.ints(fmt.Sprintf("prompt.%d.ids", i), ids)
		infos = append(infos, map[string]any{"ids": ids})
		for _, ref := range []string{refF32, refBF16} {
			m := toy{bf16: ref == refBF16}
			p := prompt{index: i}
			trace, err := m.Trace(ctx, ids)
			require.NoError(t, err)
			out.floats(p.name(ref, "logits"), trace.Logits, len(ids), toyVocab)
			out.floats(p.name(ref, "hidden"), slices.Concat(trace.Layers...), toyLayers, len(ids), toyHidden)
			tokens, _, err := m.continuation(ctx, ids, toyGreedy)
			require.NoError(t, err)
			out.ints(p.name(ref, "greedy"), tokens)
			margins := make([]float32, toyGreedy)
			trace, err = m.Trace(ctx, slices.Concat(ids, tokens))
			require.NoError(t, err)
			for k := range margins {
				at := (len(ids) - 1 + k) * toyVocab
				row := slices.Sorted(slices.Values(trace.Logits[at : at+toyVocab]))
				margins[k] = row[toyVocab-1] - row[toyVocab-2]
			}
			out.floats(p.name(ref, "greedy_margin"), margins, toyGreedy)
			if ref == refBF16 { // greedy_margin is F32 in both references
				out.tensors = out.tensors[:len(out.tensors)-1]
			}
		}
	}
	width := len(toyPrompts[len(toyPrompts)-1])
	for _, side := range []string{"left", "right"} {
		var ids, mask []int32
		var last []float32
		for _, p := range toyPrompts {
			pad := make([]int32, width-len(p))
			ones := slices.Repeat([]int32{1}, len(p))
			if side == "left" {
				ids, mask = slices.Concat(ids, pad, p), slices.Concat(mask, pad, ones)
			} else {
				ids, mask = slices.Concat(ids, p, pad), slices.Concat(mask, ones, pad)
			}
			trace, err := toy{}.Trace(ctx, p)
			require.NoError(t, err)
			last = append(last, trace.Logits[len(trace.Logits)-toyVocab:]...)
		}
		for name, v := range map[string][]int32{"ids": ids, "mask": mask} {
			out.ints("batch."+side+"."+name, v)
			out.tensors[len(out.tensors)-1].Shape = []int{len(toyPrompts), width}
		}
		out.floats("f32.batch."+side+".last_logits", last, len(toyPrompts), toyVocab)
	}

	tensors := make(map[string]safetensors.Tensor)
	for _, x := range out.tensors {
		tensors[x.Name] = x
	}
	info := map[string]any{"num_layers": toyLayers, "hidden_size": toyHidden, "vocab_size": toyVocab,
		"references": []string{refF32, refBF16}, "prompts": infos, "batch": map[string]any{"row_prompt": []int{0, 1, 2}}}
	if change != nil {
		change(tensors, info)
	}
	dir := t.TempDir()
	out.tensors = nil
	for _, x := range tensors {
		out.tensors = append(out.tensors, x)
	}
	require.NoError(t, safetensors.WriteFile(filepath.Join(dir, DumpName), out.tensors, nil))
	text, err := json.Marshal(info)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, dumpJSON), text, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(toyConfig), 0o644))
	return dir
}

// runToy compares a toy with the dump in dir; the bf16 reference gets the same hooks.
func runToy(t *testing.T, dir string, m toy, opt Options) (Report, error) {
	return compare(t.Context(), dir, opt, func(_ context.Context, _, ref string, _ Options, got sizes) (subject, error) {
		require.Equal(t, sizes{context: len(toyPrompts[2]) + toyGreedy, rows: len(toyPrompts), row: len(toyPrompts[2])}, got)
		require.NoError(t, got.schedule().Validate())
		m.bf16 = ref == refBF16
		return m, nil
	})
}
