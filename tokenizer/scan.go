package tokenizer

import "unicode/utf8"

// The split patterns below need look-ahead, which Go's regexp does not have. Each is recognised letter by letter and
// run by a scanner written for it: one pass, no backtracking, linear in the text. Alternatives of a pattern are tried
// in order, and the first that matches wins, as in Oniguruma.
const (
	patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}` +
		`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

	patternQwen2 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}` +
		`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` // Qwen2, Qwen2.5 and Qwen3
)

// scanner returns the end of the match that starts at i. These patterns match at every position, so that the end of
// one match is the start of the next.
type scanner func(s string, i int) int

var scanners = map[string]scanner{
	patternGPT2:   scanGPT2,
	patternLlama3: func(s string, i int) int { return scanLlama(s, i, 3) },
	patternQwen2:  func(s string, i int) int { return scanLlama(s, i, 1) },
}

// scanLlama matches patternLlama3 (digits = 3) or patternQwen2 (digits = 1).
func scanLlama(s string, i, digits int) int {
	table := classes()
	c, size := runeAt(s, i)
	class := table[c]
	// (?i:'s|'t|'re|'ve|'m|'ll|'d)
	if c == '\'' {
		if n := contractionFold(s[i:]); n > 0 {
			return i + n
		}
	}
	// [^\r\n\p{L}\p{N}]?\p{L}+
	after := i + size
	if class&letter != 0 {
		return span(s, after, letter, table)
	}
	next := uint8(0)
	if after < len(s) {
		r, _ := runeAt(s, after)
		next = table[r]
	}
	if next&letter != 0 && class&number == 0 && c != '\r' && c != '\n' {
		return span(s, after, letter, table)
	}
	// \p{N}{1,3}
	if class&number != 0 {
		for n := 1; n < digits && after < len(s); n++ {
			r, size := runeAt(s, after)
			if table[r]&number == 0 {
				break
			}
			after += size
		}
		return after
	}
	//  ?[^\s\p{L}\p{N}]+[\r\n]*
	const other = space | letter | number
	if class&space == 0 || c == ' ' && after < len(s) && next&other == 0 {
		end := spanNot(s, after, other, table)
		for end < len(s) && (s[end] == '\n' || s[end] == '\r') {
			end++
		}
		return end
	}
	// \s*[\r\n]+|\s+(?!\S)|\s+
	return scanSpace(s, i, true, table)
}

// scanGPT2 matches patternGPT2.
func scanGPT2(s string, i int) int {
	table := classes()
	if s[i] == '\'' {
		if n := contraction(s[i:]); n > 0 {
			return i + n
		}
	}
	start := i
	if s[i] == ' ' && i+1 < len(s) {
		start++ // the optional space before letters, numbers and others
	}
	c, size := runeAt(s, start)
	switch class := table[c]; {
	case class&letter != 0:
		return span(s, start+size, letter, table)
	case class&number != 0:
		return span(s, start+size, number, table)
	case class&space == 0:
		return spanNot(s, start+size, space|letter|number, table)
	}
	return scanSpace(s, i, false, table)
}

// scanSpace matches \s+(?!\S)|\s+ at white space, with lines preceded by \s*[\r\n]+.
func scanSpace(s string, i int, lines bool, table []uint8) int {
	end, last, afterLine := i, i, 0
	for end < len(s) {
		c, size := runeAt(s, end)
		if table[c]&space == 0 {
			break
		}
		last = end
		end += size
		if c == '\n' || c == '\r' {
			afterLine = end
		}
	}
	switch {
	case lines && afterLine > 0:
		return afterLine // \s* takes all, then gives back what follows the last line end
	case end == len(s) || last == i:
		return end
	}
	return last // the last one is left for the word that follows
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd at the start of s, 0 if there is none.
func contraction(s string) int {
	if len(s) >= 2 {
		switch s[1] {
		case 's', 't', 'm', 'd':
			return 2
		}
	}
	if len(s) >= 3 {
		switch s[1:3] {
		case "re", "ve", "ll":
			return 3
		}
	}
	return 0
}

// contractionFold is contraction without regard to case. U+017F (long s) folds to s.
func contractionFold(s string) int {
	if len(s) >= 2 {
		switch s[1] | 0x20 {
		case 's', 't', 'm', 'd':
			return 2
		}
	}
	if len(s) >= 3 {
		switch [2]byte{s[1] | 0x20, s[2] | 0x20} {
		case [2]byte{'r', 'e'}, [2]byte{'v', 'e'}, [2]byte{'l', 'l'}:
			return 3
		}
		if s[1:3] == "\u017F" {
			return 3
		}
	}
	return 0
}

func runeAt(s string, i int) (rune, int) {
	if c := s[i]; c < utf8.RuneSelf {
		return rune(c), 1
	}
	return utf8.DecodeRuneInString(s[i:])
}

// span returns the end of the run of characters of a class that starts at i.
func span(s string, i int, class uint8, table []uint8) int {
	for i < len(s) {
		c, size := runeAt(s, i)
		if table[c]&class == 0 {
			break
		}
		i += size
	}
	return i
}

// spanNot returns the end of the run of characters of none of the classes.
func spanNot(s string, i int, class uint8, table []uint8) int {
	for i < len(s) {
		c, size := runeAt(s, i)
		if table[c]&class != 0 {
			break
		}
		i += size
	}
	return i
}
