package chat

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// dict is a Python dict: it keeps the order of insertion, and keys that are equal are one key (1, 1.0 and true are).
// What a template can reach never changes a dict, so it may be shared.
type dict struct {
	entries []entry
	index   map[any]int // from hashKey to entries; nil while there are few
}

type entry struct{ key, value value }

const fewEntries = 8

func (d *dict) len() int { return len(d.entries) }

// setString adds an entry while the dict is built.
func (d *dict) setString(key string, v value) { d.set(nil, key, v) }

func (d *dict) set(r *run, key, v value) {
	if i := d.find(r, key); i >= 0 {
		d.entries[i].value = v
		return
	}
	d.entries = append(d.entries, entry{key, v})
	switch {
	case d.index != nil:
		d.index[hashKey(r, key)] = len(d.entries) - 1
	case len(d.entries) > fewEntries:
		d.index = make(map[any]int, 2*len(d.entries))
		for i, e := range d.entries {
			d.index[hashKey(r, e.key)] = i
		}
	}
}

func (d *dict) find(r *run, key value) int {
	k := hashKey(r, key)
	if d.index != nil {
		if i, ok := d.index[k]; ok {
			return i
		}
		return -1
	}
	for i, e := range d.entries {
		if hashKey(r, e.key) == k {
			return i
		}
	}
	return -1
}

func (d *dict) get(r *run, key value) (value, bool) {
	if i := d.find(r, key); i >= 0 {
		return d.entries[i].value, true
	}
	return nil, false
}

func (d *dict) getString(key string) (value, bool) { return d.get(nil, key) }

func (d *dict) copy(r *run) *dict {
	c := &dict{}
	for _, e := range d.entries {
		r.alloc(entrySize)
		c.set(r, e.key, e.value)
	}
	return c
}

type (
	noneKey      struct{}
	undefinedKey struct{}
	bigKey       string
	tupleKey     string
)

// hashKey maps a value to a Go value that is equal for equal Python values. It fails for what Python cannot hash. r
// may be nil for strings.
func hashKey(r *run, v value) any {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return string(v)
	case nil:
		return noneKey{}
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	case int64:
		return v
	case *big.Int:
		return bigKey(v.String())
	case float64:
		if v == math.Trunc(v) && !math.IsInf(v, 0) {
			i, _ := big.NewFloat(v).Int(nil)
			return hashKey(r, normInt(i))
		}
		return v
	case *undefined:
		return undefinedKey{}
	case *tuple:
		var b strings.Builder
		writeTupleKey(r, &b, v, 0)
		return tupleKey(b.String())
	case *list, *dict, *view:
		if view, ok := v.(*view); ok && view.kind == "values" {
			return v
		}
		r.fail("unhashable type: %s", typeName(v))
	}
	return v // by identity
}

func writeTupleKey(r *run, b *strings.Builder, t *tuple, depth int) {
	if depth > maxData {
		r.fail("a value is nested more than %d deep", maxData)
	}
	b.WriteByte('(')
	for _, item := range t.items {
		r.step(1)
		r.alloc(valueSize)
		switch item := item.(type) {
		case *tuple:
			writeTupleKey(r, b, item, depth+1)
			continue
		}
		switch k := hashKey(r, item).(type) {
		case string:
			r.alloc(len(k))
			b.WriteString("s" + strconv.Itoa(len(k)) + ":" + k)
		case int64:
			b.WriteString("i" + strconv.FormatInt(k, 10))
		case bigKey:
			b.WriteString("i" + string(k))
		case float64:
			b.WriteString("f" + strconv.FormatFloat(k, 'g', -1, 64))
		case noneKey:
			b.WriteByte('n')
		case undefinedKey:
			b.WriteByte('u')
		default:
			r.fail("a key that holds a value of type %s is not supported", typeName(item))
		}
		b.WriteByte(',')
	}
	b.WriteByte(')')
}
