package tokenizer

import (
	"slices"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Unicode normalization, with the data of x/text but not its algorithm, for two reasons. x/text inserts U+034F after
// 30 combining characters (its stream-safe format), and its Unicode version is later than Hugging Face's: characters
// outside the classes canonical and compat are left alone here, as they are there.

// unicodeForm is NFC, NFD, NFKC or NFKD.
func unicodeForm(form norm.Form) edit {
	decomposed, compose, affected := form, false, uint8(canonical|compat)
	switch form {
	case norm.NFC:
		decomposed, compose, affected = norm.NFD, true, canonical
	case norm.NFD:
		affected = canonical
	case norm.NFKC:
		decomposed, compose = norm.NFKD, true
	}
	return func(s string, a *alignment) string {
		if unaffected(s, affected) || form.IsNormalString(s) {
			return s // x/text knows more characters than Hugging Face, so what is normal to it is normal there
		}
		n := normalizer{form: decomposed, compose: compose, table: classes(), record: a != nil}
		n.out = make([]byte, 0, len(s)+len(s)/8)
		for i := 0; i < len(s); {
			// Between two ASCII characters nothing happens.
			if c := s[i]; c < utf8.RuneSelf && (i+1 == len(s) || s[i+1] < utf8.RuneSelf) {
				n.flush()
				n.out = append(n.out, c)
				if n.record {
					n.changes = append(n.changes, 0)
				}
				i++
				continue
			}
			c, size := runeAt(s, i)
			n.decompose(c)
			i += size
		}
		n.flush()
		out := string(n.out)
		a.transform(s, out, n.changes)
		return out
	}
}

// unaffected says that no character of s is of the affected classes. It is quicker than IsNormalString.
func unaffected(s string, affected uint8) bool {
	var table []uint8
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		if table == nil {
			table = classes()
		}
		c, size := utf8.DecodeRuneInString(s[i:])
		if table[c]&affected != 0 {
			return false
		}
		i += size
	}
	return true
}

// normalizer holds one starter and the combining characters after it.
type normalizer struct {
	form    norm.Form // NFD or NFKD
	compose bool
	table   []uint8
	out     []byte
	segment []combining
	sorted  bool // segment is in canonical order and composed
	record  bool
	changes []int8 // of each character of out, if record is set
}

type combining struct {
	c     rune
	class uint8 // canonical combining class, 0 for a starter

	// change is 0 for the first character of a decomposition and 1 for the others, as they come. A composite has the
	// sum of its parts less 1 for each but the first. This is what unicode_normalization_alignments, Hugging Face's
	// library, tells of them; see alignment.transform.
	change int8
}

// Hangul syllables are composed by arithmetic (The Unicode Standard, section 3.12).
const (
	hangulL, hangulV, hangulT, hangulS = 0x1100, 0x1161, 0x11A7, 0xAC00

	countL, countV, countT = 19, 21, 28
)

func (n *normalizer) decompose(c rune) {
	if n.table[c]&(canonical|compat) == 0 {
		n.add(c, 0, 0)
		return
	}
	if s := c - hangulS; 0 <= s && s < countL*countV*countT {
		n.add(hangulL+s/(countV*countT), 0, 0)
		n.add(hangulV+s%(countV*countT)/countT, 0, 1)
		if t := s % countT; t != 0 {
			n.add(hangulT+t, 0, 1)
		}
		return
	}
	var buf [utf8.UTFMax]byte
	p := n.form.Properties(buf[:utf8.EncodeRune(buf[:], c)])
	d := p.Decomposition()
	if d == nil {
		n.add(c, p.CCC(), 0)
		return
	}
	for change := int8(0); len(d) > 0; change = 1 {
		c, size := utf8.DecodeRune(d)
		n.add(c, n.form.Properties(d[:size]).CCC(), change)
		d = d[size:]
	}
}

func (n *normalizer) add(c rune, class uint8, change int8) {
	if class != 0 {
		n.segment, n.sorted = append(n.segment, combining{c, class, change}), false
		return
	}
	n.settle()
	if len(n.segment) == 1 && n.segment[0].class == 0 && n.compose {
		if joined, ok := joinRunes(n.segment[0].c, c); ok {
			n.segment[0].c = joined
			n.segment[0].change += change - 1
			return
		}
	}
	n.flush()
	n.segment = append(n.segment, combining{c, 0, change})
}

// settle puts the segment in canonical order and composes it.
func (n *normalizer) settle() {
	if n.sorted || len(n.segment) < 2 {
		return
	}
	n.sorted = true
	marks := n.segment
	if marks[0].class == 0 {
		marks = marks[1:]
	}
	slices.SortStableFunc(marks, func(a, b combining) int { return int(a.class) - int(b.class) })
	if !n.compose || n.segment[0].class != 0 {
		return
	}
	kept := n.segment[:1]
	for _, m := range marks {
		// A mark is blocked from the starter by one of the same class that stayed in between.
		if last := kept[len(kept)-1]; len(kept) == 1 || last.class < m.class {
			if joined, ok := joinRunes(n.segment[0].c, m.c); ok {
				n.segment[0].c = joined
				n.segment[0].change += m.change - 1
				continue
			}
		}
		kept = append(kept, m)
	}
	n.segment = kept
}

func (n *normalizer) flush() {
	n.settle()
	for _, s := range n.segment {
		n.out = utf8.AppendRune(n.out, s.c)
		if n.record {
			n.changes = append(n.changes, s.change)
		}
	}
	n.segment, n.sorted = n.segment[:0], false
}

// joinRunes returns the primary composite of two characters.
func joinRunes(a, b rune) (rune, bool) {
	if l, v := a-hangulL, b-hangulV; 0 <= l && l < countL && 0 <= v && v < countV {
		return hangulS + (l*countV+v)*countT, true
	}
	if s, t := a-hangulS, b-hangulT; 0 <= s && s < countL*countV*countT && s%countT == 0 && 0 < t && t < countT {
		return a + t, true
	}
	c, ok := composites()[[2]rune{a, b}]
	return c, ok
}

// composites inverts the canonical decompositions of two characters or more, except those excluded from composition.
var composites = sync.OnceValue(func() map[[2]rune]rune {
	pairs := map[[2]rune]rune{}
	for _, r := range parseRanges(canonicalRanges) {
		for c := r[0]; c <= r[1]; c++ {
			d := norm.NFD.PropertiesString(string(c)).Decomposition()
			if d == nil || norm.NFC.String(string(c)) != string(c) {
				continue
			}
			last, size := utf8.DecodeLastRune(d)
			if first := []rune(norm.NFC.String(string(d[:len(d)-size]))); len(first) == 1 {
				pairs[[2]rune{first[0], last}] = c
			}
		}
	}
	return pairs
})
