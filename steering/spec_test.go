package steering

import (
	"encoding/json"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func mustPositions(t testing.TB, text string) Positions {
	t.Helper()
	p, err := ParsePositions(text)
	require.NoError(t, err)
	return p
}

func TestParseArgument(t *testing.T) {
	for _, c := range []struct {
		text string
		want Argument
	}{
		{"v.gguf", Argument{"v.gguf", Entry{Method: SwFC, Coefficient: 1}}},
		{"a/v.safetensors:stmp:4@26", Argument{"a/v.safetensors", Entry{Method: StMP, Coefficient: 4, Layers: []int{26}}}},
		{"v:-sttp:12@20-22,3:response", Argument{"v", Entry{Method: StTP, Coefficient: 12, Negative: true, Layers: []int{3, 20, 21, 22},
			Positions: Response}}},
		{"v:swfc:-2.5e0", Argument{"v", Entry{Method: SwFC, Coefficient: -2.5}}},
		{"v:ablate", Argument{"v", Entry{Method: Ablation, Coefficient: 1}}},
		{"v:ablate:prompt", Argument{"v", Entry{Method: Ablation, Coefficient: 1, Positions: Prompt}}},
		{"v:sttp:6:all", Argument{"v", Entry{Method: StTP, Coefficient: 6, Positions: All}}},
		{"v@3", Argument{"v", Entry{Method: SwFC, Coefficient: 1, Layers: []int{3}}}},
		{"v@3:prompt/-2..", Argument{"v", Entry{Method: SwFC, Coefficient: 1, Layers: []int{3}, Positions: mustPositions(t, "prompt/-2..")}}},
		{"v:response", Argument{"v", Entry{Method: SwFC, Coefficient: 1, Positions: Response}}},
		{"./me@home/v.gguf:stmp", Argument{"./me@home/v.gguf", Entry{Method: StMP, Coefficient: 1}}},
		{"./me@home/v.gguf:stmp@1", Argument{"./me@home/v.gguf", Entry{Method: StMP, Coefficient: 1, Layers: []int{1}}}},
	} {
		got, err := ParseArgument(c.text)
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, got, c.text)
		again, err := ParseArgument(got.String())
		require.NoError(t, err, got.String())
		require.Equal(t, got, again)
	}
}

var hostileArguments = map[string]string{
	"":                  "no file",
	":stmp":             "no file",
	"@3":                "no file",
	"v:":                "neither a method",
	"v:foo":             `"foo" is neither a method`,
	"v:foo@3":           `method "foo" is none of`,
	"v:STMP@3":          `method "STMP" is none of`,
	"v:stmp:x@3":        `coefficient "x" is not a number`,
	"v:stmp:@3":         `coefficient "" is not a number`,
	"v:stmp:nan":        `coefficient "nan" is not a finite`,
	"v:stmp:Inf@2":      `coefficient "Inf" is not a finite`,
	"v:stmp:1e999":      `coefficient "1e999" is not a number`,
	"v:stmp:4:5@3":      `"5" before the @ is too much`,
	"v:stmp:4:all:all":  `"all" is too much`,
	"v@":                `"" is not a layer`,
	"v@x":               `"x" is not a layer`,
	"v@3,":              `"" is not a layer`,
	"v@-3":              `"" is not a layer`,
	"v@5-3":             "5-3 is empty",
	"v@3,2-4":           "layer 3 is given twice",
	"v@99999":           "is not a layer between",
	"v@0-99999999":      "is not a layer between",
	"v@3:":              "it is empty",
	"v@3:stmp":          `"stmp" is none of all, prompt, response`,
	"v@3:prompt/4..4":   "the window is empty",
	"v:stmp:4@3:-all":   "no clause includes",
	"v:stmp:4@3:all:up": "is none of",
}

func TestParseArgumentErrors(t *testing.T) {
	for text, want := range hostileArguments {
		_, err := ParseArgument(text)
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, "FILE[:method", text)
	}
}

// FuzzParseArgument: no text panics; what is accepted prints as text that means the same.
func FuzzParseArgument(f *testing.F) {
	for text := range hostileArguments {
		f.Add(text)
	}
	f.Add("a@b/v.safetensors:-stmp:4@3,5-7:all-prompt/0..4=1")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseArgument(text)
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		again, err := ParseArgument(a.String())
		require.NoError(t, err, "%q from %q", a.String(), text)
		require.Equal(t, a, again)
	})
}

func TestLoadSpec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.safetensors")
	require.NoError(t, testVector().Save(path))
	spec, err := LoadSpec(path+":stmp:4@2", path+":-swfc@1:response")
	require.NoError(t, err)
	require.Len(t, spec, 2)
	require.Same(t, spec[0].Vector, spec[1].Vector)
	require.NoError(t, spec.Validate())
	_, err = LoadSpec(path + "@7")
	require.ErrorContains(t, err, "no layer 7")
	require.ErrorContains(t, err, "it has 1-2,4")
	_, err = LoadSpec("nowhere.safetensors")
	require.ErrorContains(t, err, "nowhere.safetensors")
}

func lookupTest(v *Vector) func(string) (*Vector, error) {
	return func(name string) (*Vector, error) {
		if name != "honesty" {
			return nil, errors.New("there is no such vector")
		}
		return v, nil
	}
}

func TestDecodeSpec(t *testing.T) {
	v := testVector()
	spec, err := DecodeSpec([]byte(`[{"vector":"honesty"}, {"vector":"honesty","method":"sttp","coefficient":-2,"negative":true,
		"layers":[4,1],"positions":"response"}]`), lookupTest(v))
	require.NoError(t, err)
	require.Equal(t, Spec{
		{Vector: v, Method: SwFC, Coefficient: 1},
		{Vector: v, Method: StTP, Coefficient: -2, Negative: true, Layers: []int{4, 1}, Positions: Response},
	}, spec)
	for _, text := range []string{"null", "[]"} {
		spec, err := DecodeSpec([]byte(text), lookupTest(v))
		require.NoError(t, err)
		require.Empty(t, spec)
	}
	for text, want := range hostileJSON {
		_, err := DecodeSpec([]byte(text), lookupTest(v))
		require.ErrorContains(t, err, want, text)
	}
}

var hostileJSON = map[string]string{
	``:                                       "EOF",
	`{}`:                                     "want a list",
	`"honesty"`:                              "want a list",
	`[`:                                      "EOF",
	`[1]`:                                    "entry 0: want an object",
	`[{}]`:                                   "entry 0: no vector",
	`[] []`:                                  "more after the end",
	`[{"vector":"x"}]`:                       `vector "x": there is no such vector`,
	`[{"vector":"honesty","scale":2}]`:       `unknown key "scale"`,
	`[{"vector":"honesty","Method":"swfc"}]`: `unknown key "Method"`,
	`[{"vector":"honesty","vector":"honesty"}]`:                                 `key "vector" is there twice`,
	`[{"vector":null}]`:                                                         "vector is null",
	`[{"vector":"honesty","coefficient":null}]`:                                 "coefficient is null",
	`[{"vector":"honesty","coefficient":"4"}]`:                                  "coefficient:",
	`[{"vector":"honesty","coefficient":1e999}]`:                                "coefficient:",
	`[{"vector":"honesty","coefficient":NaN}]`:                                  "invalid character",
	`[{"vector":"honesty","method":"none"}]`:                                    `method "none" is none of`,
	`[{"vector":"honesty","layers":[]}]`:                                        "no layers",
	`[{"vector":"honesty","layers":[1,1]}]`:                                     "layer 1 is given twice",
	`[{"vector":"honesty","layers":[9]}]`:                                       "no layer 9",
	`[{"vector":"honesty","layers":[1.5]}]`:                                     "layers:",
	`[{"vector":"honesty","positions":""}]`:                                     "it is empty",
	`[{"vector":"honesty","positions":"response/-1.."}]`:                        "cannot count from its end",
	"[" + strings.Repeat(`{"vector":"honesty"},`, 64) + `{"vector":"honesty"}]`: "more than 64 entries",
}

// FuzzDecodeSpec: no body panics; what is accepted is a valid spec.
func FuzzDecodeSpec(f *testing.F) {
	for text := range hostileJSON {
		f.Add([]byte(text))
	}
	v := testVector()
	f.Fuzz(func(t *testing.T, body []byte) {
		spec, err := DecodeSpec(body, lookupTest(v))
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		require.True(t, json.Valid(body))
		require.NoError(t, spec.Validate())
	})
}

func TestSpecValidate(t *testing.T) {
	v := testVector()
	bare := testVector()
	for i := range bare.Layers {
		bare.Layers[i].Statistics = nil
	}
	for want, e := range map[string]Entry{
		"no vector":                   {Method: SwFC},
		"method Method(0) is none of": {Vector: v},
		"method Method(9) is none of": {Vector: v, Method: 9},
		"coefficient NaN":             {Vector: v, Method: SwFC, Coefficient: math.NaN()},
		"coefficient -Inf":            {Vector: v, Method: SwFC, Coefficient: math.Inf(-1)},
		"the vector has no layer 3":   {Vector: v, Method: SwFC, Layers: []int{1, 3}},
		"no layers":                   {Vector: v, Method: SwFC, Layers: []int{}},
	} {
		require.ErrorContains(t, Spec{{Vector: v, Method: SwFC}, e}.Validate(), "entry 1: "+want)
	}
	_, err := NewPlan(Spec{{Vector: bare, Method: StMP, Coefficient: 1}}, 8, 4)
	require.ErrorContains(t, err, "needs the vector's statistics")
	_, err = NewPlan(Spec{{Vector: v, Method: SwFC, Coefficient: 1e300}}, 8, 4)
	require.ErrorContains(t, err, "is not a finite float32")
	_, err = NewPlan(Spec{{Vector: v, Method: SwFC}}, 4, 4)
	require.ErrorContains(t, err, "layer 4: the model has layers 0 to 3")
	_, err = NewPlan(Spec{{Vector: v, Method: SwFC}}, 8, 5)
	require.ErrorContains(t, err, "hidden_size 4, the model has 5")
}

func TestMethod(t *testing.T) {
	for m := SwFC; m <= Ablation; m++ {
		got, err := ParseMethod(m.String())
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	_, err := ParseMethod("")
	require.Error(t, err)
}
