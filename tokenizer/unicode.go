package tokenizer

import (
	"strconv"
	"strings"
	"sync"
)

//go:generate python3 testdata/make_tables.py

// Character classes. The package unicode follows the Go release, and Hugging Face's libraries (Oniguruma, Rust's regex
// and standard library) follow theirs; one letter of difference changes ids. tables.go therefore holds the classes as
// tokenizers 0.23.3 has them, and they change only when that file does.
const (
	letter    = 1 << iota // \p{L}
	number                // \p{N}
	mark                  // \p{M}
	space                 // \s and White_Space, in which all three libraries agree
	word                  // \w of Rust's regex
	numeric               // Rust's char::is_numeric, \p{N} of a later Unicode
	canonical             // NFC and NFD may change it, move it, or compose it with the character before it
	compat                // NFKC and NFKD decompose it further
)

// classes has one byte per code point, built on first use (about 1 ms).
var classes = sync.OnceValue(func() []uint8 {
	table := make([]uint8, 0x110000)
	for bit, ranges := range map[uint8]string{
		letter: letterRanges, number: numberRanges, mark: markRanges, space: spaceRanges,
		word: wordRanges, numeric: numericRanges, canonical: canonicalRanges,
		compat: compatRanges,
	} {
		for _, r := range parseRanges(ranges) {
			for c := r[0]; c <= r[1]; c++ {
				table[c] |= bit
			}
		}
	}
	return table
})

// parseRanges reads "41-5A AA …".
func parseRanges(s string) (ranges [][2]rune) {
	for field := range strings.FieldsSeq(s) {
		from, to, ok := strings.Cut(field, "-")
		if !ok {
			to = from
		}
		lo, err1 := strconv.ParseUint(from, 16, 21)
		hi, err2 := strconv.ParseUint(to, 16, 21)
		if err1 != nil || err2 != nil {
			panic("tokenizer: tables.go: " + field) // the tables are constants of this package
		}
		ranges = append(ranges, [2]rune{rune(lo), rune(hi)})
	}
	return ranges
}

func isSpace(c rune) bool { return classes()[c]&space != 0 }
func isWord(c rune) bool  { return classes()[c]&word != 0 }
