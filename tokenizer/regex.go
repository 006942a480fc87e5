package tokenizer

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"unicode/utf8"
)

// pattern is what Split and Replace search for: exactly one of the fields is set.
type pattern struct {
	literal string
	regexp  *regexp.Regexp
	scan    scanner
}

// pattern reads {"String": "…"} or {"Regex": "…"}.
func (f *fields) pattern() (p pattern) {
	o := f.object("pattern")
	if f.err != nil {
		return p
	}
	if len(o.obj.keys) != 1 {
		f.fail("pattern has the keys %q, want String or Regex", o.obj.keys)
		return p
	}
	switch key := o.obj.keys[0]; key {
	case "String":
		if p.literal = o.str(key); o.err == nil && p.literal == "" {
			f.fail("an empty pattern is not supported")
		}
	case "Regex":
		source := o.str(key)
		if o.err != nil {
			break
		}
		if p.scan = scanners[source]; p.scan == nil {
			var err error
			if p.regexp, err = compile(source); err != nil {
				f.fail("regex %.500q is not supported: %v", source, err)
			}
		}
	default:
		f.fail("pattern %.200q is not supported, want String or Regex", key)
	}
	if o.err != nil {
		f.fail("%v", o.err)
	}
	return p
}

// maxPattern bounds the length of a pattern: each \p{L} in it becomes some 700 ranges.
const maxPattern = 1024

// compile translates an Oniguruma pattern to Go's regexp. It takes the part of the syntax that means the same in both,
// and refuses the rest: look-around, back references, ^ and $ (which are per line there), \w, \d, \b, \h and POSIX
// classes (Unicode there), (?i) (folds to several characters there), nested classes and &&, possessive quantifiers.
// \p{L}, \p{N}, \p{M} and \s become explicit ranges of the tables in tables.go.
func compile(source string) (*regexp.Regexp, error) {
	if len(source) > maxPattern {
		return nil, fmt.Errorf("it has %d bytes, limit %d", len(source), maxPattern)
	}
	var out strings.Builder
	inClass, canRepeat := false, false
	for i := 0; i < len(source); {
		c, size := utf8.DecodeRuneInString(source[i:])
		rest := source[i+size:]
		from := i
		i += size
		repeatable := true
		switch {
		case c == '\\':
			class, n, err := escape(rest, inClass)
			if err != nil {
				return nil, err
			}
			if n == 1 && (rest[0] == 'A' || rest[0] == 'z') {
				repeatable = false
			}
			out.WriteString(class)
			i += n
		case inClass:
			switch {
			case c == '[' || c == '&' && strings.HasPrefix(rest, "&"):
				return nil, fmt.Errorf("class operator %.2q", source[from:])
			case c == ']':
				inClass = false
				out.WriteByte(']')
			case c == '-':
				out.WriteByte('-')
			default:
				out.WriteString(regexp.QuoteMeta(string(c)))
			}
		case c == '[':
			inClass = true
			out.WriteByte('[')
			if strings.HasPrefix(rest, "^") {
				out.WriteByte('^')
				i++
			}
			if strings.HasPrefix(source[i:], "]") {
				return nil, fmt.Errorf("class that begins with ]")
			}
			if strings.HasPrefix(source[i:], "-") {
				out.WriteString(`\-`)
				i++
			}
		case c == '(':
			out.WriteByte('(')
			if strings.HasPrefix(rest, "?") {
				if !strings.HasPrefix(rest, "?:") {
					return nil, fmt.Errorf("group %.4q", source[from:])
				}
				out.WriteString("?:")
				i += 2
			}
			repeatable = false
		case c == '|':
			out.WriteByte('|')
			repeatable = false
		case c == ')' || c == '.':
			out.WriteRune(c)
		case c == '?' || c == '*' || c == '+' || c == '{':
			n := 0
			if c == '{' {
				var exact, ok bool
				if n, exact, ok = bounds(rest); !ok {
					return nil, fmt.Errorf("quantifier %.8q", source[from:])
				}
				if exact && strings.HasPrefix(rest[n:], "?") {
					return nil, fmt.Errorf("quantifier %.8q", source[from:])
				}
			}
			if strings.HasPrefix(rest[n:], "?") {
				n++
			}
			if !canRepeat {
				return nil, fmt.Errorf("quantifier %.8q has nothing to repeat", source[from:])
			}
			out.WriteString(source[from : i+n])
			i += n
			repeatable = false // a second quantifier would be possessive, or mean different things
		case c == '^' || c == '$':
			return nil, fmt.Errorf("anchor %q", c)
		default:
			out.WriteString(regexp.QuoteMeta(string(c)))
		}
		canRepeat = repeatable && !inClass
	}
	if inClass {
		return nil, fmt.Errorf("class without ]")
	}
	tree, err := syntax.Parse(out.String(), syntax.Perl)
	if err != nil {
		return nil, err
	}
	if repeatsEmpty(tree) {
		return nil, fmt.Errorf("a repeated part can match nothing")
	}
	return regexp.Compile(out.String())
}

// escape translates what follows a backslash and returns how many bytes it took.
func escape(rest string, inClass bool) (string, int, error) {
	if rest == "" {
		return "", 0, fmt.Errorf("backslash at the end")
	}
	switch c := rest[0]; {
	case (c == 'A' || c == 'z') && !inClass:
		return `\` + rest[:1], 1, nil
	case strings.IndexByte("ntrfv", c) >= 0:
		return `\` + rest[:1], 1, nil
	case c == 's' || c == 'S':
		s, err := classSource(space, c == 'S', inClass)
		return s, 1, err
	case c == 'p' || c == 'P':
		for name, bit := range map[string]uint8{"{L}": letter, "{N}": number, "{M}": mark} {
			if strings.HasPrefix(rest[1:], name) {
				s, err := classSource(bit, c == 'P', inClass)
				return s, 1 + len(name), err
			}
		}
		return "", 0, fmt.Errorf("property \\%.12s", rest)
	case c < utf8.RuneSelf && strings.IndexByte("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ", c) >= 0:
		if c == '-' || c == ' ' || c == '&' || c == '~' || c == '#' {
			return `\x{` + fmt.Sprintf("%x", c) + `}`, 1, nil
		}
		return regexp.QuoteMeta(rest[:1]), 1, nil
	}
	return "", 0, fmt.Errorf("escape \\%.1q", rest)
}

// classSource spells a character class as explicit ranges.
func classSource(bit uint8, negated, inClass bool) (string, error) {
	s := classRanges()[bit]
	switch {
	case !inClass && negated:
		return "[^" + s + "]", nil
	case !inClass:
		return "[" + s + "]", nil
	case negated:
		return "", fmt.Errorf("negated class inside a class")
	}
	return s, nil
}

var classRanges = sync.OnceValue(func() map[uint8]string {
	spelled := map[uint8]string{}
	for bit, ranges := range map[uint8]string{
		letter: letterRanges, number: numberRanges, mark: markRanges, space: spaceRanges,
	} {
		var b strings.Builder
		for _, r := range parseRanges(ranges) {
			fmt.Fprintf(&b, `\x{%x}-\x{%x}`, r[0], r[1])
		}
		spelled[bit] = b.String()
	}
	return spelled
})

// bounds measures the rest of {n}, {n,} or {n,m}; exact says that it was {n}.
func bounds(rest string) (length int, exact, ok bool) {
	end := strings.IndexByte(rest, '}')
	if end < 1 || rest[0] == ',' {
		return 0, false, false
	}
	for _, c := range rest[:end] {
		if c != ',' && (c < '0' || c > '9') {
			return 0, false, false
		}
	}
	commas := strings.Count(rest[:end], ",")
	return end + 1, commas == 0, commas <= 1
}

// repeatsEmpty finds a quantifier over something that can match the empty string, where engines differ.
func repeatsEmpty(re *syntax.Regexp) bool {
	for _, sub := range re.Sub {
		if repeatsEmpty(sub) {
			return true
		}
	}
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus, syntax.OpRepeat, syntax.OpQuest:
		return matchesEmpty(re.Sub[0])
	}
	return false
}

func matchesEmpty(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral, syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL, syntax.OpNoMatch:
		return false
	case syntax.OpCapture, syntax.OpPlus:
		return matchesEmpty(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min == 0 || matchesEmpty(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if !matchesEmpty(sub) {
				return false
			}
		}
		return true
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if matchesEmpty(sub) {
				return true
			}
		}
		return false
	}
	return true // anchors, stars, question marks, the empty match
}
