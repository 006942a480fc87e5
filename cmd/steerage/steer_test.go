package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/safetensors"
	"github.com/steerage/steerage/steering"
)

// demoVector is a vector for the demo's model at layers 1 to 3: at layer l along axis l, of length 2, with statistics.
func demoVector() *steering.Vector {
	v := &steering.Vector{Hidden: 64, Provenance: steering.Provenance{
		Model: "stories260k", NumHiddenLayers: 5, Data: "openings.jsonl", Date: "2026-04-01T12:00:00Z", Method: "logistic",
		Notes: map[string]string{"note": "for tests"},
	}}
	for l := 1; l <= 3; l++ {
		direction := make([]float32, v.Hidden)
		direction[l] = 1
		v.Layers = append(v.Layers, steering.Layer{Index: l, Direction: direction, DeltaMu: 2, Statistics: &steering.Statistics{
			M: 0.5, MuPos: 1.5, MuNeg: -0.5, SigmaPos: 0.25, SigmaNeg: 0.5, CohensD: 5,
		}})
	}
	return v
}

// vectorFile writes a vector, changed or not, to a file of the test.
func vectorFile(t testing.TB, name string, changes ...func(*steering.Vector)) string {
	t.Helper()
	v := demoVector()
	for _, change := range changes {
		change(v)
	}
	path := filepath.Join(t.TempDir(), name)
	save := v.Save
	if filepath.Ext(name) == ".gguf" {
		save = v.SaveGGUF
	}
	require.NoError(t, save(path))
	return path
}

func TestRunSteer(t *testing.T) {
	dir, file := demoFolder(t), vectorFile(t, "axis.safetensors")
	generate := func(args ...string) []sample {
		status, stdout, stderr := command(t, "", append([]string{"run", dir, "Once upon a time", "--backend", "go",
			"--max-tokens", "8", "--json"}, args...)...)
		require.Equal(t, exitOK, status, stderr)
		return decodeLines[sample](t, stdout)
	}
	plain := generate()[0]
	require.Nil(t, plain.Steering)
	require.Equal(t, plain.IDs, generate("--steer", file+":swfc:0")[0].IDs, "coefficient 0 is no steering")

	// The prompt has 5 tokens; of 8 generated ones 7 are fed back.
	s := generate("--steer", file+":swfc:20@2", "--steer", file+":-sttp:4:response")[0]
	require.NotEqual(t, plain.IDs, s.IDs)
	require.Len(t, s.Steering, 2)
	first, second := s.Steering[0], s.Steering[1]
	require.InDelta(t, 40, first.MeanDelta, 1e-4, "coefficient times length")
	first.MeanDelta = 0
	require.Equal(t, effect{Vector: file, Method: "swfc", Coefficient: 20, Layers: []int{2}, Positions: "all",
		Eligible: 12, Moved: 12}, first)
	require.Positive(t, second.MeanDelta)
	require.Positive(t, second.Moved)
	second.MeanDelta, second.Moved = 0, 0
	require.Equal(t, effect{Vector: file, Method: "sttp", Coefficient: 4, Negative: true, Layers: []int{1, 2, 3},
		Positions: "response", Eligible: 3 * 7}, second)

	samples := generate("--steer", file+":swfc:3@2", "-n", "3")
	require.Len(t, samples, 3)
	for _, s := range samples {
		require.Equal(t, 12, s.Steering[0].Eligible, "each sample has its own readout")
	}
}

func TestRunSteerNotes(t *testing.T) {
	dir, file, gguf := demoFolder(t), vectorFile(t, "axis.safetensors"), vectorFile(t, "axis.gguf")
	status, stdout, stderr := command(t, "", "run", dir, "Once upon a time", "--backend", "go", "--max-tokens", "8",
		"--steer", file+":swfc:3@2", "--steer", gguf+":ablate@1,3:prompt/-2..")
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, 1, strings.Count(stdout, "\n"), "the text alone: %s", stdout)
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	require.Len(t, lines, 4, stderr)
	require.Equal(t, "steer "+file+":swfc:3@2: 12 tokens eligible, 12 moved, 0 capped, mean |delta| 6", lines[2])
	require.Regexp(t, `^steer .*axis\.gguf:ablate@1,3:prompt/-2\.\.: 4 tokens eligible, 4 moved, 0 capped, mean \|delta\| [0-9.e+-]+$`, lines[3])
}

func TestRunForce(t *testing.T) {
	dir := demoFolder(t)
	run := func(args ...string) (int, string) {
		status, _, stderr := command(t, "", append([]string{"run", dir, "--backend", "go", "--max-tokens", "2"}, args...)...)
		return status, stderr
	}
	foreign := vectorFile(t, "foreign.safetensors", func(v *steering.Vector) { v.Fingerprint = "0123456789abcdef" })
	status, stderr := run("--steer", foreign)
	require.Equal(t, exitFailure, status)
	require.Regexp(t, `steerage: .*foreign\.safetensors: .*fingerprint is 0123456789abcdef, the model's [0-9a-f]{16} .*--force steers with it all the same\n$`, stderr)
	status, stderr = run("--steer", foreign, "--force")
	require.Equal(t, exitOK, status, stderr)

	wide := vectorFile(t, "wide.gguf", func(v *steering.Vector) {
		v.Hidden = 65
		for i := range v.Layers {
			v.Layers[i].Direction = append(v.Layers[i].Direction, 0)
		}
	})
	deep := vectorFile(t, "deep.gguf", func(v *steering.Vector) { v.NumHiddenLayers, v.Layers[2].Index = 0, 5 })
	for file, want := range map[string]string{wide: "hidden_size is 65, the model's 64", deep: "highest layer is 5, the model's 4"} {
		for _, args := range [][]string{{"--steer", file}, {"--steer", file, "--force"}} {
			status, stderr := run(args...)
			require.Equal(t, exitFailure, status, args)
			require.Contains(t, stderr, want)
			require.NotContains(t, stderr, "--force", "it would not help")
		}
	}
}

func TestSteerUsage(t *testing.T) {
	dir, file := demoFolder(t), vectorFile(t, "axis.safetensors")
	for text, want := range map[string]string{
		"":                                    "no file",
		":swfc":                               "no file",
		file + ":":                            "neither a method",
		file + ":swfd":                        "neither a method",
		file + ":swfc:":                       "is not a number",
		file + ":swfc:NaN":                    "not a finite number",
		file + ":swfc:-Inf@1":                 "not a finite number",
		file + ":swfc:1e999":                  "not a number",
		file + ":swfc:two@1":                  "is not a number",
		file + "@":                            "is not a layer",
		file + "@1,":                          "is not a layer",
		file + "@3-1":                         "3-1 is empty",
		file + "@1,1":                         "given twice",
		file + "@-1":                          "is not a layer",
		file + "@4096":                        "between 0 and 4095",
		file + "@1:":                          "it is empty",
		file + ":swfc:1@1:response+":          "it is empty",
		file + ":swfc:1@1:everywhere":         "none of all, prompt, response",
		file + ":swfc:1@1:prompt/3..3":        "the window is empty",
		file + ":swfc:1@1:response/-4..":      "cannot count from its end",
		file + ":swfc:1@1:-prompt":            "no clause includes anything",
		file + ":swfc:1@1:all=":               "is not a token id",
		file + ":swfc:1@1:all:all":            "clause",
		file + strings.Repeat("a", 1e5) + "@": "is not a layer",
	} {
		status, stdout, stderr := command(t, "", "run", dir, "--backend", "go", "--steer", text)
		require.Equal(t, exitUsage, status, stderr)
		require.Empty(t, stdout)
		require.Regexp(t, "^steerage: --steer: steering [^\n]*\\(see .steerage run --help.\\)\n$", stderr)
		require.Contains(t, stderr, want, text)
		require.Less(t, len(stderr), 1000, "the message is short, however long the argument")
	}
	status, _, stderr := command(t, "", "run", dir, "--force")
	require.Equal(t, exitUsage, status)
	require.Contains(t, stderr, "--force is for --steer")
}

// hostileFiles are files that are no vectors, or vectors that do not fit the demo's model, and what is said of them. Those
// that fit no model are refused by every command that reads a vector.
func hostileFiles(t *testing.T) []hostileFile {
	good := vectorFile(t, "good.safetensors")
	gguf, err := os.ReadFile(vectorFile(t, "good.gguf"))
	require.NoError(t, err)
	data, err := os.ReadFile(good)
	require.NoError(t, err)
	folder := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	// changed writes a good file with its tensors and its metadata changed.
	changed := func(name string, change func(tensors map[string]*safetensors.Tensor, metadata map[string]string)) string {
		f, err := safetensors.OpenFile(good)
		require.NoError(t, err)
		defer func() { require.NoError(t, f.Close()) }()
		tensors, metadata := map[string]*safetensors.Tensor{}, map[string]string{}
		for key, value := range f.Metadata() {
			metadata[key] = value
		}
		for _, name := range f.Names() {
			tensor, ok := f.Tensor(name)
			require.True(t, ok)
			tensor.Data = append([]byte(nil), tensor.Data...)
			tensors[name] = &tensor
		}
		change(tensors, metadata)
		var list []safetensors.Tensor
		for _, tensor := range tensors {
			list = append(list, *tensor)
		}
		path := filepath.Join(folder, name)
		require.NoError(t, safetensors.WriteFile(path, list, metadata))
		return path
	}
	float := func(name string, tensor string, i int, x float64) string {
		return changed(name, func(tensors map[string]*safetensors.Tensor, _ map[string]string) {
			if data := tensors[tensor].Data; tensors[tensor].DType == safetensors.F32 {
				binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(x)))
			} else {
				binary.LittleEndian.PutUint64(data[8*i:], math.Float64bits(x))
			}
		})
	}
	ggufFloat := func(name string, x float32) string {
		data := append([]byte(nil), gguf...)
		binary.LittleEndian.PutUint32(data[len(data)-4:], math.Float32bits(x)) // of the last direction
		return write(name, data)
	}
	return []hostileFile{
		{filepath.Join(folder, "missing"), "no such file"},
		{folder, "not a regular file"},
		{write("empty.safetensors", nil), "empty.safetensors"},
		{write("text.safetensors", []byte("this is no vector at all\n")), "text.safetensors"},
		{write("pickle.pt", []byte("PK\x03\x04 and so on")), "PyTorch pickle"},
		{write("truncated.safetensors", data[:len(data)-100]), "truncated.safetensors"},
		{write("header.safetensors", data[:20]), "header.safetensors"},
		{write("huge-header.safetensors", append(binary.LittleEndian.AppendUint64(nil, 1<<60), data[8:]...)), "huge-header.safetensors"},
		{write("truncated.gguf", gguf[:len(gguf)-100]), "needs bytes"},
		{write("header.gguf", gguf[:20]), "at byte"},
		{write("huge.gguf", append(binary.LittleEndian.AppendUint64([]byte("GGUF\x03\x00\x00\x00"), 1<<60), gguf[16:]...)), "1152921504606846976 tensors"},
		{ggufFloat("nan.gguf", float32(math.NaN())), "is NaN"},
		{ggufFloat("inf.gguf", float32(math.Inf(-1))), "is -Inf"},
		{filepath.Join("..", "..", "cmd", "steerage", "demo", "stories260k", "model.safetensors"), `format is "pt", want "steerage.vector"`},
		{float("nan.safetensors", "direction", 70, math.NaN()), "layer 2: direction[6] is NaN"},
		{float("inf.safetensors", "direction", 1, math.Inf(1)), "layer 1: direction[1] is +Inf"},
		{float("norm.safetensors", "direction", 1, 3), "direction has norm 3, not 1"},
		{float("long.safetensors", "delta_mu", 0, 1e300), "delta_mu is 1e+300"},
		{float("sigma.safetensors", "sigma_pos", 2, -1), "not negative"},
		{float("m.safetensors", "m", 2, math.NaN()), "m is NaN"},
		{changed("shape.safetensors", func(tensors map[string]*safetensors.Tensor, _ map[string]string) {
			tensors["direction"].Shape = []int{64, 3}
		}), `tensor "layers" has shape [3], want [64]`},
		{changed("layer.safetensors", func(tensors map[string]*safetensors.Tensor, _ map[string]string) {
			binary.LittleEndian.PutUint32(tensors["layers"].Data[8:], 5)
		}), "layer 5 is not between 0 and 4"},
		{changed("version.safetensors", func(_ map[string]*safetensors.Tensor, metadata map[string]string) {
			metadata["version"] = "2"
		}), `version is "2"`},
	}
}

type hostileFile struct{ path, want string }

func TestHostileVectors(t *testing.T) {
	dir, good := demoFolder(t), vectorFile(t, "good.safetensors")
	out := filepath.Join(t.TempDir(), "out.safetensors")
	for _, h := range hostileFiles(t) {
		for _, args := range [][]string{
			{"run", dir, "--backend", "go", "--max-tokens", "2", "--force", "--steer", h.path + "@1"},
			{"vector", "inspect", h.path},
			{"vector", "convert", h.path, out},
			{"vector", "combine", out, good, h.path + ":2"},
			{"vector", "combine", out, good, "--orthogonal-to", h.path},
		} {
			status, stdout, stderr := command(t, "", args...)
			require.Equal(t, exitFailure, status, "%v: %s", args, stderr)
			require.Empty(t, stdout)
			require.Regexp(t, "^steerage: [^\n]+\n$", stderr)
			require.Contains(t, stderr, h.want, args)
			require.Contains(t, stderr, h.path, "the file is named")
			require.Less(t, len(stderr), 1000, stderr)
		}
	}
	require.NoFileExists(t, out)
}

// TestSteerMisfits asks for what a good vector or the model cannot do.
func TestSteerMisfits(t *testing.T) {
	dir, file, gguf := demoFolder(t), vectorFile(t, "good.safetensors"), vectorFile(t, "good.gguf")
	other := vectorFile(t, "other.safetensors", func(v *steering.Vector) { v.NumHiddenLayers = 28 })
	var many []string
	for range steering.MaxSlots + 1 {
		many = append(many, "--steer", file+"@1")
	}
	for want, steer := range map[string][]string{
		"the vector has no layer 4 (layer = block output, from 0); it has 1-3": {"--steer", file + "@1,4"},
		"sttp":                                   {"--steer", gguf + ":sttp:1"},
		"num_hidden_layers is 28, the model's 5": {"--steer", other},
		fmt.Sprintf("more than %d entries act on one layer", steering.MaxSlots): many,
	} {
		status, stdout, stderr := command(t, "", append([]string{"run", dir, "--backend", "go", "--max-tokens", "2"}, steer...)...)
		require.Equal(t, exitFailure, status, stderr)
		require.Empty(t, stdout)
		last := stderr[strings.LastIndex(strings.TrimSuffix(stderr, "\n"), "\n")+1:]
		require.True(t, strings.HasPrefix(last, "steerage: "), stderr)
		require.Contains(t, last, want)
	}
}
