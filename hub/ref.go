package hub

import (
	"fmt"
	"regexp"
	"strings"
)

// MainRevision is the branch that a name without a revision means.
const MainRevision = "main"

// Limits of names. The hub's own is 96 for a repository; a revision must be a path in the cache.
const (
	maxRepo     = 96
	maxRevision = 200
)

// Ref names a model on the hub.
type Ref struct {
	Repo     string // "org/name"
	Revision string // branch, tag or commit; "" is MainRevision
}

// String is the form that Parse reads.
func (r Ref) String() string {
	if r.Revision == "" || r.Revision == MainRevision {
		return r.Repo
	}
	return r.Repo + "@" + r.Revision
}

// revision is the revision with its default.
func (r Ref) revision() string {
	if r.Revision == "" {
		return MainRevision
	}
	return r.Revision
}

// Parse reads "org/name" or "org/name@revision". The rules for the repository are the hub's, those for the revision git's
// (git check-ref-format). Whatever passes is safe as a path below the cache and, escaped, in a URL.
func Parse(s string) (Ref, error) {
	repo, revision, given := strings.Cut(s, "@")
	if given && revision == "" {
		return Ref{}, fmt.Errorf("%s: no revision after @", quoted(s))
	}
	ref := Ref{Repo: repo, Revision: revision}
	if err := ref.check(); err != nil {
		return Ref{}, err
	}
	return ref, nil
}

var (
	repoPattern   = regexp.MustCompile(`^[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?/[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?$`)
	commitPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)
	sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func (r Ref) check() error {
	switch {
	case len(r.Repo) > maxRepo:
		return fmt.Errorf("%s: a name of %d bytes, want at most %d", quoted(r.Repo), len(r.Repo), maxRepo)
	case !repoPattern.MatchString(r.Repo):
		return fmt.Errorf("%s: want org/name of letters, digits, '-', '_' and '.'", quoted(r.Repo))
	case strings.Contains(r.Repo, "--") || strings.Contains(r.Repo, ".."):
		return fmt.Errorf("%s: neither -- nor .. is in a name on the hub", quoted(r.Repo))
	case strings.HasSuffix(r.Repo, ".git"):
		return fmt.Errorf("%s: a name on the hub does not end in .git", quoted(r.Repo))
	}
	rev := r.revision()
	if len(rev) > maxRevision {
		return fmt.Errorf("%s: a revision of %d bytes, want at most %d", quoted(rev), len(rev), maxRevision)
	}
	bad := strings.ContainsFunc(rev, func(c rune) bool {
		return c <= ' ' || c == 0x7f || c == '\ufffd' || strings.ContainsRune(`~^:?*[\"<>|`, c)
	}) || strings.Contains(rev, "..") || strings.Contains(rev, "@{")
	for part := range strings.SplitSeq(rev, "/") {
		bad = bad || part == "" || part[0] == '.' || part[len(part)-1] == '.' || strings.HasSuffix(part, ".lock")
	}
	if bad {
		return fmt.Errorf("%s: not a revision, which is a branch, tag or commit", quoted(rev))
	}
	return nil
}

// quoted spells what a stranger wrote, at most about 80 bytes of it.
func quoted(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q…", s[:80])
	}
	return fmt.Sprintf("%q", s)
}
