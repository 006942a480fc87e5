package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/steering"
)

func TestVectorInspect(t *testing.T) {
	file := vectorFile(t, "axis.safetensors")
	status, stdout, stderr := command(t, "", "vector", "inspect", file)
	require.Equal(t, exitOK, status, stderr)
	require.Empty(t, stderr)
	require.Equal(t, `hidden_size        64
num_hidden_layers  5
model              stories260k
method             logistic
data               openings.jsonl
date               2026-04-01T12:00:00Z
note note          for tests
  layer  delta_mu    m  mu_pos  mu_neg  sigma_pos  sigma_neg  cohens_d
      1         2  0.5     1.5    -0.5       0.25        0.5         5
      2         2  0.5     1.5    -0.5       0.25        0.5         5
      3         2  0.5     1.5    -0.5       0.25        0.5         5
`, stdout)

	status, stdout, stderr = command(t, "", "vector", "inspect", file, "--json")
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, *newVectorInfo(file, demoVector()), decodeLines[vectorInfo](t, stdout)[0])

	status, stdout, stderr = command(t, "", "vector", "inspect", vectorFile(t, "axis.gguf"))
	require.Equal(t, exitOK, status, stderr)
	require.Contains(t, stdout, "\n      3         2  -       -       -          -          -         -\n")

	t.Run("hostile text", func(t *testing.T) { // a file's text must not drive the terminal, nor break the table
		file := vectorFile(t, "text.safetensors", func(v *steering.Vector) {
			v.Model, v.Data = "a\x1b[2Jb\tc\nlayer", strings.Repeat("é", 5000)
			v.Notes = map[string]string{"key\x07": "ok"}
		})
		status, stdout, stderr := command(t, "", "vector", "inspect", file)
		require.Equal(t, exitOK, status, stderr)
		require.NotContains(t, stdout, "\x1b")
		require.NotContains(t, stdout, "\x07")
		require.Contains(t, stdout, `"a\x1b[2Jb\tc\nlayer"`)
		require.Contains(t, stdout, strings.Repeat("é", 150)+" … (10000 bytes, all of them with --json)\n")
		status, stdout, _ = command(t, "", "vector", "inspect", file, "--json")
		require.Equal(t, exitOK, status)
		require.Equal(t, strings.Repeat("é", 5000), decodeLines[vectorInfo](t, stdout)[0].Data)
	})
}

func TestVectorConvert(t *testing.T) {
	file, dir := vectorFile(t, "axis.safetensors"), t.TempDir()
	convert := func(args ...string) (written, string) {
		status, stdout, stderr := command(t, "", append([]string{"vector", "convert", "--json"}, args...)...)
		require.Equal(t, exitOK, status, stderr)
		return decodeLines[written](t, stdout)[0], stderr
	}
	gguf, back, again := filepath.Join(dir, "a.gguf"), filepath.Join(dir, "b.safetensors"), filepath.Join(dir, "c.safetensors")
	w, _ := convert(file, gguf)
	require.Equal(t, written{File: gguf, Layers: []int{1, 2, 3},
		Lost:     []string{"statistics", "num_hidden_layers", "method", "data", "date", "note"},
		Warnings: []string{"without statistics only swfc and ablate can use it"}}, w)
	w, _ = convert(gguf, back)
	require.Empty(t, w.Lost)
	v, err := steering.Load(back)
	require.NoError(t, err)
	want := demoVector()
	for i := range want.Layers {
		want.Layers[i].Statistics = nil
	}
	require.Equal(t, &steering.Vector{Hidden: 64, Layers: want.Layers, Provenance: steering.Provenance{Model: "stories260k"}}, v)

	w, _ = convert(file, again, "--layers", "2-3")
	require.Equal(t, []int{2, 3}, w.Layers)
	v, err = steering.Load(again)
	require.NoError(t, err)
	want = demoVector()
	want.Layers = want.Layers[1:]
	require.Equal(t, want, v, "safetensors keeps all")

	t.Run("layer 0", func(t *testing.T) {
		file := vectorFile(t, "zero.safetensors", func(v *steering.Vector) { v.Layers[0].Index = 0 })
		status, stdout, stderr := command(t, "", "vector", "convert", file, filepath.Join(dir, "zero.gguf"))
		require.Equal(t, exitOK, status)
		require.Equal(t, filepath.Join(dir, "zero.gguf")+"\n", stdout)
		require.Contains(t, stderr, "GGUF does not keep: statistics, num_hidden_layers, method, data, date, note\n")
		require.Contains(t, stderr, "llama.cpp refuses a control vector with layer 0")
		w, _ := convert(file, filepath.Join(dir, "without-zero.gguf"), "--layers", "2-3")
		require.Equal(t, []string{"without statistics only swfc and ablate can use it"}, w.Warnings)
	})
	t.Run("existing file", func(t *testing.T) {
		before, err := os.ReadFile(again)
		require.NoError(t, err)
		status, _, stderr := command(t, "", "vector", "convert", file, again)
		require.Equal(t, exitFailure, status)
		require.Contains(t, stderr, again+" exists; --force writes over it")
		after, err := os.ReadFile(again)
		require.NoError(t, err)
		require.Equal(t, before, after)
		w, _ := convert(file, again, "--force")
		require.Equal(t, []int{1, 2, 3}, w.Layers)
	})
	t.Run("no direction without length", func(t *testing.T) {
		file := vectorFile(t, "flat.safetensors", func(v *steering.Vector) { v.Layers[1].DeltaMu = 0 })
		status, _, stderr := command(t, "", "vector", "convert", file, filepath.Join(dir, "flat.gguf"))
		require.Equal(t, exitFailure, status)
		require.Contains(t, stderr, "layer 2 has length 0")
	})
}

func TestVectorCombine(t *testing.T) {
	dir := t.TempDir()
	a := vectorFile(t, "a.safetensors")
	b := vectorFile(t, "b.safetensors", func(v *steering.Vector) { // along axis 10 instead, at layers 2 to 4
		v.Data, v.Method, v.Fingerprint = "other.jsonl", "", "0123456789abcdef"
		for i := range v.Layers {
			l := &v.Layers[i]
			l.Index++
			clear(l.Direction)
			l.Direction[10] = 1
		}
	})
	n := 0
	combine := func(args ...string) *steering.Vector {
		n++
		out := filepath.Join(dir, string(rune('a'+n))+".safetensors")
		status, stdout, stderr := command(t, "", append([]string{"vector", "combine", out}, args...)...)
		require.Equal(t, exitOK, status, stderr)
		require.Equal(t, out+"\n", stdout)
		v, err := steering.Load(out)
		require.NoError(t, err)
		return v
	}
	at := func(v *steering.Vector, layer, axis int) float64 {
		for _, l := range v.Layers {
			if l.Index == layer {
				return l.DeltaMu * float64(l.Direction[axis])
			}
		}
		return math.NaN()
	}

	sum := combine(a, b+":-0.5")
	require.Equal(t, []int{1, 2, 3, 4}, sum.Indices())
	require.InDelta(t, 2, at(sum, 2, 2), 1e-6)
	require.InDelta(t, -1, at(sum, 2, 10), 1e-6)
	require.InDelta(t, -1, at(sum, 4, 10), 1e-6, "a layer that one has")
	require.Nil(t, sum.Layers[0].Statistics)
	require.Equal(t, "combined: a.safetensors (logistic) + b.safetensors:-0.5", sum.Method)
	require.Equal(t, "openings.jsonl + other.jsonl", sum.Data)
	require.Equal(t, "0123456789abcdef", sum.Fingerprint, "the one that is known")
	require.Empty(t, sum.Notes)

	scaled := combine(a + ":3")
	require.InDelta(t, 6, at(scaled, 2, 2), 1e-6)
	require.Equal(t, demoVector().Layers[1].Statistics, scaled.Layers[1].Statistics)
	require.Equal(t, map[string]string{"note": "for tests"}, scaled.Notes)

	negated := combine(a + ":-1")
	require.InDelta(t, -2, at(negated, 2, 2), 1e-6)
	require.Equal(t, demoVector().Negate().Layers, negated.Layers)

	// At layer l the other direction lies between axis l and axis 10.
	between := vectorFile(t, "between.gguf", func(v *steering.Vector) {
		for i := range v.Layers {
			d := v.Layers[i].Direction
			d[v.Layers[i].Index], d[10] = math.Sqrt2/2, math.Sqrt2/2
		}
		v.Layers = append(v.Layers, v.Layers[2])
		v.Layers[3].Index = 4
	})
	rest := combine(a, b+":-1", "--orthogonal-to", between)
	require.InDelta(t, 1, at(rest, 1, 1), 1e-6, "half of the vector")
	require.InDelta(t, -1, at(rest, 1, 10), 1e-6)
	require.InDelta(t, 2, at(rest, 2, 2), 1e-6, "it was orthogonal")
	require.InDelta(t, -2, at(rest, 2, 10), 1e-6)
	require.Equal(t, "combined: a.safetensors (logistic) + b.safetensors:-1, orthogonal to between.gguf", rest.Method)

	t.Run("refused", func(t *testing.T) {
		foreign := vectorFile(t, "foreign.safetensors", func(v *steering.Vector) { v.Fingerprint = "fedcba9876543210" })
		deep := vectorFile(t, "deep.safetensors", func(v *steering.Vector) { v.NumHiddenLayers = 28 })
		wide := vectorFile(t, "wide.gguf", func(v *steering.Vector) {
			v.Hidden = 65
			for i := range v.Layers {
				v.Layers[i].Direction = append(v.Layers[i].Direction, 0)
			}
		})
		out := filepath.Join(dir, "refused.safetensors")
		for want, args := range map[string][]string{
			"fingerprint is 0123456789abcdef and fedcba9876543210": {out, a, b, foreign},
			"num_hidden_layers is 5 and 28":                        {out, a, deep},
			"hidden_size is 64 and 65":                             {out, a, "--orthogonal-to", wide},
			"the vector is zero":                                   {out, a, a + ":-1"},
			"are parallel":                                         {out, a, "--orthogonal-to", a},
			"has no layer 4; it has 1-3":                           {out, b, "--orthogonal-to", a},
			"not a finite float32":                                 {out, a + ":1e300"},
			"exists; --force":                                      {a, b},
		} {
			status, stdout, stderr := command(t, "", append([]string{"vector", "combine"}, args...)...)
			require.Equal(t, exitFailure, status, args)
			require.Empty(t, stdout)
			require.Regexp(t, "^steerage: [^\n]+\n$", stderr)
			require.Contains(t, stderr, want)
			require.NoFileExists(t, out)
		}
	})
}

func TestVectorUsage(t *testing.T) {
	file := vectorFile(t, "axis.safetensors")
	out := filepath.Join(t.TempDir(), "out.gguf")
	for _, args := range [][]string{
		{"nothing"},
		{"inspect"},
		{"inspect", file, file},
		{"convert", file},
		{"convert", file, "out.pt"},
		{"convert", file, "out"},
		{"convert", file, out, "--layers", ""},
		{"convert", file, out, "--layers", "3-1"},
		{"combine", out},
		{"combine", "out.bin", file},
		{"combine", out, file + ":"},
		{"combine", out, file + ":NaN"},
		{"combine", out, file + ":1:2"},
		{"combine", out, ":2"},
		{"combine", out, file, "--orthogonal-to", ""},
	} {
		status, stdout, stderr := command(t, "", append([]string{"vector"}, args...)...)
		require.Equal(t, exitUsage, status, args)
		require.Empty(t, stdout, args)
		require.Regexp(t, `^steerage: [^\n]* \(see .steerage[a-z ]* --help.\)\n$`, stderr, args)
	}
	require.NoFileExists(t, out)
}
