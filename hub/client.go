package hub

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DefaultEndpoint is the hub that is meant unless HF_ENDPOINT says otherwise.
const DefaultEndpoint = "https://huggingface.co"

// Client fetches from one hub into one cache. Its methods may be used by several goroutines, and several processes may
// share a cache.
type Client struct {
	Endpoint string // scheme, host and perhaps a path, as HF_ENDPOINT
	Cache    string // the folder of the models--org--name folders, as HF_HUB_CACHE; it is made when needed
	Token    string // sent to Endpoint only; "" for none
	Offline  bool   // make no request: what is not in the cache is an error
	Update   bool   // ask the hub for the revision's present commit, even if the cache has the revision complete

	// Progress is told how far a pull is, after every piece of some 256 KiB. Calls do not overlap. It may be nil.
	Progress func(Progress)
	// Notice is told, in sentences, what makes a pull wait. It may be nil.
	Notice func(string)

	pause time.Duration // before the first retry, doubled for each further one; 0 is a second
	stall time.Duration // a connection that gives nothing for so long is dropped; 0 is half a minute
}

// Progress is how far a pull is.
type Progress struct {
	Done, Total int64 // bytes, those that were there from an earlier try included
	Files       int   // how many files these are
}

// FromEnv returns the client that the environment describes, with the meaning that huggingface_hub gives it. Nothing is
// written and nothing is asked.
//
//	HF_ENDPOINT                    the hub, by default DefaultEndpoint
//	HF_HUB_CACHE                   the cache, by default $HF_HOME/hub
//	HF_HOME                        by default $XDG_CACHE_HOME/huggingface or ~/.cache/huggingface
//	HF_TOKEN                       the token, else the text of the file HF_TOKEN_PATH, by default $HF_HOME/token
//	HF_HUB_DISABLE_IMPLICIT_TOKEN  1, ON, YES or TRUE: no token
//	HF_HUB_OFFLINE                 the same words: no request. TRANSFORMERS_OFFLINE is read too.
func FromEnv() (*Client, error) {
	home := ""
	if h, err := os.UserHomeDir(); err == nil {
		home = h
	}
	hfHome := expanded("HF_HOME", home)
	if hfHome == "" {
		base := os.Getenv("XDG_CACHE_HOME")
		if base == "" && home != "" {
			base = filepath.Join(home, ".cache")
		}
		if base == "" {
			return nil, fmt.Errorf("hub: no cache folder: set HF_HOME, for there is no home folder")
		}
		hfHome = filepath.Join(base, "huggingface")
	}
	c := &Client{Endpoint: DefaultEndpoint, Cache: expanded("HF_HUB_CACHE", home)}
	if c.Cache == "" {
		c.Cache = filepath.Join(hfHome, "hub")
	}
	cache, err := filepath.Abs(c.Cache)
	if err != nil {
		return nil, fmt.Errorf("hub: cache folder: %w", err)
	}
	c.Cache = cache
	if e := os.Getenv("HF_ENDPOINT"); e != "" {
		c.Endpoint = e
	}
	if _, err := c.endpoint(); err != nil {
		return nil, err
	}
	if offline := os.Getenv("HF_HUB_OFFLINE"); offline != "" {
		c.Offline = isTrue(offline)
	} else {
		c.Offline = isTrue(os.Getenv("TRANSFORMERS_OFFLINE"))
	}
	if !isTrue(os.Getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		c.Token = cleanToken(os.Getenv("HF_TOKEN"))
		if c.Token == "" {
			path := expanded("HF_TOKEN_PATH", home)
			if path == "" {
				path = filepath.Join(hfHome, "token")
			}
			if data, err := readSmall(path, 4096); err == nil { // most people have none, and need none
				c.Token = cleanToken(string(data))
			}
		}
	}
	return c, nil
}

// endpoint is the parsed Endpoint, without a slash at the end.
func (c *Client) endpoint() (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(c.Endpoint, "/"))
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("hub: the endpoint (HF_ENDPOINT) is %s, want https://host", quoted(c.Endpoint))
	}
	if u.User != nil { // and never printed
		return nil, fmt.Errorf("hub: the endpoint (HF_ENDPOINT) of %s has a user or password: use HF_TOKEN", u.Host)
	}
	return u, nil
}

func (c *Client) notice(format string, args ...any) {
	if c.Notice != nil {
		c.Notice(fmt.Sprintf(format, args...))
	}
}

// expanded is an environment variable with ~ and $NAME in it replaced, as huggingface_hub does for folders.
func expanded(name, home string) string {
	v := os.Getenv(name)
	if home != "" && (v == "~" || strings.HasPrefix(v, "~/")) {
		v = home + v[1:]
	}
	return os.Expand(v, func(name string) string {
		if v, ok := os.LookupEnv(name); ok {
			return v
		}
		return "$" + name
	})
}

// isTrue reads a switch (huggingface_hub's ENV_VARS_TRUE_VALUES).
func isTrue(v string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(v))
}

// cleanToken removes the line ends that come with a copied token.
func cleanToken(t string) string {
	return strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(t))
}
