package chat

import (
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file cuts a template into tokens as jinja2's lexer does with trim_blocks and lstrip_blocks on and
// keep_trailing_newline off, which is how transformers sets it up. The states are jinja2's; its regular expressions
// are written out.

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokData
	tokVariableBegin
	tokVariableEnd
	tokBlockBegin
	tokBlockEnd
	tokName
	tokString
	tokInteger
	tokFloat
	tokOperator
)

type token struct {
	kind tokenKind
	line int
	text string // of data, names, strings (unescaped) and operators
	num  value  // of numbers
}

// String is how an error message calls the token.
func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "end of template"
	case tokData:
		return "text"
	case tokVariableBegin:
		return "begin of print statement"
	case tokVariableEnd:
		return "end of print statement"
	case tokBlockBegin:
		return "begin of statement block"
	case tokBlockEnd:
		return "end of statement block"
	case tokString:
		return "string"
	case tokInteger:
		return "integer"
	case tokFloat:
		return "float"
	}
	return t.text
}

type lexer struct {
	src          string
	pos          int
	line         int
	lineStarting bool // the last thing read ended a line: what comes may be indentation of a block
	tokens       []token
}

// lex returns the tokens of a template, ending with one of tokEOF. It panics with an *Error.
func lex(src string) []token {
	if !utf8.ValidString(src) {
		panic(&Error{Line: 1, Msg: "the template is not UTF-8"})
	}
	src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	l := &lexer{src: strings.TrimSuffix(src, "\n"), line: 1, lineStarting: true}
	for l.pos < len(l.src) {
		l.root()
	}
	l.emit(token{kind: tokEOF})
	return l.tokens
}

func (l *lexer) fail(format string, args ...any) { panic(errorAt(l.line, format, args...)) }

func (l *lexer) emit(t token) {
	t.line = l.line
	l.tokens = append(l.tokens, t)
}

// advance moves past n bytes, counting lines.
func (l *lexer) advance(n int) {
	s := l.src[l.pos : l.pos+n]
	l.line += strings.Count(s, "\n")
	l.pos += n
	if n > 0 {
		l.lineStarting = s[n-1] == '\n'
	}
}

// data emits the text before a tag, up to end, as its sign and the options say: "-" strips all space before the tag,
// "+" none, and otherwise a block or comment that is alone in front of its line loses its indentation.
func (l *lexer) data(end int, sign byte, variable bool) {
	text := l.src[l.pos:end]
	kept := text
	switch {
	case sign == '-':
		kept = trimRightSpace(text)
	case sign != '+' && !variable:
		from := strings.LastIndexByte(text, '\n') + 1
		if (from > 0 || l.lineStarting) && from < len(text) && trimLeftSpace(text[from:]) == "" {
			kept = text[:from]
		}
	}
	if kept != "" {
		l.emit(token{kind: tokData, text: kept})
	}
	l.line += strings.Count(text, "\n")
	l.pos = end
}

// root reads text up to a tag, and the tag.
func (l *lexer) root() {
	at := l.pos
	for {
		i := strings.IndexByte(l.src[at:], '{')
		if i < 0 || at+i+1 >= len(l.src) {
			l.emit(token{kind: tokData, text: l.src[l.pos:]})
			l.advance(len(l.src) - l.pos)
			return
		}
		at += i
		if c := l.src[at+1]; c == '{' || c == '%' || c == '#' {
			break
		}
		at++
	}
	if sign, n := matchRaw(l.src[at:], "raw", false); n > 0 {
		l.data(at, sign, false)
		l.advance(n)
		l.raw()
		return
	}
	kind := l.src[at+1]
	var sign byte
	n := 2
	if at+2 < len(l.src) && (l.src[at+2] == '-' || l.src[at+2] == '+') {
		sign, n = l.src[at+2], 3
	}
	l.data(at, sign, kind == '{')
	switch kind {
	case '#':
		l.advance(n)
		l.comment()
	case '{':
		l.emit(token{kind: tokVariableBegin})
		l.advance(n)
		l.tag(false)
	default:
		l.emit(token{kind: tokBlockBegin})
		l.advance(n)
		l.tag(true)
	}
}

// matchRaw matches {% raw %} or {% endraw %} at the start of s and returns the sign after {% and the length, or 0.
// Only the end of an endraw eats the newline after it.
func matchRaw(s, word string, end bool) (sign byte, n int) {
	rest, ok := strings.CutPrefix(s, "{%")
	if !ok {
		return 0, 0
	}
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		sign, rest = rest[0], rest[1:]
	}
	if rest, ok = strings.CutPrefix(trimLeftSpace(rest), word); !ok {
		return 0, 0
	}
	rest = trimLeftSpace(rest)
	if n = blockEnd(rest, "%}", end); n == 0 {
		return 0, 0
	}
	return sign, len(s) - len(rest) + n
}

// blockEnd matches the end of a tag at the start of s, with the space it eats, and returns the length, or 0.
func blockEnd(s, delimiter string, trim bool) int {
	switch {
	case strings.HasPrefix(s, "-"+delimiter):
		return len(s) - len(trimLeftSpace(s[3:]))
	case trim && strings.HasPrefix(s, "+"+delimiter):
		return 3
	case trim && strings.HasPrefix(s, delimiter+"\n"):
		return 3
	case strings.HasPrefix(s, delimiter):
		return 2
	}
	return 0
}

func (l *lexer) comment() {
	if l.pos == len(l.src) {
		return // jinja2 forgives one that begins at the very end
	}
	i := strings.Index(l.src[l.pos:], "#}")
	if i < 0 {
		l.fail("missing end of comment tag")
	}
	if i > 0 && strings.IndexByte("-+", l.src[l.pos+i-1]) >= 0 {
		i--
	}
	l.advance(i)
	l.advance(blockEnd(l.src[l.pos:], "#}", true))
}

func (l *lexer) raw() {
	if l.pos == len(l.src) {
		return
	}
	for at := l.pos; ; at++ {
		i := strings.Index(l.src[at:], "{%")
		if i < 0 {
			l.fail("missing end of raw directive")
		}
		at += i
		if sign, n := matchRaw(l.src[at:], "endraw", true); n > 0 {
			l.data(at, sign, false)
			l.advance(n)
			return
		}
	}
}

// tag reads the tokens of {{ … }} or {% … %}.
func (l *lexer) tag(block bool) {
	var open []byte // the closing brackets still expected
	for {
		if l.pos >= len(l.src) {
			return // the parser says what is missing
		}
		rest := l.src[l.pos:]
		if len(open) == 0 {
			delimiter, kind := "}}", tokVariableEnd
			if block {
				delimiter, kind = "%}", tokBlockEnd
			}
			if n := blockEnd(rest, delimiter, block); n > 0 {
				l.emit(token{kind: kind})
				l.advance(n)
				return
			}
		}
		if n := len(rest) - len(trimLeftSpace(rest)); n > 0 {
			l.advance(n)
			continue
		}
		switch c := rest[0]; {
		case c >= '0' && c <= '9':
			l.number(rest)
		case c == '_' || isASCIILetter(c):
			n := 1
			for n < len(rest) && (rest[n] == '_' || isASCIILetter(rest[n]) || isASCIIDigit(rest[n])) {
				n++
			}
			if n < len(rest) && rest[n] >= utf8.RuneSelf && !isSpace(firstRune(rest[n:])) {
				l.fail("a name that is not ASCII is not supported: %q", rest[:n]+string(firstRune(rest[n:])))
			}
			l.emit(token{kind: tokName, text: rest[:n]})
			l.advance(n)
		case c == '\'' || c == '"':
			l.quoted(rest, c)
		default:
			n := 1
			if len(rest) > 1 {
				switch rest[:2] {
				case "//", "**", "==", "!=", ">=", "<=":
					n = 2
				}
			}
			if c := firstRune(rest); c >= utf8.RuneSelf && unicode.IsLetter(c) {
				l.fail("a name that is not ASCII is not supported: it begins with %q", c)
			}
			if n == 1 && strings.IndexByte("+-/*%~[](){}><=.:|,;", c) < 0 {
				l.fail("unexpected character %q", firstRune(rest))
			}
			switch c {
			case '(':
				open = append(open, ')')
			case '[':
				open = append(open, ']')
			case '{':
				open = append(open, '}')
			case ')', ']', '}':
				if len(open) == 0 {
					l.fail("unexpected '%c'", c)
				}
				if want := open[len(open)-1]; want != c {
					l.fail("unexpected '%c', expected '%c'", c, want)
				}
				open = open[:len(open)-1]
			}
			l.emit(token{kind: tokOperator, text: rest[:n]})
			l.advance(n)
		}
	}
}

func firstRune(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}

func isASCIILetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isASCIIDigit(c byte) bool  { return c >= '0' && c <= '9' }

// digits returns the length of digits with single underscores between them, at the start of s.
func digits(s string) int {
	n := 0
	for n < len(s) && (isASCIIDigit(s[n]) || n > 0 && s[n] == '_' && n+1 < len(s) && isASCIIDigit(s[n+1])) {
		n++
	}
	return n
}

func (l *lexer) number(rest string) {
	if l.pos == 0 || l.src[l.pos-1] != '.' {
		n := digits(rest)
		whole := n
		if n+1 < len(rest) && rest[n] == '.' {
			if d := digits(rest[n+1:]); d > 0 {
				n += 1 + d
			}
		}
		float := n > whole
		if n < len(rest) && rest[n]|0x20 == 'e' {
			e := n + 1
			if e < len(rest) && (rest[e] == '+' || rest[e] == '-') {
				e++
			}
			if d := digits(rest[e:]); d > 0 {
				n, float = e+d, true
			}
		}
		if float {
			f, err := strconv.ParseFloat(strings.ReplaceAll(rest[:n], "_", ""), 64)
			if err != nil {
				l.fail("the number %s is out of range", rest[:n])
			}
			l.emit(token{kind: tokFloat, num: f})
			l.advance(n)
			return
		}
	}
	n := 0
	prefixed := func(chars string) {
		for n = 2; n < len(rest); n++ {
			c := rest[n]
			if c == '_' && n+1 < len(rest) {
				c = rest[n+1]
			}
			if strings.IndexByte(chars, c) < 0 {
				break
			}
			if rest[n] == '_' {
				n++
			}
		}
		if n == 2 {
			n = 1 // the zero alone
		}
	}
	switch {
	case rest[0] != '0':
		n = digits(rest)
	case len(rest) > 2 && rest[1]|0x20 == 'b':
		prefixed("01")
	case len(rest) > 2 && rest[1]|0x20 == 'o':
		prefixed("01234567")
	case len(rest) > 2 && rest[1]|0x20 == 'x':
		prefixed("0123456789abcdefABCDEF")
	default:
		for n = 1; n < len(rest) && (rest[n] == '0' || rest[n] == '_' && n+1 < len(rest) && rest[n+1] == '0'); n++ {
		}
	}
	if n > maxDigits {
		l.fail("a number of %d digits", n)
	}
	text := strings.ReplaceAll(rest[:n], "_", "")
	if strings.Trim(text, "0") == "" {
		text = "0"
	}
	i, ok := new(big.Int).SetString(text, 0)
	if !ok {
		l.fail("bad number %q", text)
	}
	l.emit(token{kind: tokInteger, num: normInt(i)})
	l.advance(n)
}

func (l *lexer) quoted(rest string, quote byte) {
	n := 1
	for n < len(rest) && rest[n] != quote {
		if rest[n] == '\\' {
			n++
		}
		n++
	}
	if n >= len(rest) {
		l.fail("unexpected character %q: the string has no end", quote)
	}
	text := rest[1:n]
	if strings.IndexByte(text, '\\') >= 0 {
		text = l.unescape(text)
	}
	l.emit(token{kind: tokString, text: text})
	l.advance(n + 1)
}

// unescape does what Python does to the string between the quotes:
// .encode("ascii", "backslashreplace").decode("unicode-escape").
func (l *lexer) unescape(s string) string {
	var ascii strings.Builder
	for _, c := range s {
		switch {
		case c < utf8.RuneSelf:
			ascii.WriteByte(byte(c))
		case c < 0x100:
			ascii.WriteString("\\x" + hexDigits(uint32(c), 2))
		case c < 0x10000:
			ascii.WriteString("\\u" + hexDigits(uint32(c), 4))
		default:
			ascii.WriteString("\\U" + hexDigits(uint32(c), 8))
		}
	}
	s = ascii.String()
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++ // the lexer saw to it that a backslash is not the last
		if i >= len(s) {
			l.fail("\\ at end of string")
		}
		switch c := s[i]; c {
		case '\n':
		case '\\', '\'', '"':
			b.WriteByte(c)
		case 'a':
			b.WriteByte('\a')
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'v':
			b.WriteByte('\v')
		case '0', '1', '2', '3', '4', '5', '6', '7':
			n := i + 1
			for n < len(s) && n < i+3 && s[n] >= '0' && s[n] <= '7' {
				n++
			}
			code, _ := strconv.ParseUint(s[i:n], 8, 32)
			b.WriteRune(rune(code))
			i = n - 1
		case 'x', 'u', 'U':
			size := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			if i+size >= len(s) {
				l.fail("truncated \\%c escape", c)
			}
			code, err := strconv.ParseUint(s[i+1:i+1+size], 16, 32)
			if err != nil || code > utf8.MaxRune || s[i+1] == '+' || s[i+1] == '-' {
				l.fail("bad escape \\%s", s[i:i+1+size])
			}
			if code >= 0xD800 && code < 0xE000 {
				l.fail("half a surrogate pair: \\%s", s[i:i+1+size])
			}
			b.WriteRune(rune(code))
			i += size
		case 'N':
			l.fail("\\N escapes are not supported")
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String()
}

func hexDigits(v uint32, n int) string {
	s := strconv.FormatUint(uint64(v), 16)
	return strings.Repeat("0", n-len(s)) + s
}
