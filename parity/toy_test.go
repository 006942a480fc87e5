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
	"sync"
	"testing"

	"github.com/gomlx/compute"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/pjrt"
	"github.com/steerage/steerage/safetensors"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
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

// toy computes in float32, or rounds all values to bf16 where bf16 is set. The hooks change what it is asked or computes.
type toy struct {
	bf16     bool
	asked    func(s *engine.Sequence)                  // before anything else, also of a request
	layer    func(layer int, ids []int32, h []float32) // h [T, H]
	logits   func(ids []int32, v []float32)            // v [T, V]
	traced   func(s engine.Sequence, t *engine.Trace)  // all of a trace
	logProb  func(ids []int32, p []float32)            // of continuation and Score
	decoding func(ids, tokens []int32)                 // tokens of a continuation
	effects  func(e []steering.Effect)                 // of a continuation
	fitted   func(f *contrast.Fitted)
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

// Trace draws the hidden state of each layer, and adds to it what steering did before, and does there.
func (m toy) Trace(_ context.Context, s engine.Sequence) (*engine.Trace, error) {
	if m.asked != nil {
		m.asked(&s)
	}
	ids := slices.Concat(s.Prompt, s.Continuation)
	t := &engine.Trace{Layers: make([][]float32, toyLayers), Steering: make([]steering.Effect, len(s.Steering))}
	for e := range s.Steering {
		t.Sites = append(t.Sites, engine.Site{Site: steering.Site{Entry: e, Layer: s.Steering[e].Vector.Layers[0].Index}})
	}
	for i, id := range ids {
		shift := make([]float32, toyHidden)
		for l := range t.Layers {
			drawn := draw(fmt.Sprint(l), ids[:i+1], toyHidden)
			h := make([]float32, toyHidden)
			for j := range h {
				h[j] = drawn[j] + shift[j]
			}
			m.round(h)
			for e := range s.Steering {
				if entry := &s.Steering[e]; entry.Vector.Layers[0].Index == l {
					steerToy(entry, h, entry.Positions.Mask(i, len(s.Prompt), id), &t.Sites[e], &t.Steering[e])
				}
			}
			m.round(h)
			for j := range h {
				shift[j] = h[j] - drawn[j]
			}
			t.Layers[l] = append(t.Layers[l], h...)
		}
		logits := draw("logits", ids[:i+1], toyVocab)
		for v := range logits {
			logits[v] += shift[v%toyHidden]
		}
		m.round(logits)
		t.Logits = append(t.Logits, logits...)
	}
	for l, h := range t.Layers {
		if m.layer != nil {
			m.layer(l, ids, h)
		}
	}
	if m.logits != nil {
		m.logits(ids, t.Logits)
	}
	if m.traced != nil {
		m.traced(s, t)
	}
	return t, nil
}

// steerToy applies one entry to one hidden state, by the formulas of README.md. As an engine does, it sees a negative entry along the
// negated direction.
func steerToy(e *steering.Entry, h []float32, eligible bool, site *engine.Site, effect *steering.Effect) {
	l, alpha, rho := e.Vector.Layers[0], e.Coefficient, 0.0
	for j, v := range l.Direction {
		rho += float64(h[j]) * float64(v)
	}
	st, delta, gate, capped := l.Statistics, 0.0, true, false
	switch {
	case e.Method == steering.SwFC:
		delta = alpha * l.DeltaMu
	case e.Method == steering.StTP && e.Negative:
		delta, gate = st.MuNeg+alpha*st.SigmaNeg-rho, rho > st.M
	case e.Method == steering.StTP:
		delta, gate = st.MuPos+alpha*st.SigmaPos-rho, rho < st.M
	case e.Method == steering.StMP:
		target, limit := rho+2*alpha*(st.M-rho), st.MuPos+40*st.SigmaPos
		delta, gate, capped = min(target, limit)-rho, rho < st.M, target > limit
	}
	sign := 1.0
	if e.Negative {
		sign = -1
	}
	if eligible {
		effect.Eligible++
	}
	if !eligible || !gate {
		delta = 0
	} else {
		effect.Moved++
		effect.Sum += math.Abs(delta)
		if capped {
			effect.Capped++
		}
		for j, v := range l.Direction {
			h[j] += float32(delta * float64(v))
		}
	}
	site.Rho, site.Delta = append(site.Rho, float32(sign*rho)), append(site.Delta, float32(sign*delta))
}

func (m toy) round(values []float32) {
	if m.bf16 {
		for i, v := range values {
			values[i] = fromBF16(toBF16(v))
		}
	}
}

func fromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// plain is the toy with nothing changed but what it is asked.
func (m toy) plain() toy { return toy{bf16: m.bf16, asked: m.asked} }

func (m toy) Score(ctx context.Context, s engine.Sequence) (*engine.Scored, error) {
	t, err := m.plain().Trace(ctx, s)
	var p []float32
	for k, id := range s.Continuation {
		i := len(s.Prompt) - 1 + k
		p = append(p, logProb(t.Logits[i*toyVocab:(i+1)*toyVocab], id))
	}
	if m.logProb != nil {
		m.logProb(s.Prompt, p)
	}
	return &engine.Scored{LogProbs: p, Steering: t.Steering}, err
}

// Capture knows the one pool that is asked for: the mean over the response.
func (m toy) Capture(ctx context.Context, sequences []engine.Sequence, layers []int, _ ...engine.Pool) (all []engine.Captured, err error) {
	for _, s := range sequences {
		if m.asked != nil {
			m.asked(&s)
		}
		t, err := m.Trace(ctx, s)
		if err != nil {
			return nil, err
		}
		pooled := engine.Pooled{Layers: layers}
		for _, l := range layers {
			mean := make([]float32, toyHidden)
			for i, h := range t.Layers[l][len(s.Prompt)*toyHidden:] {
				mean[i%toyHidden] += h / float32(len(s.Continuation))
			}
			pooled.Values = append(pooled.Values, mean)
		}
		all = append(all, engine.Captured{pooled})
	}
	return all, nil
}

func (m toy) fit(ctx context.Context, e contrast.Embeddings) (*contrast.Fitted, error) {
	fitted, err := contrast.Fit(ctx, toyBackend(), e, fitOptions)
	if err == nil && m.fitted != nil {
		m.fitted(fitted)
	}
	return fitted, err
}

// toyBackend fits for all toys.
var toyBackend = sync.OnceValue(func() compute.Backend {
	backend, _, err := pjrt.Backend("go")
	if err != nil {
		panic(err)
	}
	return backend
})

func (m toy) generate(ctx context.Context, requests []engine.Request) (all []continuation, err error) {
	for _, r := range requests {
		c := continuation{}
		s := engine.Sequence{Prompt: r.IDs, Steering: r.Steering}
		for range r.MaxTokens {
			s.Continuation = c.tokens
			t, _ := m.plain().Trace(ctx, s)
			best, _ := argMax(t.Logits[len(t.Logits)-toyVocab:])
			c.tokens, c.effects = append(c.tokens, best), t.Steering
		}
		if m.decoding != nil {
			m.decoding(r.IDs, c.tokens)
		}
		if m.effects != nil {
			m.effects(c.effects)
		}
		s.Continuation = c.tokens
		scored, err := m.Score(ctx, s)
		if err != nil {
			return nil, err
		}
		c.logProbs = scored.LogProbs
		all = append(all, c)
	}
	return all, nil
}

// margins are how far the logit of each token of a continuation is above the next best.
func (m toy) margins(t testing.TB, s engine.Sequence) (margins []float32) {
	trace, err := m.Trace(t.Context(), s)
	require.NoError(t, err)
	for k := range s.Continuation {
		at := (len(s.Prompt) - 1 + k) * toyVocab
		row := slices.Sorted(slices.Values(trace.Logits[at : at+toyVocab]))
		margins = append(margins, row[toyVocab-1]-row[toyVocab-2])
	}
	return margins
}

// dumpChange changes a dump before it is written.
type dumpChange func(tensors map[string]safetensors.Tensor, info map[string]any)

// toyDump writes a folder with a dump of the toy, in both references, after `change`, if any.
func toyDump(t testing.TB, change dumpChange) string {
	t.Helper()
	ctx, out := t.Context(), output{}
	var infos []any
	for i, ids := range toyPrompts {
		out.ints(fmt.Sprintf("prompt.%d.ids", i), ids)
		infos = append(infos, map[string]any{"ids": ids})
		for _, ref := range []string{refF32, refBF16} {
			m := toy{bf16: ref == refBF16}
			p := prompt{index: i}
			trace, err := m.Trace(ctx, engine.Sequence{Prompt: ids})
			require.NoError(t, err)
			out.floats(p.name(ref, "logits"), trace.Logits, len(ids), toyVocab)
			out.floats(p.name(ref, "hidden"), slices.Concat(trace.Layers...), toyLayers, len(ids), toyHidden)
			got, err := m.generate(ctx, []engine.Request{greedyRequest(ids, toyGreedy, nil)})
			require.NoError(t, err)
			out.ints(p.name(ref, "greedy"), got[0].tokens)
			out.float32s(p.name(ref, "greedy_margin"), m.margins(t, engine.Sequence{Prompt: ids, Continuation: got[0].tokens}), toyGreedy)
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
			trace, err := toy{}.Trace(ctx, engine.Sequence{Prompt: p})
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
		require.NoError(t, got.schedule().Validate())
		m.bf16 = ref == refBF16
		return m, nil
	})
}

// toyCases are steered in toyDump: two sites on one layer and one with a negative coefficient; the negative sense; and a cap, in
// the response alone.
var toyCases = []steerCase{
	{Name: "three", Mode: "all", Sites: []site{
		{Layer: 0, Method: "sttp", VIndex: 0, Alpha: 2, M: 0.5, MuPos: 3, MuNeg: -2, SigmaPos: 0.5, SigmaNeg: 1, DeltaMu: 5,
			Direction: "positive"},
		{Layer: 0, Method: "stmp", VIndex: 1, Alpha: 1.5, M: 0.25, MuPos: 2, MuNeg: -2, SigmaPos: 0.5, SigmaNeg: 1, DeltaMu: 4,
			Cap: of(22.)},
		{Layer: 2, Method: "swfc", VIndex: 2, Alpha: -1, M: 0, MuPos: 2, MuNeg: -2, SigmaPos: 0.5, SigmaNeg: 1, DeltaMu: 4,
			Direction: "positive"},
	}},
	{Name: "away", Mode: "all", Sites: []site{
		{Layer: 1, Method: "sttp", VIndex: 3, Alpha: 2, M: 0.5, MuPos: 3, MuNeg: -2, SigmaPos: 0.5, SigmaNeg: 1, DeltaMu: 5,
			Direction: "negative"},
	}},
	{Name: "late", Mode: "response", Sites: []site{
		{Layer: 1, Method: "stmp", VIndex: 4, Alpha: 4, M: 1, MuPos: 2, MuNeg: -2, SigmaPos: 0.03125, SigmaNeg: 1, DeltaMu: 4,
			Cap: of(3.25)},
	}},
}

func of(x float64) *float64 { return &x }

const toySteps = 5 // tokens of a steered continuation

// withSteering is a change of toyDump that adds steer and mixed, and then makes another change.
func withSteering(t testing.TB, change dumpChange) dumpChange {
	t.Helper()
	return func(tensors map[string]safetensors.Tensor, info map[string]any) {
		cfg, err := model.ParseConfig([]byte(toyConfig))
		require.NoError(t, err)
		d, out := dump{cfg: cfg}, output{}
		var directions [][]float32
		for k := range 5 {
			v := draw("direction", []int32{int32(k)}, toyHidden)
			l, err := steering.NewLayer(0, widened(v))
			require.NoError(t, err)
			directions = append(directions, l.Direction)
		}
		out.floats("steer.v_hat", slices.Concat(directions...), len(directions), toyHidden)
		texts := []engine.Sequence{{Prompt: []int32{2, 8, 5, 13}, Continuation: []int32{1, 1, 6, 0, 22, 17}},
			{Prompt: []int32{21, 4, 4, 9, 10}, Continuation: []int32{7, 3, 19}}}
		cases := slices.Clone(toyCases)
		specs := map[string]steering.Spec{"none": nil}
		for c := range cases {
			specs[cases[c].Name], err = d.spec(cases[c], directions)
			require.NoError(t, err)
			cases[c].Sequences = []map[string]told{{}, {}}
		}
		steer := steerInfo{Cases: cases}
		add := func(x text, ref string) told {
			return addText(t, &out, x, ref)
		}
		for j, s := range texts {
			ids := slices.Concat(s.Prompt, s.Continuation)
			out.ints(fmt.Sprintf("steer.seq.%d.ids", j), ids)
			steer.Sequences = append(steer.Sequences, struct {
				PromptLen int `json:"prompt_len"`
			}{len(s.Prompt)})
			for _, ref := range []string{refF32, refBF16} {
				add(text{path: fmt.Sprintf("steer.unsteered.seq.%d", j), ids: ids, prompt: len(s.Prompt)}, ref)
				for c := range cases {
					cases[c].Sequences[j][ref] = add(text{path: fmt.Sprintf("steer.%s.seq.%d", cases[c].Name, j), ids: ids,
						prompt: len(s.Prompt), sites: cases[c].Sites, spec: specs[cases[c].Name], insight: true}, ref)
				}
			}
		}
		info["steer"] = steer
		mixed := map[string]any{}
		var rows []any
		for b, config := range []string{"none", "late", "three"} {
			ids := slices.Concat([]int32{int32(b), 11}, toyPrompts[2])
			rows = append(rows, map[string]any{"config": config, "ids": ids, "prompt_len": 3 + b})
			for _, ref := range []string{refF32, refBF16} {
				x := text{path: fmt.Sprintf("mixed.%d", b), ids: ids, prompt: 3 + b, spec: specs[config], greedy: []int32{}}
				for _, c := range cases {
					if c.Name == config {
						x.sites = c.Sites
					}
				}
				m, _ := mixed[ref].(mixedTold)
				m.Sites = append(m.Sites, add(x, ref).Sites)
				mixed[ref] = m
			}
		}
		mixed["rows"] = rows
		info["mixed"] = mixed
		for _, x := range out.tensors {
			tensors[x.Name] = x
		}
		if change != nil {
			change(tensors, info)
		}
	}
}

func widened(x []float32) (y []float64) {
	for _, v := range x {
		y = append(y, float64(v))
	}
	return y
}

// addText adds what a toy computes for a text, and returns its statistics. A text with insight or with a continuation gets one.
func addText(t testing.TB, out *output, x text, ref string) (y told) {
	m := toy{bf16: ref == refBF16}
	trace, err := m.Trace(t.Context(), x.sequence())
	require.NoError(t, err)
	p := &steered{comparison: &comparison{dump: &dump{cfg: &model.Config{VocabSize: toyVocab, HiddenSize: toyHidden}}, ref: ref, out: out}}
	p.write(&x, trace, x.traced(trace))
	statistics := func(effects []steering.Effect) (all []did) {
		for s, e := range effects {
			all = append(all, did{x.sites[s].Layer, e.Eligible, e.Moved, e.Mean(), e.Capped})
		}
		return all
	}
	y.Sites = statistics(trace.Steering)
	if x.insight || x.greedy != nil {
		got, err := m.generate(t.Context(), []engine.Request{greedyRequest(x.ids[:x.prompt], toySteps, x.spec)})
		require.NoError(t, err)
		out.ints(x.name(ref, "greedy"), got[0].tokens)
		margins := m.margins(t, engine.Sequence{Prompt: x.ids[:x.prompt], Continuation: got[0].tokens, Steering: x.spec})
		out.float32s(x.name(ref, "greedy_margin"), margins, toySteps)
		if x.insight {
			y.GreedySites = statistics(got[0].effects)
		}
	}
	return y
}
