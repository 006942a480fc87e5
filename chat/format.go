package chat

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file holds the two ways Python formats strings: "%s" % x and "{}".format(x).

// spec is a format specification; the two ways share it.
type spec struct {
	fill      string
	align     byte // < > ^ =, or 0
	sign      byte // - + or space
	alternate bool // #
	width     int
	grouping  byte // , _ or 0
	precision int  // -1: none
	verb      byte // or 0
}

// percent is s % arg.
func (r *run) percent(s string, arg value) value {
	b := builder{r: r}
	var args []value
	if t, ok := arg.(*tuple); ok {
		args = t.items
	} else {
		args = []value{arg}
	}
	used, named := 0, false
	next := func() value {
		if used >= len(args) {
			r.fail("not enough arguments for format string")
		}
		used++
		return args[used-1]
	}
	count := func(i *int) int {
		if *i < len(s) && s[*i] == '*' {
			*i++
			return r.intArg("%*", next(), 0)
		}
		n := 0
		for *i < len(s) && isASCIIDigit(s[*i]) && n < r.max.text {
			n = n*10 + int(s[*i]-'0')
			*i++
		}
		return n
	}
	for i := 0; i < len(s); {
		if s[i] != '%' {
			n := strings.IndexByte(s[i:], '%')
			if n < 0 {
				n = len(s) - i
			}
			b.write(s[i : i+n])
			i += n
			continue
		}
		i++
		r.step(1)
		sp := spec{fill: " ", align: '>', precision: -1}
		from := missing
		if i < len(s) && s[i] == '(' {
			depth, start := 1, i+1
			for i++; i < len(s) && depth > 0; i++ {
				switch s[i] {
				case '(':
					depth++
				case ')':
					depth--
				}
			}
			if depth > 0 {
				r.fail("incomplete format key")
			}
			d, ok := arg.(*dict)
			if !ok {
				r.fail("format requires a mapping")
			}
			v, ok := d.get(r, s[start:i-1])
			if !ok {
				r.fail("no key %q for the format string", s[start:i-1])
			}
			from, named = v, true
		}
		zero := false
		for ; i < len(s) && strings.IndexByte("#0- +", s[i]) >= 0; i++ {
			switch s[i] {
			case '#':
				sp.alternate = true
			case '0':
				zero = true
			case '-':
				sp.align = '<'
			case '+':
				sp.sign = '+'
			case ' ':
				if sp.sign == 0 {
					sp.sign = ' '
				}
			}
		}
		if sp.width = count(&i); sp.width < 0 {
			sp.width, sp.align = -sp.width, '<'
		}
		if i < len(s) && s[i] == '.' {
			i++
			sp.precision = max(count(&i), 0)
		}
		for i < len(s) && strings.IndexByte("hlL", s[i]) >= 0 {
			i++
		}
		if i >= len(s) {
			r.fail("incomplete format")
		}
		verb := s[i]
		i++
		if verb == '%' {
			b.write("%")
			continue
		}
		if from == missing {
			from = next()
		}
		switch verb {
		case 's', 'r':
			text := r.str(from)
			if verb == 'r' {
				text = r.repr(from)
			}
			b.write(r.formatText(text, sp))
		case 'c':
			text, ok := from.(string)
			if code, isInt := index(from); isInt && code >= 0 && code <= utf8.MaxRune && utf8.ValidRune(rune(code)) {
				text, ok = string(rune(code)), true
			}
			if !ok || utf8.RuneCountInString(text) != 1 {
				r.fail("%%c needs a character")
			}
			sp.precision = -1
			b.write(r.formatText(text, sp))
		case 'd', 'i', 'u', 'x', 'X', 'o':
			_, _, _, kind := number(from)
			if kind == 0 || kind == 2 && verb != 'd' && verb != 'i' && verb != 'u' {
				r.fail("%%%c needs an integer, not %s", verb, describe(from))
			}
			if kind == 2 {
				v, ok := r.toInt(from)
				if !ok {
					r.fail("%%%c: cannot convert %s", verb, r.brief(from))
				}
				from = v
			}
			if verb == 'i' || verb == 'u' {
				verb = 'd'
			}
			digits := r.integerDigits(toBig(from), verb)
			if sp.precision > len(digits) {
				r.alloc(sp.precision)
				digits = strings.Repeat("0", sp.precision-len(digits)) + digits
			}
			b.write(r.formatNumber(toBig(from).Sign() < 0, prefixOf(verb, sp.alternate), digits, sp, zero))
		case 'e', 'E', 'f', 'F', 'g', 'G':
			f, ok := r.toFloat(from)
			if _, isString := from.(string); !ok || isString {
				r.fail("%%%c needs a number, not %s", verb, describe(from))
			}
			if sp.precision < 0 {
				sp.precision = 6
			}
			b.write(r.formatNumber(math.Signbit(f) && !math.IsNaN(f), "", r.floatDigits(f, verb, sp), sp, zero))
		default:
			r.fail("unsupported format character %q", verb)
		}
	}
	if used < len(args) && !named {
		switch arg.(type) {
		case *dict, *list, *intRange, *undefined: // what has a subscript counts as a mapping, which need not be used up
		default:
			r.fail("not all arguments converted during string formatting")
		}
	}
	return b.String()
}

func prefixOf(verb byte, alternate bool) string {
	if !alternate {
		return ""
	}
	switch verb {
	case 'x', 'X', 'o', 'b':
		return "0" + string(verb)
	}
	return ""
}

// integerDigits is the absolute value of i in the base of verb.
func (r *run) integerDigits(i *big.Int, verb byte) string {
	i = new(big.Int).Abs(i)
	switch verb {
	case 'x':
		return i.Text(16)
	case 'X':
		return strings.ToUpper(i.Text(16))
	case 'o':
		return i.Text(8)
	case 'b':
		return i.Text(2)
	}
	return r.bigString(i)
}

// floatDigits is the absolute value of f with a verb of e f g and a precision.
func (r *run) floatDigits(f float64, verb byte, sp spec) string {
	if sp.alternate {
		r.fail("the flag # for floats is not supported")
	}
	if sp.precision > 1000 {
		r.fail("a precision of %d digits is not supported", sp.precision)
	}
	f = math.Abs(f)
	var s string
	switch {
	case math.IsInf(f, 0):
		s = "inf"
	case math.IsNaN(f):
		s = "nan"
	case verb == 'g' || verb == 'G':
		s = strconv.FormatFloat(f, 'g', max(sp.precision, 1), 64)
	default:
		s = strconv.FormatFloat(f, verb|0x20, sp.precision, 64)
	}
	if verb < 'a' {
		s = strings.ToUpper(s)
	}
	return s
}

// formatText pads a text, and cuts it to the precision.
func (r *run) formatText(s string, sp spec) string {
	if sp.precision >= 0 && utf8.RuneCountInString(s) > sp.precision {
		s = string([]rune(s)[:sp.precision])
	}
	return r.padTo(s, sp.width, sp.fill, sp.align)
}

func (r *run) padTo(s string, width int, fill string, align byte) string {
	return r.pad("format", s, width, fill, func(pad, _ int) int {
		switch align {
		case '<':
			return 0
		case '^':
			return pad / 2
		}
		return pad
	})
}

// formatNumber puts sign, prefix and digits together; zero fills with zeros after the sign.
func (r *run) formatNumber(negative bool, prefix, digits string, sp spec, zero bool) string {
	sign := ""
	switch {
	case negative:
		sign = "-"
	case sp.sign == '+' || sp.sign == ' ':
		sign = string(sp.sign)
	}
	if zero && sp.align != '<' && !strings.ContainsAny(digits, "ni") {
		return sign + prefix + r.padTo(digits, sp.width-len(sign)-len(prefix), "0", '>')
	}
	return r.padTo(sign+prefix+digits, sp.width, sp.fill, sp.align)
}

// format is s.format(*args, **kw).
func (r *run) format(s string, args []value, kw []keyword) value {
	auto := 0
	return r.formatFields(s, args, kw, &auto, 0)
}

func (r *run) formatFields(s string, args []value, kw []keyword, auto *int, depth int) string {
	if depth > 1 {
		r.fail("format: nested too deeply")
	}
	b := builder{r: r}
	for i := 0; i < len(s); i++ {
		n := strings.IndexAny(s[i:], "{}")
		if n < 0 {
			b.write(s[i:])
			break
		}
		b.write(s[i : i+n])
		i += n
		r.step(1)
		if i+1 < len(s) && s[i+1] == s[i] {
			b.writeByte(s[i])
			i++
			continue
		}
		if s[i] == '}' {
			r.fail("format: single '}' in the format string")
		}
		open, j := 1, i+1
		for ; j < len(s) && open > 0; j++ {
			switch s[j] {
			case '{':
				open++
			case '}':
				open--
			}
		}
		if open > 0 {
			r.fail("format: expected '}' before the end of the string")
		}
		b.write(r.formatField(s[i+1:j-1], args, kw, auto, depth))
		i = j - 1
	}
	return b.String()
}

// formatField is what stands between braces: name!conversion:specification.
func (r *run) formatField(field string, args []value, kw []keyword, auto *int, depth int) string {
	name, rest := field, ""
	if i := strings.IndexAny(field, "!:"); i >= 0 {
		name, rest = field[:i], field[i:]
	}
	conversion := byte(0)
	if strings.HasPrefix(rest, "!") {
		if len(rest) < 2 || len(rest) > 2 && rest[2] != ':' {
			r.fail("format: bad conversion in %q", field)
		}
		conversion, rest = rest[1], rest[2:]
	}
	rest = strings.TrimPrefix(rest, ":")
	v := r.lookupField(name, args, kw, auto)
	switch conversion {
	case 0:
	case 's':
		v = r.str(v)
	case 'r':
		v = r.repr(v)
	default:
		r.fail("format: the conversion !%c is not supported", conversion)
	}
	if strings.ContainsAny(rest, "{}") {
		rest = r.formatFields(rest, args, kw, auto, depth+1)
	}
	return r.formatValue(v, rest)
}

func (r *run) lookupField(name string, args []value, kw []keyword, auto *int) value {
	first, rest := name, ""
	if i := strings.IndexAny(name, ".["); i >= 0 {
		first, rest = name[:i], name[i:]
	}
	v := missing
	if first == "" || strings.Trim(first, "0123456789") == "" {
		i := *auto
		if first != "" {
			if *auto > 0 || len(first) > 4 {
				r.fail("format: cannot use the field number %q", first)
			}
			i, _ = strconv.Atoi(first)
			*auto = math.MinInt32 // numbered fields: no automatic ones from here
		} else if *auto++; *auto <= 0 {
			r.fail("format: cannot switch from numbered fields to automatic ones")
		}
		if first != "" {
			*auto = math.MinInt32
		}
		if i < 0 || i >= len(args) {
			r.fail("format: no argument %d", i)
		}
		v = args[i]
	} else {
		for _, k := range kw {
			if k.name == first {
				v = k.value
			}
		}
		if v == missing {
			r.fail("format: no argument %q", first)
		}
	}
	for rest != "" {
		if rest[0] == '.' {
			n := strings.IndexAny(rest[1:], ".[")
			if n < 0 {
				n = len(rest) - 1
			}
			v = r.getAttr(v, rest[1:1+n])
			rest = rest[1+n:]
			continue
		}
		n := strings.IndexByte(rest, ']')
		if rest[0] != '[' || n < 2 {
			r.fail("format: bad field %q", name)
		}
		var key value = rest[1:n]
		if strings.Trim(rest[1:n], "0123456789") == "" && n < 8 {
			i, _ := strconv.Atoi(rest[1:n])
			key = int64(i)
		}
		v = r.getItem(v, key)
		rest = rest[n+1:]
	}
	return v
}

// parseSpec reads [[fill]align][sign][#][0][width][grouping][.precision][type].
func (r *run) parseSpec(s string) spec {
	sp := spec{fill: " ", precision: -1}
	whole := s
	aligned := func(c byte) bool { return strings.IndexByte("<>^=", c) >= 0 }
	if _, n := utf8.DecodeRuneInString(s); len(s) > n && aligned(s[n]) && s != "" {
		sp.fill, sp.align, s = s[:n], s[n], s[n+1:]
	} else if s != "" && aligned(s[0]) {
		sp.align, s = s[0], s[1:]
	}
	if s != "" && strings.IndexByte("+- ", s[0]) >= 0 {
		sp.sign, s = s[0], s[1:]
	}
	if strings.HasPrefix(s, "#") {
		sp.alternate, s = true, s[1:]
	}
	if strings.HasPrefix(s, "0") {
		if sp.align == 0 {
			sp.fill, sp.align = "0", '='
		}
		s = s[1:]
	}
	number := func() int {
		n, i := 0, 0
		for ; i < len(s) && isASCIIDigit(s[i]) && n < r.max.text; i++ {
			n = n*10 + int(s[i]-'0')
		}
		if s = s[i:]; i == 0 {
			return -1
		}
		return n
	}
	sp.width = max(number(), 0)
	if s != "" && (s[0] == ',' || s[0] == '_') {
		sp.grouping, s = s[0], s[1:]
	}
	if strings.HasPrefix(s, ".") {
		s = s[1:]
		if sp.precision = number(); sp.precision < 0 {
			r.fail("format: bad specification %q", whole)
		}
	}
	if len(s) == 1 {
		sp.verb, s = s[0], ""
	}
	if s != "" {
		r.fail("format: bad specification %q", whole)
	}
	return sp
}

// formatValue is format(v, specification).
func (r *run) formatValue(v value, specification string) string {
	if specification == "" {
		return r.str(v)
	}
	sp := r.parseSpec(specification)
	bad := func() { r.fail("format: the specification %q does not fit %s", specification, describe(v)) }
	if s, ok := v.(string); ok {
		if sp.verb != 0 && sp.verb != 's' || sp.sign != 0 || sp.alternate || sp.grouping != 0 {
			bad()
		}
		switch sp.align {
		case '=':
			if sp.fill != "0" || specification[0] != '0' {
				bad()
			}
			sp.align = '<' // a zero before the width fills, but a text stays at the left
		case 0:
			sp.align = '<'
		}
		return r.formatText(s, sp)
	}
	_, _, f, kind := number(v)
	if kind == 0 {
		bad()
	}
	verb := sp.verb
	var digits, prefix string
	negative := false
	switch {
	case kind == 1 && (verb == 0 || strings.IndexByte("dxXob", verb) >= 0):
		if sp.precision >= 0 {
			bad()
		}
		i := toBig(v)
		digits, prefix, negative = r.integerDigits(i, verb), prefixOf(verb, sp.alternate), i.Sign() < 0
	case strings.IndexByte("eEfFgG%", verb) >= 0 && verb != 0:
		if sp.precision < 0 {
			sp.precision = 6
		}
		f, _ = r.toFloat(v)
		if verb == '%' {
			digits = r.floatDigits(f*100, 'f', sp) + "%"
		} else {
			digits = r.floatDigits(f, verb, sp)
		}
		negative = math.Signbit(f) && !math.IsNaN(f)
	case kind == 2 && verb == 0 && sp.precision < 0 && !sp.alternate:
		digits, negative = floatRepr(math.Abs(f)), math.Signbit(f) && !math.IsNaN(f)
	case kind == 2 && verb == 0:
		r.fail("format: a precision without a type is not supported for a float")
	default:
		bad()
	}
	if sp.grouping != 0 {
		if sp.align == '=' || sp.grouping == '_' && strings.IndexByte("xXob", verb) >= 0 && verb != 0 || strings.ContainsAny(digits, "nie") {
			bad()
		}
		digits = group(digits, sp.grouping)
	}
	if sp.align == 0 {
		sp.align = '>'
	}
	if sp.align == '=' {
		sign := ""
		if negative {
			sign = "-"
		} else if sp.sign == '+' || sp.sign == ' ' {
			sign = string(sp.sign)
		}
		return sign + prefix + r.padTo(digits, sp.width-len(sign)-len(prefix), sp.fill, '>')
	}
	return r.formatNumber(negative, prefix, digits, sp, false)
}

// group puts a separator between groups of three digits before the point.
func group(digits string, sep byte) string {
	n := strings.IndexAny(digits, ".%")
	if n < 0 {
		n = len(digits)
	}
	var b strings.Builder
	for i := range n {
		if i > 0 && (n-i)%3 == 0 {
			b.WriteByte(sep)
		}
		b.WriteByte(digits[i])
	}
	return b.String() + digits[n:]
}
