package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var wanted = []string{"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}

func TestPull(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	c := h.client(t)
	var last Progress
	c.Progress = func(p Progress) {
		require.GreaterOrEqual(t, p.Done, last.Done)
		last = p
	}
	s, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	total := int64(0)
	for _, name := range wanted {
		total += int64(len(h.commits[commitA][name]))
	}
	require.Equal(t, Snapshot{Folder: filepath.Join(c.Cache, "models--acme--tiny", "snapshots", commitA), Repo: "acme/tiny",
		Revision: "main", Commit: commitA, Fetched: total}, s)
	require.Equal(t, Progress{Done: total, Total: total, Files: 4}, last)
	require.Equal(t, total, h.bytes())
	requireWhole(t, c, h, s, wanted...)

	config := hashOf("", h.commits[commitA]["config.json"])
	link, err := os.Readlink(filepath.Join(s.Folder, "config.json"))
	require.NoError(t, err)
	require.Equal(t, "../../blobs/"+config, filepath.ToSlash(link))
	ref, err := os.ReadFile(filepath.Join(c.Cache, "models--acme--tiny", "refs", "main"))
	require.NoError(t, err)
	require.Equal(t, commitA, string(ref), "huggingface_hub reads it with no line end")
	require.ElementsMatch(t, []string{"generation_config.json", "special_tokens_map.json", "chat_template.jinja"},
		names(t, filepath.Join(c.Cache, "models--acme--tiny", ".no_exist", commitA)))

	t.Run("a second time without a request", func(t *testing.T) {
		before := len(h.requests(""))
		again, err := c.Pull(t.Context(), model, Model)
		require.NoError(t, err)
		s.Fetched = 0
		require.Equal(t, s, again)
		offline := *c
		offline.Offline, offline.Update = true, true
		again, err = offline.Pull(t.Context(), Ref{Repo: model.Repo, Revision: commitA}, Model)
		require.NoError(t, err)
		require.Equal(t, s.Folder, again.Folder)
		require.Len(t, h.requests(""), before)
	})
	t.Run("a blob that went away", func(t *testing.T) {
		require.NoError(t, os.Remove(filepath.Join(c.Cache, "models--acme--tiny", "blobs", config)))
		_, err := c.Cached(model, Model)
		require.EqualError(t, err, fmt.Sprintf("acme/tiny (commit %.12s) is not complete in the cache %s: missing config.json", commitA, c.Cache))
		last = Progress{}
		again, err := c.Pull(t.Context(), model, Model)
		require.NoError(t, err)
		require.Equal(t, int64(len(h.commits[commitA]["config.json"])), again.Fetched)
		requireWhole(t, c, h, s, wanted...)
	})
	t.Run("a blob that was cut", func(t *testing.T) {
		require.NoError(t, os.Truncate(filepath.Join(c.Cache, "models--acme--tiny", "blobs", config), 5))
		last, c.Update = Progress{}, true
		again, err := c.Pull(t.Context(), model, Model)
		require.NoError(t, err)
		require.Equal(t, int64(len(h.commits[commitA]["config.json"])), again.Fetched)
		requireWhole(t, c, h, s, wanted...)
	})
}

func TestPullShards(t *testing.T) {
	files := tinyModel()
	delete(files, "model.safetensors")
	files["model-00001-of-00002.safetensors"] = weightBytes(300_000)
	files["model-00002-of-00002.safetensors"] = weightBytes(200_000)
	files["model.safetensors.index.json"] = []byte(`{"metadata": {}, "weight_map": {
		"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}}`)
	h := newFakeHub(t, files)
	c := h.client(t)

	text, err := c.Pull(t.Context(), model, Text)
	require.NoError(t, err)
	requireWhole(t, c, h, text, "config.json", "tokenizer.json", "tokenizer_config.json")
	_, err = c.Cached(model, Model)
	require.ErrorContains(t, err, "missing model.safetensors or model.safetensors.index.json")

	s, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	all := []string{"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json",
		"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
	requireWhole(t, c, h, s, all...)
	require.Len(t, h.requests("tokenizer.json"), 1)

	require.NoError(t, os.Remove(filepath.Join(s.Folder, "model-00002-of-00002.safetensors")))
	_, err = c.Cached(model, Model)
	require.ErrorContains(t, err, "missing model-00002-of-00002.safetensors")
	s, err = c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	require.Zero(t, s.Fetched, "only the link was gone")
	requireWhole(t, c, h, s, all...)
}

func TestRevisions(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	second := tinyModel()
	second["config.json"] = []byte(`{"changed": true}`)
	second["chat_template.jinja"] = []byte("{{ messages }}")
	h.commits[commitB] = second
	h.refs["refs/pr/1"] = commitB
	c := h.client(t)
	_, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	served := h.bytes()

	pr := Ref{Repo: model.Repo, Revision: "refs/pr/1"}
	s, err := c.Pull(t.Context(), pr, Model)
	require.NoError(t, err)
	require.Equal(t, commitB, s.Commit)
	require.Len(t, h.requests("/revision/refs%2Fpr%2F1"), 1)
	requireWhole(t, c, h, s, append([]string{"chat_template.jinja"}, wanted...)...)
	require.Equal(t, served+int64(len(second["config.json"])+len(second["chat_template.jinja"])), h.bytes(), "equal files are one blob")

	h.refs["main"] = commitB
	s, err = c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	require.Equal(t, commitA, s.Commit, "a complete revision is not looked up again")
	c.Update = true
	s, err = c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	require.Equal(t, commitB, s.Commit)
	c.Offline = true
	s, err = c.Pull(t.Context(), Ref{Repo: model.Repo, Revision: commitA}, Model)
	require.NoError(t, err, "the old commit stays")
	requireWhole(t, c, h, s, wanted...)
}

// A mirror may list names alone.
func TestListingWithoutHashes(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	h.hashes = false
	c := h.client(t)
	s, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	requireWhole(t, c, h, s, wanted...)
	require.Len(t, h.requests("hub HEAD"), len(wanted))
	require.Empty(t, h.requests("cdn HEAD"))

	h.onHub = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.Header().Set("ETag", `"xyz"`)
			return true
		}
		return false
	}
	_, err = h.client(t).Pull(t.Context(), model, Model)
	require.ErrorContains(t, err, "neither the listing nor the headers give a hash and a size, so it could not be checked")
}

func TestTokenGoesToTheEndpointOnly(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	moved := newFakeHub(t, tinyModel()) // another port is another place
	h.onHub = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/acme/tiny/resolve/"+commitA+"/tokenizer.json":
			http.Redirect(w, r, moved.URL+r.URL.Path, http.StatusTemporaryRedirect)
		case r.URL.Path == "/acme/tiny/resolve/"+commitA+"/config.json" && r.URL.RawQuery == "": // as of a model that was renamed
			http.Redirect(w, r, r.URL.Path+"?again", http.StatusTemporaryRedirect)
		default:
			return false
		}
		return true
	}
	c := h.client(t)
	_, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	require.Len(t, h.requests("hub GET"), 5)
	require.Len(t, h.requests("hub GET"), len(h.requests("Bearer "+token)))
	require.Equal(t, []string{"cdn GET /" + commitA + "/model.safetensors"}, h.requests("cdn"))
	require.Equal(t, []string{"hub GET /acme/tiny/resolve/" + commitA + "/tokenizer.json"}, moved.requests(""))

	c = h.client(t)
	c.Token = ""
	_, err = c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	require.Len(t, h.requests("Bearer"), 5)
}

// cutAfter sends n bytes of what is asked for and breaks the connection.
func cutAfter(h *fakeHub, w http.ResponseWriter, r *http.Request, n int) {
	from, data := 0, h.large(r)
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(data[from:min(from+n, len(data))])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestInterruptedTransferGoesOn(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	cuts := 0
	h.onCDN = func(w http.ResponseWriter, r *http.Request) bool {
		if cuts++; cuts < 8 { // more often than a transfer without progress is tried
			cutAfter(h, w, r, 100_000)
		}
		return false
	}
	c := h.client(t)
	s, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	requireWhole(t, c, h, s, wanted...)
	require.Equal(t, int64(len(h.commits[commitA]["model.safetensors"])),
		s.Fetched-int64(len(h.commits[commitA]["config.json"])+len(h.commits[commitA]["tokenizer.json"])), "no byte came twice")
	require.Contains(t, h.requests("cdn"), "cdn GET /"+commitA+"/model.safetensors bytes=100000-")
}

func TestBrokenConnectionGivesUp(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	h.onCDN = func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
	c := h.client(t)
	_, err := c.Pull(t.Context(), model, Model)
	require.ErrorContains(t, err, "hub: acme/tiny: model.safetensors (0 of 1048576 bytes): gave up after 5 attempts: "+h.cdn.URL)
	require.NotContains(t, err.Error(), "verysecret")
	require.NotContains(t, err.Error(), token)
	require.GreaterOrEqual(t, len(h.requests("cdn")), attempts)
}

// slowly sends half of a file and then nothing.
func slowly(h *fakeHub, reached chan<- struct{}) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		data := h.large(r)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		_ = http.NewResponseController(w).Flush()
		if reached != nil {
			reached <- struct{}{}
		}
		<-r.Context().Done()
		return true
	}
}

// awaitPartial waits until n bytes of the weights are on the disk.
func awaitPartial(t *testing.T, c *Client, h *fakeHub, n int64) string {
	path := c.store(model).blob(hashOf("model.safetensors", h.commits[commitA]["model.safetensors"])) + ".incomplete"
	require.Eventually(t, func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() >= n
	}, 20*time.Second, 5*time.Millisecond)
	return path
}

func TestCancel(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	h.onCDN = slowly(h, nil)
	c := h.client(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		awaitPartial(t, c, h, 1<<19)
		cancel(errors.New("signal")) // as signal.NotifyContext does
	}()
	_, err := c.Pull(ctx, model, Model)
	require.ErrorIs(t, err, context.Canceled)
	_, err = c.Cached(model, Model)
	require.ErrorAs(t, err, new(*IncompleteError))
	requireTrueBlobs(t, c)

	h.onCDN = nil
	s, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	requireWhole(t, c, h, s, wanted...)
	require.Equal(t, int64(1<<19), s.Fetched, "the other half was there")
	require.Equal(t, "cdn GET /"+commitA+"/model.safetensors bytes=524288-", h.requests("cdn")[1])
}

func TestStalledConnectionIsDropped(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	c := h.client(t)
	c.stall = 200 * time.Millisecond
	first := true
	h.onCDN = func(w http.ResponseWriter, r *http.Request) bool {
		if !first {
			return false
		}
		first = false
		return slowly(h, nil)(w, r)
	}
	s, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	requireWhole(t, c, h, s, wanted...)

	h.onHub = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	c = h.client(t)
	c.stall = 20 * time.Millisecond
	_, err = c.Pull(t.Context(), model, Model)
	require.ErrorContains(t, err, "no data for 20ms")
}

// TestHelperProcess is not a test but a process that pulls.
func TestHelperProcess(t *testing.T) {
	endpoint, cache, ok := strings.Cut(os.Getenv("HUB_TEST_PULL"), " ")
	if !ok {
		return // run by the tests below
	}
	c := &Client{Endpoint: endpoint, Cache: cache, pause: time.Millisecond}
	s, err := c.Pull(context.Background(), model, Model)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.Fetched)
	os.Exit(0)
}

func helper(t *testing.T, c *Client, h *fakeHub) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), "HUB_TEST_PULL="+h.URL+" "+c.Cache)
	return cmd
}

func TestKilledTransferResumes(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	h.onCDN = slowly(h, nil)
	c := h.client(t)
	cmd := helper(t, c, h)
	require.NoError(t, cmd.Start())
	awaitPartial(t, c, h, 1<<19)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	requireTrueBlobs(t, c)

	h.onCDN = nil
	s, err := c.Pull(t.Context(), model, Model)
	require.NoError(t, err)
	requireWhole(t, c, h, s, wanted...)
	require.Equal(t, int64(1<<19), s.Fetched)
}

func TestManyPullersFetchOnce(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	c := h.client(t)
	var fetched atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := c.Pull(t.Context(), model, Model)
			if err != nil {
				t.Error(err)
			}
			fetched.Add(s.Fetched)
		})
		wg.Go(func() {
			out, err := helper(t, c, h).Output()
			n, err2 := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
			if err = errors.Join(err, err2); err != nil {
				t.Error(err, string(out))
			}
			fetched.Add(n)
		})
	}
	wg.Wait()
	require.Equal(t, h.bytes(), fetched.Load())
	s, err := c.Cached(model, Model)
	require.NoError(t, err)
	requireWhole(t, c, h, s, wanted...)
	total := 0
	for _, name := range wanted {
		total += len(h.commits[commitA][name])
	}
	require.Equal(t, int64(total), h.bytes())
	for _, name := range names(t, c.Cache) {
		require.NotRegexp(t, `\.(tmp|incomplete)$`, name)
	}
}

func TestResume(t *testing.T) {
	weights := tinyModel()["model.safetensors"]
	other := weightBytes(2 << 20)[1<<20:]
	for _, tt := range []struct {
		name    string
		part    []byte
		cdn     func(h *fakeHub, w http.ResponseWriter, r *http.Request) bool
		fetched int // of the weights
	}{
		{name: "the first half", part: weights[:1<<19], fetched: 1 << 19},
		{name: "all of it", part: weights, fetched: 0},
		{name: "too much", part: append(slices.Clone(weights), 1), fetched: 1 << 20},
		{name: "a damaged half", part: other[:1<<19], fetched: 1<<19 + 1<<20},
		{name: "damaged and whole", part: other, fetched: 1 << 20},
		{name: "a server without ranges", part: weights[:1<<19], fetched: 1 << 20, cdn: func(h *fakeHub, w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}},
		{name: "a range that the server refuses", part: weights[:1<<19], fetched: 1 << 20, cdn: func(h *fakeHub, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return true
			}
			return false
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHub(t, tinyModel())
			if tt.cdn != nil {
				h.onCDN = func(w http.ResponseWriter, r *http.Request) bool { return tt.cdn(h, w, r) }
			}
			c := h.client(t)
			blob := c.store(model).blob(hashOf("model.safetensors", weights))
			require.NoError(t, os.MkdirAll(filepath.Dir(blob), 0o777))
			require.NoError(t, os.WriteFile(blob+".incomplete", tt.part, 0o666))
			var last Progress
			c.Progress = func(p Progress) { last = p }
			s, err := c.Pull(t.Context(), model, Model)
			require.NoError(t, err)
			requireWhole(t, c, h, s, wanted...)
			small := int64(len(h.commits[commitA]["config.json"]) + len(h.commits[commitA]["tokenizer.json"]))
			require.Equal(t, int64(tt.fetched), s.Fetched-small)
			require.Equal(t, last.Total, last.Done)
			require.NoFileExists(t, blob+".incomplete")
		})
	}
}

// Whatever the server sends instead of a file, it does not enter the cache.
func TestWrongBytesNeverEnter(t *testing.T) {
	weights := tinyModel()["model.safetensors"]
	other := weightBytes(2 << 20)[1<<20:]
	chunked := func(w http.ResponseWriter, data []byte) {
		_ = http.NewResponseController(w).Flush() // so no Content-Length
		_, _ = w.Write(data)
	}
	sum := hashOf(".bin", weights)
	for _, tt := range []struct {
		name string
		half bool // half of the file is there
		hub  func(w http.ResponseWriter, r *http.Request)
		cdn  func(w http.ResponseWriter, r *http.Request)
		want string
		kept bool // the half, which nobody spoke against
	}{
		{name: "other bytes", cdn: func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(other) },
			want: "model.safetensors: wrong hash: its 1048576 bytes have " + hashOf(".bin", other) + ", want " + sum + "; nothing is kept"},
		{name: "other bytes after a half", half: true, cdn: func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(other)))
		}, want: "wrong hash"},
		{name: "a page", cdn: func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<html>captive portal") },
			want: "wrong size: the hub's listing has 1048576 bytes, the server sends 20"},
		{name: "a byte before all", cdn: func(w http.ResponseWriter, r *http.Request) { chunked(w, append([]byte{0}, weights...)) },
			want: "wrong hash"},
		{name: "a byte less, and no length", cdn: func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				chunked(w, weights[:len(weights)-1])
			} else {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", len(weights)-1, len(weights)-1, len(weights)))
				w.WriteHeader(http.StatusPartialContent)
				chunked(w, nil)
			}
		}, want: "(1048575 of 1048576 bytes): gave up after 5 attempts: ", kept: true},
		{name: "another range", half: true, kept: true, cdn: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-1048575/1048576")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(weights)
		}, want: `asked for bytes from 524288 of 1048576, the answer is "bytes 0-1048575/1048576"`},
		{name: "a range of another file", half: true, kept: true, cdn: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 524288-1048576/1048577")
			w.WriteHeader(http.StatusPartialContent)
		}, want: `the answer is "bytes 524288-1048576/1048577"`},
		{name: "a range that was not asked for", cdn: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(weights)
		}, want: "unexpected status 206"},
		{name: "compressed", cdn: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(weights)
		}, want: `the answer is encoded ("gzip"), which was not asked for`},
		{name: "another ETag", hub: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Linked-Etag", `"`+strings.Repeat("0", 64)+`"`)
			_, _ = w.Write(weights)
		}, want: "the hub's ETag is " + strings.Repeat("0", 64) + ", want " + sum},
		{name: "another size", hub: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Linked-Size", "7")
			_, _ = w.Write(weights)
		}, want: `the hub says "7" bytes, want 1048576`},
		{name: "another commit", hub: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Repo-Commit", commitB)
			_, _ = w.Write(weights)
		}, want: `the hub answers with commit "` + commitB + `", want ` + commitA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHub(t, tinyModel())
			if tt.cdn != nil {
				h.onCDN = func(w http.ResponseWriter, r *http.Request) bool { tt.cdn(w, r); return true }
			}
			h.onHub = func(w http.ResponseWriter, r *http.Request) bool {
				if tt.hub == nil || !strings.HasSuffix(r.URL.Path, "/model.safetensors") {
					return false
				}
				tt.hub(w, r)
				return true
			}
			c := h.client(t)
			blob := c.store(model).blob(sum)
			if tt.half {
				require.NoError(t, os.MkdirAll(filepath.Dir(blob), 0o777))
				require.NoError(t, os.WriteFile(blob+".incomplete", weights[:1<<19], 0o666))
			}
			_, err := c.Pull(t.Context(), model, Model)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "verysecret")
			require.NoFileExists(t, blob)
			requireTrueBlobs(t, c)
			_, err = c.Cached(model, Model)
			require.ErrorAs(t, err, new(*IncompleteError))
			if data, err := os.ReadFile(blob + ".incomplete"); err == nil {
				require.True(t, len(data) == 0 || tt.kept && strings.HasPrefix(string(weights), string(data)), "%d bytes", len(data))
			}

			h.onCDN, h.onHub = nil, nil
			s, err := c.Pull(t.Context(), model, Model)
			require.NoError(t, err, "and the next try is not spoilt")
			requireWhole(t, c, h, s, wanted...)
		})
	}
}

func TestStatus(t *testing.T) {
	const listing, config = "/api/models/acme/tiny/revision/main", "/acme/tiny/resolve/" + commitA + "/config.json"
	for _, tt := range []struct {
		name     string
		path     string
		status   int
		header   http.Header
		noToken  bool
		want     []string
		requests int // of the path
	}{
		{name: "gated", path: config, status: 403, header: http.Header{"X-Error-Code": {"GatedRepo"}, "X-Error-Message": {"Ask [31mfirst"}},
			want:     []string{"HTTP 403 Forbidden: access is restricted: open ", "/acme/tiny in a browser", "the token that was sent", "(the hub says: Ask [31mfirst)"},
			requests: 1},
		{name: "gated without a token", path: config, status: 401, header: http.Header{"X-Error-Code": {"GatedRepo"}}, noToken: true,
			want: []string{"HTTP 401", "access is restricted", "set HF_TOKEN, or run `hf auth login`"}, requests: 1},
		{name: "forbidden", path: listing, status: 403, want: []string{"HTTP 403 Forbidden: access is restricted"}, requests: 1},
		{name: "unknown model", path: listing, status: 401, noToken: true, header: http.Header{"X-Error-Code": {"RepoNotFound"}},
			want: []string{"HTTP 401 Unauthorized: there is no such model at ", "/acme/tiny, or it is private; no token was sent: set HF_TOKEN"}, requests: 1},
		{name: "unknown revision", path: listing, status: 404, header: http.Header{"X-Error-Code": {"RevisionNotFound"}},
			want: []string{`HTTP 404 Not Found: there is no revision "main"`}, requests: 1},
		{name: "not found", path: listing, status: 404, want: []string{`no such model or no revision "main"`}, requests: 1},
		{name: "a file is gone", path: config, status: 404, header: http.Header{"X-Error-Code": {"EntryNotFound"}},
			want: []string{"config.json (0 of 39 bytes): HTTP 404 Not Found: the file is not there"}, requests: 1},
		{name: "limited", path: listing, status: 429, want: []string{"gave up after 5 attempts: HTTP 429 Too Many Requests"}, requests: 5},
		{name: "limited for long", path: config, status: 429, header: http.Header{"Retry-After": {"3600"}},
			want: []string{"the hub asks to wait 1h0m0s: HTTP 429"}, requests: 1},
		{name: "down", path: config, status: 503, want: []string{"gave up after 5 attempts: HTTP 503 Service Unavailable"}, requests: 5},
		{name: "legal", path: listing, status: 451, want: []string{"HTTP 451"}, requests: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHub(t, tinyModel())
			h.onHub = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != tt.path {
					return false
				}
				for k, v := range tt.header {
					w.Header()[k] = v
				}
				http.Error(w, "a long page", tt.status)
				return true
			}
			c := h.client(t)
			if tt.noToken {
				c.Token = ""
			}
			_, err := c.Pull(t.Context(), model, Model)
			var status *StatusError
			require.ErrorAs(t, err, &status)
			require.Equal(t, tt.status, status.Status)
			require.ErrorContains(t, err, "hub: acme/tiny: ")
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), token)
			require.Len(t, h.requests(tt.path), tt.requests)
		})
	}
}

func TestBusyHubIsAskedAgain(t *testing.T) {
	for _, tt := range []struct{ status, waits int }{{429, 1}, {500, 0}, {502, 0}, {503, 1}} {
		t.Run(strconv.Itoa(tt.status), func(t *testing.T) {
			h := newFakeHub(t, tinyModel())
			times := map[string]int{}
			var mu sync.Mutex
			h.onHub = func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if times[r.URL.Path]++; times[r.URL.Path] > 2 {
					return false
				}
				if tt.waits > 0 && strings.HasPrefix(r.URL.Path, "/api/") {
					w.Header().Set("Retry-After", strconv.Itoa(tt.waits))
				}
				w.WriteHeader(tt.status)
				return true
			}
			c := h.client(t)
			var notices []string
			c.Notice = func(s string) { mu.Lock(); notices = append(notices, s); mu.Unlock() }
			s, err := c.Pull(t.Context(), model, Model)
			require.NoError(t, err)
			requireWhole(t, c, h, s, wanted...)
			if tt.waits > 0 {
				require.Regexp(t, `^HTTP .*; trying again in 1s$`, notices[0])
			}
		})
	}
}

func TestRetryAfterDate(t *testing.T) {
	s, err := (&Client{Endpoint: "http://127.0.0.1"}).session(model)
	require.NoError(t, err)
	r := &http.Response{Header: http.Header{"Retry-After": {time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}}, Body: http.NoBody}
	r.Request, _ = http.NewRequest(http.MethodGet, "http://127.0.0.1/x?secret", nil)
	var status *StatusError
	require.ErrorAs(t, s.statusError(r), &status)
	require.InDelta(t, time.Hour, status.RetryAfter, float64(time.Minute))
	require.Equal(t, "http://127.0.0.1/x", status.URL)
}

func TestNoHub(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	c := h.client(t)
	h.Close()
	_, err := c.Pull(t.Context(), model, Model)
	require.ErrorContains(t, err, "gave up after 5 attempts: "+h.URL+"/api/models/acme/tiny/revision/main: ")
	c.Offline = true
	_, err = c.Pull(t.Context(), model, Model)
	require.EqualError(t, err, "hub: offline (HF_HUB_OFFLINE), and acme/tiny is not in the cache "+c.Cache)
}

func TestNotEnoughDisk(t *testing.T) {
	h := newFakeHub(t, tinyModel())
	l := h.listing(commitA)
	for _, s := range l["siblings"].([]map[string]any) {
		if s["rfilename"] == "model.safetensors" {
			s["lfs"].(map[string]any)["size"] = int64(1) << 50
		}
	}
	h.answerListing(l)
	c := h.client(t)
	if freeSpace(c.Cache) < 0 {
		t.Skip("this system does not tell how much room a disk has")
	}
	_, err := c.Pull(t.Context(), model, Model)
	require.ErrorContains(t, err, "bytes free, the model needs 1125899906842689 more")
	require.Empty(t, h.requests("/resolve/"))
}

func TestNotAModel(t *testing.T) {
	for _, tt := range []struct{ without, with, want string }{
		{"config.json", "", "no config.json"},
		{"model.safetensors", "", "neither model.safetensors nor model.safetensors.index.json; it has consolidated.safetensors, "},
		{"model.safetensors", `{"weight_map": {"a": "model-2.safetensors"}}`, "index.json names model-2.safetensors, which the repository does not have"},
		{"model.safetensors", `{"weight_map": {"a": "../x.safetensors"}}`, `tensor "a" is in "../x.safetensors", which is not a plain name`},
		{"model.safetensors", `{"weight_map": {}}`, "no weight_map"},
		{"model.safetensors", `[]`, "cannot unmarshal array"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			files := tinyModel()
			delete(files, tt.without)
			if tt.with != "" {
				files["model.safetensors.index.json"] = []byte(tt.with)
			}
			_, err := newFakeHub(t, files).client(t).Pull(t.Context(), model, Model)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// answerListing puts a listing of the test's in the place of the fake's.
func (h *fakeHub) answerListing(l map[string]any) {
	h.onHub = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/api/") {
			return false
		}
		writeJSON(w, l)
		return true
	}
}
