package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/hub"
)

// demoHub serves the embedded model as acme/demo, and the environment of the test leads to it. It returns the files that
// were asked for so far.
func demoHub(t *testing.T) (fetched func() []string) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	dir := demoFolder(t)
	var mu sync.Mutex
	var names []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/models/acme/demo/revision/main") {
			siblings := []map[string]any{}
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				data, _ := os.ReadFile(filepath.Join(dir, e.Name()))
				siblings = append(siblings, map[string]any{"rfilename": e.Name(), "size": len(data),
					"blobId": fmt.Sprintf("%x", sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...)))})
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": siblings})
			return
		}
		name, ok := strings.CutPrefix(r.URL.Path, "/acme/demo/resolve/"+commit+"/")
		data, err := os.ReadFile(filepath.Join(dir, filepath.Base(name)))
		if !ok || err != nil {
			w.Header().Set("X-Error-Code", "RepoNotFound")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mu.Lock()
		names = append(names, name)
		mu.Unlock()
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(server.Close)
	for _, name := range []string{"HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", server.URL)
	return func() []string { mu.Lock(); defer mu.Unlock(); return names }
}

func TestPull(t *testing.T) {
	fetched := demoHub(t)
	status, stdout, stderr := command(t, "", "tokenize", "--model", "acme/demo", "Once upon", "--json")
	require.Equal(t, exitOK, status, stderr)
	require.JSONEq(t, `{"ids":[1,403,407]}`, stdout)
	require.NotContains(t, fetched(), "model.safetensors", "a tokenizer needs no weights")

	status, stdout, stderr = command(t, "", "pull", "acme/demo", "--json")
	require.Equal(t, exitOK, status, stderr)
	require.Regexp(t, `^fetching acme/demo: \d files, [0-9.]+ MiB\n$`, stderr, "nobody watches, so no bar")
	s := decodeLines[hub.Snapshot](t, stdout)[0]
	require.Positive(t, s.Fetched)
	require.FileExists(t, filepath.Join(s.Folder, "model.safetensors"))

	t.Setenv("HF_HUB_OFFLINE", "1")
	status, stdout, stderr = command(t, "", "pull", "acme/demo")
	require.Equal(t, exitOK, status)
	require.Equal(t, s.Folder+"\n", stdout)
	require.Empty(t, stderr)
	status, stdout, stderr = command(t, "", "run", "acme/demo@main", "--backend", "go", "--max-tokens", "8")
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, "Once upon a time, there was a\n", stdout)
	status, stdout, stderr = command(t, "", "inspect", "acme/demo", "--json")
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, int64(260032), decodeLines[inspection](t, stdout)[0].Parameters)
}

func TestFolderComesBeforeHub(t *testing.T) {
	fetched := demoHub(t)
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("acme/demo", 0o777))
	require.NoError(t, writeDemo("acme/demo"))
	status, stdout, stderr := command(t, "", "pull", "acme/demo")
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, "acme/demo\n", stdout)
	require.Empty(t, fetched())
}

func TestPullFails(t *testing.T) {
	demoHub(t)
	t.Chdir(t.TempDir())
	file := filepath.Join(t.TempDir(), "x")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for arg, want := range map[string]string{
		"acme/other": "there is no folder acme/other here, and from the hub: hub: acme/other: HTTP 401 Unauthorized: there is no such model",
		"../x/y":     "no such file or directory; nor is it a name on the hub",
		"a/b@../c":   "not a revision",
		"demo":       "no such file or directory; nor is it a name on the hub",
		file:         "is a file; a model is a folder",
	} {
		for _, args := range [][]string{{"pull", arg}, {"run", arg}, {"tokenize", "--model", arg, "x"}} {
			status, stdout, stderr := command(t, "", args...)
			require.Equal(t, exitFailure, status)
			require.Empty(t, stdout)
			require.Contains(t, stderr, want)
		}
	}
	t.Setenv("HF_ENDPOINT", "nowhere")
	_, _, stderr := command(t, "", "pull", "acme/demo")
	require.Contains(t, stderr, `the endpoint (HF_ENDPOINT) is "nowhere", want https://host`)
}
