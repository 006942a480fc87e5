package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/steering"
)

func TestTrain(t *testing.T) {
	dir, pairs := demoFolder(t), writeText(t, "moods.jsonl", moodLines)
	out := filepath.Join(t.TempDir(), "mood.safetensors")
	args := []string{"train", dir, pairs, out, "--backend", "go", "--layer", "2", "--epochs", "4", "--learning-rate", "0.05",
		"--held-out", "0.2", "--seed", "3"}
	status, stdout, stderr := command(t, "", append(args, "--json")...)
	require.Equal(t, exitOK, status, stderr)
	x := decodeLines[trained](t, stdout)[0]
	require.Equal(t, []int{2}, x.Vector.Layers)
	require.Len(t, x.History, 4)
	require.InDelta(t, math.Ln2, x.History[0].Loss, 1e-5, "without a vector the contrastive loss is log 2")
	require.Less(t, x.History[3].Loss, x.History[0].Loss)
	require.Less(t, float64(x.HeldOut), float64(x.HeldOutBefore))
	require.NoFileExists(t, beside(out, ".checkpoint.safetensors"), "it is of no use any more")
	plot, err := os.ReadFile(x.Plot)
	require.NoError(t, err)
	require.Contains(t, string(plot), "<svg")
	v, err := steering.Load(out)
	require.NoError(t, err)
	require.Equal(t, "moods.jsonl", v.Data)
	require.NotNil(t, v.Layers[0].Statistics)

	status, _, stderr = command(t, "", "run", dir, "--backend", "go", "--max-tokens", "4", "--steer", out)
	require.Equal(t, exitOK, status, stderr)
	require.Contains(t, stderr, "4 tokens eligible, 4 moved")

	status, _, stderr = command(t, "", args...)
	require.Equal(t, exitFailure, status)
	require.Contains(t, stderr, "exists; --force writes over it")
	neutral := writeText(t, "neutral.jsonl", `{"prompt": "The cat", "response": " sat on the mat."}`+"\n\n"+`{"prompt": "A dog"}`)
	status, stdout, stderr = command(t, "", "train", dir, pairs, out, "--backend", "go", "--layer", "2", "--epochs", "1",
		"--loss", "ce", "--neutral", neutral, "--kl-weight", "0.5", "--start", out, "--force")
	require.Equal(t, exitOK, status, stderr)
	require.Regexp(t, `^steps    2 in 1 epochs, vector of step 2\nloss     [0-9.]+ in the first step, [0-9.]+ in the last\nlayer 2  length [0-9.]+, cohens_d [0-9.-]+\n$`, stdout)
	require.True(t, strings.HasSuffix(stderr, "wrote "+out+" and "+x.Plot+"\n"), stderr)
}

func TestTrainInterrupt(t *testing.T) {
	dir, pairs := demoFolder(t), writeText(t, "moods.jsonl", moodLines)
	out := filepath.Join(t.TempDir(), "mood.safetensors")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bytes.Buffer
	w := writerTo(func(p []byte) {
		stderr.Write(p)
		if bytes.Contains(p, []byte("contrast train")) { // its program is compiled
			time.AfterFunc(200*time.Millisecond, cancel)
		}
	})
	status := run(ctx, []string{"train", dir, pairs, out, "--backend", "go", "--layer", "2", "--epochs", "100000", "--verbose"},
		strings.NewReader(""), &bytes.Buffer{}, w)
	require.Equal(t, exitInterrupted, status, stderr.String())
	require.True(t, strings.HasSuffix(stderr.String(), "steerage: interrupted\n"), stderr.String())
	_, err := os.Stat(beside(out, ".checkpoint.safetensors")) // it is there once there was a step
	require.Equal(t, err == nil, strings.Contains(stderr.String(), "the training so far is in "), stderr.String())
	require.NoFileExists(t, out)
}

func TestTrainRefuses(t *testing.T) {
	dir, pairs := demoFolder(t), writeText(t, "moods.jsonl", moodLines)
	out := filepath.Join(t.TempDir(), "mood.safetensors")
	for want, args := range map[string][]string{
		"--layer is missing":    {dir, pairs, out},
		"--layer: layers":       {dir, pairs, out, "--layer", "auto"},
		"--loss":                {dir, pairs, out, "--layer", "2", "--loss", "mse"},
		"--schedule":            {dir, pairs, out, "--layer", "2", "--schedule", "linear"},
		"--positions":           {dir, pairs, out, "--layer", "2", "--positions", ""},
		"--learning-rate is 0":  {dir, pairs, out, "--layer", "2", "--learning-rate", "0"},
		"--beta is NaN":         {dir, pairs, out, "--layer", "2", "--beta", "NaN"},
		"--epochs is 0":         {dir, pairs, out, "--layer", "2", "--epochs", "0"},
		"need each other":       {dir, pairs, out, "--layer", "2", "--kl-weight", "1"},
		"--plot":                {dir, pairs, out, "--layer", "2", "--plot", "mood"},
		".safetensors or .gguf": {dir, pairs, "mood", "--layer", "2"},
	} {
		status, stdout, stderr := command(t, "", append([]string{"train"}, args...)...)
		require.Equal(t, exitUsage, status, stderr)
		require.Empty(t, stdout)
		require.Regexp(t, `^steerage: [^\n]* \(see .steerage train --help.\)\n$`, stderr)
		require.Contains(t, stderr, want)
	}
	foreign := vectorFile(t, "foreign.safetensors", func(v *steering.Vector) { v.Fingerprint = "0123456789abcdef" })
	for want, args := range map[string][]string{
		"no such file":        {dir, filepath.Join(dir, "missing.jsonl"), out},
		"pair 0 has a prompt": {dir, writeText(t, "systems.jsonl", systemLines), out},
		"line 2: no prompt":   {dir, pairs, out, "--kl-weight", "1", "--neutral", writeText(t, "n.jsonl", "\n{}")},
		"learning rate +Inf":  {dir, pairs, out, "--learning-rate", "Inf"},
		"fraction 2":          {dir, pairs, out, "--held-out", "2"},
		"patience needs":      {dir, pairs, out, "--patience", "1"},
		"both signs need":     {dir, pairs, out, "--loss", "ce", "--both-signs"},
		"layer 7 is not":      {dir, pairs, out, "--layer", "7"},
		"fingerprint is":      {dir, pairs, out, "--start", foreign},
		"tokens, the context": {dir, pairs, out, "--context", "8"},
	} {
		if !strings.HasPrefix(want, "layer") {
			args = append(args, "--layer", "2")
		}
		status, stdout, stderr := command(t, "", append([]string{"train", "--backend", "go"}, args...)...)
		require.Equal(t, exitFailure, status, "%v: %s", args, stderr)
		require.Empty(t, stdout)
		last := stderr[strings.LastIndex(strings.TrimSuffix(stderr, "\n"), "\n")+1:]
		require.True(t, strings.HasPrefix(last, "steerage: "), stderr)
		require.Contains(t, last, want)
	}
	require.NoFileExists(t, out)
}

var neutralSeeds = map[string]string{ // text: the error, "" for none
	`{"prompt": "a"}`: "",
	"\n {\"prompt\": \"a\", \"response\": \"b\"} \r\n\n": "",
	"":                           "no texts",
	"{}":                         "line 1: no prompt",
	"{\"prompt\": \"a\"}\n[1]":   "line 2: ",
	`{"prompt": "a", "text": 1}`: "unknown field",
	`{"prompt": "a"} {}`:         "more than one object",
	"{\"prompt\": \"\xff\"}":     "not UTF-8",
	`{"prompt": null}`:           "no prompt",
	`{"prompt": "a"`:             "line 1: ",
}

func TestReadNeutral(t *testing.T) {
	for text, want := range neutralSeeds {
		texts, err := readNeutral(strings.NewReader(text))
		if want == "" {
			require.NoError(t, err, text)
			require.Len(t, texts, 1)
		} else {
			require.ErrorContains(t, err, want, text)
		}
	}
	_, err := readNeutral(strings.NewReader(`{"prompt": "` + strings.Repeat("a", 1<<20)))
	require.ErrorContains(t, err, "line 1: bufio.Scanner: token too long")
}

func FuzzReadNeutral(f *testing.F) {
	for text := range neutralSeeds {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		texts, err := readNeutral(strings.NewReader(text))
		require.Equal(t, err != nil, len(texts) == 0)
		for _, n := range texts {
			require.NotEmpty(t, n.Prompt)
		}
	})
}
