package hub

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/steerage/steerage/safetensors"
)

// Need says which files of a model are needed.
type Need int

const (
	Model Need = iota // all: configuration, text files and weights
	Text              // all but the weights
)

// The files that are wanted of a repository, if it has them.
var smallFiles = []string{
	"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
}

// Snapshot is a model's folder in the cache.
type Snapshot struct {
	Folder   string `json:"folder"`
	Repo     string `json:"repo"`     // "org/name"
	Revision string `json:"revision"` // as asked
	Commit   string `json:"commit"`   // 40 hexadecimal digits
	Fetched  int64  `json:"fetched"`  // bytes that were transferred; 0 if all was there
}

// store is one model's folder in the cache, whose names Ref.check has seen.
type store struct{ cache, name string }

func (c *Client) store(ref Ref) store {
	return store{cache: c.Cache, name: "models--" + strings.ReplaceAll(ref.Repo, "/", "--")}
}

func (s store) path(parts ...string) string {
	return filepath.Join(append([]string{s.cache, s.name}, parts...)...)
}

func (s store) blob(hash string) string { return s.path("blobs", hash) }
func (s store) lock(hash string) string {
	return filepath.Join(s.cache, ".locks", s.name, hash+".lock")
}
func (s store) snapshot(commit string) string     { return s.path("snapshots", commit) }
func (s store) absent(commit, name string) string { return s.path(".no_exist", commit, name) }
func (s store) ref(revision string) string        { return s.path("refs", filepath.FromSlash(revision)) }

// Cached finds a revision in the cache and makes no request. If files are missing, or all, the error is an
// [IncompleteError].
func (c *Client) Cached(ref Ref, need Need) (Snapshot, error) {
	if err := ref.check(); err != nil {
		return Snapshot{}, fmt.Errorf("hub: %w", err)
	}
	s := c.store(ref)
	commit, err := s.commit(ref)
	if err != nil {
		return Snapshot{}, err
	}
	snapshot := Snapshot{Folder: s.snapshot(commit), Repo: ref.Repo, Revision: ref.revision(), Commit: commit}
	missing := s.missing(commit, need)
	if commit == "" || missing != nil {
		return Snapshot{}, &IncompleteError{Ref: ref, Cache: c.Cache, Commit: commit, Missing: missing}
	}
	return snapshot, nil
}

// IncompleteError says what the cache lacks of a revision.
type IncompleteError struct {
	Ref     Ref
	Cache   string
	Commit  string   // "" if the revision is not known
	Missing []string // names of files
}

func (e *IncompleteError) Error() string {
	if e.Commit == "" {
		return fmt.Sprintf("%s is not in the cache %s", e.Ref, e.Cache)
	}
	more := ""
	if n := len(e.Missing); n > 3 {
		more = fmt.Sprintf(" and %d more", n-3)
	}
	return fmt.Sprintf("%s (commit %.12s) is not complete in the cache %s: missing %s%s",
		e.Ref, e.Commit, e.Cache, strings.Join(e.Missing[:min(3, len(e.Missing))], ", "), more)
}

// commit is what the cache takes a revision to be; "" if it does not know it.
func (s store) commit(ref Ref) (string, error) {
	if commitPattern.MatchString(ref.revision()) {
		return ref.revision(), nil
	}
	path := s.ref(ref.revision())
	data, err := readSmall(path, 256)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("hub: %w", err)
	}
	commit := strings.TrimSpace(string(data))
	if !commitPattern.MatchString(commit) {
		return "", fmt.Errorf("hub: %s holds %s, want a commit of 40 hexadecimal digits", path, quoted(commit))
	}
	return commit, nil
}

// missing lists the files that a snapshot lacks.
func (s store) missing(commit string, need Need) []string {
	has := func(name string) bool {
		info, err := os.Stat(filepath.Join(s.snapshot(commit), name)) // a link to a blob that is gone is no file
		return err == nil && info.Mode().IsRegular()
	}
	var missing []string
	listed := s.listed(commit)
	for _, name := range smallFiles {
		wanted := listed[name]
		if listed == nil {
			_, err := os.Lstat(s.absent(commit, name))
			wanted = name == "config.json" || name == "tokenizer.json" && err != nil
		}
		if wanted && !has(name) {
			missing = append(missing, name)
		}
	}
	if need == Text || has(safetensors.SingleName) {
		return missing
	}
	if !has(safetensors.IndexName) {
		return append(missing, safetensors.SingleName+" or "+safetensors.IndexName)
	}
	shards, err := readIndex(filepath.Join(s.snapshot(commit), safetensors.IndexName))
	if err != nil {
		return append(missing, safetensors.IndexName)
	}
	for _, name := range shards {
		if !has(name) {
			missing = append(missing, name)
		}
	}
	return missing
}

// listed are the files of a commit, if huggingface_hub (2.0 or newer) left its listing; else nil. A listing that cannot be
// read counts as none, as it does there.
func (s store) listed(commit string) map[string]bool {
	data, err := readSmall(s.path("trees", commit+".json"), maxListing)
	if err != nil {
		return nil
	}
	var tree struct {
		FormatVersion int                        `json:"format_version"`
		Files         map[string]json.RawMessage `json:"files"`
	}
	if json.Unmarshal(data, &tree) != nil || tree.FormatVersion != 1 || tree.Files == nil {
		return nil
	}
	listed := map[string]bool{}
	for name := range tree.Files {
		listed[name] = true
	}
	return listed
}

// maxIndex bounds model.safetensors.index.json. That of a model of 400 billion parameters has some 100 KB.
const maxIndex = 64 << 20

// readIndex returns the shards that an index names, sorted.
func readIndex(path string) ([]string, error) {
	data, err := readSmall(path, maxIndex)
	if err != nil {
		return nil, err
	}
	shards, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return shards, nil
}

func parseIndex(data []byte) ([]string, error) {
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	if len(index.WeightMap) == 0 {
		return nil, errors.New("no weight_map")
	}
	var shards []string
	seen := map[string]bool{}
	for tensor, name := range index.WeightMap {
		if !isShard(name) {
			return nil, fmt.Errorf("tensor %s is in %s, which is not a plain name of a .safetensors file", quoted(tensor), quoted(name))
		}
		if !seen[name] {
			seen[name] = true
			shards = append(shards, name)
		}
	}
	slices.Sort(shards)
	return shards, nil
}

// isShard accepts plain file names only.
func isShard(name string) bool {
	stem, ok := strings.CutSuffix(name, ".safetensors")
	return ok && stem != "" && len(name) <= 200 && stem[0] != '.' && stem[0] != '-' && !strings.ContainsFunc(stem, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-", c)
	})
}

// link makes a snapshot's name lead to its blob. What leads to it already, or is a whole copy, stays.
func (s store) link(commit string, f file) error {
	path := filepath.Join(s.snapshot(commit), f.name)
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() == f.size {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	// The new link replaces the old one in one step, for others may be reading.
	tmp := temporary(path)
	if err := os.Symlink(filepath.Join("..", "..", "blobs", f.hash), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// finish records which files a commit does not have, and that a revision is this commit.
func (s store) finish(ref Ref, l listing) error {
	for _, name := range smallFiles {
		if _, ok := l.files[name]; ok {
			continue
		}
		if _, err := os.Lstat(s.absent(l.commit, name)); err == nil {
			continue
		}
		if err := writeFile(s.absent(l.commit, name), ""); err != nil {
			return err
		}
	}
	if ref.revision() == l.commit {
		return nil
	}
	if now, err := readSmall(s.ref(ref.revision()), 256); err == nil && string(now) == l.commit {
		return nil
	}
	return writeFile(s.ref(ref.revision()), l.commit)
}

// writeFile writes a file in one step, so that others read the old text or the new one.
func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	tmp := temporary(path)
	if err := os.WriteFile(tmp, []byte(text), 0o666); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// temporary is a name beside path that nobody else uses.
func temporary(path string) string { return path + "." + rand.Text()[:8] + ".tmp" }

// readSmall reads a file that must not be larger than limit.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, err
}
