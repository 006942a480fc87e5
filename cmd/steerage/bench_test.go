package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/bench"
)

func TestBench(t *testing.T) {
	dir := demoFolder(t)
	quick := []string{"--backend", "go", "--batch", "2", "--tokens", "8", "--prompt", "20", "--repeats", "2"}
	measure := func(args ...string) (status int, stdout, stderr string) {
		return command(t, "", append(append([]string{"bench"}, quick...), args...)...)
	}
	for name, args := range map[string][]string{
		"table":  {dir, "--spread", "1e9"},
		"json":   {dir, "--spread", "1e9", "--json"},
		"config": {"--config", filepath.Join(dir, "config.json"), "--spread", "1e9", "--json"},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := measure(args...)
			require.Equal(t, exitOK, status, stderr)
			results := decodeLines[bench.Result](t, stdout)
			require.Len(t, results, 1)
			require.Equal(t, 2, results[0].Decode[0].Batch)
			require.Positive(t, results[0].Decode[0].Rate.Median)
			if name == "table" {
				require.Contains(t, stderr, "decode, batch 2, context 16 ")
			} else {
				require.Empty(t, stderr)
			}
		})
	}
	t.Run("runs disagree", func(t *testing.T) {
		status, stdout, stderr := measure(dir, "--spread", "1e-12")
		require.Equal(t, exitFailure, status)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "nothing is reported")
	})
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nothing": {nil, "give a MODEL or a --config"},
		"both":    {[]string{dir, "--config", "qwen3-0.6b"}, "give a MODEL or a --config"},
		"tokens":  {[]string{dir, "--tokens", "0"}, "--tokens is 0"},
		"repeats": {[]string{dir, "--repeats", "0"}, "--repeats is 0"},
		"spread":  {[]string{dir, "--spread", "0"}, "--spread is 0"},
		"prompt":  {[]string{dir, "--prompt", "0"}, "prompt is 0"},
		"batch":   {[]string{dir, "--batch", "1,0"}, "batch is 0"},
		"dtype":   {[]string{dir, "--dtype", "int8"}, `--dtype is "int8"`},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := measure(c.args...)
			require.Equal(t, exitUsage, status)
			require.Contains(t, stderr, c.want)
			require.Empty(t, stdout)
		})
	}
}
