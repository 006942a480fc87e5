package hub

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	commitA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	commitB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	token   = "hf_secret"
)

var model = Ref{Repo: "acme/tiny"}

// fakeHub imitates the hub's API, and the host of large files that the hub redirects to. Files whose name ends in
// .safetensors or .bin are large.
type fakeHub struct {
	*httptest.Server
	cdn     *httptest.Server
	commits map[string]map[string][]byte // commit -> name -> bytes
	refs    map[string]string            // revision -> commit
	hashes  bool                         // the listing has sizes and hashes

	// Both may answer in the fake's place, and return true then. onCDN sees large files alone.
	onHub, onCDN func(w http.ResponseWriter, r *http.Request) bool

	mu     sync.Mutex
	log    []string // "hub GET /path bytes=5- Bearer hf_secret"
	served int64    // bytes of files
}

func newFakeHub(t testing.TB, files map[string][]byte) *fakeHub {
	h := &fakeHub{commits: map[string]map[string][]byte{commitA: files}, refs: map[string]string{"main": commitA}, hashes: true}
	h.Server = httptest.NewServer(h.logged("hub", func(w http.ResponseWriter, r *http.Request) {
		if h.onHub == nil || !h.onHub(w, r) {
			h.answer(w, r)
		}
	}))
	h.cdn = httptest.NewServer(h.logged("cdn", func(w http.ResponseWriter, r *http.Request) {
		if h.onCDN == nil || !h.onCDN(w, r) {
			h.blob(w, r)
		}
	}))
	t.Cleanup(func() { h.Close(); h.cdn.Close() })
	return h
}

func (h *fakeHub) logged(host string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.log = append(h.log, strings.Join(strings.Fields(strings.Join(
			[]string{host, r.Method, r.URL.EscapedPath(), r.Header.Get("Range"), r.Header.Get("Authorization")}, " ")), " "))
		h.mu.Unlock()
		next(w, r)
	}
}

// requests returns the requests so far that contain a text.
func (h *fakeHub) requests(containing string) (some []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range h.log {
		if strings.Contains(line, containing) {
			some = append(some, line)
		}
	}
	return some
}

func isLarge(name string) bool {
	return strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".bin")
}

func hashOf(name string, data []byte) string {
	if isLarge(name) {
		sum := sha256.Sum256(data)
		return hex.EncodeToString(sum[:])
	}
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...))
	return hex.EncodeToString(sum[:])
}

// listing is the JSON of a commit.
func (h *fakeHub) listing(commit string) map[string]any {
	siblings := []map[string]any{}
	for name, data := range h.commits[commit] {
		s := map[string]any{"rfilename": name}
		if h.hashes {
			s["size"], s["blobId"] = len(data), hashOf("", data)
			if isLarge(name) {
				s["lfs"] = map[string]any{"sha256": hashOf(name, data), "size": len(data), "pointerSize": 134}
			}
		}
		siblings = append(siblings, s)
	}
	return map[string]any{"id": model.Repo, "sha": commit, "gated": false, "siblings": siblings}
}

func (h *fakeHub) answer(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, code string) {
		w.Header().Set("X-Error-Code", code)
		http.Error(w, code, status)
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	if rev, ok := strings.CutPrefix(path, "api/models/acme/tiny/revision/"); ok {
		commit := h.refs[rev]
		if h.commits[rev] != nil {
			commit = rev
		}
		if commit == "" {
			fail(404, "RevisionNotFound")
			return
		}
		_ = json.NewEncoder(w).Encode(h.listing(commit))
		return
	}
	rest, ok := strings.CutPrefix(path, "acme/tiny/resolve/")
	if !ok {
		fail(401, "RepoNotFound")
		return
	}
	commit, name, _ := strings.Cut(rest, "/")
	data, ok := h.commits[commit][name]
	if !ok {
		fail(404, "EntryNotFound")
		return
	}
	w.Header().Set("X-Repo-Commit", commit)
	if !isLarge(name) {
		w.Header().Set("ETag", `"`+hashOf(name, data)+`"`)
		h.send(w, r, data)
		return
	}
	w.Header().Set("X-Linked-Etag", `"`+hashOf(name, data)+`"`)
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(data)))
	http.Redirect(w, r, h.cdn.URL+"/"+commit+"/"+name+"?Signature=verysecret", http.StatusFound)
}

// large is the file that a request to the CDN asks for.
func (h *fakeHub) large(r *http.Request) []byte {
	commit, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return h.commits[commit][name]
}

func (h *fakeHub) blob(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`) // an object store's own
	h.send(w, r, h.large(r))
}

func (h *fakeHub) send(w http.ResponseWriter, r *http.Request, data []byte) {
	http.ServeContent(countingWriter{w, h}, r, "", time.Time{}, bytes.NewReader(data))
}

// countingWriter counts bytes before they leave, so that who has them finds them counted.
type countingWriter struct {
	http.ResponseWriter
	hub *fakeHub
}

func (w countingWriter) Write(p []byte) (int, error) {
	w.hub.mu.Lock()
	w.hub.served += int64(len(p))
	w.hub.mu.Unlock()
	return w.ResponseWriter.Write(p)
}

// bytes are those of all files served so far.
func (h *fakeHub) bytes() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.served
}

// client has an empty cache, and is impatient.
func (h *fakeHub) client(t testing.TB) *Client {
	return &Client{Endpoint: h.URL, Cache: filepath.Join(t.TempDir(), "hub"), Token: token, pause: time.Millisecond, stall: 20 * time.Second,
		Notice: func(s string) { t.Log("notice:", s) }}
}

// weightBytes are n bytes that repeat nowhere near.
func weightBytes(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func tinyModel() map[string][]byte {
	return map[string][]byte{
		"config.json":           []byte(`{"architectures": ["LlamaForCausalLM"]}`),
		"tokenizer.json":        []byte(`{"model": {"type": "BPE"}}`),
		"tokenizer_config.json": {},
		"model.safetensors":     weightBytes(1 << 20),
		// and what nobody wants
		"README.md":                         []byte("# Tiny"),
		".gitattributes":                    []byte("*.bin"),
		"pytorch_model.bin":                 []byte("pickle"),
		"consolidated.safetensors":          weightBytes(100),
		"original/consolidated.safetensors": weightBytes(101),
		"onnx/config.json":                  []byte("{}"),
	}
}

// names lists the files below a folder, links not followed, with slashes.
func names(t testing.TB, dir string) []string {
	all := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			all = append(all, filepath.ToSlash(rel))
		}
		return err
	}))
	return all
}

// requireWhole checks every file of a snapshot against the hub's, and every blob against its own name.
func requireWhole(t testing.TB, c *Client, h *fakeHub, s Snapshot, want ...string) {
	t.Helper()
	require.ElementsMatch(t, want, names(t, s.Folder))
	for _, name := range want {
		data, err := os.ReadFile(filepath.Join(s.Folder, name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(h.commits[s.Commit][name], data), name)
	}
	requireTrueBlobs(t, c)
}

// requireTrueBlobs checks that nothing is in the cache under a name that is not its hash.
func requireTrueBlobs(t testing.TB, c *Client) {
	t.Helper()
	dir := c.store(model).path("blobs")
	if _, err := os.Stat(dir); err != nil {
		return
	}
	for _, name := range names(t, dir) {
		if strings.HasSuffix(name, ".incomplete") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Contains(t, []string{hashOf("", data), hashOf(".bin", data)}, name)
	}
}

func writeJSON(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
