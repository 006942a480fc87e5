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

// readNormalizer flattens nested Sequences.
func readNormalizer(n node) (normalizers, error) {
	if n == nil {
		return nil, nil
	}
	typ, f, err := component("normalizer", n)
	if err != nil {
		return nil, err
	}
	var list normalizers
	switch typ {
	case "Sequence":
		for _, child := range f.list("normalizers") {
			inner, err := readNormalizer(child)
			if err != nil {
				return nil, err
			}
			if child == nil {
				f.fail("normalizers has a null")
			}
			list = append(list, inner...)
		}
	case "NFC":
		list = normalizers{unicodeForm(norm.NFC)}
	case "NFD":
		list = normalizers{unicodeForm(norm.NFD)}
	case "NFKC":
		list = normalizers{unicodeForm(norm.NFKC)}
	case "NFKD":
		list = normalizers{unicodeForm(norm.NFKD)}
	case "Prepend":
		prefix := f.str("prepend")
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
		replace := f.replacement()
		list = normalizers{replace}
	default:
		return nil, fmt.Errorf("%s is not supported", f.where)
	}
	return list, f.done()
}

// replacement reads the pattern and content of a Replace, which is a normalizer and a decoder.
func (f *fields) replacement() func(string) string {
	content := f.str("content")
	p := f.pattern()
	if f.err != nil {
		return nil
	}
	if p.regexp == nil {
		return func(s string) string { return strings.ReplaceAll(s, p.literal, content) }
	}
	return func(s string) string {
		if s == "" {
			return s
		}
		return p.regexp.ReplaceAllLiteralString(s, content)
	}
}
