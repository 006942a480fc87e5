package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "happy.safetensors")
	var text bytes.Buffer
	require.NoError(t, run(t.Context(), &text, "../../cmd/steerage/demo/stories260k", "go", "../../cmd/steerage/demo/happy.jsonl", out))
	require.Contains(t, text.String(), "response: 24 positive, 24 negative texts")
	require.Contains(t, text.String(), "\nlayer 2: ")
	require.FileExists(t, out)
	require.FileExists(t, out+".responses.jsonl")
}
