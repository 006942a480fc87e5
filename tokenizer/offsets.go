package tokenizer

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Encoding is what [BPE.EncodeOffsets] returns.
type Encoding struct {
	IDs []int32
	// Offsets has for each id where it comes from: text[o[0]:o[1]], whole characters. They are Encoding.offsets of
	// Hugging Face's tokenizers, which counts characters, in bytes.
	Offsets [][2]int
}

// EncodeOffsets is EncodeWith, and says for each id which part of text it comes from, as Hugging Face does:
//
//   - What the post-processor adds has {0, 0}.
//   - Each of several tokens that share a character has all of that character.
//   - With trim_offsets in a ByteLevel post-processor the spaces at the ends of a token are not part of it.
//   - A character that is inserted has the offsets of one beside it: a prefix those of the first character.
//   - Of a sequence that is replaced by one character the offsets are those of the last; but of characters that NFC
//     composes, those of the first: "e" and U+0301 become "é", with the offsets of "e". Marks that NFC puts in another
//     order exchange offsets.
//
// Without trim_offsets and added tokens with rstrip, starts and ends never descend; where nothing is normalized or
// removed either, they cover text.
//
// The memory is 16 bytes for each id, and 8 for each byte of a stretch that is normalized.
func (t *BPE) EncodeOffsets(text string, opts EncodeOptions) (Encoding, error) {
	r := &recorder{bpe: t, text: text, offsets: make([][2]int, 0, len(text)/3+1)}
	ids, err := t.encode(text, opts, r)
	if err != nil {
		return Encoding{}, err
	}
	return Encoding{ids, r.offsets}, nil
}

// origin is a part of the original text, in bytes.
type origin struct{ start, end int32 }

// alignment says for each byte of a text, while it is normalized and cut, which characters of the original it stands
// for. A nil alignment keeps no record: EncodeWith runs the same code with nil.
type alignment struct {
	original string
	base     int // where the stretch of the original begins that the text was made of
	// from has an element for each byte of the text. Nil says that the text is original[base:][:len(text)].
	from []origin
}

// slice returns the alignment of a part of the text.
func (a *alignment) slice(start, end int) *alignment {
	switch {
	case a == nil:
		return nil
	case a.from == nil:
		return &alignment{original: a.original, base: a.base + start}
	}
	return &alignment{original: a.original, base: int(a.from[start].start), from: a.from[start:end]}
}

// offsets returns the part of the original that text[start:end], which is not empty, stands for.
func (a *alignment) offsets(start, end int) [2]int {
	if a.from != nil {
		return [2]int{int(a.from[start].start), int(a.from[end-1].end)}
	}
	start, end = a.base+start, a.base+end
	for !utf8.RuneStart(a.original[start]) {
		start--
	}
	for end < len(a.original) && !utf8.RuneStart(a.original[end]) {
		end++
	}
	return [2]int{start, end}
}

// explicit returns from for the text s, also where it was nil.
func (a *alignment) explicit(s string) []origin {
	if a.from != nil {
		return a.from
	}
	from := make([]origin, 0, len(s))
	for i := 0; i < len(s); {
		_, size := utf8.DecodeRuneInString(s[i:])
		char := origin{int32(a.base + i), int32(a.base + i + size)}
		for range size {
			from = append(from, char)
		}
		i += size
	}
	return from
}

// cut is told that s becomes s[start:end].
func (a *alignment) cut(s string, start, end int) {
	if a != nil && end-start < len(s) {
		a.from = a.explicit(s)[start:end]
	}
}

// prepend is told that n bytes are put before s, which is not empty.
func (a *alignment) prepend(s string, n int) {
	if a != nil {
		from := a.explicit(s)
		a.from = append(slices.Repeat(from[:1], n), from...)
	}
}

// replace is told that the matches that find has in s become n bytes each. These stand for the last character of the
// match.
func (a *alignment) replace(s string, find finder, n int) {
	if a == nil {
		return
	}
	matches := find(nil, s)
	if !slices.ContainsFunc(matches, func(m match) bool { return m.hit }) {
		return
	}
	from := a.explicit(s)
	to := make([]origin, 0, len(from))
	for _, m := range matches {
		if !m.hit {
			to = append(to, from[m.start:m.end]...)
			continue
		}
		for range n {
			to = append(to, a.before(from, m.end))
		}
	}
	a.from = to
}

// before is what a character stands for that is inserted at i. At the start of a text it stands for nothing.
func (a *alignment) before(from []origin, i int) origin {
	if i == 0 {
		return origin{int32(a.base), int32(a.base)}
	}
	return from[i-1]
}

// transform is told that s becomes out. For each character of out changes has 1 if it is inserted, 0 if it replaces the
// next one of s, and -n if it replaces the next one and n more are dropped.
func (a *alignment) transform(s, out string, changes []int8) {
	if a == nil {
		return
	}
	from := a.explicit(s)
	to := make([]origin, 0, len(out))
	at, i := 0, 0 // in s and in changes
	for _, c := range out {
		var char origin
		if change := changes[i]; change > 0 {
			char = a.before(from, at)
		} else {
			char = from[at]
			for range 1 - int(change) {
				_, size := utf8.DecodeRuneInString(s[at:])
				at += size
			}
		}
		for range utf8.RuneLen(c) {
			to = append(to, char)
		}
		i++
	}
	a.from = to
}

// recorder collects the offsets of one text. A nil recorder collects none.
type recorder struct {
	bpe     *BPE
	text    string
	offsets [][2]int
	first   int // where the offsets of the text begin

	symbols, lengths []int32 // of the last word
}

// start returns how the text is aligned with itself; the offsets of its tokens come next.
func (r *recorder) start() *alignment {
	if r == nil {
		return nil
	}
	r.first = len(r.offsets)
	return &alignment{original: r.text}
}

// added appends the offsets of n tokens that the post-processor adds.
func (r *recorder) added(n int) {
	if r != nil {
		r.offsets = append(r.offsets, make([][2]int, n)...)
	}
}

// word appends the offsets of the ids of a word that begins at byte at of an aligned text.
func (r *recorder) word(ids []int32, word string, a *alignment, at int) error {
	m := r.bpe.model
	if len(ids) == 1 {
		r.token(m.vocab.tokens[ids[0]], a.offsets(at, at+len(word)))
		return nil
	}
	// A token is spelled by the symbols it was merged from, so its spelling tells how many of them are its own. They
	// are not spelled as in the word: there are unk, <0x41> and the Ġ of byte-level.
	var err error
	r.lengths = r.lengths[:0]
	if r.symbols, err = m.symbols(r.symbols[:0], word, &r.lengths); err != nil {
		return err
	}
	next := 0
	for _, id := range ids {
		token, start := m.vocab.tokens[id], at
		for spelled := 0; spelled < len(token); next++ {
			spelled += len(m.vocab.tokens[r.symbols[next]])
			at += int(r.lengths[next])
		}
		r.token(token, a.offsets(start, at))
	}
	return nil
}

// token appends the offsets of a token, which the post-processor may trim.
func (r *recorder) token(token string, at [2]int) {
	for _, prefix := range r.bpe.trims {
		at = trimOffsets(r.text, token, at, prefix && (len(r.offsets) == r.first || at[0] == 0))
	}
	r.offsets = append(r.offsets, at)
}

// trimOffsets takes as many characters off the ends of at as token has spaces there; keepOne says that a single one in
// front stays, because it may have been inserted. That token and text can differ in characters is Hugging Face's way.
func trimOffsets(text, token string, at [2]int, keepOne bool) [2]int {
	isSpace := func(c rune) bool { return c == byteChars[' '] || isSpace(c) }
	count := func(s string) int { return utf8.RuneCountInString(s) }
	leading := count(token) - count(strings.TrimLeftFunc(token, isSpace))
	trailing := count(token) - count(strings.TrimRightFunc(token, isSpace))
	if leading == 1 && keepOne {
		leading = 0
	}
	for ; leading > 0 && at[0] < at[1]; leading-- {
		_, size := utf8.DecodeRuneInString(text[at[0]:])
		at[0] += size
	}
	end := at[1]
	for ; trailing > 0 && end > 0; trailing-- {
		_, size := utf8.DecodeLastRuneInString(text[:end])
		end -= size
	}
	if trailing == 0 { // else the text before is shorter than that, and nothing is trimmed
		at[1] = max(at[0], end)
	}
	return at
}
