package tokenizer

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// reader is a strict pull parser over JSON text. encoding/json would take most of the load time of a large
// tokenizer.json, and it lets duplicate keys, other capitalisation of keys, and broken UTF-8 pass.
type reader struct {
	data  []byte
	pos   int
	depth int
	nodes int    // values built by value so far
	buf   []byte // holds the last string that had escapes
}

const (
	maxDepth = 64      // deepest nesting that any component of a tokenizer.json needs is below 10
	maxNodes = 1 << 20 // bounds the memory of component descriptions; vocab, merges and added_tokens are streamed
)

func (r *reader) errorf(format string, args ...any) error {
	return fmt.Errorf("offset %d: %w", r.pos, fmt.Errorf(format, args...))
}

func (r *reader) space() {
	for r.pos < len(r.data) {
		switch r.data[r.pos] {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return
		}
	}
}

// peek returns the first byte of the next token, 0 at the end.
func (r *reader) peek() byte {
	r.space()
	if r.pos == len(r.data) {
		return 0
	}
	return r.data[r.pos]
}

func (r *reader) expect(c byte) error {
	if got := r.peek(); got != c {
		if r.pos == len(r.data) {
			return r.errorf("JSON ends where %q should be", c)
		}
		return r.errorf("JSON has %q where %q should be", got, c)
	}
	r.pos++
	return nil
}

// end checks that nothing follows the value.
func (r *reader) end() error {
	if r.peek(); r.pos != len(r.data) {
		return r.errorf("JSON has data after its end")
	}
	return nil
}

// enter and leave count nesting.
func (r *reader) enter(c byte) error {
	if err := r.expect(c); err != nil {
		return err
	}
	if r.depth++; r.depth > maxDepth {
		return r.errorf("JSON is nested deeper than %d", maxDepth)
	}
	return nil
}

// more consumes a comma (true) or the closing byte (false); first is true before the first element.
func (r *reader) more(first bool, closing byte) (bool, error) {
	switch c := r.peek(); {
	case c == closing:
		r.pos++
		r.depth--
		return false, nil
	case first:
		return true, nil
	case c == ',':
		r.pos++
		if r.peek() == closing {
			return false, r.errorf("JSON has a comma before %q", closing)
		}
		return true, nil
	}
	return false, r.expect(closing)
}

// object calls field for each key; field must consume the value. key is valid until the next string is read.
func (r *reader) object(field func(key []byte) error) error {
	if err := r.enter('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		if more, err := r.more(first, '}'); !more {
			return err
		}
		key, err := r.str()
		if err != nil {
			return err
		}
		if err := r.expect(':'); err != nil {
			return err
		}
		if err := field(key); err != nil {
			return err
		}
	}
}

// array calls element before each element, which it must consume.
func (r *reader) array(element func() error) error {
	if err := r.enter('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		if more, err := r.more(first, ']'); !more {
			return err
		}
		if err := element(); err != nil {
			return err
		}
	}
}

// str reads a string. The result points into the input, or into r.buf when there were escapes, so it is valid until
// the next call.
func (r *reader) str() ([]byte, error) {
	if err := r.expect('"'); err != nil {
		return nil, err
	}
	start := r.pos
	ascii := byte(0)
	for i := start; i < len(r.data); i++ {
		c := r.data[i]
		switch {
		case c == '"':
			s := r.data[start:i]
			if ascii >= utf8.RuneSelf && !utf8.Valid(s) {
				return nil, r.errorf("JSON string is not UTF-8")
			}
			r.pos = i + 1
			return s, nil
		case c == '\\':
			return r.escaped(start, i)
		case c < ' ':
			r.pos = i
			return nil, r.errorf("JSON string has the control character %q", c)
		}
		ascii |= c
	}
	return nil, r.errorf("JSON string has no end")
}

// escaped finishes a string that starts at start and whose first backslash is at i.
func (r *reader) escaped(start, i int) ([]byte, error) {
	buf := append(r.buf[:0], r.data[start:i]...)
	for i < len(r.data) {
		c := r.data[i]
		switch {
		case c == '"':
			r.pos, r.buf = i+1, buf
			if !utf8.Valid(buf) {
				return nil, r.errorf("JSON string is not UTF-8")
			}
			return buf, nil
		case c < ' ':
			r.pos = i
			return nil, r.errorf("JSON string has the control character %q", c)
		case c != '\\':
			buf = append(buf, c)
			i++
			continue
		}
		r.pos = i
		if i+1 >= len(r.data) {
			break
		}
		i += 2
		switch e := r.data[i-1]; e {
		case '"', '\\', '/':
			buf = append(buf, e)
		case 'b':
			buf = append(buf, '\b')
		case 'f':
			buf = append(buf, '\f')
		case 'n':
			buf = append(buf, '\n')
		case 'r':
			buf = append(buf, '\r')
		case 't':
			buf = append(buf, '\t')
		case 'u':
			u, ok := r.hex4(i)
			if !ok {
				return nil, r.errorf("JSON string has a malformed \\u escape")
			}
			i += 4
			if utf16.IsSurrogate(u) {
				low, ok := rune(0), false
				if i+1 < len(r.data) && r.data[i] == '\\' && r.data[i+1] == 'u' {
					low, ok = r.hex4(i + 2)
				}
				if u = utf16.DecodeRune(u, low); !ok || u == utf8.RuneError {
					return nil, r.errorf("JSON string has half a surrogate pair")
				}
				i += 6
			}
			buf = utf8.AppendRune(buf, u)
		default:
			return nil, r.errorf("JSON string has the unknown escape \\%c", e)
		}
	}
	return nil, r.errorf("JSON string has no end")
}

func (r *reader) hex4(i int) (rune, bool) {
	if i+4 > len(r.data) {
		return 0, false
	}
	var u rune
	for _, c := range r.data[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			u = u<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			u = u<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			u = u<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return u, true
}

// id reads a token id: an integer of 0 to 2^31-1.
func (r *reader) id() (int32, error) {
	r.space()
	start := r.pos
	n := int64(0)
	for r.pos < len(r.data) && '0' <= r.data[r.pos] && r.data[r.pos] <= '9' {
		if n = n*10 + int64(r.data[r.pos]-'0'); n > math.MaxInt32 {
			return 0, r.errorf("id is larger than %d", math.MaxInt32)
		}
		r.pos++
	}
	digits := r.data[start:r.pos]
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' ||
		r.pos < len(r.data) && bytes.IndexByte([]byte(".eE"), r.data[r.pos]) >= 0 {
		return 0, r.errorf("id is not a non-negative integer")
	}
	return int32(n), nil
}

func (r *reader) literal(word string) error {
	if !bytes.HasPrefix(r.data[r.pos:], []byte(word)) {
		return r.errorf("JSON value is malformed")
	}
	r.pos += len(word)
	return nil
}

func (r *reader) boolean() (bool, error) {
	if r.peek() == 't' {
		return true, r.literal("true")
	}
	return false, r.literal("false")
}

// node is a parsed JSON value: nil, bool, float64, string, []node, or *object.
type node any

// object keeps its keys in order, each once.
type object struct {
	keys   []string
	values map[string]node
}

// value reads any value as a tree.
func (r *reader) value() (node, error) {
	if r.nodes++; r.nodes > maxNodes {
		return nil, r.errorf("JSON has more than %d values in its component descriptions", maxNodes)
	}
	switch c := r.peek(); c {
	case '{':
		o := &object{values: map[string]node{}}
		err := r.object(func(k []byte) error {
			key := string(k)
			if _, ok := o.values[key]; ok {
				return r.errorf("duplicate key %q", key)
			}
			v, err := r.value()
			o.keys, o.values[key] = append(o.keys, key), v
			return err
		})
		return o, err
	case '[':
		list := []node{}
		err := r.array(func() error {
			v, err := r.value()
			list = append(list, v)
			return err
		})
		return list, err
	case '"':
		s, err := r.str()
		return string(s), err
	case 't', 'f':
		return r.boolean()
	case 'n':
		return nil, r.literal("null")
	default:
		return r.number()
	}
}

// number follows JSON's grammar; strconv alone would take "Inf", "0x10" and "1_0".
func (r *reader) number() (float64, error) {
	start, i := r.pos, r.pos
	digits := func() bool {
		from := i
		for i < len(r.data) && '0' <= r.data[i] && r.data[i] <= '9' {
			i++
		}
		return i > from
	}
	at := func(set string) bool {
		if i < len(r.data) && bytes.IndexByte([]byte(set), r.data[i]) >= 0 {
			i++
			return true
		}
		return false
	}
	at("-")
	ok := at("0") || digits()
	if ok && at(".") {
		ok = digits()
	}
	if ok && at("eE") {
		at("+-")
		ok = digits()
	}
	if !ok {
		return 0, r.errorf("JSON value is malformed")
	}
	f, err := strconv.ParseFloat(string(r.data[start:i]), 64)
	if err != nil {
		return 0, r.errorf("JSON number %s: %v", r.data[start:i], err)
	}
	r.pos = i
	return f, nil
}
