package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/steerage/steerage/safetensors"
)

// This file knows what a commit holds: the hub's listing, and the headers of a file that the listing tells too little of.

const (
	maxListing = 32 << 20
	maxSize    = 1 << 50 // bytes of one file
)

// listing is the part of a commit that may be wanted.
type listing struct {
	commit string
	files  map[string]file // by name: smallFiles, the index and what isShard accepts
	other  []string        // some of the rest, to explain what is not there
}

// file is one file of a commit.
type file struct {
	name string
	size int64
	hash string // SHA-256 of the bytes (64 digits) or of git's blob (SHA-1, 40 digits); "" if the listing has none
}

// list asks for a revision's commit and files.
func (s *session) list(ctx context.Context) (l listing, err error) {
	address := s.repoURL([]string{"api", "models"}, "revision", s.ref.revision()) + "?blobs=true"
	err = s.retry(ctx, func() (bool, error) {
		r, err := s.send(ctx, http.MethodGet, address, nil, true)
		if err != nil {
			return false, err
		}
		defer r.Close()
		data, err := io.ReadAll(io.LimitReader(r, maxListing+1))
		if err != nil {
			return false, err
		}
		if l, err = parseListing(data); err != nil {
			return false, fmt.Errorf("%s: the hub's listing: %w", bare(r.Request.URL), err)
		}
		return true, nil
	})
	if err == nil && commitPattern.MatchString(s.ref.revision()) && l.commit != s.ref.revision() {
		err = fmt.Errorf("the hub answers with commit %s", l.commit)
	}
	return l, err
}

// parseListing reads the answer of /api/models/ORG/NAME/revision/REVISION?blobs=true.
func parseListing(data []byte) (listing, error) {
	if len(data) > maxListing {
		return listing{}, fmt.Errorf("larger than %d bytes", maxListing)
	}
	var answer struct {
		SHA      string
		Siblings []struct {
			Name   string `json:"rfilename"`
			Size   *int64
			BlobID string
			LFS    *struct {
				SHA256 string
				Size   *int64
			}
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return listing{}, err
	}
	l := listing{commit: answer.SHA, files: map[string]file{}}
	if !commitPattern.MatchString(l.commit) {
		return listing{}, fmt.Errorf("commit is %s, want 40 hexadecimal digits", quoted(l.commit))
	}
	for _, a := range answer.Siblings {
		if !slices.Contains(smallFiles, a.Name) && a.Name != safetensors.IndexName && !isShard(a.Name) {
			if len(l.other) < 1000 {
				l.other = append(l.other, a.Name)
			}
			continue
		}
		if _, ok := l.files[a.Name]; ok {
			return listing{}, fmt.Errorf("%s is listed twice", a.Name)
		}
		f, size := file{name: a.Name, size: -1, hash: a.BlobID}, a.Size
		if a.LFS != nil {
			f.hash = a.LFS.SHA256
			if a.LFS.Size != nil {
				size = a.LFS.Size
			}
		}
		if size != nil {
			f.size = *size
			if f.size < 0 || f.size > maxSize {
				return listing{}, fmt.Errorf("%s has %d bytes, want 0 to %d", a.Name, f.size, int64(maxSize))
			}
		}
		switch {
		case f.hash == "" || f.size < 0:
			f.hash, f.size = "", -1
		case a.LFS != nil && !sha256Pattern.MatchString(f.hash):
			return listing{}, fmt.Errorf("%s has the SHA-256 %s, want 64 hexadecimal digits", a.Name, quoted(f.hash))
		case a.LFS == nil && !commitPattern.MatchString(f.hash):
			return listing{}, fmt.Errorf("%s has the blob id %s, want 40 hexadecimal digits", a.Name, quoted(f.hash))
		}
		l.files[a.Name] = f
	}
	return l, nil
}

// describe completes a file that the listing gave no hash of, as mirrors do, from the headers of its address.
func (s *session) describe(ctx context.Context, commit string, f *file) error {
	if f.hash != "" {
		return nil
	}
	return s.retry(ctx, func() (bool, error) {
		r, err := s.send(ctx, http.MethodHead, s.fileURL(commit, f.name), nil, false)
		if err != nil {
			return false, err
		}
		defer r.Close()
		said := headers(r.Response)
		if r.StatusCode/100 == 3 && said.linkedSize == "" {
			said.size = -1 // that of the redirect's text
		}
		if said.hash == "" || said.size < 0 || said.size > maxSize {
			return false, fmt.Errorf("%s: neither the listing nor the headers give a hash and a size, so it could not be checked", f.name)
		}
		f.hash, f.size = said.hash, said.size
		return true, s.agree(said, commit, *f)
	})
}

func (s *session) fileURL(commit, name string) string {
	return s.repoURL(nil, "resolve", commit, name)
}

// told is what an answer of the hub says about a file.
type told struct {
	commit, hash, linkedSize string // "" if it does not say
	size                     int64  // -1
}

// headers reads an answer of the hub itself, not of where it redirects to.
func headers(r *http.Response) told {
	etag := r.Header.Get("X-Linked-Etag")
	if etag == "" {
		etag = r.Header.Get("ETag")
	}
	etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
	t := told{commit: r.Header.Get("X-Repo-Commit"), linkedSize: r.Header.Get("X-Linked-Size"), size: r.ContentLength}
	if commitPattern.MatchString(etag) || sha256Pattern.MatchString(etag) {
		t.hash = etag
	}
	if t.linkedSize != "" {
		size, err := strconv.ParseInt(t.linkedSize, 10, 64)
		if err != nil {
			size = -1
		}
		t.size = size
	}
	return t
}

// agree checks what the hub says of a file now against what is wanted.
func (s *session) agree(said told, commit string, f file) error {
	switch {
	case said.commit != "" && said.commit != commit:
		return fmt.Errorf("%s: the hub answers with commit %s, want %s", f.name, quoted(said.commit), commit)
	case len(said.hash) == len(f.hash) && said.hash != f.hash:
		return fmt.Errorf("%s: the hub's ETag is %s, want %s", f.name, said.hash, f.hash)
	case said.linkedSize != "" && said.size != f.size:
		return fmt.Errorf("%s: the hub says %s bytes, want %d", f.name, quoted(said.linkedSize), f.size)
	}
	return nil
}

// explain says what a model without the weights that can be read has instead.
func (l listing) explain() string {
	var have []string
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(l.files)), l.other) {
		for _, end := range []string{".safetensors", ".bin", ".gguf", ".pt", ".pth", ".onnx"} {
			if strings.HasSuffix(name, end) {
				have = append(have, printable(name, 60))
			}
		}
	}
	if len(have) == 0 {
		return "it has no weights"
	}
	if len(have) > 3 {
		return fmt.Sprintf("it has %s and %d others", strings.Join(have[:3], ", "), len(have)-3)
	}
	return "it has " + strings.Join(have, ", ")
}
