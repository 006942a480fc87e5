package chat

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file holds the values of the language and what Python does to all of them: truth, str and repr, equality and
// order, length and iteration. Where Python would print an address, or call code of ours that does not exist, it fails.

// value is nil (None), bool, int64, *big.Int (only beyond int64), float64, string, or one of the types below.
type value = any

type (
	list  struct{ items []value }
	tuple struct {
		items []value
		group bool // of the filter groupby: has .grouper and .list
	}
	// intRange is range(start, stop, step); n is its length.
	intRange struct{ start, stop, step, n int64 }
	// view is d.keys(), d.values() or d.items().
	view struct {
		d    *dict
		kind string
	}
	// generator is an iterable that can be read once: what map, select and their like return.
	generator struct {
		next  func() (value, bool)
		kind  string
		depth int // generators that it reads from, each from the next
	}
	namespace struct{ attrs *dict }
	// builtin is a function or method.
	builtin struct {
		name string
		call func(r *run, args []value, kw []keyword) value
	}
	// undefined is what a missing name or attribute evaluates to. hint says what was missing.
	undefined struct{ hint string }
	// markup is the result of safe and escape. It prints as it is, and escapes the strings it is added to; what else
	// Python does with it is refused.
	markup string
	// missing marks an empty slot.
	missingType struct{}
)

var missing value = missingType{}

// keyword is an argument with a name.
type keyword struct {
	name  string
	value value
}

const (
	maxDigits = 4300  // of an integer in text, as in Python
	maxBits   = 16384 // of an integer
	maxData   = 400   // nesting of values, where Python has its recursion limit
)

func normInt(i *big.Int) value {
	if i.IsInt64() {
		return i.Int64()
	}
	return i
}

func typeName(v value) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case markup:
		return "Markup"
	case *list:
		return "list"
	case *tuple:
		return "tuple"
	case *dict:
		return "dict"
	case *intRange:
		return "range"
	case *view:
		return "dict_" + v.kind
	case *generator:
		return v.kind
	case *namespace:
		return "Namespace"
	case *undefined:
		return "Undefined"
	case *macro:
		return "Macro"
	case *loopContext:
		return "LoopContext"
	}
	return "function"
}

// truth is bool(v).
func (r *run) truth(v value) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case *big.Int:
		return true
	case float64:
		return v != 0
	case string:
		return v != ""
	case markup:
		return v != ""
	case *list:
		return len(v.items) > 0
	case *tuple:
		return len(v.items) > 0
	case *dict:
		return v.len() > 0
	case *intRange:
		return v.n > 0
	case *view:
		return v.d.len() > 0
	case *undefined:
		return false
	case *loopContext:
		return v.length(r) > 0
	}
	return true
}

// length is len(v), or -1 if v has none.
func (r *run) length(v value) int {
	switch v := v.(type) {
	case string:
		r.scan(len(v))
		return utf8.RuneCountInString(v)
	case markup:
		return utf8.RuneCountInString(string(v))
	case *list:
		return len(v.items)
	case *tuple:
		return len(v.items)
	case *dict:
		return v.len()
	case *intRange:
		return int(v.n)
	case *view:
		return v.d.len()
	case *undefined:
		return 0
	case *loopContext:
		return v.length(r)
	}
	return -1
}

// iterate is iter(v); ok is false if v cannot be iterated.
func (r *run) iterate(v value) (next func() (value, bool), ok bool) {
	slice := func(items []value) func() (value, bool) {
		i := 0
		return func() (value, bool) {
			if i >= len(items) {
				return nil, false
			}
			i++
			return items[i-1], true
		}
	}
	switch v := v.(type) {
	case string:
		return func() (value, bool) {
			if v == "" {
				return nil, false
			}
			_, n := utf8.DecodeRuneInString(v)
			c := v[:n]
			v = v[n:]
			return c, true
		}, true
	case *list:
		return slice(v.items), true
	case *tuple:
		return slice(v.items), true
	case *dict:
		i := 0
		return func() (value, bool) {
			if i >= v.len() {
				return nil, false
			}
			i++
			return v.entries[i-1].key, true
		}, true
	case *intRange:
		i := int64(0)
		return func() (value, bool) {
			if i >= v.n {
				return nil, false
			}
			i++
			return v.start + (i-1)*v.step, true
		}, true
	case *view:
		i := 0
		return func() (value, bool) {
			if i >= v.d.len() {
				return nil, false
			}
			i++
			return v.at(i - 1), true
		}, true
	case *generator:
		return v.next, true
	case *undefined:
		return func() (value, bool) { return nil, false }, true
	case *loopContext:
		return func() (value, bool) {
			item, ok := v.advance(r)
			if !ok {
				return nil, false
			}
			return &tuple{items: []value{item, v}}, true
		}, true
	}
	return nil, false
}

func (r *run) mustIterate(v value) func() (value, bool) {
	next, ok := r.iterate(v)
	if !ok {
		r.fail("%s is not iterable", describe(v))
	}
	return func() (value, bool) {
		r.step(1)
		return next()
	}
}

// collect is list(v).
func (r *run) collect(v value) []value {
	switch v := v.(type) {
	case *list:
		r.alloc(len(v.items) * valueSize)
		return append([]value(nil), v.items...)
	case *tuple:
		r.alloc(len(v.items) * valueSize)
		return append([]value(nil), v.items...)
	}
	var items []value
	next := r.mustIterate(v)
	for {
		item, ok := next()
		if !ok {
			return items
		}
		r.alloc(valueSize)
		items = append(items, item)
	}
}

// generate returns a generator that reads from an iterable. How many read from each other is limited, since each calls
// the next.
func (r *run) generate(from value, next func() (value, bool)) *generator {
	g := &generator{next: next, kind: "generator"}
	if source, ok := from.(*generator); ok {
		if g.depth = source.depth + 1; g.depth > maxData {
			r.fail("filters read from each other more than %d deep", maxData)
		}
	}
	return g
}

func (v *view) at(i int) value {
	switch e := v.d.entries[i]; v.kind {
	case "keys":
		return e.key
	case "values":
		return e.value
	default:
		return &tuple{items: []value{e.key, e.value}}
	}
}

// describe is how an error message calls a value: its type, and for what is undefined what it should have been.
func describe(v value) string {
	if u, ok := v.(*undefined); ok {
		return u.hint
	}
	return "a value of type " + typeName(v)
}

// str is str(v).
func (r *run) str(v value) string {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return string(v)
	case *undefined:
		return ""
	}
	return r.repr(v)
}

// repr is repr(v).
func (r *run) repr(v value) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return strconv.FormatInt(v, 10)
	}
	var b builder
	b.r = r
	r.writeRepr(&b, v, 0)
	return b.String()
}

func (r *run) writeRepr(b *builder, v value, depth int) {
	r.step(1)
	if depth > maxData {
		r.fail("a value is nested more than %d deep", maxData)
	}
	items := func(open string, items []value, end string) {
		b.write(open)
		for i, item := range items {
			if i > 0 {
				b.write(", ")
			}
			r.writeRepr(b, item, depth+1)
		}
		b.write(end)
	}
	switch v := v.(type) {
	case nil, bool, int64:
		b.write(r.repr(v))
	case *big.Int:
		b.write(r.bigString(v))
	case float64:
		b.write(floatRepr(v))
	case string:
		writeStringRepr(b, v)
	case *list:
		items("[", v.items, "]")
	case *tuple:
		if len(v.items) == 1 {
			items("(", v.items, ",)")
		} else {
			items("(", v.items, ")")
		}
	case *dict:
		b.write("{")
		for i, e := range v.entries {
			if i > 0 {
				b.write(", ")
			}
			r.writeRepr(b, e.key, depth+1)
			b.write(": ")
			r.writeRepr(b, e.value, depth+1)
		}
		b.write("}")
	case *view:
		list := make([]value, 0, v.d.len())
		r.alloc(v.d.len() * valueSize)
		for i := range v.d.entries {
			list = append(list, v.at(i))
		}
		items("dict_"+v.kind+"([", list, "])")
	case *intRange:
		b.write("range(" + strconv.FormatInt(v.start, 10) + ", " + strconv.FormatInt(v.stop, 10))
		if v.step != 1 {
			b.write(", " + strconv.FormatInt(v.step, 10))
		}
		b.write(")")
	case *namespace:
		r.fail("printing a namespace is not supported")
	case *undefined:
		b.write("Undefined")
	default:
		r.fail("printing a value of type %s is not supported", typeName(v))
	}
}

func (r *run) bigString(i *big.Int) string {
	s := i.String()
	if len(strings.TrimPrefix(s, "-")) > maxDigits {
		r.fail("an integer has more than %d digits", maxDigits)
	}
	return s
}

// floatRepr is repr of a float: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16.
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if strings.IndexByte(s, '.') < 0 {
		s += ".0"
	}
	return s
}

// writeStringRepr writes a string literal with the quotes and escapes that Python chooses.
func writeStringRepr(b *builder, s string) {
	quote := byte('\'')
	if strings.IndexByte(s, '\'') >= 0 && strings.IndexByte(s, '"') < 0 {
		quote = '"'
	}
	b.writeByte(quote)
	for _, c := range s {
		switch {
		case c == rune(quote) || c == '\\':
			b.writeByte('\\')
			b.writeByte(byte(c))
		case c == '\n':
			b.write(`\n`)
		case c == '\r':
			b.write(`\r`)
		case c == '\t':
			b.write(`\t`)
		case c < 0x20 || c >= 0x7f && c < 0x100 && !unicode.IsPrint(c):
			b.write(`\x` + hexDigits(uint32(c), 2))
		case c < 0x7f || unicode.IsPrint(c):
			b.write(string(c))
		case c < 0x10000:
			b.write(`\u` + hexDigits(uint32(c), 4))
		default:
			b.write(`\U` + hexDigits(uint32(c), 8))
		}
	}
	b.writeByte(quote)
}

// number turns bools into ints; kind is 0 for what is no number, 1 for an integer, 2 for a float.
func number(v value) (i *big.Int, small int64, f float64, kind int) {
	switch v := v.(type) {
	case bool:
		if v {
			return nil, 1, 1, 1
		}
		return nil, 0, 0, 1
	case int64:
		return nil, v, float64(v), 1
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		return v, 0, f, 1
	case float64:
		return nil, 0, v, 2
	}
	return nil, 0, 0, 0
}

func isNumber(v value) bool {
	_, _, _, kind := number(v)
	return kind > 0
}

// toBig returns an integer value as a big.Int.
func toBig(v value) *big.Int {
	i, small, _, _ := number(v)
	if i != nil {
		return i
	}
	return big.NewInt(small)
}

// compareNumbers returns -1, 0, 1, or 2 where a NaN is compared. Integers and floats are compared exactly.
func compareNumbers(a, b value) int {
	ai, as, af, ak := number(a)
	bi, bs, bf, bk := number(b)
	if ak == 1 && bk == 1 {
		if ai == nil && bi == nil {
			switch {
			case as < bs:
				return -1
			case as > bs:
				return 1
			}
			return 0
		}
		return toBig(a).Cmp(toBig(b))
	}
	if math.IsNaN(af) || math.IsNaN(bf) {
		return 2
	}
	if ak == 2 && bk == 2 || math.IsInf(af, 0) || math.IsInf(bf, 0) {
		switch {
		case af < bf:
			return -1
		case af > bf:
			return 1
		}
		return 0
	}
	exact := func(v value, f float64, kind int) *big.Rat {
		if kind == 2 {
			return new(big.Rat).SetFloat64(f)
		}
		return new(big.Rat).SetInt(toBig(v))
	}
	return exact(a, af, ak).Cmp(exact(b, bf, bk))
}

// equal is a == b.
func (r *run) equal(a, b value) bool { return r.equalDepth(a, b, 0) }

func (r *run) equalDepth(a, b value, depth int) bool {
	r.step(1)
	if depth > maxData {
		r.fail("a value is nested more than %d deep", maxData)
	}
	if isNumber(a) && isNumber(b) {
		return compareNumbers(a, b) == 0
	}
	items := func(a, b []value) bool {
		if len(a) != len(b) {
			return false
		}
		for i := range a {
			if !r.equalDepth(a[i], b[i], depth+1) {
				return false
			}
		}
		return true
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		switch b := b.(type) {
		case string:
			r.scan(min(len(a), len(b)))
			return a == b
		case markup:
			return a == string(b)
		}
		return false
	case markup:
		return r.equalDepth(string(a), b, depth)
	case *list:
		b, ok := b.(*list)
		return ok && (a == b || items(a.items, b.items))
	case *tuple:
		b, ok := b.(*tuple)
		return ok && (a == b || items(a.items, b.items))
	case *dict:
		b, ok := b.(*dict)
		if !ok || a.len() != b.len() {
			return false
		}
		for _, e := range a.entries {
			other, ok := b.get(r, e.key)
			if !ok || !r.equalDepth(e.value, other, depth+1) {
				return false
			}
		}
		return true
	case *undefined:
		_, ok := b.(*undefined)
		return ok
	case *intRange:
		b, ok := b.(*intRange)
		return ok && a.n == b.n && (a.n == 0 || a.start == b.start && (a.n == 1 || a.step == b.step))
	case *view:
		if b, ok := b.(*view); ok && (a.kind != "values" || b.kind != "values") {
			r.fail("comparing %s and %s is not supported", typeName(a), typeName(b))
		}
		return a == b
	case *builtin:
		if _, ok := b.(*builtin); ok {
			r.fail("comparing functions is not supported")
		}
		return false
	case *generator, *namespace, *macro, *loopContext, *cycler:
		return a == b
	}
	return false
}

// less is a < b.
func (r *run) less(a, b value) bool { return r.order(a, b, "<", 0) }

// order is a op b, for < <= > >=.
func (r *run) order(a, b value, op string, depth int) bool {
	r.step(1)
	if depth > maxData {
		r.fail("a value is nested more than %d deep", maxData)
	}
	holds := func(c int) bool {
		switch op {
		case "<":
			return c == -1
		case "<=":
			return c == -1 || c == 0
		case ">":
			return c == 1
		}
		return c == 1 || c == 0
	}
	items := func(a, b []value) bool {
		for i := range min(len(a), len(b)) {
			if !r.equalDepth(a[i], b[i], depth+1) {
				return r.order(a[i], b[i], op, depth+1)
			}
		}
		switch {
		case len(a) < len(b):
			return holds(-1)
		case len(a) > len(b):
			return holds(1)
		}
		return holds(0)
	}
	if isNumber(a) && isNumber(b) {
		return holds(compareNumbers(a, b))
	}
	for _, v := range []value{a, b} {
		if u, ok := v.(*undefined); ok {
			r.fail("%s", u.hint)
		}
	}
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			r.scan(min(len(a), len(b)))
			return holds(strings.Compare(a, b))
		}
	case *list:
		if b, ok := b.(*list); ok {
			return items(a.items, b.items)
		}
	case *tuple:
		if b, ok := b.(*tuple); ok {
			return items(a.items, b.items)
		}
	}
	r.fail("'%s' is not supported between %s and %s", op, typeName(a), typeName(b))
	return false
}

// contains is x in v.
func (r *run) contains(v, x value) bool {
	switch v := v.(type) {
	case string:
		if x, ok := x.(string); ok {
			r.scan(len(v))
			return strings.Contains(v, x)
		}
		r.fail("'in' of a string needs a string, not %s", describe(x))
	case *dict:
		_, ok := v.get(r, x)
		return ok
	case *view:
		if v.kind == "keys" {
			_, ok := v.d.get(r, x)
			return ok
		}
	case *intRange:
		if _, _, f, kind := number(x); kind == 0 || kind == 2 && f != math.Trunc(f) {
			return false
		}
	}
	next := r.mustIterate(v)
	for {
		item, ok := next()
		if !ok {
			return false
		}
		if r.equal(item, x) {
			return true
		}
	}
}
