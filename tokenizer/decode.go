package tokenizer

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Decoding is a chain of stages, each a decoder of tokenizer.json. Hugging Face passes whole lists of tokens from one
// to the next; here tokens pass one at a time, so that the same chain serves Decode and Stream, and a stage keeps back
// only what could still change. After Fuse and ByteLevel all text is one token, which arrives in fragments.

// stage receives tokens: the fragments of one, then end; after the last token, flush.
type stage interface {
	text(fragment []byte)
	end()
	flush()
}

// decoder builds the stage that feeds next.
type decoder func(next stage) stage

// readDecoder reads "decoder". None at all means tokens joined by spaces.
func readDecoder(n node) ([]decoder, error) {
	if n == nil {
		return []decoder{func(next stage) stage { return &spacer{next: next} }}, nil
	}
	g := growth{where: "decoder", times: 1}
	return g.decoder(n)
}

// decoder flattens nested Sequences.
func (g *growth) decoder(n node) ([]decoder, error) {
	typ, f, err := component("decoder", n)
	if err != nil {
		return nil, err
	}
	var list []decoder
	times := 1
	switch typ {
	case "Sequence":
		for _, child := range f.list("decoders") {
			inner, err := g.decoder(child)
			if err != nil {
				return nil, err
			}
			list = append(list, inner...)
		}
		return list, f.done()
	case "ByteLevel":
		// These three are for the pre-tokenizer of the same name.
		f.boolOr("add_prefix_space", true)
		f.boolOr("trim_offsets", true)
		f.boolOr("use_regex", true)
		times = 3 // a byte becomes U+FFFD
		list = []decoder{func(next stage) stage { return &wholeToken{to: &byteLevel{next: next}} }}
	case "ByteFallback":
		list = []decoder{func(next stage) stage { return &wholeToken{to: &byteFallback{next: next}} }}
	case "Fuse":
		list = []decoder{func(next stage) stage { return &fuse{next} }}
	case "Replace":
		var replace replacer
		replace, times = f.replacement()
		list = []decoder{func(next stage) stage { return &wholeToken{to: &rewrite{next, replace.replace}} }}
	case "Strip":
		content := f.char("content")
		start, stop := f.integer("start"), f.integer("stop")
		list = []decoder{func(next stage) stage { return newStrip(next, content, start, stop) }}
	case "Metaspace":
		mark := f.char("replacement")
		scheme := f.prependScheme()
		f.boolOr("split", true)
		list = []decoder{func(next stage) stage {
			return &wholeToken{to: &metaspace{next: next, mark: []byte(mark), first: scheme != "never"}}
		}}
	default:
		return nil, fmt.Errorf("%s is not supported", f.where)
	}
	if err := f.done(); err != nil {
		return nil, err
	}
	return list, g.add(times)
}

// wholeToken collects the fragments of a token for a decoder that needs it whole.
type wholeToken struct {
	buf []byte
	to  interface {
		token(token []byte)
		flush()
	}
}

func (w *wholeToken) text(fragment []byte) { w.buf = append(w.buf, fragment...) }
func (w *wholeToken) flush()               { w.to.flush() }
func (w *wholeToken) end() {
	w.to.token(w.buf)
	w.buf = w.buf[:0]
}

// emit sends one whole token on.
func emit(next stage, token []byte) {
	next.text(token)
	next.end()
}

// byteLevel turns byte-level tokens into one token of text.
type byteLevel struct {
	next  stage
	bytes []byte // the start of a character
	out   []byte
}

func (b *byteLevel) token(token []byte) {
	b.bytes = appendBytes(b.bytes, string(token))
	b.write(false)
}

func (b *byteLevel) write(final bool) {
	text, rest := appendLossy(b.out[:0], b.bytes, final)
	b.bytes = append(b.bytes[:0], rest...)
	b.out = text
	b.next.text(text)
}

func (b *byteLevel) flush() {
	b.write(true)
	b.next.end()
	b.next.flush()
}

// byteFallback turns runs of tokens "<0x41>" into text: all of a run when it is UTF-8, else one U+FFFD for each of its
// tokens. A run is therefore kept back until it ends.
type byteFallback struct {
	next stage
	run  []byte
}

func (b *byteFallback) token(token []byte) {
	if len(token) == 6 && string(token[:3]) == "<0x" && token[5] == '>' {
		// Rust reads "+F" as a number too.
		digits := strings.TrimPrefix(string(token[3:5]), "+")
		if v, err := strconv.ParseUint(digits, 16, 8); err == nil && digits[0] != '+' {
			b.run = append(b.run, byte(v))
			return
		}
	}
	b.endRun()
	emit(b.next, token)
}

func (b *byteFallback) endRun() {
	if len(b.run) == 0 {
		return
	}
	if utf8.Valid(b.run) {
		emit(b.next, b.run)
	} else {
		for range b.run {
			emit(b.next, []byte("\uFFFD"))
		}
	}
	b.run = b.run[:0]
}

func (b *byteFallback) flush() {
	b.endRun()
	b.next.flush()
}

// fuse joins all tokens into one.
type fuse struct{ next stage }

func (f *fuse) text(fragment []byte) { f.next.text(fragment) }
func (f *fuse) end()                 {}
func (f *fuse) flush() {
	f.next.end()
	f.next.flush()
}

// rewrite is Replace.
type rewrite struct {
	next    stage
	replace func(string) string
}

func (r *rewrite) token(token []byte) { emit(r.next, []byte(r.replace(string(token)))) }
func (r *rewrite) flush()             { r.next.flush() }

// strip removes up to start copies of content at the start of each token and up to stop at its end. It keeps back the
// copies at the end of what it has seen.
type strip struct {
	next    stage
	content []byte
	start   int
	stop    int

	left  int // copies that may still be removed at the start, 0 once something else was seen
	atEnd int // copies kept back
	part  []byte
}

func newStrip(next stage, content string, start, stop int) *strip {
	return &strip{next: next, content: []byte(content), start: start, stop: stop, left: start}
}

func (s *strip) text(fragment []byte) {
	for s.left > 0 && len(fragment) > 0 {
		if !bytes.HasPrefix(fragment, s.content) {
			s.left = 0
			break
		}
		fragment = fragment[len(s.content):]
		s.left--
	}
	if s.stop == 0 || len(fragment) == 0 {
		if len(fragment) > 0 {
			s.next.text(fragment)
		}
		return
	}
	body := fragment
	for bytes.HasSuffix(body, s.content) {
		body = body[:len(body)-len(s.content)]
	}
	if len(body) > 0 {
		s.release(s.atEnd)
		s.atEnd = 0
		s.next.text(body)
	}
	s.atEnd += (len(fragment) - len(body)) / len(s.content)
}

func (s *strip) release(n int) {
	s.part = s.part[:0]
	for range n {
		s.part = append(s.part, s.content...)
	}
	s.next.text(s.part)
}

func (s *strip) end() {
	s.release(max(0, s.atEnd-s.stop))
	s.left, s.atEnd = s.start, 0
	s.next.end()
}

func (s *strip) flush() { s.next.flush() }

// metaspace turns the mark into a space, and removes it from the first token.
type metaspace struct {
	next  stage
	mark  []byte
	first bool // the next token is the first and loses its marks
}

func (m *metaspace) token(token []byte) {
	var space []byte
	if !m.first {
		space = []byte{' '}
	}
	m.first = false
	emit(m.next, bytes.ReplaceAll(token, m.mark, space))
}

func (m *metaspace) flush() { m.next.flush() }

// spacer puts a space between tokens.
type spacer struct {
	next    stage
	started bool
	inside  bool
}

func (s *spacer) text(fragment []byte) {
	if !s.inside && s.started {
		s.next.text([]byte(" "))
	}
	s.started, s.inside = true, true
	s.next.text(fragment)
}
func (s *spacer) end()   { s.inside = false; s.next.end() }
func (s *spacer) flush() { s.next.flush() }
