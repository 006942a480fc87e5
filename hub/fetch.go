package hub

import (
	"context"
	"crypto/sha1" // #nosec: git's name of a blob
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// This file knows how one file gets into the cache: under a lock, from where the last try ended, and only if its bytes
// are those that the commit names.

// counter adds up what several transfers have.
type counter struct {
	mu      sync.Mutex
	now     Progress
	fetched int64 // over the network in this pull
	report  func(Progress)
}

// add counts bytes on disk, which a transfer that begins anew takes back, and of these those just fetched.
func (c *counter) add(have, fetched int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Done += have
	c.fetched += fetched
	if c.report != nil {
		c.report(c.now)
	}
}

// errHash is a file whose bytes are not those of its name.
var errHash = errors.New("wrong hash")

// fetch makes blobs/<hash> hold the file.
func (s *session) fetch(ctx context.Context, commit string, f file) (err error) {
	st := s.store(s.ref)
	blob := st.blob(f.hash)
	for _, dir := range []string{filepath.Dir(blob), filepath.Dir(st.lock(f.hash))} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	unlock, err := lockFile(ctx, st.lock(f.hash), func() {
		s.notice("%s is being fetched already; waiting for that", f.name)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if present(blob, f.size) { // fetched while we waited, or cut off between blob and link
		s.count.add(f.size, 0)
		return nil
	}

	path := blob + ".incomplete" // what huggingface_hub called it until it stopped resuming, so its rests serve too
	part, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closed(part)) }()
	t := &transfer{session: s, commit: commit, file: f, part: part}
	resumed, err := t.resume(ctx)
	if err == nil {
		err = t.run(ctx)
	}
	if resumed && errors.Is(err, errHash) { // the rest may be of a crash; the hub's own bytes have not been heard yet
		s.notice("%s: the rest of an earlier transfer was damaged; fetching it again", f.name)
		if err = t.restart(); err == nil {
			err = t.run(ctx)
		}
	}
	if errors.Is(err, errHash) {
		return errors.Join(err, closed(part), os.Remove(path))
	}
	if err != nil {
		return err
	}
	if err := part.Sync(); err != nil { // or a power cut could leave the name without the bytes
		return err
	}
	if err := part.Close(); err != nil {
		return err
	}
	return os.Rename(path, blob)
}

// closed closes a file that may be closed already.
func closed(f *os.File) error {
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// present reports whether a blob is in the cache. Its length is compared, its hash was before it got its name.
func present(path string, size int64) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// transfer is a file on its way.
type transfer struct {
	*session
	commit string
	file   file
	part   *os.File
	sum    hash.Hash // of the bytes of part
	have   int64     // bytes of part
}

// reset begins a hash of no bytes.
func (t *transfer) reset() {
	if t.have = 0; len(t.file.hash) == sha256.Size*2 {
		t.sum = sha256.New()
		return
	}
	t.sum = sha1.New()
	_, _ = fmt.Fprintf(t.sum, "blob %d\x00", t.file.size)
}

// resume takes up what an earlier transfer left, and reports whether that was anything.
func (t *transfer) resume(ctx context.Context) (bool, error) {
	t.reset()
	info, err := t.part.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() > t.file.size {
		return false, t.part.Truncate(0)
	}
	n, err := io.Copy(t.sum, contextReader{ctx, t.part})
	t.have = n
	t.count.add(n, 0)
	return n > 0, err
}

// restart forgets what there is.
func (t *transfer) restart() error {
	t.count.add(-t.have, 0)
	t.reset()
	if _, err := t.part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return t.part.Truncate(0)
}

// run fetches what is missing and checks the whole.
func (t *transfer) run(ctx context.Context) error {
	if t.have < t.file.size {
		if err := t.retry(ctx, func() (bool, error) { return t.once(ctx) }); err != nil {
			return fmt.Errorf("%s (%d of %d bytes): %w", t.file.name, t.have, t.file.size, err)
		}
	}
	if sum := hex.EncodeToString(t.sum.Sum(nil)); sum != t.file.hash {
		return fmt.Errorf("%s: %w: its %d bytes have %s, want %s; nothing is kept", t.file.name, errHash, t.file.size, sum, t.file.hash)
	}
	return nil
}

// once makes one request and writes what it gives, and reports whether that was anything.
func (t *transfer) once(ctx context.Context) (further bool, err error) {
	header := http.Header{}
	if t.have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", t.have))
	}
	r, err := t.send(ctx, http.MethodGet, t.fileURL(t.commit, t.file.name), header, true)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusRequestedRangeNotSatisfiable && t.have > 0 {
		return false, transient{errors.Join(err, t.restart())}
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	for hop := r.Response; hop != nil; hop = hop.Request.Response {
		if sameOrigin(hop.Request.URL, t.base) {
			if err := t.agree(headers(hop), t.commit, t.file); err != nil {
				return false, err
			}
		}
	}
	if r.Header.Get("Content-Encoding") != "" {
		return false, fmt.Errorf("%s: the answer is encoded (%s), which was not asked for", bare(r.Request.URL),
			quoted(r.Header.Get("Content-Encoding")))
	}
	switch {
	case r.StatusCode == http.StatusPartialContent && t.have > 0:
		from, total := contentRange(r.Header.Get("Content-Range"))
		if from != t.have || total >= 0 && total != t.file.size {
			return false, fmt.Errorf("%s: asked for bytes from %d of %d, the answer is %s", bare(r.Request.URL), t.have, t.file.size,
				quoted(r.Header.Get("Content-Range")))
		}
	case r.StatusCode == http.StatusOK: // also of a server that knows no ranges
		if t.have > 0 {
			if err := t.restart(); err != nil {
				return false, err
			}
		}
	default:
		return false, fmt.Errorf("%s: unexpected status %d", bare(r.Request.URL), r.StatusCode)
	}
	if n := r.ContentLength; n >= 0 && t.have+n != t.file.size {
		return false, fmt.Errorf("wrong size: the hub's listing has %d bytes, the server sends %d", t.file.size, t.have+n)
	}

	start, buffer := t.have, make([]byte, 256<<10)
	for {
		n, err := r.Read(buffer[:min(int64(len(buffer)), t.file.size-t.have)])
		if n > 0 {
			if _, err := t.part.Write(buffer[:n]); err != nil { // the disk, so no further try
				return false, err
			}
			_, _ = t.sum.Write(buffer[:n])
			t.have += int64(n)
			t.count.add(int64(n), int64(n))
		}
		switch {
		case t.have == t.file.size:
			return true, nil
		case errors.Is(err, io.EOF):
			return t.have > start, transient{fmt.Errorf("%s: the transfer ended early", bare(r.Request.URL))}
		case err != nil:
			return t.have > start, err
		}
	}
}

// contentRange reads "bytes 5-9/10". What is not there is -1.
func contentRange(v string) (from, total int64) {
	v, ok := strings.CutPrefix(v, "bytes ")
	span, size, ok2 := strings.Cut(v, "/")
	first, _, ok3 := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil {
		return -1, -1
	}
	if total, err = strconv.ParseInt(size, 10, 64); err != nil {
		total = -1
	}
	return from, total
}

// contextReader stops when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
