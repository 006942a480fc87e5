package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// preTokenizer cuts text into the words that the model sees one by one.
type preTokenizer struct {
	steps []step
	// byteLevel: the last step was a ByteLevel. Its spelling of bytes as characters never appears; the model reads the
	// bytes themselves.
	byteLevel bool
	// scan is set when steps is a single pattern that matches everywhere and is cut at each match.
	scan scanner
}

// piece is a part of the text on its way to becoming words. It owns its alignment, nil when there is no record of it.
type piece struct {
	text string
	*alignment
}

// step changes a piece, then cuts it; either may be nil. atStart says that s is the start of the whole text.
type step struct {
	edit func(s string, a *alignment, atStart bool) string
	cut  func(s string) []match // the pieces, in order
}

func (st step) appendPieces(dst []piece, p piece, atStart bool) []piece {
	if st.edit != nil {
		p.text = st.edit(p.text, p.alignment, atStart)
	}
	if st.cut == nil {
		return append(dst, p)
	}
	for _, m := range st.cut(p.text) {
		if m.start < m.end {
			dst = append(dst, piece{p.text[m.start:m.end], p.slice(m.start, m.end)})
		}
	}
	return dst
}

// readPreTokenizer reads "pre_tokenizer"; alone says that there is no normalizer.
func readPreTokenizer(n node, alone bool) (*preTokenizer, error) {
	p := &preTokenizer{}
	if n == nil {
		return p, nil
	}
	if err := p.read(n, alone); err != nil {
		return nil, err
	}
	if len(p.steps) > maxComponents {
		return nil, fmt.Errorf("pre_tokenizer: more than %d components", maxComponents)
	}
	if len(p.steps) != 1 {
		p.scan = nil
	}
	return p, nil
}

func (p *preTokenizer) read(n node, alone bool) error {
	typ, f, err := component("pre_tokenizer", n)
	if err != nil {
		return err
	}
	if p.byteLevel {
		return fmt.Errorf("%s after ByteLevel is not supported", f.where)
	}
	switch typ {
	case "Sequence":
		for _, child := range f.list("pretokenizers") {
			if err := p.read(child, alone); err != nil {
				return err
			}
		}
	case "Split":
		pattern, behavior := f.pattern(), f.behavior("behavior")
		p.steps = append(p.steps, step{cut: splitAt(pattern.find, f.boolean("invert"), behavior)})
		if behavior == isolated {
			p.scan = pattern.scan
		}
	case "ByteLevel":
		p.byteLevel = true
		f.boolOr("trim_offsets", true) // changes offsets only
		if f.boolean("add_prefix_space") {
			p.steps = append(p.steps, step{edit: func(s string, a *alignment, _ bool) string {
				if strings.HasPrefix(s, " ") {
					return s
				}
				a.prepend(s, 1)
				return " " + s
			}})
		}
		if f.boolOr("use_regex", true) {
			p.steps = append(p.steps, step{cut: splitAt(findScan(scanGPT2), false, isolated)})
			p.scan = scanGPT2
		}
	case "Digits":
		behavior := contiguous
		if f.boolean("individual_digits") {
			behavior = isolated
		}
		p.steps = append(p.steps, step{cut: splitAt(findClass(numeric), false, behavior)})
	case "WhitespaceSplit":
		p.steps = append(p.steps, step{cut: splitAt(findClass(space), false, removed)})
	case "Whitespace":
		p.steps = append(p.steps, step{cut: splitAt(findWords, true, removed)})
	case "Metaspace":
		p.steps = append(p.steps, f.metaspace(len(p.steps) == 0 && alone))
	default:
		return fmt.Errorf("%s is not supported", f.where)
	}
	return f.done()
}

// metaspace reads a Metaspace; first says whether prepend_scheme "first" can be told from the text alone: Hugging Face
// decides it by offsets into the original text, which a normalizer or an earlier step would move.
func (f *fields) metaspace(first bool) step {
	replacement := f.char("replacement")
	split := f.boolOr("split", true)
	scheme := f.prependScheme()
	if scheme == "first" && !first {
		f.fail(`prepend_scheme "first" after a normalizer or another pre-tokenizer is not supported`)
	}
	mark, _ := utf8.DecodeRuneInString(replacement)
	spaces := replacer{pattern{literal: " "}, replacement}
	st := step{edit: func(s string, a *alignment, atStart bool) string {
		s = spaces.edit(s, a)
		if (scheme == "always" || scheme == "first" && atStart) && !strings.HasPrefix(s, replacement) {
			a.prepend(s, len(replacement))
			s = replacement + s
		}
		return s
	}}
	if split {
		st.cut = splitAt(findRune(mark), false, mergedWithNext)
	}
	return st
}

// prependScheme reads prepend_scheme and the older add_prefix_space of a Metaspace.
func (f *fields) prependScheme() string {
	scheme := f.strOr("prepend_scheme", "always")
	if scheme != "always" && scheme != "first" && scheme != "never" {
		f.fail(`prepend_scheme %.200q is not supported, want "always", "first" or "never"`, scheme)
	}
	if !f.boolOr("add_prefix_space", true) {
		if _, given := f.obj.values["prepend_scheme"]; given && scheme != "never" {
			f.fail("add_prefix_space false contradicts prepend_scheme %q", scheme)
		}
		scheme = "never"
	}
	f.strOr("str_rep", "") // written by old versions, never read
	return scheme
}

// behavior is what happens to the matches of a split.
type behavior int

const (
	isolated behavior = iota
	removed
	contiguous
	mergedWithPrevious
	mergedWithNext
)

func (f *fields) behavior(name string) behavior {
	s := f.str(name)
	for i, known := range []string{"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"} {
		if s == known {
			return behavior(i)
		}
	}
	f.fail("%s %.200q is not supported", name, s)
	return isolated
}

// match is part of a string; hit says that the pattern matched it.
type match struct {
	start, end int
	hit        bool
}

// finder cuts a string that is not empty into matches and the stretches between them.
type finder func(dst []match, s string) []match

// find is the finder of a pattern.
func (p pattern) find(dst []match, s string) []match {
	switch {
	case p.scan != nil:
		return findScan(p.scan)(dst, s)
	case p.regexp != nil:
		done := 0
		for _, m := range p.regexp.FindAllStringIndex(s, -1) {
			dst, done = appendMatch(dst, done, m[0], m[1]), m[1]
		}
		return appendRest(dst, done, len(s))
	}
	done := 0
	for {
		i := strings.Index(s[done:], p.literal)
		if i < 0 {
			return appendRest(dst, done, len(s))
		}
		end := done + i + len(p.literal)
		dst, done = appendMatch(dst, done, done+i, end), end
	}
}

func appendMatch(dst []match, done, start, end int) []match {
	return append(appendRest(dst, done, start), match{start, end, true})
}

func appendRest(dst []match, done, end int) []match {
	if done < end {
		dst = append(dst, match{done, end, false})
	}
	return dst
}

func findScan(scan scanner) finder {
	return func(dst []match, s string) []match {
		for i := 0; i < len(s); {
			end := scan(s, i)
			dst = append(dst, match{i, end, true})
			i = end
		}
		return dst
	}
}

// findClass matches each character of a class by itself.
func findClass(class uint8) finder {
	return findFunc(func(c rune) bool { return classes()[c]&class != 0 })
}

func findRune(r rune) finder {
	return findFunc(func(c rune) bool { return c == r })
}

func findFunc(is func(rune) bool) finder {
	return func(dst []match, s string) []match {
		done := 0
		for i, c := range s {
			if is(c) {
				end := i + utf8.RuneLen(c)
				dst, done = appendMatch(dst, done, i, end), end
			}
		}
		return appendRest(dst, done, len(s))
	}
}

// findWords matches \w+|[^\w\s]+.
func findWords(dst []match, s string) []match {
	table := classes()
	done := 0
	for i := 0; i < len(s); {
		c, size := runeAt(s, i)
		end := i + size
		switch class := table[c]; {
		case class&word != 0:
			end = span(s, end, word, table)
		case class&space == 0:
			end = spanNot(s, end, word|space, table)
		default:
			i = end
			continue
		}
		dst, done = appendMatch(dst, done, i, end), end
		i = end
	}
	return appendRest(dst, done, len(s))
}

// splitAt applies a behavior to the matches; invert swaps matches and stretches between.
func splitAt(find finder, invert bool, b behavior) func(s string) []match {
	return func(s string) []match {
		matches := find(nil, s)
		if invert {
			for i := range matches {
				matches[i].hit = !matches[i].hit
			}
		}
		joined := matches[:0]
		switch b {
		case removed:
			for _, m := range matches {
				if !m.hit {
					joined = append(joined, m)
				}
			}
		case contiguous, mergedWithPrevious:
			before := false
			for _, m := range matches {
				join := m.hit == before
				if b == mergedWithPrevious {
					join = m.hit && !before
				}
				before = m.hit
				if join && len(joined) > 0 {
					joined[len(joined)-1].end = m.end
				} else {
					joined = append(joined, m)
				}
			}
		case mergedWithNext:
			// From the back, so that joined grows towards the front.
			at, after := len(matches), false
			for i := len(matches) - 1; i >= 0; i-- {
				m := matches[i]
				if m.hit && !after && at < len(matches) {
					matches[at].start = m.start
				} else {
					at--
					matches[at] = m
				}
				after = m.hit
			}
			joined = matches[at:]
		default:
			joined = matches
		}
		return joined
	}
}

// appendWords cuts s, which is not empty, into words and calls word for each: w is what begins at byte at of the text
// that is aligned by a. Without an alignment of s there is none of its words.
func (p *preTokenizer) appendWords(s string, a *alignment, atStart bool, sc *scratch,
	word func(w string, a *alignment, at int) error) error {
	if p.scan != nil {
		for i := 0; i < len(s); {
			end := p.scan(s, i)
			if err := word(s[i:end], a, i); err != nil {
				return err
			}
			i = end
		}
		return nil
	}
	if len(p.steps) == 0 {
		return word(s, a, 0)
	}
	in, out := append(sc.pieces[0][:0], piece{s, a}), sc.pieces[1][:0]
	for _, step := range p.steps {
		out = out[:0]
		for i, piece := range in {
			out = step.appendPieces(out, piece, atStart && i == 0)
		}
		in, out = out, in
	}
	defer func() {
		// Pieces point into the caller's text.
		clear(in)
		clear(out)
		sc.pieces = [2][]piece{in, out}
	}()
	for _, piece := range in {
		if err := word(piece.text, piece.alignment, 0); err != nil {
			return err
		}
	}
	return nil
}
