package safetensors

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is what serde_json's recursion limit of 128 lets pass.
const maxDepth = 127

// scanner reads JSON one token at a time, in place. encoding/json will not do: it accepts duplicate keys, takes
// invalid UTF-8 for U+FFFD and rounds integers, and it builds a tree before anyone has asked for one.
type scanner struct {
	buf     []byte // valid UTF-8
	pos     int
	scratch []byte // holds the last string that had escapes
}

// newScanner checks what concerns the text as a whole.
func newScanner(text []byte) (*scanner, error) {
	if !utf8.Valid(text) {
		at := 0
		for {
			r, n := utf8.DecodeRune(text[at:])
			if r == utf8.RuneError && n == 1 {
				return nil, fmt.Errorf("invalid UTF-8 at byte %d: 0x%02x", at, text[at])
			}
			at += n
		}
	}
	return &scanner{buf: text}, nil
}

func (s *scanner) errorf(format string, args ...any) error {
	return fmt.Errorf("at byte %d: %s", s.pos, fmt.Sprintf(format, args...))
}

// peek skips white space and returns the next byte, 0 at the end (which no rule asks for).
func (s *scanner) peek() byte {
	for s.pos < len(s.buf) {
		switch c := s.buf[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) got() string {
	if s.pos >= len(s.buf) {
		return "the end"
	}
	r, _ := utf8.DecodeRune(s.buf[s.pos:])
	return strconv.QuoteRune(r)
}

func (s *scanner) expect(c byte) error {
	if s.peek() != c {
		return s.errorf("expected %q, found %s", c, s.got())
	}
	s.pos++
	return nil
}

// end checks that nothing but white space is left.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.buf) {
		return s.errorf("%d bytes after the end of the JSON, beginning with %s", len(s.buf)-s.pos, s.got())
	}
	return nil
}

// object reads an object and calls member after each "key":, to read the value. The key is valid until the next string
// is read. It is member's part to refuse duplicates: it knows best how to remember keys.
func (s *scanner) object(member func(key []byte) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for keys := 1; ; keys++ {
		if keys > MaxKeys {
			return s.errorf("more than %d keys in one object", MaxKeys)
		}
		key, err := s.string()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
		if done, err := s.next('}'); done || err != nil {
			return err
		}
	}
}

// array reads an array and calls element to read each element.
func (s *scanner) array(element func(i int) error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for i := 0; ; i++ {
		if err := element(i); err != nil {
			return err
		}
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

// next reads a comma or the closing byte, and reports whether it was the latter.
func (s *scanner) next(closing byte) (bool, error) {
	switch s.peek() {
	case ',':
		s.pos++
		return false, nil
	case closing:
		s.pos++
		return true, nil
	}
	return false, s.errorf("expected ',' or %q, found %s", closing, s.got())
}

// string reads a string and returns its value, which is valid until the next call.
func (s *scanner) string() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.errorf("expected a string, found %s", s.got())
	}
	s.pos++
	start := s.pos
	for ; s.pos < len(s.buf); s.pos++ {
		switch c := s.buf[s.pos]; {
		case c == '"':
			s.pos++
			return s.buf[start : s.pos-1], nil
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return nil, s.errorf("control character 0x%02x in a string", c)
		}
	}
	return nil, s.errorf("string that begins at byte %d has no end", start-1)
}

// escaped goes on with a string whose first escape is at pos.
func (s *scanner) escaped(start int) ([]byte, error) {
	out := append(s.scratch[:0], s.buf[start:s.pos]...)
	for s.pos < len(s.buf) {
		c := s.buf[s.pos]
		switch {
		case c == '"':
			s.pos++
			s.scratch = out
			return out, nil
		case c < ' ':
			return nil, s.errorf("control character 0x%02x in a string", c)
		case c != '\\':
			out = append(out, c)
			s.pos++
			continue
		}
		s.pos++
		if s.pos == len(s.buf) {
			break
		}
		c = s.buf[s.pos]
		if c == 'u' {
			r, err := s.codePoint()
			if err != nil {
				return nil, err
			}
			out = utf8.AppendRune(out, r)
			continue
		}
		i := bytes.IndexByte([]byte(`"\/bfnrt`), c)
		if i < 0 {
			return nil, s.errorf("unknown escape \\%s", s.got())
		}
		out = append(out, "\"\\/\b\f\n\r\t"[i])
		s.pos++
	}
	return nil, s.errorf("string that begins at byte %d has no end", start-1)
}

// codePoint reads the uXXXX of an escape, and a second one where the first is half a surrogate pair.
func (s *scanner) codePoint() (rune, error) {
	first, err := s.hex4()
	if err != nil {
		return 0, err
	}
	if !utf16.IsSurrogate(first) {
		return first, nil
	}
	if bytes.HasPrefix(s.buf[s.pos:], []byte(`\u`)) {
		s.pos++
		second, err := s.hex4()
		if err != nil {
			return 0, err
		}
		if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
			return r, nil
		}
	}
	return 0, s.errorf("lone surrogate \\u%04x", first)
}

func (s *scanner) hex4() (rune, error) {
	if s.pos+5 > len(s.buf) {
		return 0, s.errorf("\\u without four hex digits")
	}
	var r rune
	for _, c := range s.buf[s.pos+1 : s.pos+5] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, s.errorf("\\u without four hex digits")
		}
	}
	s.pos += 5
	return r, nil
}

// number reads the text of a number and checks its grammar.
func (s *scanner) number() ([]byte, error) {
	c := s.peek()
	if c != '-' && (c < '0' || c > '9') {
		return nil, s.errorf("expected a number, found %s", s.got())
	}
	start := s.pos
	at := func() byte {
		if s.pos < len(s.buf) {
			return s.buf[s.pos]
		}
		return 0
	}
	digits := func() bool {
		from := s.pos
		for c := at(); '0' <= c && c <= '9'; c = at() {
			s.pos++
		}
		return s.pos > from
	}
	if at() == '-' {
		s.pos++
	}
	leadingZero := at() == '0'
	intStart := s.pos
	ok := digits() && (!leadingZero || s.pos == intStart+1)
	if ok && at() == '.' {
		s.pos++
		ok = digits()
	}
	if ok && at()|0x20 == 'e' {
		s.pos++
		if c := at(); c == '+' || c == '-' {
			s.pos++
		}
		ok = digits()
	}
	if text := s.buf[start:s.pos]; ok {
		return text, nil
	}
	s.pos = start
	return nil, s.errorf("malformed number")
}

// uint reads an integer from 0 to most.
func (s *scanner) uint(what string, most uint64) (uint64, error) {
	text, err := s.number()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	switch {
	case text[0] == '-':
		err = s.errorf("%s is negative: %s", what, shorten(text))
	case bytes.ContainsAny(text, ".eE"):
		err = s.errorf("%s is not an integer: %s", what, shorten(text))
	case err != nil || n > most:
		err = s.errorf("%s is too large: %s > %d", what, shorten(text), most)
	}
	return n, err
}

func shorten(text []byte) string {
	if len(text) > 40 {
		return fmt.Sprintf("%s… (%d digits)", text[:40], len(text))
	}
	return string(text)
}

// literal reads true, false or null if it comes next.
func (s *scanner) literal(word string) bool {
	s.peek()
	if !bytes.HasPrefix(s.buf[s.pos:], []byte(word)) {
		return false
	}
	s.pos += len(word)
	return true
}

// skip reads any value, checks it, and forgets it; depth counts the objects and arrays around it.
func (s *scanner) skip(depth int) error {
	c := s.peek()
	if (c == '{' || c == '[') && depth >= maxDepth {
		return s.errorf("JSON is nested deeper than %d levels", maxDepth)
	}
	switch c {
	case '{':
		var seen keySet
		return s.object(func(key []byte) error {
			if !seen.add(key) {
				return s.errorf("duplicate key %s", quote(string(key)))
			}
			return s.skip(depth + 1)
		})
	case '[':
		return s.array(func(int) error { return s.skip(depth + 1) })
	case '"':
		_, err := s.string()
		return err
	case 't', 'f', 'n':
		if s.literal("true") || s.literal("false") || s.literal("null") {
			return nil
		}
		return s.errorf("expected a value, found %s", s.got())
	}
	text, err := s.number()
	if err != nil {
		return err
	}
	if _, err := strconv.ParseFloat(string(text), 64); err != nil {
		return s.errorf("number out of range: %s", shorten(text))
	}
	return nil
}

// stringMap reads an object whose values are all strings.
func (s *scanner) stringMap() (map[string]string, error) {
	m := make(map[string]string)
	err := s.object(func(key []byte) error {
		k := string(key)
		if _, ok := m[k]; ok {
			return s.errorf("duplicate key %s", quote(k))
		}
		value, err := s.string()
		if err != nil {
			return fmt.Errorf("key %s: %w", quote(k), err)
		}
		m[k] = string(value)
		return nil
	})
	return m, err
}

// keySet remembers the keys of an object. The zero value is empty and free.
type keySet map[string]struct{}

// add reports whether the key is new.
func (k *keySet) add(key []byte) bool {
	if _, ok := (*k)[string(key)]; ok {
		return false
	}
	if *k == nil {
		*k = make(keySet)
	}
	(*k)[string(key)] = struct{}{}
	return true
}

// appendString appends s as serde_json writes it: only what must be escaped is.
func appendString(out []byte, s string) []byte {
	out = append(out, '"')
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, `\b`...)
		case '\f':
			out = append(out, `\f`...)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			if c < ' ' {
				out = fmt.Appendf(out, `\u%04x`, c)
			} else {
				out = append(out, c)
			}
		}
	}
	return append(out, '"')
}
