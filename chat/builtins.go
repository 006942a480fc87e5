package chat

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// This file holds what a template can reach besides its variables: the attributes and methods of values, and the
// global functions. Both are closed lists; nothing is found by reflection. Methods that would change a list or dict
// are undefined, as in jinja2's ImmutableSandboxedEnvironment.

// Names of attributes that Python's types have and this package does not, and those that the sandbox forbids. A name
// that is in neither list is no attribute, and may be a key.
var (
	intAttributes = []string{
		"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "imag", "numerator", "real", "to_bytes",
	}
	unsupportedAttributes = map[string][]string{
		"bool":        intAttributes,
		"dict":        {"copy", "fromkeys"},
		"dict_items":  {"mapping", "isdisjoint"},
		"dict_keys":   {"mapping", "isdisjoint"},
		"dict_values": {"mapping"},
		"float":       {"as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "real"},
		"generator":   {"close", "gi_code", "gi_frame", "gi_running", "gi_suspended", "gi_yieldfrom", "send", "throw"},
		"int":         intAttributes,
		"list":        {"copy"},
		"Macro":       {"arguments", "caller", "catch_kwargs", "catch_varargs", "explicit_caller"},
		"range":       {"count", "index", "start", "stop", "step"},
		"str":         {"encode", "maketrans", "translate", "format_map", "isidentifier", "casefold"},
	}
	forbiddenAttributes = map[string][]string{
		"dict": {"clear", "pop", "popitem", "setdefault", "update"},
		"list": {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"},
	}
)

// attribute is Python's getattr, as far as the sandbox lets it through; ok is false if there is no such attribute.
func (r *run) attribute(x value, name string) (v value, ok bool) {
	if ns, is := x.(*namespace); is {
		v, ok := ns.attrs.getString(name)
		return v, ok
	}
	if strings.HasPrefix(name, "__") {
		return nil, false // exists or not: undefined either way
	}
	t := typeName(x)
	if slices.Contains(forbiddenAttributes[t], name) {
		return &undefined{fmt.Sprintf("access to attribute %q of a %s is unsafe: chat templates cannot change values", name, t)}, true
	}
	if slices.Contains(unsupportedAttributes[t], name) {
		r.fail("the attribute %q of a %s is not supported", name, t)
	}
	var methods map[string]method
	switch x := x.(type) {
	case string:
		methods = stringMethods
	case *dict:
		methods = dictMethods
	case *list, *tuple:
		if t, ok := x.(*tuple); ok && t.group {
			switch name {
			case "grouper":
				return t.items[0], true
			case "list":
				return t.items[1], true
			}
		}
		methods = sequenceMethods
	case float64:
		if name == "is_integer" {
			return &builtin{name, func(r *run, args []value, kw []keyword) value {
				r.bind(name, args, kw, 0)
				return x == math.Trunc(x) && !math.IsInf(x, 0)
			}}, true
		}
	case markup:
		r.fail("a safe string can only be printed or added to")
	case *loopContext:
		if v := x.attr(r, name); v != nil || name == "previtem" || name == "nextitem" {
			return v, true
		}
	case *macro:
		if name == "name" {
			return x.name, true
		}
	case *cycler:
		switch name {
		case "current":
			return x.items[x.pos], true
		case "next":
			return &builtin{name, func(r *run, args []value, kw []keyword) value {
				r.bind(name, args, kw, 0)
				v := x.items[x.pos]
				x.pos = (x.pos + 1) % len(x.items)
				return v
			}}, true
		case "reset":
			return &builtin{name, func(r *run, args []value, kw []keyword) value {
				r.bind(name, args, kw, 0)
				x.pos = 0
				return nil
			}}, true
		}
	case *joiner, *builtin:
		r.fail("attributes of functions are not supported")
	}
	m, ok := methods[name]
	if !ok {
		return nil, false
	}
	return &builtin{name, func(r *run, args []value, kw []keyword) value { return m(r, x, args, kw) }}, true
}

type method func(r *run, self value, args []value, kw []keyword) value

// bind lays arguments out in the order of params, as a Python signature does: positional first, then by name. A param
// that begins with a slash is positional only. The first required ones must be given; the others are missing if not.
func (r *run) bind(fn string, args []value, kw []keyword, required int, params ...string) []value {
	if len(args) > len(params) {
		r.fail("%s takes at most %d argument(s), not %d", fn, len(params), len(args))
	}
	out := make([]value, len(params))
	for i := range out {
		out[i] = missing
	}
	copy(out, args)
	for _, k := range kw {
		i := slices.Index(params, k.name)
		if i < 0 {
			r.fail("%s has no argument named %q", fn, k.name)
		}
		if out[i] != missing {
			r.fail("%s got several values for %q", fn, k.name)
		}
		out[i] = k.value
	}
	for i := range required {
		if out[i] == missing {
			r.fail("%s needs an argument %q", fn, strings.TrimPrefix(params[i], "/"))
		}
	}
	return out
}

// Arguments of one type, with a default for one that is missing.

func (r *run) intArg(fn string, v value, def int) int {
	if v == missing {
		return def
	}
	i, ok := index(v)
	if !ok {
		r.fail("%s needs an integer, not %s", fn, describe(v))
	}
	return i
}

func (r *run) stringArg(fn string, v value, def string) string {
	if v == missing {
		return def
	}
	s, ok := v.(string)
	if !ok {
		r.fail("%s needs a string, not %s", fn, describe(v))
	}
	return s
}

func (r *run) truthArg(v value, def bool) bool {
	if v == missing {
		return def
	}
	return r.truth(v)
}

var dictMethods = map[string]method{
	"get": func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind("get", args, kw, 1, "/key", "/default")
		if v, ok := self.(*dict).get(r, a[0]); ok {
			return v
		}
		if a[1] == missing {
			return nil
		}
		return a[1]
	},
	"keys":   viewMethod("keys"),
	"values": viewMethod("values"),
	"items":  viewMethod("items"),
}

func viewMethod(kind string) method {
	return func(r *run, self value, args []value, kw []keyword) value {
		r.bind(kind, args, kw, 0)
		return &view{self.(*dict), kind}
	}
}

var sequenceMethods = map[string]method{
	"count": func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind("count", args, kw, 1, "/value")
		n := int64(0)
		for _, item := range sequence(self) {
			if r.equal(item, a[0]) {
				n++
			}
		}
		return n
	},
	"index": func(r *run, self value, args []value, kw []keyword) value {
		a := r.bind("index", args, kw, 1, "/value", "/start", "/stop")
		items := sequence(self)
		from, to := r.span(len(items), a[1], a[2])
		for i := from; i < to; i++ {
			if r.equal(items[i], a[0]) {
				return int64(i)
			}
		}
		r.fail("index: the value is not in the %s", typeName(self))
		return nil
	},
}

func sequence(v value) []value {
	if l, ok := v.(*list); ok {
		return l.items
	}
	return v.(*tuple).items
}

// span clips optional start and stop arguments as a slice does.
func (r *run) span(n int, start, stop value) (from, to int) {
	clip := func(v value, def int) int {
		if v == missing || v == nil {
			return def
		}
		i := r.intArg("index", v, def)
		if i < 0 {
			i = max(i+n, 0)
		}
		return min(i, n)
	}
	return clip(start, 0), clip(stop, n)
}

type cycler struct {
	items []value
	pos   int
}

type joiner struct {
	sep  value
	used bool
}

// globals are the functions that every template has.
var globals = map[string]value{
	"range": &builtin{"range", func(r *run, args []value, kw []keyword) value {
		if len(kw) > 0 {
			r.fail("range takes no keyword arguments")
		}
		a := r.bind("range", args, nil, 1, "start", "stop", "step")
		rng := &intRange{start: 0, step: 1}
		if a[1] == missing {
			rng.stop = int64(r.intArg("range", a[0], 0))
		} else {
			rng.start = int64(r.intArg("range", a[0], 0))
			rng.stop = int64(r.intArg("range", a[1], 0))
			rng.step = int64(r.intArg("range", a[2], 1))
		}
		if rng.step == 0 {
			r.fail("range step must not be zero")
		}
		const far = 1 << 61 // keeps the arithmetic below from wrapping
		for _, i := range []int64{rng.start, rng.stop, rng.step} {
			if i > far || i < -far {
				r.fail("range beyond 2^61 is not supported")
			}
		}
		switch {
		case rng.step > 0 && rng.stop > rng.start:
			rng.n = (rng.stop-rng.start-1)/rng.step + 1
		case rng.step < 0 && rng.stop < rng.start:
			rng.n = (rng.start-rng.stop-1)/-rng.step + 1
		}
		if rng.n > maxRange {
			r.fail("range of %d items, where %d is the most", rng.n, maxRange)
		}
		return rng
	}},
	"dict": &builtin{"dict", func(r *run, args []value, kw []keyword) value { return r.makeDict("dict", args, kw) }},
	"namespace": &builtin{"namespace", func(r *run, args []value, kw []keyword) value {
		ns := &namespace{&dict{}}
		for _, e := range r.makeDict("namespace", args, kw).entries {
			name, ok := e.key.(string)
			if !ok {
				r.fail("an attribute of a namespace must be a string")
			}
			ns.set(r, name, e.value)
		}
		return ns
	}},
	"raise_exception": &builtin{"raise_exception", func(r *run, args []value, kw []keyword) value {
		a := r.bind("raise_exception", args, kw, 1, "message")
		err := errorAt(r.line, "%s", r.str(a[0]))
		err.Raised = true
		panic(err)
	}},
	"strftime_now": &builtin{"strftime_now", func(r *run, args []value, kw []keyword) value {
		a := r.bind("strftime_now", args, kw, 1, "format")
		return r.strftime(r.now, r.stringArg("strftime_now", a[0], ""))
	}},
	"cycler": &builtin{"cycler", func(r *run, args []value, kw []keyword) value {
		if len(args) == 0 || len(kw) > 0 {
			r.fail("cycler needs items")
		}
		return &cycler{items: args}
	}},
	"joiner": &builtin{"joiner", func(r *run, args []value, kw []keyword) value {
		a := r.bind("joiner", args, kw, 0, "sep")
		if a[0] == missing {
			a[0] = ", "
		}
		return &joiner{sep: a[0]}
	}},
	"lipsum": &builtin{"lipsum", func(r *run, _ []value, _ []keyword) value {
		r.fail("lipsum is random and not supported")
		return nil
	}},
}

// makeDict is dict(…): of a mapping or pairs, and of keywords.
func (r *run) makeDict(fn string, args []value, kw []keyword) *dict {
	d := &dict{}
	a := r.bind(fn, args, nil, 0, "mapping")
	switch m := a[0].(type) {
	case missingType:
	case *dict:
		d = m.copy(r)
	case *namespace, *loopContext:
		r.fail("%s of %s is not supported", fn, describe(m))
	default:
		next := r.mustIterate(m)
		for {
			pair, ok := next()
			if !ok {
				break
			}
			items := r.collect(pair)
			if len(items) != 2 {
				r.fail("%s needs pairs, not %d values", fn, len(items))
			}
			r.alloc(entrySize)
			d.set(r, items[0], items[1])
		}
	}
	for _, k := range kw {
		r.alloc(entrySize)
		d.set(r, k.name, k.value)
	}
	return d
}

// strftime formats a time as C's strftime does in the C locale.
func (r *run) strftime(t time.Time, format string) string {
	b := builder{r: r}
	pad := func(width int, fill byte, flag byte, v int) {
		switch flag {
		case '-':
			width = 0
		case '_':
			fill = ' '
		case '0':
			fill = '0'
		}
		s := fmt.Sprint(v)
		for range width - len(s) {
			b.writeByte(fill)
		}
		b.write(s)
	}
	hour12 := (t.Hour()+11)%12 + 1
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.writeByte(format[i])
			continue
		}
		i++
		var flag byte
		if strings.IndexByte("-_0", format[i]) >= 0 && i+1 < len(format) {
			flag = format[i]
			i++
		}
		isoYear, isoWeek := t.ISOWeek()
		switch c := format[i]; c {
		case 'a':
			b.write(t.Weekday().String()[:3])
		case 'A':
			b.write(t.Weekday().String())
		case 'b', 'h':
			b.write(t.Month().String()[:3])
		case 'B':
			b.write(t.Month().String())
		case 'c':
			b.write(r.strftime(t, "%a %b %e %H:%M:%S %Y"))
		case 'C':
			pad(2, '0', flag, t.Year()/100)
		case 'd':
			pad(2, '0', flag, t.Day())
		case 'D', 'x':
			b.write(r.strftime(t, "%m/%d/%y"))
		case 'e':
			pad(2, ' ', flag, t.Day())
		case 'f':
			pad(6, '0', 0, t.Nanosecond()/1000)
		case 'F':
			b.write(r.strftime(t, "%Y-%m-%d"))
		case 'g':
			pad(2, '0', flag, isoYear%100)
		case 'G':
			pad(4, '0', flag, isoYear)
		case 'H':
			pad(2, '0', flag, t.Hour())
		case 'I':
			pad(2, '0', flag, hour12)
		case 'j':
			pad(3, '0', flag, t.YearDay())
		case 'k':
			pad(2, ' ', flag, t.Hour())
		case 'l':
			pad(2, ' ', flag, hour12)
		case 'm':
			pad(2, '0', flag, int(t.Month()))
		case 'M':
			pad(2, '0', flag, t.Minute())
		case 'n':
			b.write("\n")
		case 'p':
			b.write(t.Format("PM"))
		case 'P':
			b.write(t.Format("pm"))
		case 'r':
			b.write(r.strftime(t, "%I:%M:%S %p"))
		case 'R':
			b.write(r.strftime(t, "%H:%M"))
		case 's':
			pad(0, '0', flag, int(t.Unix()))
		case 'S':
			pad(2, '0', flag, t.Second())
		case 't':
			b.write("\t")
		case 'T', 'X':
			b.write(r.strftime(t, "%H:%M:%S"))
		case 'u':
			pad(0, '0', flag, (int(t.Weekday())+6)%7+1)
		case 'U':
			pad(2, '0', flag, (t.YearDay()+6-int(t.Weekday()))/7)
		case 'V':
			pad(2, '0', flag, isoWeek)
		case 'w':
			pad(0, '0', flag, int(t.Weekday()))
		case 'W':
			pad(2, '0', flag, (t.YearDay()+6-(int(t.Weekday())+6)%7)/7)
		case 'y':
			pad(2, '0', flag, t.Year()%100)
		case 'Y':
			pad(0, '0', flag, t.Year())
		case 'z', 'Z': // the time that transformers formats has no zone
		case '%':
			b.write("%")
		default:
			r.fail("strftime: %%%c is not supported", c)
		}
	}
	return b.String()
}
