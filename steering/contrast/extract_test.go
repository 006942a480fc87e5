package contrast

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/pjrt/pjrttest"
	"github.com/steerage/steerage/steering"
)

const storyteller = "../../cmd/steerage/demo/stories260k"

func openWith(t *testing.T, dir string, opt engine.Options) *engine.Model {
	t.Helper()
	m, err := engine.Open(context.Background(), dir, opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func TestReadScenarios(t *testing.T) {
	got, err := ReadScenarios(strings.NewReader(`
{"positive_system": ["be kind", "be good"], "negative_system": "be rude"}
{"prompt": "hello"}

{"prompt": "bye", "negative_system": ["be vile"]}
{"prompt": "once ", "positive": "glad", "negative": "sad"}
{"positive": "a", "negative": "b"}
`))
	require.NoError(t, err)
	kind := []string{"be kind", "be good"}
	require.Equal(t, []Scenario{
		{Prompt: "hello", PositiveSystem: kind, NegativeSystem: []string{"be rude"}},
		{Prompt: "bye", PositiveSystem: kind, NegativeSystem: []string{"be vile"}},
		{Prompt: "once ", Positive: "glad", Negative: "sad"},
		{Positive: "a", Negative: "b"},
	}, got)

	for text, want := range map[string]string{
		"":                "none",
		"\n\n":            "none",
		`{"prompt": "a"}`: "line 1: neither texts (positive, negative) nor system prompts",
		`{"prompt": "", "positive_system": "a", "negative_system": "b"}`: "line 1: the prompt is empty",
		`{"prompt": "a", "positive": "b"}`:                               "line 1: one of positive and negative is empty",
		`{"prompt": "a", "posative": "b"}`:                               `unknown field "posative"`,
		`{"prompt": "a", "positive_system": 3, "negative_system": "b"}`:  "a string or a list of strings",
		`{"prompt": 3}`:                  "line 1: json:",
		`["prompt"]`:                     "line 1: json:",
		`{"prompt": "a"`:                 "line 1: unexpected",
		`{"prompt": "a"} {}`:             "line 1: more than one object",
		"{\"prompt\": \"\xff\"}":         "line 1: not UTF-8",
		`{}`:                             "line 1: no prompt",
		`{"positive_system": "a"}`:       "line 1: no prompt",
		strings.Repeat("a", maxLine+100): "line 1: bufio.Scanner: token too long",
		`{"positive": "a", "negative": "b"}` + "\n" + `{"positive_system": "a", "negative_system": "b"}`: "line 2: system prompts without a prompt",
	} {
		_, err := ReadScenarios(strings.NewReader(text))
		require.ErrorContains(t, err, want, "%.80s", text)
	}
	_, err = LoadScenarios(filepath.Join(t.TempDir(), "missing.jsonl"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzReadScenarios(f *testing.F) {
	for _, text := range []string{
		`{"prompt": "a"}`, `{"positive": "a", "negative": "b"}`, `{"positive_system": [], "negative_system": ["b", "c"]}`,
		`{"prompt": null}`, `{"positive_system": "a", "negative_system": "b"}` + "\n" + `{"prompt": "x"}`, "\x00", `{"prompt": "a"}}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		scenarios, err := ReadScenarios(strings.NewReader(text))
		if err != nil {
			return
		}
		for i := range scenarios {
			require.NoError(t, scenarios[i].validate())
		}
	})
}

func TestParsePooling(t *testing.T) {
	p, err := ParsePooling("prompt:last")
	require.NoError(t, err)
	require.Equal(t, Pooling{"prompt:last", engine.Pool{Positions: steering.Prompt, Reduce: engine.Last}}, p)
	_, err = ParsePooling("somewhere")
	require.ErrorContains(t, err, "somewhere")
	require.Len(t, DefaultPoolings(false), 4)
	require.Len(t, DefaultPoolings(true), 3)
}

// Texts given: the whole way from a file to a vector that steers, on both backends.
func TestExtractGivenTexts(t *testing.T) {
	scenarios, err := LoadScenarios("testdata/happy.jsonl")
	require.NoError(t, err)
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			m := openWith(t, storyteller, engine.Options{Backend: b, MaxContext: 256})
			steps := map[string]int{}
			x, err := Extract(context.Background(), m, scenarios, ExtractOptions{
				Model: "stories260k", Data: "happy", Date: time.Unix(0, 0), Progress: func(s Step) {
					require.LessOrEqual(t, s.Done, s.Total)
					steps[s.What] = s.Done
				},
			})
			require.NoError(t, err)
			require.Equal(t, map[string]int{"capture": 24, "fit": 3}, steps)
			require.Empty(t, x.LeftOut)
			require.Len(t, x.Responses, 24)
			r := x.Responses[0]
			text, err := m.Tokenizer().Decode(append(append([]int32{}, r.Before...), r.IDs...), true)
			require.NoError(t, err)
			require.Equal(t, scenarios[0].Prompt+scenarios[0].Positive, text)

			v, err := x.Vector(LogisticRegression)
			require.NoError(t, err)
			require.NoError(t, v.Check(m.SteeringConfig(), false))
			require.Equal(t, "1970-01-01T00:00:00Z", v.Date)
			require.Equal(t, map[string]string{"pooling": "response", "pairs": "12"}, v.Notes)
			require.Len(t, v.Layers, 5)

			// The means along v̂ are those of the texts: a projection by the engine's own trace.
			trace, err := m.Trace(context.Background(), engine.Sequence{Prompt: r.Before, Continuation: r.IDs})
			require.NoError(t, err)
			rho := 0.0
			for at := len(r.Before); at < len(r.Before)+len(r.IDs); at++ {
				for i, y := range v.Layers[2].Direction {
					rho += float64(y) * float64(trace.Layers[2][at*v.Hidden+i]) / float64(len(r.IDs))
				}
			}
			s := v.Layers[2].Statistics
			require.InDelta(t, s.MuPos, rho, 4*s.SigmaPos)
			require.Greater(t, rho, s.M)

			layer, probes, err := x.ChooseLayer(context.Background(), m, LogisticRegression, nil)
			require.NoError(t, err)
			require.Len(t, probes, 5)
			require.Equal(t, probes[0].Layer, layer)
			require.Greater(t, probes[0].Margin, 0.05, "steering makes held-out happy texts likelier, compared with sad ones")
			require.Less(t, probes[0].Drift, 1.0)
		})
	}
}

// Answers are generated, kept, and found again: a run cut off anywhere ends with the same file and the same vector.
func TestExtractResumes(t *testing.T) {
	m := openWith(t, storyteller, engine.Options{Backend: "go", MaxContext: 128, MaxBatch: 3})
	var scenarios []Scenario
	for i := range 4 {
		scenarios = append(scenarios, Scenario{
			Prompt:         fmt.Sprintf("One day, a boy saw %d birds.", i),
			PositiveSystem: []string{"All was well and he was happy.", "It was a nice day."}, NegativeSystem: []string{"He was sad and he cried."},
		})
	}
	dir := t.TempDir()
	run := func(name string, stopAfter int) (*Extraction, []byte, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		n := 0
		opt := ExtractOptions{MaxTokens: 12, Date: time.Unix(0, 0), Keep: filepath.Join(dir, name), Progress: func(s Step) {
			if n++; s.What == "generate" && n == stopAfter {
				cancel()
			}
		}}
		x, err := Extract(ctx, m, scenarios, opt)
		data, readErr := os.ReadFile(opt.Keep)
		require.NoError(t, readErr)
		return x, data, err
	}
	whole, want, err := run("whole", 0)
	require.NoError(t, err)
	require.Equal(t, "It was a nice day.", whole.Responses[2].System)
	require.NotEqual(t, whole.Responses[0].Text, whole.Responses[1].Text)

	for _, stop := range []int{1, 2, 1} {
		_, _, err = run("parts", stop)
		require.ErrorIs(t, err, context.Canceled)
	}
	path := filepath.Join(dir, "parts")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"scenario":3,"class":"positive","resp`) // a line cut off by a kill
	require.NoError(t, err)
	require.NoError(t, f.Close())
	parts, got, err := run("parts", 0)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
	a, err := whole.Vector(DiffMeans)
	require.NoError(t, err)
	b, err := parts.Vector(DiffMeans)
	require.NoError(t, err)
	require.Equal(t, a, b)

	_, got, err = run("whole", 0) // nothing is left to do
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))

	scenarios[0].Prompt = "Another."
	_, _, err = run("whole", 0)
	require.ErrorContains(t, err, "other scenarios or other settings")
	scenarios[0].Prompt = "One day, a boy saw 0 birds."
	twice := append(slices.Clone(want), want[strings.Index(string(want), "\n")+1:]...)
	require.NoError(t, os.WriteFile(path, twice, 0o600))
	_, _, err = run("parts", 0)
	require.ErrorContains(t, err, "a second positive response of scenario 0")
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(string(want), `"scenario":3`, `"scenario":4`)), 0o600))
	_, _, err = run("parts", 0)
	require.ErrorContains(t, err, "scenario 4, there are 0 to 3")
	require.NoError(t, os.WriteFile(path, []byte("my thesis\n"), 0o600))
	_, got, err = run("parts", 0)
	require.ErrorContains(t, err, "not a file of responses")
	require.Equal(t, "my thesis\n", string(got), "it is left alone")
}

func TestExtractErrors(t *testing.T) {
	m := openWith(t, storyteller, engine.Options{Backend: "go", MaxContext: 32, MaxBatch: 2})
	ctx := context.Background()
	given := func(texts ...string) (out []Scenario) {
		for i := 0; i < len(texts); i += 2 {
			out = append(out, Scenario{Prompt: "A cat", Positive: texts[i], Negative: texts[i+1]})
		}
		return out
	}
	far, err := ParsePooling("response/90..95")
	require.NoError(t, err)
	for want, c := range map[string]struct {
		s   []Scenario
		opt ExtractOptions
	}{
		"gave a pair":           {s: nil},
		"scenario 1: one of":    {s: given(" ran", " sat", " ran", "")},
		"1 of 2 scenarios":      {s: given(" ran", " sat", " ran", strings.Repeat(" on and on", 20))},
		"the context has 32":    {s: given(" ran", " sat", " ran", strings.Repeat(" on and on", 20))},
		"layer 7":               {s: given(" ran", " sat", " ran", " ran."), opt: ExtractOptions{Layers: []int{7}}},
		"at most -3 tokens":     {s: given(" ran", " sat"), opt: ExtractOptions{MaxTokens: -3}},
		"no token at positions": {s: given(" ran", " sat", " ran", " ran."), opt: ExtractOptions{Poolings: []Pooling{far}}},
	} {
		_, err := Extract(ctx, m, c.s, c.opt)
		require.ErrorContains(t, err, want)
	}
	bare := openWith(t, "../../parity/testdata/llama-linear-f32", engine.Options{Backend: "go"})
	_, err = Extract(ctx, bare, given(" ran", " sat"), ExtractOptions{})
	require.ErrorContains(t, err, "no tokenizer.json")
}

// With a chat template a prompt is a message, and an answer follows the template's generation prompt.
func TestEncoder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(storyteller)))
	write := func(template string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(template), 0o600))
	}
	write(`{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}. {% endfor %}` +
		`{% if add_generation_prompt %}{{ who|default("bot") }}:{% endif %}`)
	m := openWith(t, dir, engine.Options{Backend: "go", MaxContext: 128})
	decode := func(ids []int32) string {
		text, err := m.Tokenizer().Decode(ids, true)
		require.NoError(t, err)
		return text
	}
	for _, c := range []struct {
		f           Format
		system      string
		before, ids string
	}{
		{Format{}, "Be nice", "system: Be nice. user: Hello. bot:", " Hi."}, // SentencePiece begins a text with a space
		{Format{}, "", "user: Hello. bot:", " Hi."},
		{Format{ChatTemplateKwargs: map[string]any{"who": "cat"}}, "", "user: Hello. cat:", " Hi."},
		{Format{Raw: true}, "Be nice", "Be nice\n\nHello", "Hi."},
	} {
		e, err := NewEncoder(m, c.f)
		require.NoError(t, err)
		before, ids, err := e.Answer(c.system, "Hello", "Hi.")
		require.NoError(t, err)
		require.Equal(t, c.before+c.ids, decode(slices.Concat(before, ids)))
		if !c.f.Raw {
			require.Equal(t, c.before, decode(before))
		}
	}
	e, err := NewEncoder(m, Format{Raw: true})
	require.NoError(t, err)
	// Whatever tokens there are at the border, the ids spell the texts, and both responses follow the same prompt.
	for _, s := range []Scenario{
		{Prompt: "Once upon a", Positive: " time", Negative: "bout"},
		{Prompt: "She was hap", Positive: "py", Negative: " sad"},
		{Prompt: "She was hap ", Positive: "py", Negative: "pier"},
		{Positive: "One", Negative: "Two"},
	} {
		p, err := e.Pair(&s)
		require.NoError(t, err)
		require.NotEmpty(t, p.Prompt)
		for text, ids := range map[string][]int32{s.Prompt + s.Positive: p.Positive, s.Prompt + s.Negative: p.Negative} {
			require.NotEmpty(t, ids)
			require.Equal(t, text, decode(slices.Concat(p.Prompt, ids)))
		}
	}

	write(`{% for m in %}`)
	broken := openWith(t, dir, engine.Options{Backend: "go", MaxContext: 128})
	_, err = NewEncoder(broken, Format{})
	require.ErrorContains(t, err, "chat_template.jinja")
	_, err = NewEncoder(broken, Format{Raw: true})
	require.NoError(t, err)
}
