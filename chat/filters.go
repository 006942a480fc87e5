package chat

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file holds the filters of `x | name`: those of jinja2, with tojson as transformers has it. Filters that are
// random, or print Python objects or HTML links, are refused when they are used.

type filterFunc func(r *run, x value, args []value, kw []keyword) value

var filters map[string]filterFunc

func (r *run) applyFilter(name string, x value, args []value, kw []keyword) value {
	f, ok := filters[name]
	if !ok {
		r.fail("no filter named %q", name)
	}
	return f(r, x, args, kw)
}

// textFilter is a filter without arguments on str(x).
func textFilter(name string, f func(string) string) filterFunc {
	return func(r *run, x value, args []value, kw []keyword) value {
		r.bind(name, args, kw, 0)
		s := r.soft(x)
		r.scan(len(s))
		r.alloc(3 * len(s))
		return f(s)
	}
}

// soft is jinja2's soft_str: str(x), which for a safe string would stay a safe string.
func (r *run) soft(x value) string {
	if isMarkup(x) {
		r.fail("a safe string can only be printed or added to")
	}
	return r.str(x)
}

func refused(name string) filterFunc {
	return func(r *run, _ value, _ []value, _ []keyword) value {
		r.fail("the filter %s is not supported", name)
		return nil
	}
}

// getter is make_attrgetter: it reads a path such as "function.name" or "0.id" of a value.
func (r *run) getter(attribute value, fold bool, def value) func(value) value {
	var parts []value
	switch a := attribute.(type) {
	case nil:
	case string:
		for _, part := range strings.Split(a, ".") {
			r.alloc(valueSize)
			if part != "" && strings.IndexFunc(part, func(c rune) bool { return c < '0' || c > '9' }) < 0 {
				i, ok := new(big.Int).SetString(part, 10)
				if !ok || len(part) > maxDigits {
					r.fail("bad attribute %q", part)
				}
				parts = append(parts, normInt(i))
			} else {
				parts = append(parts, part)
			}
		}
	default:
		parts = []value{a}
	}
	return func(x value) value {
		for _, part := range parts {
			r.step(1)
			x = r.getItem(x, part)
			if _, ok := x.(*undefined); ok && def != nil {
				x = def
			}
		}
		if fold {
			if s, ok := x.(string); ok {
				r.scan(len(s))
				r.alloc(len(s))
				return toLower(s)
			}
		}
		return x
	}
}

// multiGetter reads several paths, separated by commas, into a list.
func (r *run) multiGetter(attribute value, fold bool) func(value) value {
	var getters []func(value) value
	if s, ok := attribute.(string); ok {
		for _, path := range strings.Split(s, ",") {
			getters = append(getters, r.getter(path, fold, nil))
		}
	} else {
		getters = append(getters, r.getter(attribute, fold, nil))
	}
	return func(x value) value {
		l := &list{make([]value, len(getters))}
		r.alloc(len(getters) * valueSize)
		for i, get := range getters {
			l.items[i] = get(x)
		}
		return l
	}
}

// given returns an optional argument, or None.
func given(v value) value {
	if v == missing {
		return nil
	}
	return v
}

// sorted sorts a copy of items by a key, stably; reverse keeps the order of equal items, as Python does.
func (r *run) sorted(items []value, key func(value) value, reverse bool) []value {
	type keyed struct{ key, item value }
	r.alloc(len(items) * 2 * valueSize)
	all := make([]keyed, len(items))
	for i, item := range items {
		all[i] = keyed{key(item), item}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		if reverse {
			a, b = b, a
		}
		switch {
		case r.less(a.key, b.key):
			return -1
		case r.less(b.key, a.key):
			return 1
		}
		return 0
	})
	out := make([]value, len(items))
	for i := range all {
		out[i] = all[i].item
	}
	return out
}

// choose is select, reject, selectattr and rejectattr.
func choose(name string, keep, attr bool) filterFunc {
	return func(r *run, x value, args []value, kw []keyword) value {
		var next func() (value, bool)
		var test func(value) bool
		started := false
		start := func() {
			started = true
			if !r.truth(x) {
				next = func() (value, bool) { return nil, false }
				return
			}
			get := func(x value) value { return x }
			rest := args
			if attr {
				if len(rest) == 0 {
					r.fail("%s needs the name of an attribute", name)
				}
				get = r.getter(rest[0], false, nil)
				rest = rest[1:]
			}
			test = func(item value) bool { return r.truth(get(item)) }
			if len(rest) > 0 {
				testName := r.stringArg(name, rest[0], "")
				test = func(item value) bool { return r.applyTest(testName, get(item), rest[1:], kw) }
			}
			next = r.mustIterate(x)
		}
		return r.generate(x, func() (value, bool) {
			if !started {
				start()
			}
			for {
				item, ok := next()
				if !ok {
					return nil, false
				}
				if test(item) == keep {
					return item, true
				}
			}
		})
	}
}

func mapFilter(r *run, x value, args []value, kw []keyword) value {
	var next func() (value, bool)
	var f func(value) value
	start := func() {
		if !r.truth(x) {
			next = func() (value, bool) { return nil, false }
			return
		}
		hasAttribute := slices.ContainsFunc(kw, func(k keyword) bool { return k.name == "attribute" })
		if len(args) == 0 && hasAttribute {
			a := r.bind("map", nil, kw, 1, "attribute", "default")
			f = r.getter(a[0], false, given(a[1]))
		} else {
			if len(args) == 0 {
				r.fail("map needs the name of a filter")
			}
			name := r.stringArg("map", args[0], "")
			f = func(item value) value { return r.applyFilter(name, item, args[1:], kw) }
		}
		next = r.mustIterate(x)
	}
	return r.generate(x, func() (value, bool) {
		if next == nil {
			start()
		}
		item, ok := next()
		if !ok {
			return nil, false
		}
		return f(item), true
	})
}

func (r *run) generatorOf(items []value, kind string) *generator {
	next, _ := r.iterate(&list{items})
	return &generator{next: next, kind: kind}
}

// extreme is min and max.
func extreme(name string, better func(r *run, a, b value) bool) filterFunc {
	return func(r *run, x value, args []value, kw []keyword) value {
		a := r.bind(name, args, kw, 0, "case_sensitive", "attribute")
		key := r.getter(given(a[1]), !r.truthArg(a[0], false), nil)
		next := r.mustIterate(x)
		best, ok := next()
		if !ok {
			return &undefined{"no aggregated item, sequence was empty"}
		}
		bestKey := key(best)
		for {
			item, ok := next()
			if !ok {
				return best
			}
			if k := key(item); better(r, k, bestKey) {
				best, bestKey = item, k
			}
		}
	}
}

// toInt is Python's int(x); ok is false where it raises TypeError or ValueError.
func (r *run) toInt(x value) (v value, ok bool) {
	switch x := x.(type) {
	case bool, int64, *big.Int:
		return r.unary("+", x), true
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, false
		}
		i, _ := big.NewFloat(math.Trunc(x)).Int(nil)
		return normInt(i), true
	case string:
		s, ok := pythonNumber(r, x)
		sign := strings.TrimLeft(s, "+-")
		if !ok || len(s)-len(sign) > 1 || sign == "" || strings.Trim(sign, "0123456789") != "" {
			return nil, false
		}
		if len(sign) > maxDigits {
			return nil, false
		}
		i, ok := new(big.Int).SetString(s, 10)
		if !ok {
			return nil, false
		}
		return normInt(i), true
	case *undefined:
		r.fail("%s", x.hint)
	case markup:
		r.fail("a safe string can only be printed or added to")
	}
	return nil, false
}

// toFloat is Python's float(x).
func (r *run) toFloat(x value) (f float64, ok bool) {
	switch x := x.(type) {
	case string:
		s, ok := pythonNumber(r, x)
		if !ok {
			return 0, false
		}
		switch strings.ToLower(strings.TrimLeft(s, "+-")) {
		case "inf", "infinity", "nan":
			if len(s) > 0 && len(s)-len(strings.TrimLeft(s, "+-")) > 1 {
				return 0, false
			}
			f, err := strconv.ParseFloat(s, 64)
			if err != nil { // a signed nan
				f = math.NaN()
			}
			return f, true
		}
		if s == "" || strings.Trim(s, "0123456789+-.eE") != "" {
			return 0, false
		}
		f, err := strconv.ParseFloat(s, 64)
		return f, err == nil || math.IsInf(f, 0)
	case *undefined:
		r.fail("%s", x.hint)
	case markup:
		r.fail("a safe string can only be printed or added to")
	case *big.Int:
		if x.BitLen() > 1000 {
			r.fail("an integer of %d bits is too large for a float", x.BitLen())
		}
	}
	_, _, f, kind := number(x)
	return f, kind > 0
}

// pythonNumber removes the white space around a number and the underscores between its digits.
func pythonNumber(r *run, s string) (string, bool) {
	s = trimLeftSpace(trimRightSpace(s))
	for i, c := range s {
		switch {
		case c == '_':
			if i == 0 || i+1 >= len(s) || !isASCIIDigit(s[i-1]) || !isASCIIDigit(s[i+1]) {
				return "", false
			}
		case c >= utf8.RuneSelf && unicode.Is(unicode.Nd, c):
			r.fail("a number with the digit %q is not supported", c)
		}
	}
	return strings.ReplaceAll(s, "_", ""), true
}

func (r *run) round(x value, precision int, method string) value {
	switch method {
	case "common", "ceil", "floor":
	default:
		r.fail("the method of round must be common, ceil or floor")
	}
	if precision < 0 || precision > 300 {
		r.fail("round to %d digits is not supported", precision)
	}
	if method != "common" {
		v := r.arithmetic("*", r.mustNumber("round", x), r.arithmetic("**", int64(10), int64(precision)))
		if f, ok := v.(float64); ok {
			if f = math.Floor(f); method == "ceil" {
				f = math.Ceil(v.(float64))
			}
			i, ok := r.toInt(f)
			if !ok {
				r.fail("cannot round %s", floatRepr(f))
			}
			v = i
		}
		return r.arithmetic("/", v, r.arithmetic("**", int64(10), int64(precision)))
	}
	f, ok := x.(float64)
	if !ok {
		return r.unary("+", r.mustNumber("round", x))
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return f
	}
	f, err := strconv.ParseFloat(strconv.FormatFloat(f, 'f', precision, 64), 64)
	if err != nil {
		r.fail("cannot round: %v", err)
	}
	return f
}

func (r *run) mustNumber(fn string, x value) value {
	if !isNumber(x) {
		r.fail("%s needs a number, not %s", fn, describe(x))
	}
	return x
}

// wordTitle is the filter title, which is not str.title: words begin after a space, a hyphen or an opening bracket.
func wordTitle(s string) string {
	isStart := func(c rune) bool { return isSpace(c) || strings.ContainsRune("-({[<", c) }
	var b strings.Builder
	for s != "" {
		n := strings.IndexFunc(s, isStart)
		inWord := n != 0
		if !inWord {
			n = strings.IndexFunc(s, func(c rune) bool { return !isStart(c) })
		}
		if n < 0 {
			n = len(s)
		}
		part := s[:n]
		s = s[n:]
		_, size := utf8.DecodeRuneInString(part)
		b.WriteString(toUpper(part[:size]) + toLower(part[size:]))
	}
	return b.String()
}

func (r *run) indent(s, indention string, first, blank bool) string {
	b := builder{r: r}
	lines := splitLines(s+"\n", false)
	r.alloc(len(lines) * valueSize)
	for i, line := range lines {
		if i > 0 {
			b.write("\n")
		}
		if i == 0 && first || i > 0 && (blank || line != "") {
			b.write(indention)
		}
		b.write(line)
	}
	return b.String()
}

func (r *run) toJSON(x value, args []value, kw []keyword) value {
	a := r.bind("tojson", args, kw, 0, "ensure_ascii", "indent", "separators", "sort_keys")
	d := &dumper{r: r, b: builder{r: r}, ascii: r.truthArg(a[0], false), item: ", ", pair: ": ", sortKeys: r.truthArg(a[3], false)}
	switch indent := given(a[1]).(type) {
	case nil:
	case string:
		d.pretty, d.indent = true, indent
	default:
		n := max(r.intArg("tojson", indent, 0), 0)
		r.alloc(n)
		d.pretty, d.indent = true, strings.Repeat(" ", n)
	}
	if d.pretty {
		d.item = ","
	}
	if sep := given(a[2]); sep != nil {
		items := r.collect(sep)
		if len(items) != 2 {
			r.fail("tojson: separators must be two strings")
		}
		d.item, d.pair = r.stringArg("tojson", items[0], ""), r.stringArg("tojson", items[1], "")
	}
	d.dump(x, 0)
	return d.b.String()
}

var htmlEscapes = strings.NewReplacer("&", "&amp;", ">", "&gt;", "<", "&lt;", "'", "&#39;", `"`, "&#34;")

func escapeFilter(r *run, x value, args []value, kw []keyword) value {
	r.bind("escape", args, kw, 0)
	if isMarkup(x) {
		return x
	}
	s := r.str(x)
	r.alloc(5 * len(s))
	return markup(htmlEscapes.Replace(s))
}

func init() { // not a composite literal: map reaches back to it
	length := func(r *run, x value, args []value, kw []keyword) value {
		r.bind("length", args, kw, 0)
		n := r.length(x)
		if n < 0 {
			r.fail("%s has no length", describe(x))
		}
		return int64(n)
	}
	def := func(r *run, x value, args []value, kw []keyword) value {
		a := r.bind("default", args, kw, 0, "default_value", "boolean")
		if a[0] == missing {
			a[0] = ""
		}
		if _, ok := x.(*undefined); ok || r.truthArg(a[1], false) && !r.truth(x) {
			return a[0]
		}
		return x
	}
	filters = map[string]filterFunc{
		"abs": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("abs", args, kw, 0)
			_, _, f, kind := number(x)
			if kind == 2 {
				return math.Abs(f)
			}
			if compareNumbers(r.mustNumber("abs", x), int64(0)) < 0 {
				return r.unary("-", x)
			}
			return r.unary("+", x)
		},
		"attr": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("attr", args, kw, 1, "name")
			name := r.stringArg("attr", a[0], "")
			if u, ok := x.(*undefined); ok {
				r.fail("%s", u.hint)
			}
			if v, ok := r.attribute(x, name); ok {
				return v
			}
			return &undefined{fmt.Sprintf("%s has no attribute %q", describe(x), name)}
		},
		"batch": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("batch", args, kw, 1, "linecount", "fill_with")
			n, fill := r.intArg("batch", a[0], 0), given(a[1])
			next := r.mustIterate(x)
			var held value
			has := false
			return r.generate(x, func() (value, bool) {
				var row []value
				if has {
					row, has = append(row, held), false
				}
				for {
					item, ok := next()
					if !ok {
						break
					}
					r.alloc(valueSize)
					if len(row) == n {
						if n == 0 {
							r.fail("batch needs a positive count")
						}
						held, has = item, true
						return &list{row}, true
					}
					row = append(row, item)
				}
				if len(row) == 0 {
					return nil, false
				}
				if fill != nil && len(row) < n {
					r.alloc(r.repeated(n, valueSize))
					for len(row) < n {
						row = append(row, fill)
					}
				}
				return &list{row}, true
			})
		},
		"capitalize": textFilter("capitalize", capitalize),
		"center": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("center", args, kw, 0, "width")
			return r.pad("center", r.soft(x), r.intArg("center", a[0], 80), " ", centerLeft)
		},
		"count":   length,
		"length":  length,
		"d":       def,
		"default": def,
		"dictsort": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("dictsort", args, kw, 0, "case_sensitive", "by", "reverse")
			d, ok := x.(*dict)
			if !ok {
				r.fail("dictsort needs a dict, not %s", describe(x))
			}
			at := 0
			switch by := r.stringArg("dictsort", a[1], "key"); by {
			case "key":
			case "value":
				at = 1
			default:
				r.fail("dictsort: by must be \"key\" or \"value\", not %q", by)
			}
			fold := !r.truthArg(a[0], false)
			key := r.getter(nil, fold, nil)
			return &list{r.sorted(r.collect(&view{d, "items"}), func(pair value) value {
				return key(pair.(*tuple).items[at])
			}, r.truthArg(a[2], false))}
		},
		"e":              escapeFilter,
		"escape":         escapeFilter,
		"forceescape":    refused("forceescape"),
		"filesizeformat": refused("filesizeformat"),
		"first": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("first", args, kw, 0)
			if v, ok := r.mustIterate(x)(); ok {
				return v
			}
			return &undefined{"no first item, sequence was empty"}
		},
		"float": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("float", args, kw, 0, "default")
			if f, ok := r.toFloat(x); ok {
				return f
			}
			if a[0] == missing {
				return 0.0
			}
			return a[0]
		},
		"format": func(r *run, x value, args []value, kw []keyword) value {
			if len(args) > 0 && len(kw) > 0 {
				r.fail("format cannot take positional and keyword arguments at the same time")
			}
			if len(kw) > 0 {
				return r.percent(r.soft(x), r.makeDict("format", nil, kw))
			}
			return r.percent(r.soft(x), &tuple{items: args})
		},
		"groupby": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("groupby", args, kw, 1, "attribute", "default", "case_sensitive")
			fold := !r.truthArg(a[2], false)
			key := r.getter(a[0], fold, given(a[1]))
			plain := r.getter(a[0], false, given(a[1]))
			out := &list{}
			var last value
			for _, item := range r.sorted(r.collect(x), key, false) {
				k := key(item)
				if n := len(out.items); n > 0 && r.equal(k, last) {
					group := out.items[n-1].(*tuple).items[1].(*list)
					group.items = append(group.items, item)
					continue
				}
				last = k
				r.alloc(4 * valueSize)
				out.items = append(out.items, &tuple{items: []value{plain(item), &list{[]value{item}}}, group: true})
			}
			return out
		},
		"indent": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("indent", args, kw, 0, "width", "first", "blank")
			s, ok := x.(string)
			if !ok {
				r.fail("indent needs a string, not %s", describe(x))
			}
			indention, ok := a[0].(string)
			if !ok {
				n := max(r.intArg("indent", a[0], 4), 0)
				r.alloc(n)
				indention = strings.Repeat(" ", n)
			}
			return r.indent(s, indention, r.truthArg(a[1], false), r.truthArg(a[2], false))
		},
		"int": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("int", args, kw, 0, "default", "base")
			if base := r.intArg("int", a[1], 10); base != 10 {
				if _, ok := x.(string); ok {
					r.fail("int with base %d is not supported", base)
				}
			}
			if i, ok := r.toInt(x); ok {
				return i
			}
			if f, ok := r.toFloat(x); ok {
				if i, ok := r.toInt(f); ok {
					return i
				}
			}
			if a[0] == missing {
				return int64(0)
			}
			return a[0]
		},
		"items": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("items", args, kw, 0)
			switch x := x.(type) {
			case *undefined:
				return r.generatorOf(nil, "generator")
			case *dict:
				next, _ := r.iterate(&view{x, "items"})
				return &generator{next: next, kind: "generator"}
			}
			return r.generate(x, func() (value, bool) {
				r.fail("items needs a dict, not %s", describe(x))
				return nil, false
			})
		},
		"join": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("join", args, kw, 0, "d", "attribute")
			sep := ""
			if a[0] != missing {
				sep = r.str(a[0])
			}
			get := r.getter(given(a[1]), false, nil)
			b := builder{r: r}
			next := r.mustIterate(x)
			for first := true; ; first = false {
				item, ok := next()
				if !ok {
					return b.String()
				}
				if !first {
					b.write(sep)
				}
				b.write(r.str(get(item)))
			}
		},
		"last": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("last", args, kw, 0)
			switch x := x.(type) {
			case string:
				if s, ok := charAt(x, -1); ok {
					return s
				}
			case *list:
				if n := len(x.items); n > 0 {
					return x.items[n-1]
				}
			case *tuple:
				if n := len(x.items); n > 0 {
					return x.items[n-1]
				}
			case *dict:
				if n := x.len(); n > 0 {
					return x.entries[n-1].key
				}
			case *view:
				if n := x.d.len(); n > 0 {
					return x.at(n - 1)
				}
			case *intRange:
				if x.n > 0 {
					return x.start + (x.n-1)*x.step
				}
			case *undefined:
			default:
				r.fail("last: %s cannot be read from its end", describe(x))
			}
			return &undefined{"no last item, sequence was empty"}
		},
		"list": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("list", args, kw, 0)
			return &list{r.collect(x)}
		},
		"lower":      textFilter("lower", toLower),
		"map":        mapFilter,
		"min":        extreme("min", func(r *run, a, b value) bool { return r.less(a, b) }),
		"max":        extreme("max", func(r *run, a, b value) bool { return r.order(a, b, ">", 0) }),
		"pprint":     refused("pprint"),
		"random":     refused("random"),
		"reject":     choose("reject", false, false),
		"rejectattr": choose("rejectattr", false, true),
		"replace": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("replace", args, kw, 2, "old", "new", "count")
			count := -1
			if given(a[2]) != nil {
				count = r.intArg("replace", a[2], -1)
			}
			return r.replace(r.str(x), r.str(a[0]), r.str(a[1]), count)
		},
		"reverse": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("reverse", args, kw, 0)
			switch x := x.(type) {
			case string:
				r.alloc(5 * len(x))
				runes := []rune(x)
				slices.Reverse(runes)
				return string(runes)
			case markup:
				r.fail("a safe string can only be printed or added to")
			case *generator:
				items := r.collect(x)
				slices.Reverse(items)
				return &list{items}
			}
			kind := map[string]string{"list": "list_reverseiterator", "dict": "dict_reversekeyiterator"}[typeName(x)]
			if kind == "" {
				kind = "reversed"
			}
			items := r.collect(x)
			slices.Reverse(items)
			return r.generatorOf(items, kind)
		},
		"round": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("round", args, kw, 0, "precision", "method")
			return r.round(x, r.intArg("round", a[0], 0), r.stringArg("round", a[1], "common"))
		},
		"safe": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("safe", args, kw, 0)
			return markup(r.str(x))
		},
		"select":     choose("select", true, false),
		"selectattr": choose("selectattr", true, true),
		"slice": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("slice", args, kw, 1, "slices", "fill_with")
			n, fill := r.intArg("slice", a[0], 0), given(a[1])
			if n <= 0 {
				r.fail("slice needs a positive count")
			}
			items := r.collect(x)
			per, extra := len(items)/n, len(items)%n
			i, offset := 0, 0
			return r.generate(x, func() (value, bool) {
				if i >= n {
					return nil, false
				}
				start := offset + i*per
				if i < extra {
					offset++
				}
				end := offset + (i+1)*per
				r.alloc((end - start + 1) * valueSize)
				part := append([]value(nil), items[start:end]...)
				if fill != nil && i >= extra {
					part = append(part, fill)
				}
				i++
				return &list{part}, true
			})
		},
		"sort": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("sort", args, kw, 0, "reverse", "case_sensitive", "attribute")
			key := r.multiGetter(given(a[2]), !r.truthArg(a[1], false))
			return &list{r.sorted(r.collect(x), key, r.truthArg(a[0], false))}
		},
		"string": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("string", args, kw, 0)
			if isMarkup(x) {
				return x
			}
			return r.str(x)
		},
		"striptags": refused("striptags"),
		"sum": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("sum", args, kw, 0, "attribute", "start")
			var total value = int64(0)
			if a[1] != missing {
				total = a[1]
			}
			if _, ok := total.(string); ok {
				r.fail("sum cannot sum strings")
			}
			get := r.getter(given(a[0]), false, nil)
			next := r.mustIterate(x)
			for {
				item, ok := next()
				if !ok {
					return total
				}
				total = r.binary("+", total, get(item))
			}
		},
		"title":  textFilter("title", wordTitle),
		"tojson": func(r *run, x value, args []value, kw []keyword) value { return r.toJSON(x, args, kw) },
		"trim": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("trim", args, kw, 0, "chars")
			return r.strip("trim", r.soft(x), a[0], true, true)
		},
		"truncate": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("truncate", args, kw, 0, "length", "killwords", "end", "leeway")
			n, end, leeway := r.intArg("truncate", a[0], 255), r.stringArg("truncate", a[2], "..."), 5
			if given(a[3]) != nil {
				leeway = r.intArg("truncate", a[3], 5)
			}
			tail := utf8.RuneCountInString(end)
			if n < tail || leeway < 0 {
				r.fail("truncate: bad length %d or leeway %d", n, leeway)
			}
			size := r.length(x)
			if size >= 0 && size-leeway <= n {
				return x
			}
			s, ok := x.(string)
			if !ok {
				r.fail("truncate needs a string, not %s", describe(x))
			}
			r.alloc(5 * len(s))
			runes := []rune(s)
			s = string(runes[:n-tail])
			if !r.truthArg(a[1], false) {
				if i := strings.LastIndexByte(s, ' '); i >= 0 {
					s = s[:i]
				}
			}
			return s + end
		},
		"unique": func(r *run, x value, args []value, kw []keyword) value {
			a := r.bind("unique", args, kw, 0, "case_sensitive", "attribute")
			key := r.getter(given(a[1]), !r.truthArg(a[0], false), nil)
			seen := map[any]bool{}
			var next func() (value, bool)
			return r.generate(x, func() (value, bool) {
				if next == nil {
					next = r.mustIterate(x)
				}
				for {
					item, ok := next()
					if !ok {
						return nil, false
					}
					k := hashKey(r, key(item))
					if !seen[k] {
						r.alloc(entrySize)
						seen[k] = true
						return item, true
					}
				}
			})
		},
		"upper":     textFilter("upper", toUpper),
		"urlencode": refused("urlencode"),
		"urlize":    refused("urlize"),
		"wordcount": func(r *run, x value, args []value, kw []keyword) value {
			r.bind("wordcount", args, kw, 0)
			s := r.soft(x)
			r.scan(len(s))
			n := int64(0)
			in := false
			for _, c := range s {
				word := c == '_' || unicode.IsLetter(c) || unicode.IsNumber(c)
				if word && !in {
					n++
				}
				in = word
			}
			return n
		},
		"wordwrap": refused("wordwrap"),
		"xmlattr":  refused("xmlattr"),
	}
}
