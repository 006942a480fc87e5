package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// This file knows how one request is made: where the token goes, which redirects are followed, what is tried again and
// what an answer's status means.

const (
	attempts     = 5                // in a row without a byte, then a pull gives up
	longestPause = 16 * time.Second // of our own choosing
	longestWait  = 5 * time.Minute  // of the hub's choosing (Retry-After)
	maxRedirects = 10
)

// session is one pull's connection to the hub.
type session struct {
	*Client
	ref    Ref
	base   *url.URL // the endpoint
	client *http.Client
	count  counter
}

func (c *Client) session(ref Ref) (*session, error) {
	base, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone() // proxies, HTTP/2, timeouts of dialing and TLS
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return &session{Client: c, ref: ref, base: base, client: &http.Client{
		Transport:     &transport{base: t, endpoint: base, token: c.Token},
		CheckRedirect: checkRedirect,
	}}, nil
}

// transport puts the token on requests to the endpoint and takes it off all others. It sees every hop of a redirect.
type transport struct {
	base     *http.Transport
	endpoint *url.URL
	token    string
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	if t.token != "" && sameOrigin(r.URL, t.endpoint) {
		r.Header.Set("Authorization", "Bearer "+t.token)
	}
	return t.base.RoundTrip(r)
}

// sameOrigin compares scheme, host and port. A subdomain is another host: net/http's own rule would send it the token.
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if p := u.Port(); p != "" {
			return p
		}
		return map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("redirect refused")

func checkRedirect(r *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) >= maxRedirects:
		return fmt.Errorf("%w: more than %d in a row", errRedirect, maxRedirects)
	case r.URL.Scheme != "https" && r.URL.Scheme != "http":
		return fmt.Errorf("%w: to %s", errRedirect, bare(r.URL))
	case from.Scheme == "https" && r.URL.Scheme == "http" && !isLoopback(r.URL.Hostname()):
		return fmt.Errorf("%w: from https to %s", errRedirect, bare(r.URL))
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bare spells a URL without its query, which may be a signature.
func bare(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// url is an address below the endpoint. Each part is escaped whole.
func (s *session) url(parts ...string) string {
	u := s.base.String()
	for _, p := range parts {
		u += "/" + url.PathEscape(p)
	}
	return u
}

// repoURL is url of a file of the model, at the endpoint or below one of its folders.
func (s *session) repoURL(prefix []string, parts ...string) string {
	return s.url(append(append(prefix, strings.Split(s.ref.Repo, "/")...), parts...)...)
}

// transient is an error that may be gone at the next try.
type transient struct{ error }

func (t transient) Unwrap() error { return t.error }

// errStalled is the cause of a transfer that was dropped for giving nothing.
var errStalled = errors.New("no data")

// response is an answer whose body fails when it gives nothing for too long.
type response struct {
	*http.Response
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *time.Timer
	stall  time.Duration
}

func (r *response) Read(p []byte) (int, error) {
	n, err := r.Body.Read(p)
	r.watch.Reset(r.stall)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failed(r.ctx, r.Request.URL, err)
	}
	return n, err
}

func (r *response) Close() {
	r.watch.Stop()
	_ = r.Body.Close()
	r.cancel(nil)
}

// send makes one request. An answer other than 2xx is a *StatusError; follow is false for one whose redirect is the answer.
// Close the response.
func (s *session) send(ctx context.Context, method, address string, header http.Header, follow bool) (*response, error) {
	r := &response{stall: s.stall}
	if r.stall == 0 {
		r.stall = 30 * time.Second
	}
	parent := ctx
	r.ctx, r.cancel = context.WithCancelCause(parent)
	r.watch = time.AfterFunc(r.stall, func() { r.cancel(fmt.Errorf("%w for %s", errStalled, r.stall)) })
	stop := func() { r.watch.Stop(); r.cancel(nil) }
	req, err := http.NewRequestWithContext(r.ctx, method, address, nil)
	if err != nil {
		stop()
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept-Encoding", "identity") // lengths and ranges are those of the file
	client := *s.client
	if !follow {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	r.Response, err = client.Do(req) //nolint:bodyclose // response.Close closes it
	if err != nil {
		err = failed(r.ctx, req.URL, err)
		stop()
		return nil, err
	}
	redirect := !follow && r.StatusCode/100 == 3 && r.Header.Get("Location") != ""
	if r.StatusCode/100 != 2 && !redirect {
		defer r.Close()
		return nil, s.statusError(r.Response)
	}
	return r, nil
}

// userAgent says who asks.
var userAgent = func() string {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		version = info.Main.Version
	}
	return "steerage/" + version
}()

// failed spells the error of a connection, without the query of the address, and says whether to try again.
func failed(ctx context.Context, address *url.URL, err error) error {
	cause := context.Cause(ctx)
	if cause != nil && !errors.Is(cause, errStalled) {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
		if at, e := url.Parse(u.URL); e == nil {
			address = at // of a redirect
		}
	}
	if cause != nil {
		err = cause
	}
	err = fmt.Errorf("%s: %w", bare(address), err)
	var certificate *tls.CertificateVerificationError
	var dns *net.DNSError
	if errors.Is(err, errRedirect) || errors.As(err, &certificate) || errors.As(err, &dns) && dns.IsNotFound {
		return err
	}
	return transient{err}
}

// retry calls try until it succeeds or fails for good. try says whether it got any further; then the count begins anew.
func (s *session) retry(ctx context.Context, try func() (further bool, err error)) error {
	first := s.pause
	if first == 0 {
		first = time.Second
	}
	pause, left := first, attempts
	for {
		further, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var status *StatusError
		if !errors.As(err, new(transient)) && (!errors.As(err, &status) || !status.temporary()) {
			return err
		}
		if further {
			pause, left = first, attempts
		}
		if left--; left == 0 {
			return fmt.Errorf("gave up after %d attempts: %w", attempts, err)
		}
		wait := pause + rand.N(pause/4+1) // so that many clients do not come back together
		if status != nil && status.RetryAfter > 0 {
			wait = status.RetryAfter
		}
		if wait > longestWait {
			return fmt.Errorf("the hub asks to wait %s: %w", wait, err)
		}
		s.notice("%v; trying again in %s", err, wait.Round(100*time.Millisecond))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		pause = min(2*pause, longestPause)
	}
}

// StatusError is an answer of the hub that is not the one asked for.
type StatusError struct {
	Ref        Ref
	URL        string        // without its query
	Status     int           // of HTTP
	Code       string        // X-Error-Code, as "GatedRepo"
	Message    string        // X-Error-Message, printable and at most 200 bytes
	RetryAfter time.Duration // 0 if the hub did not say
	WithToken  bool          // a token was sent
	page       string        // the model's page on the hub
}

func (s *session) statusError(r *http.Response) error {
	e := &StatusError{Ref: s.ref, URL: bare(r.Request.URL), Status: r.StatusCode, WithToken: s.Token != "",
		Code: printable(r.Header.Get("X-Error-Code"), 40), Message: printable(r.Header.Get("X-Error-Message"), 200),
		page: s.repoURL(nil)}
	after := r.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(after); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(min(seconds, 1<<20)) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		e.RetryAfter = max(time.Until(at), 0)
	}
	_, _ = io.CopyN(io.Discard, r.Body, 4096) // so that the connection can be used again
	return e
}

func (e *StatusError) temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func (e *StatusError) Error() string {
	token := "no token was sent: set HF_TOKEN, or run `hf auth login`"
	if e.WithToken {
		token = "the token that was sent (HF_TOKEN, or the token file) does not allow it"
	}
	var what string
	switch {
	case e.Code == "GatedRepo" || e.Status == http.StatusForbidden && e.Code == "":
		what = fmt.Sprintf("access is restricted: open %s in a browser, accept the conditions there, and use a token of that "+
			"account; %s", e.page, token)
	case e.Code == "RevisionNotFound":
		what = fmt.Sprintf("there is no revision %s", quoted(e.Ref.revision()))
	case e.Code == "EntryNotFound":
		what = "the file is not there: " + e.URL
	case e.Status == http.StatusUnauthorized || e.Code == "RepoNotFound":
		what = fmt.Sprintf("there is no such model at %s, or it is private; %s", e.page, token)
	case e.Status == http.StatusNotFound:
		what = fmt.Sprintf("there is no such model or no revision %s: %s", quoted(e.Ref.revision()), e.URL)
	case e.Status == http.StatusTooManyRequests:
		what = "the hub limits how often this address or token may ask"
	default:
		what = e.URL
	}
	if e.Message != "" {
		what += fmt.Sprintf(" (the hub says: %s)", e.Message)
	}
	return fmt.Sprintf("HTTP %s: %s", strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))), what)
}

// printable is a stranger's text, cut to n bytes and without control characters.
func printable(s string, n int) string {
	s = strings.ToValidUTF8(s[:min(n, len(s))], "")
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return -1
		}
		return c
	}, s)
}
