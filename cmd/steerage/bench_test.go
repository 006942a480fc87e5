package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/bench"
)

func TestBench(t *testing.T) {
	dir := demoFolder(t)
	measure := func(args ...string) (stdout, stderr string, err error) {
		var out, errs bytes.Buffer
		cmd := newBench()
		cmd.SetArgs(append([]string{dir, "--backend", "go", "--batch", "2", "--tokens", "12", "--prompt", "20"}, args...))
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err = cmd.ExecuteContext(t.Context())
		return out.String(), errs.String(), err
	}
	for name, args := range map[string][]string{"table": nil, "json": {"--json"}} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := measure(args...)
			require.NoError(t, err)
			results := decodeLines[bench.Result](t, stdout)
			require.Len(t, results, 1)
			require.Equal(t, 2, results[0].Decode[0].Batch)
			require.Positive(t, results[0].Decode[0].Rate.Median)
			if name == "json" {
				require.Empty(t, stderr)
			} else {
				require.Contains(t, stderr, "decode, batch 2 ")
			}
		})
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"tokens": {[]string{"--tokens", "0"}, "--tokens is 0"},
		"prompt": {[]string{"--prompt", "0"}, "--prompt is 0"},
		"batch":  {[]string{"--batch", "1,0"}, "batch is 0"},
		"dtype":  {[]string{"--dtype", "int8"}, `--dtype is "int8"`},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, _, err := measure(c.args...)
			var usage *usageError
			require.ErrorAs(t, err, &usage)
			require.ErrorContains(t, err, c.want)
			require.Empty(t, stdout)
		})
	}
}
