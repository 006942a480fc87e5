package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/steerage/steerage/safetensors"
)

// parallel is how many files are fetched at the same time.
const parallel = 4

// Pull returns the folder of a model, and fetches what the cache lacks. What is interrupted, by ctx or by a crash, is taken
// up by the next Pull. Errors are a [*StatusError] for an answer of the hub, an [*IncompleteError] offline, and name the
// model and the file.
func (c *Client) Pull(ctx context.Context, ref Ref, need Need) (Snapshot, error) {
	snapshot, err := c.Cached(ref, need)
	var incomplete *IncompleteError
	switch {
	case err == nil && (!c.Update || c.Offline):
		return snapshot, nil
	case err != nil && !errors.As(err, &incomplete):
		return Snapshot{}, err
	case err != nil && c.Offline:
		return Snapshot{}, fmt.Errorf("hub: offline (HF_HUB_OFFLINE), and %w", err)
	}
	s, err := c.session(ref)
	if err != nil {
		return Snapshot{}, err
	}
	defer s.client.CloseIdleConnections()
	snapshot, err = s.pull(ctx, need)
	if err != nil {
		if end := ctx.Err(); end != nil && !errors.Is(err, end) { // the cause of an end, as a signal, is another error
			err = fmt.Errorf("%w: %w", end, err)
		}
		return Snapshot{}, fmt.Errorf("hub: %s: %w", ref, err)
	}
	return snapshot, nil
}

func (s *session) pull(ctx context.Context, need Need) (Snapshot, error) {
	l, err := s.list(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	if _, ok := l.files["config.json"]; !ok {
		return Snapshot{}, errors.New("the repository has no config.json, so it is not a model in the form of transformers")
	}
	var small, weights []file
	for _, name := range smallFiles {
		if f, ok := l.files[name]; ok {
			small = append(small, f)
		}
	}
	if need == Model {
		if weights, err = s.weights(ctx, l); err != nil {
			return Snapshot{}, err
		}
	}
	files := slices.Concat(small, weights)
	if err := each(ctx, files, func(ctx context.Context, f *file) error { return s.describe(ctx, l.commit, f) }); err != nil {
		return Snapshot{}, err
	}
	if err := s.plan(files); err != nil {
		return Snapshot{}, err
	}
	// The weights come last, so a snapshot that has them has all else, and Cached need not know what the commit holds.
	for _, files := range [][]file{files[:len(small)], files[len(small):]} {
		if err := s.take(ctx, l.commit, files); err != nil {
			return Snapshot{}, err
		}
	}
	st := s.store(s.ref)
	if err := st.finish(s.ref, l); err != nil {
		return Snapshot{}, err
	}
	return Snapshot{Folder: st.snapshot(l.commit), Repo: s.ref.Repo, Revision: s.ref.revision(), Commit: l.commit,
		Fetched: s.count.fetched}, nil
}

// weights are the files that package safetensors will open, the index among them, which is fetched to know its shards.
func (s *session) weights(ctx context.Context, l listing) ([]file, error) {
	if f, ok := l.files[safetensors.SingleName]; ok {
		return []file{f}, nil
	}
	index, ok := l.files[safetensors.IndexName]
	if !ok {
		return nil, fmt.Errorf("the repository has neither %s nor %s; %s", safetensors.SingleName, safetensors.IndexName, l.explain())
	}
	if err := s.describe(ctx, l.commit, &index); err != nil {
		return nil, err
	}
	if index.size > maxIndex {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", index.name, index.size, maxIndex)
	}
	if err := s.fetch(ctx, l.commit, index); err != nil {
		return nil, err
	}
	shards, err := readIndex(s.store(s.ref).blob(index.hash))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", index.name, err)
	}
	files := []file{index}
	for _, name := range shards {
		f, ok := l.files[name]
		if !ok {
			return nil, fmt.Errorf("%s names %s, which the repository does not have", index.name, name)
		}
		files = append(files, f)
	}
	return files, nil
}

// plan adds up what is to come and checks that the disk has room for it.
func (s *session) plan(files []file) error {
	st := s.store(s.ref)
	var total, missing int64
	seen := map[string]bool{} // files of the same bytes are one blob
	for _, f := range files {
		total += f.size // at most 1000s of files of 2^50 bytes: far from overflow
		if seen[f.hash] || present(st.blob(f.hash), f.size) {
			continue
		}
		seen[f.hash] = true
		missing += f.size - partial(st.blob(f.hash)+".incomplete", f.size)
	}
	s.count.mu.Lock()
	s.count.now = Progress{Total: total, Files: len(files)}
	s.count.report = s.Progress
	s.count.mu.Unlock()
	s.count.add(0, 0)
	if free := freeSpace(s.Cache); missing > 0 && free >= 0 && missing > free {
		return fmt.Errorf("the disk of %s has %d bytes free, the model needs %d more (%.1f and %.1f GB); HF_HUB_CACHE names another folder",
			s.Cache, free, missing, float64(free)/1e9, float64(missing)/1e9)
	}
	return nil
}

// take fetches files and links them into the snapshot.
func (s *session) take(ctx context.Context, commit string, files []file) error {
	st := s.store(s.ref)
	return each(ctx, files, func(ctx context.Context, f *file) error {
		// There already, by link or, as huggingface_hub makes it where there are no links, as a copy. Nothing is written then,
		// for the cache may be of another user.
		if present(filepath.Join(st.snapshot(commit), f.name), f.size) {
			s.count.add(f.size, 0)
			return nil
		}
		if err := s.fetch(ctx, commit, *f); err != nil {
			return err
		}
		return st.link(commit, *f)
	})
}

// each does something for every file, a few at a time. The first error stops the others.
func each(ctx context.Context, files []file, do func(context.Context, *file) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i := range files {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			if err := do(ctx, &files[i]); err != nil {
				cancel(err) // of several only the first is kept
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// partial is how much of a file an earlier transfer left.
func partial(path string, size int64) int64 {
	info, err := os.Stat(path)
	if err != nil || info.Size() > size { // what is too long is begun anew
		return 0
	}
	return info.Size()
}
