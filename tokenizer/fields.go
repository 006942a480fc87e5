package tokenizer

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// fields reads one component of a tokenizer.json. It remembers the first error, so that a component is read in
// straight lines and checked once, by done, which also refuses every key that was not asked for.
type fields struct {
	where string // "normalizer Replace"
	obj   *object
	used  []string
	err   error
}

// component opens a component description: an object with a string "type".
func component(where string, n node) (string, *fields, error) {
	obj, ok := n.(*object)
	if !ok {
		return "", nil, fmt.Errorf("%s: want an object with a type, have %s", where, kind(n))
	}
	f := &fields{where: where, obj: obj}
	typ := f.str("type")
	if f.err != nil {
		return "", nil, f.err
	}
	f.where = where + " " + quoteName(typ)
	return typ, f, nil
}

// quoteName keeps ordinary component names readable in messages and makes anything else safe to print.
func quoteName(s string) string {
	plain := func(r rune) bool {
		return '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || r == '_'
	}
	if s != "" && len(s) < 40 && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return fmt.Sprintf("%.200q", s)
}

func kind(n node) string {
	switch n := n.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprint(n)
	case float64:
		return fmt.Sprint(n)
	case string:
		return fmt.Sprintf("%.200q", n)
	case []node:
		return fmt.Sprintf("an array of %d", len(n))
	case *object:
		return "an object"
	}
	return "an unknown value"
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %w", f.where, fmt.Errorf(format, args...))
	}
}

// get returns a field's value; ok is false when it is absent.
func (f *fields) get(name string) (node, bool) {
	f.used = append(f.used, name)
	v, ok := f.obj.values[name]
	return v, ok
}

func need[T any](f *fields, name, want string) T {
	v, ok := f.get(name)
	t, typed := v.(T)
	switch {
	case !ok:
		f.fail("%s is missing", name)
	case !typed:
		f.fail("%s is %s, want %s", name, kind(v), want)
	}
	return t
}

func (f *fields) str(name string) string   { return need[string](f, name, "a string") }
func (f *fields) boolean(name string) bool { return need[bool](f, name, "true or false") }
func (f *fields) list(name string) []node  { return need[[]node](f, name, "an array") }
func (f *fields) object(name string) *fields {
	o := need[*object](f, name, "an object")
	if o == nil {
		o = &object{values: map[string]node{}}
	}
	return &fields{where: f.where + " " + name, obj: o, err: f.err}
}

// boolOr returns absent and null fields as def.
func (f *fields) boolOr(name string, def bool) bool {
	if v, ok := f.get(name); !ok || v == nil {
		return def
	}
	return f.boolean(name)
}

// strOr returns absent and null fields as def.
func (f *fields) strOr(name, def string) string {
	if v, ok := f.get(name); !ok || v == nil {
		return def
	}
	return f.str(name)
}

// char is a string of exactly one character.
func (f *fields) char(name string) string {
	s := f.str(name)
	if f.err == nil && utf8.RuneCountInString(s) != 1 {
		f.fail("%s is %.200q, want one character", name, s)
	}
	return s
}

// integer is a non-negative integer.
func (f *fields) integer(name string) int {
	n := need[float64](f, name, "a number")
	if f.err == nil && (n != math.Trunc(n) || n < 0 || n > math.MaxInt32) {
		f.fail("%s is %v, want an integer of 0 to %d", name, n, math.MaxInt32)
	}
	if f.err != nil {
		return 0
	}
	return int(n)
}

// done returns the first error, or an error that names a key nobody asked for.
func (f *fields) done() error {
	if f.err != nil {
		return f.err
	}
	for _, key := range f.obj.keys {
		if !slices.Contains(f.used, key) {
			return fmt.Errorf("%s: unknown field %.200q (%s)", f.where, key, kind(f.obj.values[key]))
		}
	}
	return nil
}
