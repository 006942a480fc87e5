package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file holds Python's str: its idea of white space, case and lines, and its methods.

// isSpace is str.isspace for one character, and \s of Python's regular expressions.
func isSpace(c rune) bool {
	switch {
	case c >= '\t' && c <= '\r', c >= 0x1c && c <= ' ', c == 0x85, c == 0xa0, c == 0x1680, c >= 0x2000 && c <= 0x200a,
		c == 0x2028, c == 0x2029, c == 0x202f, c == 0x205f, c == 0x3000:
		return true
	}
	return false
}

func trimLeftSpace(s string) string  { return strings.TrimLeftFunc(s, isSpace) }
func trimRightSpace(s string) string { return strings.TrimRightFunc(s, isSpace) }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// charAt returns the character with a code point index, negative from the end.
func charAt(s string, i int) (string, bool) {
	n := len(s)
	if !isASCII(s) {
		n = utf8.RuneCountInString(s)
	}
	if i = wrap(i, n); i < 0 {
		return "", false
	}
	if n == len(s) {
		return s[i : i+1], true
	}
	for ; i > 0; i-- {
		_, size := utf8.DecodeRuneInString(s)
		s = s[size:]
	}
	_, size := utf8.DecodeRuneInString(s)
	return s[:size], true
}

// mapCase maps characters one by one, with the exceptions where Python gives several characters or, for its version of
// Unicode, another one than Go.
func mapCase(s string, simple func(rune) rune, special map[rune]string) string {
	if isASCII(s) {
		return strings.Map(simple, s)
	}
	var b strings.Builder
	for _, c := range s {
		if to, ok := special[c]; ok {
			b.WriteString(to)
		} else {
			b.WriteRune(simple(c))
		}
	}
	return b.String()
}

func toUpper(s string) string { return mapCase(s, unicode.ToUpper, specialUpper) }

// toLower is str.lower: a capital sigma at the end of a word becomes a final one.
func toLower(s string) string {
	if !strings.ContainsRune(s, 'Σ') {
		return mapCase(s, unicode.ToLower, specialLower)
	}
	runes := []rune(s)
	var b strings.Builder
	for i, c := range runes {
		b.WriteString(lowerRune(runes, i, c))
	}
	return b.String()
}

func lowerRune(runes []rune, i int, c rune) string {
	if c == 'Σ' {
		return string(lowerSigma(runes, i))
	}
	if to, ok := specialLower[c]; ok {
		return to
	}
	return string(unicode.ToLower(c))
}

// lowerSigma decides as CPython's handle_capital_sigma does: final if a cased letter comes before and none after, where
// case-ignorable characters do not count.
func lowerSigma(runes []rune, i int) rune {
	j := i - 1
	for j >= 0 && caseIgnorable(runes[j]) {
		j--
	}
	if j < 0 || !cased(runes[j]) {
		return 'σ'
	}
	j = i + 1
	for j < len(runes) && caseIgnorable(runes[j]) {
		j++
	}
	if j < len(runes) && cased(runes[j]) {
		return 'σ'
	}
	return 'ς'
}

func caseIgnorable(c rune) bool {
	return unicode.In(c, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) ||
		strings.ContainsRune("'.:^`\u00b7\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a\u0387\u055f\u05f4", c)
}

func isLower(c rune) bool { return unicode.In(c, unicode.Ll, unicode.Other_Lowercase) }
func isUpper(c rune) bool { return unicode.In(c, unicode.Lu, unicode.Other_Uppercase) }
func cased(c rune) bool   { return isLower(c) || isUpper(c) || unicode.Is(unicode.Lt, c) }

func titleRune(c rune) string {
	if to, ok := specialTitle[c]; ok {
		return to
	}
	return string(unicode.ToTitle(c))
}

// capitalize is str.capitalize: the first character in title case, the others in lower case.
func capitalize(s string) string {
	runes := []rune(s)
	var b strings.Builder
	for i, c := range runes {
		if i == 0 {
			b.WriteString(titleRune(c))
		} else {
			b.WriteString(lowerRune(runes, i, c))
		}
	}
	return b.String()
}

// titleCase is str.title: title case after what is not cased, lower case after what is.
func titleCase(s string) string {
	runes := []rune(s)
	var b strings.Builder
	previous := false
	for i, c := range runes {
		if previous {
			b.WriteString(lowerRune(runes, i, c))
		} else {
			b.WriteString(titleRune(c))
		}
		previous = cased(c)
	}
	return b.String()
}

func swapCase(s string) string {
	runes := []rune(s)
	var b strings.Builder
	for i, c := range runes {
		switch {
		case isUpper(c):
			b.WriteString(lowerRune(runes, i, c))
		case isLower(c):
			if to, ok := specialUpper[c]; ok {
				b.WriteString(to)
			} else {
				b.WriteRune(unicode.ToUpper(c))
			}
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// splitLines is str.splitlines: the boundaries are those of Python, and there is no empty line at the end.
func splitLines(s string, keepEnds bool) []string {
	var lines []string
	for start, i := 0, 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		switch c {
		case '\n', '\v', '\f', '\r', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
			end := i + size
			if c == '\r' && strings.HasPrefix(s[end:], "\n") {
				end++
			}
			if keepEnds {
				lines = append(lines, s[start:end])
			} else {
				lines = append(lines, s[start:i])
			}
			start, i = end, end
		default:
			i += size
		}
		if i >= len(s) && start < len(s) {
			lines = append(lines, s[start:])
		}
	}
	return lines
}

// split is str.split and, from the right, str.rsplit. An absent separator is white space; max < 0 is no limit.
func split(s, sep string, hasSep bool, max int, right bool) []string {
	if hasSep {
		if !right {
			return strings.SplitN(s, sep, max+1)
		}
		var parts []string
		for ; max != 0; max-- {
			i := strings.LastIndex(s, sep)
			if i < 0 {
				break
			}
			parts = append(parts, s[i+len(sep):])
			s = s[:i]
		}
		parts = append(parts, s)
		reverse(parts)
		return parts
	}
	var parts []string
	if right {
		for s = trimRightSpace(s); s != ""; s = trimRightSpace(s) {
			i := strings.LastIndexFunc(s, isSpace)
			if max == 0 || i < 0 {
				parts = append(parts, s)
				break
			}
			_, size := utf8.DecodeRuneInString(s[i:])
			parts = append(parts, s[i+size:])
			s = s[:i]
			max--
		}
		reverse(parts)
		return parts
	}
	for s = trimLeftSpace(s); s != ""; s = trimLeftSpace(s) {
		i := strings.IndexFunc(s, isSpace)
		if max == 0 || i < 0 {
			parts = append(parts, s)
			break
		}
		parts = append(parts, s[:i])
		s = s[i:]
		max--
	}
	return parts
}

func reverse(s []string) {
	for i, j := 0, len(s)-1; i < j; i, j = i+1, j-1 {
		s[i], s[j] = s[j], s[i]
	}
}

func (r *run) stringList(parts []string) *list {
	r.alloc(len(parts) * 2 * valueSize)
	r.step(1 + len(parts)>>3)
	items := make([]value, len(parts))
	for i, p := range parts {
		items[i] = p
	}
	return &list{items}
}

// simpleMethod is a method without arguments that maps a string.
func simpleMethod(name string, f func(string) string) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		r.bind(name, args, kw, 0)
		s := self.(string)
		r.scan(len(s))
		r.alloc(3 * len(s))
		return f(s)
	}
}

// classMethod is a method that asks whether all characters are of a class, and there is one.
func classMethod(name string, is func(r *run, c rune) bool) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		r.bind(name, args, kw, 0)
		s := self.(string)
		r.scan(len(s))
		for _, c := range s {
			if !is(r, c) {
				return false
			}
		}
		return s != ""
	}
}

// caseMethod is islower and isupper: there is a character of this case and none of the others.
func caseMethod(name string, is func(rune) bool) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		r.bind(name, args, kw, 0)
		return hasCase(self.(string), is)
	}
}

func hasCase(s string, is func(rune) bool) bool {
	found := false
	for _, c := range s {
		switch {
		case is(c):
			found = true
		case cased(c):
			return false
		}
	}
	return found
}

func stripMethod(name string, left, right bool) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind(name, args, kw, 0, "/chars")
		return r.strip(name, self.(string), a[0], left, right)
	}
}

func (r *run) strip(name, s string, chars value, left, right bool) string {
	r.scan(len(s))
	in := isSpace
	if chars != missing && chars != nil {
		set := r.stringArg(name, chars, "")
		r.scan(len(s) / 8 * len(set))
		in = func(c rune) bool { return strings.ContainsRune(set, c) }
	}
	if left {
		s = strings.TrimLeftFunc(s, in)
	}
	if right {
		s = strings.TrimRightFunc(s, in)
	}
	return s
}

func splitMethod(name string, right bool) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind(name, args, kw, 0, "sep", "maxsplit")
		s := self.(string)
		r.scan(len(s))
		sep, hasSep := "", a[0] != missing && a[0] != nil
		if hasSep {
			if sep = r.stringArg(name, a[0], ""); sep == "" {
				r.fail("%s: empty separator", name)
			}
		}
		n := r.intArg(name, a[1], -1)
		if n < 0 || n > len(s) {
			n = -2 // SplitN(-1) and, counted down, never 0
		}
		// The parts are counted before they are made: each costs far more than its bytes.
		parts := len(s)
		if hasSep {
			parts = strings.Count(s, sep)
		} else {
			parts /= 2
		}
		if n >= 0 {
			parts = min(parts, n)
		}
		r.alloc((parts + 1) * 2 * valueSize)
		return r.stringList(split(s, sep, hasSep, n, right))
	}
}

// findMethod is find, rfind, index and rindex; indices are of characters.
func findMethod(name string, last, must bool) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind(name, args, kw, 1, "/sub", "/start", "/end")
		s, sub := self.(string), r.stringArg(name, a[0], "")
		r.scan(len(s))
		text, from, ok := r.window(s, a[1], a[2])
		i := -1
		if ok && last {
			i = strings.LastIndex(text, sub)
		} else if ok {
			i = strings.Index(text, sub)
		}
		if i < 0 {
			if must {
				r.fail("%s: substring not found", name)
			}
			return int64(-1)
		}
		return int64(from + utf8.RuneCountInString(text[:i]))
	}
}

// window is s[start:end] by characters, and the index of its first character; ok is false if start is past the end.
func (r *run) window(s string, start, end value) (text string, from int, ok bool) {
	if (start == missing || start == nil) && (end == missing || end == nil) {
		return s, 0, true
	}
	runes := []rune(s)
	r.alloc(4 * len(s))
	if i, isInt := index(start); isInt && i > len(runes) {
		return "", 0, false
	}
	from, to := r.span(len(runes), start, end)
	if from > to {
		return "", 0, false
	}
	return string(runes[from:to]), from, true
}

func affixMethod(name string, has func(s, affix string) bool) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind(name, args, kw, 1, "/affix", "/start", "/end")
		s, _, inside := r.window(self.(string), a[1], a[2])
		affixes := []value{a[0]}
		if t, ok := a[0].(*tuple); ok {
			affixes = t.items
		}
		for _, v := range affixes {
			affix := r.stringArg(name, v, "")
			r.scan(len(affix))
			if inside && has(s, affix) {
				return true
			}
		}
		return false
	}
}

func partitionMethod(name string, index func(s, sep string) int, last bool) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind(name, args, kw, 1, "/sep")
		s, sep := self.(string), r.stringArg(name, a[0], "")
		if sep == "" {
			r.fail("%s: empty separator", name)
		}
		r.scan(len(s))
		i := index(s, sep)
		switch {
		case i >= 0:
			return &tuple{items: []value{s[:i], sep, s[i+len(sep):]}}
		case last:
			return &tuple{items: []value{"", "", s}}
		}
		return &tuple{items: []value{s, "", ""}}
	}
}

// padMethod is ljust, rjust and center; left says how much of the padding goes to the left.
func padMethod(name string, left func(pad, width int) int) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind(name, args, kw, 1, "/width", "/fillchar")
		return r.pad(name, self.(string), r.intArg(name, a[0], 0), r.stringArg(name, a[1], " "), left)
	}
}

func (r *run) pad(name, s string, width int, fill string, left func(pad, width int) int) string {
	if utf8.RuneCountInString(fill) != 1 {
		r.fail("%s: the fill character must be exactly one character", name)
	}
	r.scan(len(s))
	n := width - utf8.RuneCountInString(s)
	if n <= 0 {
		return s
	}
	r.alloc(r.repeated(n, len(fill)) + len(s))
	l := left(n, width)
	return strings.Repeat(fill, l) + s + strings.Repeat(fill, n-l)
}

func centerLeft(pad, width int) int { return pad/2 + pad&width&1 }

func (r *run) replace(s, old, new string, count int) string {
	r.scan(len(s))
	if count == 0 || old == new {
		return s
	}
	n := strings.Count(s, old)
	if count > 0 {
		n = min(n, count)
	}
	if n == 0 {
		return s
	}
	r.step(1 + n>>3)
	size := len(s) + r.repeated(n, len(new))
	if size > r.max.text {
		r.fail("a string is longer than %d MiB", r.max.text>>20)
	}
	r.alloc(size)
	return strings.Replace(s, old, new, n)
}

func isDigitClass(r *run, c rune) bool {
	switch {
	case c < utf8.RuneSelf:
		return c >= '0' && c <= '9'
	case unicode.Is(unicode.Nd, c):
		return true
	case unicode.Is(unicode.N, c):
		r.fail("whether %q is a digit is not supported", c)
	}
	return false
}

var stringMethods map[string]method

func init() { // not a composite literal: format reaches back to it
	stringMethods = map[string]method{
		"upper":      simpleMethod("upper", toUpper),
		"lower":      simpleMethod("lower", toLower),
		"capitalize": simpleMethod("capitalize", capitalize),
		"title":      simpleMethod("title", titleCase),
		"swapcase":   simpleMethod("swapcase", swapCase),
		"strip":      stripMethod("strip", true, true),
		"lstrip":     stripMethod("lstrip", true, false),
		"rstrip":     stripMethod("rstrip", false, true),
		"split":      splitMethod("split", false),
		"rsplit":     splitMethod("rsplit", true),
		"find":       findMethod("find", false, false),
		"rfind":      findMethod("rfind", true, false),
		"index":      findMethod("index", false, true),
		"rindex":     findMethod("rindex", true, true),
		"startswith": affixMethod("startswith", strings.HasPrefix),
		"endswith":   affixMethod("endswith", strings.HasSuffix),
		"partition":  partitionMethod("partition", strings.Index, false),
		"rpartition": partitionMethod("rpartition", strings.LastIndex, true),
		"ljust":      padMethod("ljust", func(int, int) int { return 0 }),
		"rjust":      padMethod("rjust", func(pad, _ int) int { return pad }),
		"center":     padMethod("center", centerLeft),
		"isspace":    classMethod("isspace", func(_ *run, c rune) bool { return isSpace(c) }),
		"isascii": func(r *run, self value, args []value, kw []keyword) value {
			r.bind("isascii", args, kw, 0)
			return isASCII(self.(string))
		},
		"isalpha":   classMethod("isalpha", func(_ *run, c rune) bool { return unicode.IsLetter(c) }),
		"isalnum":   classMethod("isalnum", func(_ *run, c rune) bool { return unicode.IsLetter(c) || unicode.IsNumber(c) }),
		"isdecimal": classMethod("isdecimal", func(_ *run, c rune) bool { return unicode.Is(unicode.Nd, c) }),
		"isdigit":   classMethod("isdigit", isDigitClass),
		"isnumeric": classMethod("isnumeric", func(r *run, c rune) bool {
			if unicode.Is(unicode.Han, c) {
				r.fail("whether %q is numeric is not supported", c)
			}
			return unicode.IsNumber(c)
		}),
		"isprintable": func(r *run, self value, args []value, kw []keyword) value {
			r.bind("isprintable", args, kw, 0)
			return strings.IndexFunc(self.(string), func(c rune) bool { return !unicode.IsPrint(c) }) < 0
		},
		"islower": caseMethod("islower", isLower),
		"isupper": caseMethod("isupper", isUpper),
		"istitle": func(r *run, self value, args []value, kw []keyword) value {
			r.bind("istitle", args, kw, 0)
			found, previous := false, false
			for _, c := range self.(string) {
				switch {
				case isUpper(c) || unicode.Is(unicode.Lt, c):
					if previous {
						return false
					}
					found, previous = true, true
				case isLower(c):
					if !previous {
						return false
					}
					found, previous = true, true
				default:
					previous = false
				}
			}
			return found
		},
		"splitlines": func(r *run, self value, args []value, kw []keyword) value {
			a := r.bind("splitlines", args, kw, 0, "keepends")
			s := self.(string)
			r.scan(len(s))
			r.alloc((strings.Count(s, "\n") + 1) * 2 * valueSize)
			return r.stringList(splitLines(s, r.truthArg(a[0], false)))
		},
		"replace": func(r *run, self value, args []value, kw []keyword) value {
			a := r.bind("replace", args, kw, 2, "/old", "/new", "/count")
			return r.replace(self.(string), r.stringArg("replace", a[0], ""), r.stringArg("replace", a[1], ""), r.intArg("replace", a[2], -1))
		},
		"count": func(r *run, self value, args []value, kw []keyword) value {
			a := r.bind("count", args, kw, 1, "/sub", "/start", "/end")
			s, _, ok := r.window(self.(string), a[1], a[2])
			r.scan(len(s))
			if !ok {
				return int64(0)
			}
			return int64(strings.Count(s, r.stringArg("count", a[0], "")))
		},
		"join": func(r *run, self value, args []value, kw []keyword) value {
			a := r.bind("join", args, kw, 1, "/iterable")
			b := builder{r: r}
			next := r.mustIterate(a[0])
			for first := true; ; first = false {
				item, ok := next()
				if !ok {
					return b.String()
				}
				if !first {
					b.write(self.(string))
				}
				b.write(r.stringArg("join", item, ""))
			}
		},
		"removeprefix": func(r *run, self value, args []value, kw []keyword) value {
			a := r.bind("removeprefix", args, kw, 1, "/prefix")
			return strings.TrimPrefix(self.(string), r.stringArg("removeprefix", a[0], ""))
		},
		"removesuffix": func(r *run, self value, args []value, kw []keyword) value {
			a := r.bind("removesuffix", args, kw, 1, "/suffix")
			return strings.TrimSuffix(self.(string), r.stringArg("removesuffix", a[0], ""))
		},
		"zfill": func(r *run, self value, args []value, kw []keyword) value {
			a := r.bind("zfill", args, kw, 1, "/width")
			s, sign := self.(string), ""
			if s != "" && (s[0] == '+' || s[0] == '-') {
				sign, s = s[:1], s[1:]
			}
			return sign + r.pad("zfill", s, r.intArg("zfill", a[0], 0)-len(sign), "0", func(pad, _ int) int { return pad })
		},
		"expandtabs": func(r *run, self value, args []value, kw []keyword) value {
			a := r.bind("expandtabs", args, kw, 0, "tabsize")
			size := r.intArg("expandtabs", a[0], 8)
			b := builder{r: r}
			column := 0
			for _, c := range self.(string) {
				switch c {
				case '\t':
					if size > 0 {
						n := size - column%size
						r.alloc(n)
						b.write(strings.Repeat(" ", n))
						column += n
					}
				case '\n', '\r':
					b.write(string(c))
					column = 0
				default:
					b.write(string(c))
					column++
				}
			}
			return b.String()
		},
		"format": func(r *run, self value, args []value, kw []keyword) value {
			return r.format(self.(string), args, kw)
		},
	}
}
