package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/steering"
)

// moodLines are scenarios whose texts are given.
const moodLines = `{"prompt": "One day, Lily went out.", "positive": " She was so happy that she smiled.", "negative": " She was so sad that she cried."}
{"prompt": "Tom had a dog.", "positive": " They had fun and laughed.", "negative": " They were hurt and scared."}
{"prompt": "It was a day in the park.", "positive": " All were glad to play.", "negative": " All were mad and mean."}
{"prompt": "Mom came home.", "positive": " She was happy and gave Tom a hug.", "negative": " She was angry and Tom was sad."}
{"prompt": "Ben saw a cat.", "positive": " It was a nice cat and he loved it.", "negative": " It was a bad cat and it bit him."}
`

// systemLines are scenarios that the model answers.
const systemLines = `{"positive_system": ["All was well.", "All were happy."], "negative_system": "All were sad."}
{"prompt": "Lily had a cat."}
{"prompt": "Tom had a car."}
{"prompt": "Ben had a ball."}
`

func writeText(t testing.TB, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestExtract(t *testing.T) {
	dir, scenarios := demoFolder(t), writeText(t, "moods.jsonl", moodLines)
	out := filepath.Join(t.TempDir(), "mood.safetensors")
	status, stdout, stderr := command(t, "", "extract", dir, scenarios, out, "--backend", "go", "--json", "--layer", "auto",
		"--pooling", "response", "--pooling", "response/..4")
	require.Equal(t, exitOK, status, stderr)
	x := decodeLines[extracted](t, stdout)[0]
	require.Equal(t, "logistic", x.Estimator)
	require.Empty(t, x.LeftOut)
	require.Len(t, x.Report.Fits, 2)
	require.Len(t, x.Report.Fits[0].Layers, 5)
	require.Len(t, x.Probes, 5)
	require.Equal(t, []int{x.Probes[0].Layer}, x.Vector.Layers, "the chosen layer alone")
	require.Equal(t, beside(out, ".responses.jsonl"), x.Responses)
	responses, err := os.ReadFile(x.Responses)
	require.NoError(t, err)
	require.Contains(t, string(responses), "She was so happy that she smiled.")
	plot, err := os.ReadFile(x.Plot)
	require.NoError(t, err)
	require.Contains(t, string(plot), "<svg")

	v, err := steering.Load(out)
	require.NoError(t, err)
	require.Equal(t, filepath.Base(dir), v.Model)
	require.Equal(t, "moods.jsonl", v.Data)
	require.NotEmpty(t, v.Date)

	t.Run("steers", func(t *testing.T) { // and is known to be of this model
		status, _, stderr := command(t, "", "run", dir, "--backend", "go", "--max-tokens", "4", "--steer", out+":stmp:1")
		require.Equal(t, exitOK, status, stderr)
		require.Contains(t, stderr, "4 tokens eligible")
	})
	t.Run("nothing is overwritten", func(t *testing.T) {
		for _, file := range []string{out, x.Plot} {
			status, _, stderr := command(t, "", "extract", dir, scenarios, out, "--backend", "go")
			require.Equal(t, exitFailure, status)
			require.Contains(t, stderr, file+" exists; --force writes over it")
			require.NoError(t, os.Remove(file))
		}
	})
	t.Run("table", func(t *testing.T) { // goes on from the responses, which are still there
		status, stdout, stderr := command(t, "", "extract", dir, scenarios, out, "--backend", "go", "--estimator", "diff_means",
			"--layer", "1-2", "--plot", beside(out, ".png"))
		require.Equal(t, exitOK, status, stderr)
		require.Contains(t, stdout, "response: 5 positive, 5 negative texts")
		require.Contains(t, stderr, "wrote "+out)
		png, err := os.ReadFile(beside(out, ".png"))
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(png, []byte("\x89PNG")))
		v, err := steering.Load(out)
		require.NoError(t, err)
		require.Equal(t, []int{1, 2}, v.Indices())
		require.Equal(t, "diff_means", v.Method)
	})
}

func TestExtractResume(t *testing.T) {
	dir, scenarios := demoFolder(t), writeText(t, "systems.jsonl", systemLines)
	out := filepath.Join(t.TempDir(), "mood.gguf")
	extract := func(args ...string) (int, string) {
		status, _, stderr := command(t, "", append([]string{"extract", dir, scenarios, out, "--backend", "go", "--max-tokens", "16"}, args...)...)
		return status, stderr
	}
	status, stderr := extract()
	require.Equal(t, exitOK, status, stderr)
	require.Contains(t, stderr, "GGUF does not keep: statistics")
	require.Contains(t, stderr, "llama.cpp refuses")
	vector, err := os.ReadFile(out)
	require.NoError(t, err)
	file := beside(out, ".responses.jsonl")
	responses, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 1+6, bytes.Count(responses, []byte("\n")))

	lines := bytes.SplitAfter(responses, []byte("\n"))
	cut := append(bytes.Join(lines[:4], nil), lines[4][:20]...) // killed while it wrote
	require.NoError(t, os.WriteFile(file, cut, 0o600))
	status, stderr = extract("--force")
	require.Equal(t, exitOK, status, stderr)
	again, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(responses), string(again))
	sameVector, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, vector, sameVector)

	status, stderr = extract("--force", "--seed", "7")
	require.Equal(t, exitFailure, status)
	require.Contains(t, stderr, file)
	kept, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, responses, kept, "other responses are never overwritten")
}

func TestExtractInterrupt(t *testing.T) {
	dir, scenarios := demoFolder(t), writeText(t, "systems.jsonl", systemLines)
	out := filepath.Join(t.TempDir(), "mood.safetensors")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bytes.Buffer
	w := writerTo(func(p []byte) {
		stderr.Write(p)
		if bytes.HasPrefix(p, []byte("backend ")) { // the model is open, the answers begin
			cancel()
		}
	})
	status := run(ctx, []string{"extract", dir, scenarios, out, "--backend", "go"}, strings.NewReader(""), &bytes.Buffer{}, w)
	require.Equal(t, exitInterrupted, status, stderr.String())
	require.True(t, strings.HasSuffix(stderr.String(), "goes on from there\nsteerage: interrupted\n"), stderr.String())
	require.NoFileExists(t, out)
}

// writerTo is called with each write.
type writerTo func(p []byte)

func (f writerTo) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestExtractRefuses(t *testing.T) {
	dir, scenarios := demoFolder(t), writeText(t, "moods.jsonl", moodLines)
	out := filepath.Join(t.TempDir(), "mood.safetensors")
	for want, args := range map[string][]string{
		"accepts 3 arg":         {dir, scenarios},
		".safetensors or .gguf": {dir, scenarios, "mood.pt"},
		"--estimator":           {dir, scenarios, out, "--estimator", "lda"},
		"--pooling":             {dir, scenarios, out, "--pooling", "nowhere"},
		"--layer":               {dir, scenarios, out, "--layer", "best"},
		"--plot":                {dir, scenarios, out, "--plot", "mood.pdf"},
		"--temperature is NaN":  {dir, scenarios, out, "--temperature", "NaN"},
		"--top-p is 0":          {dir, scenarios, out, "--top-p", "0"},
		"--seed is 0":           {dir, scenarios, out, "--seed", "0"},
		"--max-tokens is 0":     {dir, scenarios, out, "--max-tokens", "0"},
		"--context is -1":       {dir, scenarios, out, "--context", "-1"},
	} {
		status, stdout, stderr := command(t, "", append([]string{"extract"}, args...)...)
		require.Equal(t, exitUsage, status, stderr)
		require.Empty(t, stdout)
		require.Regexp(t, `^steerage: [^\n]* \(see .steerage extract --help.\)\n$`, stderr)
		require.Contains(t, stderr, want)
	}
	for want, args := range map[string][]string{
		"no such file":                {dir, filepath.Join(dir, "missing.jsonl"), out},
		"is a file":                   {scenarios, scenarios, out},
		"line 1":                      {dir, writeText(t, "bad.jsonl", "{"), out},
		"none":                        {dir, writeText(t, "empty.jsonl", ""), out},
		"want at least 2":             {dir, writeText(t, "one.jsonl", moodLines[:strings.IndexByte(moodLines, '\n')]), out},
		"layer 5":                     {dir, scenarios, out, "--layer", "5"},
		filepath.Join("nowhere", "x"): {dir, scenarios, filepath.Join(t.TempDir(), "nowhere", "x", "v.gguf")},
	} {
		status, stdout, stderr := command(t, "", append([]string{"extract", "--backend", "go"}, args...)...)
		require.Equal(t, exitFailure, status, "%v: %s", args, stderr)
		require.Empty(t, stdout)
		last := stderr[strings.LastIndex(strings.TrimSuffix(stderr, "\n"), "\n")+1:]
		require.True(t, strings.HasPrefix(last, "steerage: "), stderr)
		require.Contains(t, last, want)
		_ = os.Remove(beside(out, ".responses.jsonl")) // of the runs that came so far
	}
	require.NoFileExists(t, out)
}
