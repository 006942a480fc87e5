package tokenizer

import (
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// edit changes a text and says so to its alignment, which may be nil.
type edit func(s string, a *alignment) string

// normalizers are applied in order to each stretch of text between added tokens.
type normalizers []edit

func (n normalizers) apply(s string, a *alignment) string {
	for _, f := range n {
		s = f(s, a)
	}
	return s
}

// readNormalizer reads "normalizer".
func readNormalizer(n node) (normalizers, error) {
	if n == nil {
		return nil, nil
	}
	g := growth{where: "normalizer", times: 1}
	return g.normalizer(n)
}

// normalizer flattens nested Sequences.
func (g *growth) normalizer(n node) (normalizers, error) {
	typ, f, err := component("normalizer", n)
	if err != nil {
		return nil, err
	}
	var list normalizers
	times := 1
	switch typ {
	case "Sequence":
		for _, child := range f.list("normalizers") {
			inner, err := g.normalizer(child)
			if err != nil {
				return nil, err
			}
			list = append(list, inner...)
		}
		return list, f.done()
	case "NFC":
		times = 3
		list = normalizers{unicodeForm(norm.NFC)}
	case "NFD":
		times = 4
		list = normalizers{unicodeForm(norm.NFD)}
	case "NFKC":
		times = 11
		list = normalizers{unicodeForm(norm.NFKC)}
	case "NFKD":
		times = 11
		list = normalizers{unicodeForm(norm.NFKD)}
	case "Prepend":
		prefix := f.str("prepend")
		times = 1 + len(prefix)
		list = normalizers{func(s string, a *alignment) string {
			if s == "" {
				return s
			}
			a.prepend(s, len(prefix))
			return prefix + s
		}}
	case "Strip":
		left, right := f.boolean("strip_left"), f.boolean("strip_right")
		list = normalizers{func(s string, a *alignment) string {
			start, end := 0, len(s)
			if left {
				start = end - len(strings.TrimLeftFunc(s, isSpace))
			}
			if right {
				end = start + len(strings.TrimRightFunc(s[start:], isSpace))
			}
			a.cut(s, start, end)
			return s[start:end]
		}}
	case "Replace":
		var replace replacer
		replace, times = f.replacement()
		list = normalizers{replace.edit}
	default:
		return nil, fmt.Errorf("%s is not supported", f.where)
	}
	if err := f.done(); err != nil {
		return nil, err
	}
	return list, g.add(times)
}

// growth keeps a file from describing a bomb: forty replacements of "a" by "aa" would make a terabyte of one letter.
type growth struct {
	where string
	times int // what comes out is at most so many times as long as what goes in
	count int
}

const (
	maxGrowth     = 256 // NFKC (11 times) and the replacements of all published files together stay below 140
	maxComponents = 64
)

// add counts one more component, which makes a text at most times longer.
func (g *growth) add(times int) error {
	if g.count++; g.count > maxComponents {
		return fmt.Errorf("%s: more than %d components", g.where, maxComponents)
	}
	if g.times *= max(1, min(times, maxGrowth+1)); g.times > maxGrowth {
		return fmt.Errorf("%s: could make a text more than %d times longer", g.where, maxGrowth)
	}
	return nil
}

// replacer puts content in the place of each match of a pattern.
type replacer struct {
	pattern pattern
	content string
}

// replacement reads the pattern and content of a Replace, which is a normalizer and a decoder. A text becomes at most
// times longer by it.
func (f *fields) replacement() (r replacer, times int) {
	r = replacer{content: f.str("content"), pattern: f.pattern()}
	switch {
	case f.err != nil:
		return r, 1
	case r.pattern.scan != nil:
		f.fail("this pattern is supported in Split only")
		return r, 1
	case r.pattern.regexp == nil:
		return r, (len(r.content) + len(r.pattern.literal) - 1) / len(r.pattern.literal)
	}
	times = len(r.content)
	if r.pattern.regexp.MatchString("") {
		times++
	}
	return r, times
}

func (r replacer) replace(s string) string {
	switch {
	case s == "":
		return s
	case r.pattern.regexp == nil:
		return strings.ReplaceAll(s, r.pattern.literal, r.content)
	}
	return r.pattern.regexp.ReplaceAllLiteralString(s, r.content)
}

func (r replacer) edit(s string, a *alignment) string {
	if s != "" {
		a.replace(s, r.pattern.find, len(r.content))
	}
	return r.replace(s)
}
