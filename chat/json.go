package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file reads JSON into values, keeping the order of keys and the difference between 1 and 1.0, and holds the
// filter tojson, which transformers defines as json.dumps(x, ensure_ascii=False, …).

const maxJSONDepth = 200

// readJSON parses one JSON text as Python's json.loads does: of equal keys the last one counts, at the place of the
// first. Text that is not UTF-8 and halves of surrogate pairs, which encoding/json would replace, are errors.
func readJSON(data []byte) (value, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	if i := loneSurrogate(data); i >= 0 {
		return nil, fmt.Errorf("half a surrogate pair at byte %d", i)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := readValue(dec, 0)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the JSON value at byte %d", dec.InputOffset())
	}
	return v, nil
}

func readValue(dec *json.Decoder, depth int) (value, error) {
	if depth > maxJSONDepth {
		return nil, fmt.Errorf("nested more than %d deep at byte %d", maxJSONDepth, dec.InputOffset())
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		return readNumber(string(t))
	case json.Delim:
		if t == '[' {
			l := &list{}
			for dec.More() {
				v, err := readValue(dec, depth+1)
				if err != nil {
					return nil, err
				}
				l.items = append(l.items, v)
			}
			_, err := dec.Token()
			return l, err
		}
		d := &dict{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := readValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			d.setString(key.(string), v)
		}
		_, err := dec.Token()
		return d, err
	}
	return t, nil // nil, bool, string
}

func readNumber(s string) (value, error) {
	if strings.ContainsAny(s, ".eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil && !math.IsInf(f, 0) {
			return nil, err
		}
		return f, nil
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	if len(s) > maxDigits {
		return nil, fmt.Errorf("an integer of %d digits", len(s))
	}
	i, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return nil, fmt.Errorf("bad number %q", s)
	}
	return normInt(i), nil
}

// loneSurrogate returns the offset of the first \uD800-\uDFFF in JSON that is not part of a pair, or -1.
func loneSurrogate(data []byte) int {
	half := func(i int) uint64 { // of the escape at i: 0xD8 or 0xDC, or 0
		if i+6 > len(data) || data[i] != '\\' || data[i+1] != 'u' {
			return 0
		}
		code, err := strconv.ParseUint(string(data[i+2:i+6]), 16, 16)
		if err != nil || code < 0xD800 || code > 0xDFFF {
			return 0
		}
		return code >> 10 << 2
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		switch h := half(i); {
		case h == 0:
			i++
		case h == 0xD800>>8 && half(i+6) == 0xDC00>>8:
			i += 11
		default:
			return i
		}
	}
	return -1
}

type dumper struct {
	r          *run
	b          builder
	ascii      bool
	indent     string
	pretty     bool
	item, pair string // separators
	sortKeys   bool
}

func (d *dumper) dump(v value, depth int) {
	r := d.r
	r.step(1)
	if depth > maxData {
		r.fail("a value is nested more than %d deep", maxData)
	}
	switch v := v.(type) {
	case nil:
		d.b.write("null")
	case bool:
		d.b.write(strconv.FormatBool(v))
	case int64:
		d.b.write(strconv.FormatInt(v, 10))
	case *big.Int:
		d.b.write(r.bigString(v))
	case float64:
		d.b.write(jsonFloat(v))
	case string:
		d.quote(v)
	case markup:
		d.quote(string(v))
	case *list:
		d.items(v.items, depth)
	case *tuple:
		d.items(v.items, depth)
	case *dict:
		d.object(v, depth)
	default:
		r.fail("tojson: a value of type %s cannot be JSON", typeName(v))
	}
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return floatRepr(f)
}

func (d *dumper) newline(depth int) {
	if !d.pretty {
		return
	}
	d.b.write("\n")
	for range depth {
		d.r.step(1)
		d.b.write(d.indent)
	}
}

func (d *dumper) items(items []value, depth int) {
	if len(items) == 0 {
		d.b.write("[]")
		return
	}
	d.b.write("[")
	for i, item := range items {
		if i > 0 {
			d.b.write(d.item)
		}
		d.newline(depth + 1)
		d.dump(item, depth+1)
	}
	d.newline(depth)
	d.b.write("]")
}

func (d *dumper) object(o *dict, depth int) {
	if o.len() == 0 {
		d.b.write("{}")
		return
	}
	entries := o.entries
	if d.sortKeys {
		d.r.alloc(len(entries) * entrySize)
		entries = append([]entry(nil), entries...)
		sort.SliceStable(entries, func(i, j int) bool { return d.r.less(entries[i].key, entries[j].key) })
	}
	d.b.write("{")
	for i, e := range entries {
		if i > 0 {
			d.b.write(d.item)
		}
		d.newline(depth + 1)
		switch k := e.key.(type) {
		case string:
			d.quote(k)
		case nil:
			d.quote("null")
		case bool:
			d.quote(strconv.FormatBool(k))
		case int64:
			d.quote(strconv.FormatInt(k, 10))
		case *big.Int:
			d.quote(d.r.bigString(k))
		case float64:
			d.quote(jsonFloat(k))
		default:
			d.r.fail("tojson: a key of type %s cannot be JSON", typeName(k))
		}
		d.b.write(d.pair)
		d.dump(e.value, depth+1)
	}
	d.newline(depth)
	d.b.write("}")
}

func (d *dumper) quote(s string) {
	d.b.writeByte('"')
	start := 0
	for i, c := range s {
		esc := ""
		switch {
		case c == '"':
			esc = `\"`
		case c == '\\':
			esc = `\\`
		case c == '\n':
			esc = `\n`
		case c == '\r':
			esc = `\r`
		case c == '\t':
			esc = `\t`
		case c == '\f':
			esc = `\f`
		case c == '\b':
			esc = `\b`
		case c < 0x20 || d.ascii && c > 0x7e && c < 0x10000:
			esc = `\u` + hexDigits(uint32(c), 4)
		case d.ascii && c >= 0x10000:
			c -= 0x10000
			esc = `\u` + hexDigits(0xD800|uint32(c)>>10, 4) + `\u` + hexDigits(0xDC00|uint32(c)&0x3FF, 4)
			c += 0x10000
		default:
			continue
		}
		d.b.write(s[start:i])
		d.b.write(esc)
		start = i + utf8.RuneLen(c)
	}
	d.b.write(s[start:])
	d.b.writeByte('"')
}
