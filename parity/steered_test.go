package parity

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/safetensors"
	"github.com/steerage/steerage/steering"
)

func partNames(report Report) (names []string) {
	for _, row := range report.Rows {
		names = append(names, row.DType+" "+row.Part)
	}
	return names
}

func find(t *testing.T, report Report, name string) Row {
	t.Helper()
	at := slices.Index(partNames(report), name)
	require.GreaterOrEqual(t, at, 0, "%s is not in %v", name, partNames(report))
	return report.Rows[at]
}

func TestSteeredEqualPasses(t *testing.T) {
	report, err := runToy(t, toyDump(t, withSteering(t, nil)), toy{}, Options{})
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report.Failures())
	var parts []string
	for _, name := range partNames(report) {
		if strings.Contains(name, "steer.") || strings.Contains(name, "mixed.") {
			parts = append(parts, name)
		}
	}
	require.Equal(t, []string{"f32 steer.logits", "f32 steer.hidden", "f32 steer.gates", "f32 steer.readout", "f32 steer.greedy",
		"f32 steer.cached", "f32 mixed.logits", "f32 mixed.readout", "f32 mixed.greedy", "f32 mixed.cached",
		"bf16 steer.logits", "bf16 steer.hidden", "bf16 steer.gates", "bf16 steer.readout", "bf16 steer.greedy",
		"bf16 steer.cached", "bf16 mixed.logits", "bf16 mixed.readout", "bf16 mixed.greedy", "bf16 mixed.cached"}, parts)
	sites := 3 + 1 + 1
	require.Equal(t, Agreement{sites * 18, sites * 18}, *find(t, report, "f32 steer.gates").Exact) // sequences of 10 and 8 tokens
	require.Equal(t, Agreement{2 * 3 * toySteps, 2 * 3 * toySteps}, *find(t, report, "f32 steer.greedy").Exact)
	// For each site and sequence: two times three counts against the dump, three against a trace, one against the trace's gates.
	require.Equal(t, Agreement{sites * 2 * 10, sites * 2 * 10}, *find(t, report, "f32 steer.readout").Exact)
	require.Equal(t, Agreement{3 * toySteps, 3 * toySteps}, *find(t, report, "f32 mixed.greedy").Exact)
	require.NotZero(t, find(t, report, "bf16 steer.greedy").Exact.Total)
}

// The toy does one thing wrong, and the report says what and where.
func TestSteeredDifferencesFail(t *testing.T) {
	isCase := func(name string, s *engine.Sequence) bool {
		return len(s.Steering) == map[string]int{"three": 3, "away": 1, "late": 1}[name] &&
			(name == "three" || s.Steering[0].Negative == (name == "away"))
	}
	whole := func(s engine.Sequence, n int) bool { return len(s.Prompt)+len(s.Continuation) == n }
	tests := []struct {
		name string
		toy  toy
		part string
		note []string
		only bool // no other part fails
	}{
		{"alpha", toy{asked: func(s *engine.Sequence) {
			if isCase("three", s) {
				s.Steering = slices.Clone(s.Steering)
				s.Steering[2].Coefficient *= 1.01
			}
		}}, "f32 steer.logits", []string{"case three, sequence 0: max"}, false},
		{"alpha, by the readout", toy{asked: func(s *engine.Sequence) {
			if isCase("three", s) {
				s.Steering = slices.Clone(s.Steering)
				s.Steering[2].Coefficient *= 1.01
			}
		}}, "f32 steer.readout", []string{"case three, sequence 0, site 2 (swfc, layer 2), mean |h'-h|: max 0.04"}, false},
		{"the other sense", toy{asked: func(s *engine.Sequence) {
			if isCase("away", s) {
				s.Steering = slices.Clone(s.Steering)
				s.Steering[0].Negative = false
			}
		}}, "f32 steer.gates", []string{"case away, sequence 0, site 0 (sttp, layer 1): "}, false},
		{"the order of two sites on a layer", toy{asked: func(s *engine.Sequence) {
			if isCase("three", s) {
				s.Steering = slices.Clone(s.Steering)
				s.Steering[0], s.Steering[1] = s.Steering[1], s.Steering[0]
			}
		}}, "f32 steer.gates", []string{"case three, sequence 0, site 0 (sttp, layer 0)"}, false},
		{"the last token of the prompt is steered, too", toy{asked: func(s *engine.Sequence) {
			if isCase("late", s) && len(s.Continuation) > 0 {
				n := len(s.Prompt) - 1
				s.Prompt, s.Continuation = s.Prompt[:n], slices.Concat(s.Prompt[n:], s.Continuation)
			}
		}}, "f32 steer.readout", []string{"case late, sequence 0, site 0 (stmp, layer 1): 7 eligible tokens, want 6"}, false},
		{"a gate, one token late", toy{traced: func(s engine.Sequence, t *engine.Trace) {
			if isCase("three", &s) && whole(s, 8) {
				d := t.Sites[1].Delta
				copy(d[1:], slices.Clone(d))
			}
		}}, "f32 steer.gates", []string{"case three, sequence 1, site 1 (stmp, layer 0): the gate of token ", ", want "}, false},
		{"a projection", toy{traced: func(s engine.Sequence, t *engine.Trace) {
			if isCase("away", &s) && whole(s, 10) {
				t.Sites[0].Rho[3] += 3e-4
			}
		}}, "f32 steer.gates", []string{"case away, sequence 0, site 0 (sttp, layer 1): max 0.0003"}, true},
		{"a projection that is NaN", toy{traced: func(s engine.Sequence, t *engine.Trace) {
			if isCase("late", &s) && whole(s, 10) {
				t.Sites[0].Rho[9] = float32(math.NaN())
			}
		}}, "bf16 steer.gates", []string{"case late, sequence 0, site 0 (stmp, layer 1)", "1 of 10 not finite"}, false},
		{"the count of capped tokens", toy{traced: func(s engine.Sequence, t *engine.Trace) {
			if isCase("late", &s) && whole(s, 10) {
				t.Steering[0].Capped++
			}
		}}, "f32 steer.readout", []string{"case late, sequence 0, site 0 (stmp, layer 1): 4 capped tokens, want 3"}, false},
		{"the count of moved tokens", toy{traced: func(s engine.Sequence, t *engine.Trace) {
			if isCase("three", &s) && whole(s, 8) {
				t.Steering[0].Moved--
			}
		}}, "f32 steer.readout", []string{"case three, sequence 1, site 0 (sttp, layer 0): ", "gated tokens, want"}, false},
		{"the readout of a generation", toy{effects: func(e []steering.Effect) {
			if len(e) == 3 {
				e[1].Sum += 0.01
			}
		}}, "f32 steer.readout", []string{"case three, sequence 0, generated, site 1 (stmp, layer 0), mean |h'-h|: max 0.0012"}, false},
		{"an effect too few", toy{effects: func(e []steering.Effect) {
			if len(e) == 3 {
				e[2] = steering.Effect{}
			}
		}}, "f32 mixed.readout", []string{"row 2 (three), generated, site 2 (swfc, layer 2): 0 eligible tokens, want 9"}, false},
		{"a token", toy{decoding: func(ids, tokens []int32) {
			if len(ids) == 5 && ids[0] == 21 {
				tokens[3] = (tokens[3] + 1) % toyVocab
			}
		}}, "f32 steer.greedy", []string{"case away, sequence 1: token 3 is "}, false},
		{"a token of the mixed batch", toy{decoding: func(ids, tokens []int32) {
			if ids[0] == 0 {
				tokens[0] = (tokens[0] + 1) % toyVocab
			}
		}}, "f32 mixed.greedy", []string{"row 0 (none): token 0 is "}, true},
		{"log-probabilities in the mixed batch", toy{logProb: func(ids []int32, p []float32) {
			if ids[0] == 1 && len(ids) == 4 {
				p[2] += 1e-4
			}
		}}, "f32 mixed.cached", []string{"row 1 (late): max 0.0001"}, true},
		{"logits of an unsteered sequence", toy{logits: func(ids []int32, v []float32) {
			if len(ids) == 8 && ids[0] == 21 {
				v[0] += 3e-4
			}
		}}, "f32 steer.logits", []string{"sequence 1: max 0.0003"}, true},
		{"the last hidden state", toy{layer: func(l int, ids []int32, h []float32) {
			if l == toyLayers-1 && len(ids) == 8 && ids[0] == 21 {
				addTo(h, 4e-5)
			}
		}}, "f32 steer.hidden", []string{", sequence 1: max 4e-05, rms 4e-05"}, true},
		{"bf16 alone", toy{layer: func(l int, ids []int32, h []float32) {
			for i, v := range h {
				if v == fromBF16(toBF16(v)) && l == toyLayers-1 && len(ids) == 10 {
					h[i] += 0.04 * float32(1-2*(i%2))
				}
			}
		}}, "bf16 steer.hidden", []string{"sequence 0: max"}, true},
	}
	dir := toyDump(t, withSteering(t, nil))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			report, err := runToy(t, dir, test.toy, Options{})
			require.NoError(t, err)
			row := find(t, report, test.part)
			require.Equal(t, Fail, row.Verdict)
			for _, note := range test.note {
				require.Contains(t, row.Note, note)
			}
			for _, other := range report.Failures() {
				require.Contains(t, other.Part, ".", "%s: only steered parts fail", other)
				if test.only {
					require.Equal(t, row.Part, other.Part, "%s: %s", other, other.Note)
				}
			}
			_, err = json.Marshal(report)
			require.NoError(t, err)
		})
	}
}

// A token whose projection lies at the boundary may fall on either side, and what follows is not compared.
func TestDoubtfulGates(t *testing.T) {
	x := text{where: "x", ids: make([]int32, 5), prompt: 2, sites: []site{{Method: "stmp", M: 1, Alpha: 2, Cap: of(5.)}},
		spec: steering.Spec{{Positions: steering.Response}}}
	want := seen{rho: [][]float32{{0, 0, 0, 1.05, 0}}, gate: [][]bool{{false, false, true, false, true}}}
	tests := []struct {
		name     string
		gate     []bool
		until    int
		equal    Agreement
		problems int
	}{
		{"equal", []bool{false, false, true, false, true}, 5, Agreement{5, 5}, 0},
		{"at the boundary", []bool{false, false, true, true, false}, 3, Agreement{3, 3}, 0},
		{"far from it", []bool{false, false, false, false, true}, 5, Agreement{4, 5}, 1},
		{"of the prompt", []bool{false, true, true, false, true}, 5, Agreement{4, 5}, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := steered{comparison: &comparison{rhoBound: Bound{Max: 0.1}}}
			var a Agreement
			var problems []string
			until := p.compareGates(&x, x.ids, seen{want.rho, [][]bool{test.gate}}, want, &a, &problems)
			require.Equal(t, test.until, until)
			require.Equal(t, test.equal, a)
			require.Len(t, problems, test.problems)
		})
	}
	// rho + 2·alpha·(m - rho) is 4 - 3·rho: at the cap of 5 for rho = -1/3.
	require.Equal(t, []doubt{{gate: 1, limit: 2}}, x.doubts(x.ids, seen{rho: [][]float32{{1, 1, -0.3, 1.05, 0}}}, 0.1))
	require.Equal(t, []doubt{{}}, x.doubts(x.ids, seen{rho: [][]float32{{1, 1, -0.3, 1.05, 0}}}, 0.01))
}

func TestSteeredDumpDir(t *testing.T) {
	dir, out := toyDump(t, withSteering(t, nil)), t.TempDir()
	_, err := runToy(t, dir, toy{}, Options{DumpDir: out})
	require.NoError(t, err)
	reference, err := safetensors.OpenFile(filepath.Join(dir, DumpName))
	require.NoError(t, err)
	defer reference.Close()
	computed, err := safetensors.OpenFile(filepath.Join(out, filepath.Base(dir)+".safetensors"))
	require.NoError(t, err)
	defer computed.Close()
	for _, n := range reference.Names() {
		if !strings.Contains(n, "16.") && !strings.Contains(n, "32.") || strings.HasSuffix(n, "greedy_margin") {
			continue // an input
		}
		want, _ := reference.Tensor(n)
		got, ok := computed.Tensor(n)
		require.True(t, ok, n)
		require.Equal(t, want.DType, got.DType, n)
		require.Equal(t, want.Shape, got.Shape, n)
		require.Equal(t, want.Data, got.Data, n)
	}
}

// What a dump does not hold is not compared; the rest is.
func TestAbsentParts(t *testing.T) {
	type tensors = map[string]safetensors.Tensor
	drop := func(m tensors, with ...string) {
		for name := range m {
			for _, w := range with {
				if strings.Contains(name, w) {
					delete(m, name)
				}
			}
		}
	}
	tests := []struct {
		name   string
		change func(tensors, map[string]any)
		absent string
	}{
		{"mixed", func(m tensors, info map[string]any) { drop(m, "mixed"); delete(info, "mixed") }, "mixed."},
		{"batches", func(m tensors, info map[string]any) { drop(m, "batch."); delete(info, "batch") }, "batch."},
		{"bf16 steer", func(m tensors, _ map[string]any) { drop(m, "bf16.steer", "bf16.mixed") }, "bf16 steer."},
		{"unsteered", func(m tensors, _ map[string]any) { drop(m, "unsteered") }, "nothing else"},
		{"greedy", func(m tensors, _ map[string]any) {
			for name := range m {
				if strings.Contains(name, ".greedy") && !strings.Contains(name, "prompt") {
					delete(m, name)
				}
			}
		}, "steer.greedy"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			report, err := runToy(t, toyDump(t, withSteering(t, test.change)), toy{}, Options{})
			require.NoError(t, err)
			require.True(t, report.OK(), "%+v", report.Failures())
			for _, name := range partNames(report) {
				require.NotContains(t, name, test.absent)
			}
			require.Contains(t, partNames(report), "f32 steer.gates")
		})
	}
}

func TestMalformedSteering(t *testing.T) {
	type tensors = map[string]safetensors.Tensor
	edit := func(old, new string) func(tensors, map[string]any) {
		return func(_ tensors, info map[string]any) {
			for _, part := range []string{"steer", "mixed"} {
				text, err := json.Marshal(info[part])
				require.NoError(t, err)
				info[part] = json.RawMessage(strings.Replace(string(text), old, new, 1))
			}
		}
	}
	remove := func(name string) func(tensors, map[string]any) {
		return func(m tensors, _ map[string]any) { delete(m, name) }
	}
	tests := []struct {
		name   string
		change func(tensors, map[string]any)
		err    string
	}{
		{"mode", edit(`"mode":"all"`, `"mode":"most"`), `case "three": mode: positions "most"`},
		{"method", edit(`"method":"stmp"`, `"method":"add"`), `case "three": site 1: method "add" is none of`},
		{"v_index", edit(`"v_index":4`, `"v_index":5`), `case "late": site 0: v_index is 5, there are 5 directions`},
		{"layer", edit(`"layer":2`, `"layer":3`), `layer 3: the model has layers 0 to 2`},
		{"cap", edit(`"cap":22`, `"cap":21`), "site 1: cap is 21, mu_pos + 40 sigma_pos is 22"},
		{"a case twice", edit(`"name":"away"`, `"name":"three"`), `steering case "three" is there twice`},
		{"no prompt", edit(`"prompt_len":4`, `"prompt_len":0`), "the prompt of steering sequence 0 has 0 of 10 tokens"},
		{"a prompt beyond the text", edit(`"prompt_len":5}]`, `"prompt_len":9}]`), "the prompt of steering sequence 1 has 9 of 8 tokens"},
		{"a row's prompt", edit(`"prompt_len":3`, `"prompt_len":-1`), "row 0 of mixed: the prompt has -1 of 9 tokens"},
		{"a row's case", edit(`"config":"late"`, `"config":"early"`), `row 1 of mixed has the config "early", which is no case`},
		{"a row's id", edit(`"ids":[0,`, `"ids":[24,`), "row 0 of mixed holds id 24 at 0, the vocabulary has 24"},
		{"statistics of another layer", edit(`"sites":[{"layer":1,"eligible"`, `"sites":[{"layer":0,"eligible"`), "is of layer 0, the site of layer 1"},
		{"no gate", remove("f32.steer.three.seq.1.gate"), `"f32.steer.three.seq.1.gate" is missing`},
		{"no projections", remove("bf16.steer.late.seq.0.rho"), `"bf16.steer.late.seq.0.rho" is missing`},
		{"no margin", remove("f32.mixed.2.greedy_margin"), `"f32.mixed.2.greedy_margin" is missing`},
		{"no directions", remove("steer.v_hat"), `"steer.v_hat" is missing`},
		{"no steer", func(_ tensors, info map[string]any) { delete(info, "steer") }, "holds steered tensors, dump.json has no steer"},
		{"no mixed", func(_ tensors, info map[string]any) { delete(info, "mixed") }, "holds a mixed batch, dump.json has no mixed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := toyDump(t, withSteering(t, test.change))
			_, err := runToy(t, dir, toy{}, Options{})
			require.ErrorContains(t, err, test.err)
			require.ErrorContains(t, err, dir)
		})
	}
}

func TestSizes(t *testing.T) {
	for _, test := range []struct {
		name string
		dir  string
		want sizes
	}{
		{"prompts and batches", toyDump(t, nil), sizes{context: 7 + toyGreedy, rows: 3, row: 7, queue: 6}},
		{"steering", toyDump(t, withSteering(t, nil)), sizes{context: 7 + toyGreedy, rows: 3, row: 10, queue: 8}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := openDump(test.dir)
			require.NoError(t, err)
			defer d.Close()
			require.Equal(t, test.want, d.sizes())
			require.NoError(t, d.sizes().schedule().Validate())
		})
	}
}

// The engine steers otherwise than the dump says, on a model of testdata.
func TestSteeringMistakesAreCaught(t *testing.T) {
	const source = "testdata/llama-linear-f32"
	tests := []struct {
		name  string
		edits []string          // old, new, …; the first of each
		notes map[string]string // by part
	}{
		{"alpha, sense", []string{`"alpha": 2.0`, `"alpha": 2.002`, `"direction": "negative"`, `"direction": "positive"`}, map[string]string{
			"steer.logits": "case s", "steer.gates": "case sttp_negative_all, sequence 0, site 0 (sttp, layer 2): ",
			"steer.readout": "case sttp_negative_all, sequence 0, site 0 (sttp, layer 2): ", "mixed.logits": "row 1 (swfc_one_all): ",
		}},
		{"mode, capped", []string{`"mode": "response"`, `"mode": "all"`, `"capped": 0`, `"capped": 1`}, map[string]string{
			"steer.readout": "case swfc_one_all, sequence 0, site 0 (swfc, layer 1): 0 capped tokens, want 1; " +
				"case swfc_one_response, sequence 0, site 0 (swfc, layer 1): ",
			"steer.gates": "case swfc_one_response, sequence 0, site 0 (swfc, layer 1): the gate of token 0 is true, want false",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "model")
			require.NoError(t, os.CopyFS(dir, os.DirFS(source)))
			path := filepath.Join(dir, dumpJSON)
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			text := string(data)
			for edit := range slices.Chunk(test.edits, 2) {
				require.Contains(t, text, edit[0])
				text = strings.Replace(text, edit[0], edit[1], 1)
			}
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			report, err := Run(t.Context(), dir, Options{Backend: "go"})
			require.NoError(t, err)
			for part, note := range test.notes {
				row := find(t, report, "f32 "+part)
				require.Equal(t, Fail, row.Verdict, part)
				require.Contains(t, row.Note, note)
			}
		})
	}
}
