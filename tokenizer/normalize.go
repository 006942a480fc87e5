package tokenizer

import (
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// normalizers are applied in order to each stretch of text between added tokens.
type normalizers []func(string) string

func (n normalizers) apply(s string) string {
	for _, f := range n {
		s = f(s)
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
		list = normalizers{func(s string) string {
			if s == "" {
				return s
			}
			return prefix + s
		}}
	case "Strip":
		left, right := f.boolean("strip_left"), f.boolean("strip_right")
		list = normalizers{func(s string) string {
			if left {
				s = strings.TrimLeftFunc(s, isSpace)
			}
			if right {
				s = strings.TrimRightFunc(s, isSpace)
			}
			return s
		}}
	case "Replace":
		var replace func(string) string
		replace, times = f.replacement()
		list = normalizers{replace}
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

// replacement reads the pattern and content of a Replace, which is a normalizer and a decoder. A text becomes at most
// times longer by it.
func (f *fields) replacement() (replace func(string) string, times int) {
	content := f.str("content")
	p := f.pattern()
	switch {
	case f.err != nil:
		return nil, 1
	case p.scan != nil:
		f.fail("this pattern is supported in Split only")
		return nil, 1
	case p.regexp == nil:
		times = (len(content) + len(p.literal) - 1) / len(p.literal)
		return func(s string) string { return strings.ReplaceAll(s, p.literal, content) }, times
	}
	times = len(content)
	if p.regexp.MatchString("") {
		times++
	}
	return func(s string) string {
		if s == "" {
			return s
		}
		return p.regexp.ReplaceAllLiteralString(s, content)
	}, times
}
