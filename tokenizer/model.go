package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// bpeModel is the "model" of tokenizer.json. A word is what the pre-tokenizers leave: with byteLevel its bytes are the
// first symbols, otherwise its characters are.
type bpeModel struct {
	vocab        *vocabulary
	merges       *pairTable
	cache        *wordCache
	unk          int32 // -1: the file names none
	fuseUnk      bool
	byteFallback bool
	ignoreMerges bool

	byteLevel     bool
	cutBeforeMark bool           // see marksBegin
	bytes         [256]int32     // byteLevel: id of each byte's symbol; else of "<0x00>"…"<0xFF>"; -1 where absent
	ascii         [128]int32     // ids of one-character tokens, -1 where absent
	chars         map[rune]int32 // the others
}

// readModel reads the "model" object. Fields are taken in any order, but vocab must come before merges, as it does in
// every file that Hugging Face writes.
func readModel(r *reader) (*bpeModel, error) {
	m := &bpeModel{unk: -1, cache: newWordCache()}
	rest := &object{values: map[string]node{}}
	err := r.object(func(k []byte) error {
		key := string(k)
		if _, ok := rest.values[key]; ok {
			return r.errorf("model: duplicate key %.200q", key)
		}
		rest.keys, rest.values[key] = append(rest.keys, key), nil
		var err error
		switch {
		case key == "vocab" && r.peek() == '{':
			m.vocab, err = readVocab(r)
		case key == "merges":
			if m.vocab == nil {
				return r.errorf("model: merges comes before vocab")
			}
			m.merges, err = readMerges(r, m.vocab)
		default:
			rest.values[key], err = r.value()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	typ, f, err := component("model", rest)
	if err != nil {
		return nil, err
	}
	if typ != "BPE" {
		return nil, fmt.Errorf("%s is not supported, only BPE is", f.where)
	}
	f.get("vocab")
	f.get("merges")
	if m.vocab == nil {
		f.fail("vocab is missing or not an object")
	}
	if m.merges == nil {
		f.fail("merges is missing")
	}
	if dropout, ok := f.get("dropout"); ok && dropout != nil && dropout != 0.0 {
		f.fail("dropout %s is not supported: encoding would be random", kind(dropout))
	}
	for _, name := range []string{"continuing_subword_prefix", "end_of_word_suffix"} {
		if s := f.strOr(name, ""); s != "" {
			f.fail("%s %.200q is not supported", name, s)
		}
	}
	unk := f.strOr("unk_token", "")
	m.fuseUnk = f.boolOr("fuse_unk", false)
	m.byteFallback = f.boolOr("byte_fallback", false)
	m.ignoreMerges = f.boolOr("ignore_merges", false)
	if err := f.done(); err != nil {
		return nil, err
	}
	if unk != "" {
		id, ok := m.vocab.ids[unk]
		if !ok {
			return nil, fmt.Errorf("%s: unk_token %.200q is not in the vocabulary", f.where, unk)
		}
		m.unk = id
	}
	return m, nil
}

// index builds the tables of first symbols.
func (m *bpeModel) index(byteLevel bool) error {
	m.byteLevel = byteLevel
	m.cutBeforeMark = m.marksBegin()
	complete := true
	for b := range m.bytes {
		name := fmt.Sprintf("<0x%02X>", b)
		if byteLevel {
			name = string(byteChars[b])
		}
		id, ok := m.vocab.ids[name]
		if !ok {
			id, complete = -1, false
		}
		m.bytes[b] = id
	}
	if byteLevel {
		if m.byteFallback && !complete {
			return fmt.Errorf("model BPE: byte_fallback with a ByteLevel vocabulary that lacks bytes is not supported")
		}
		return nil
	}
	m.chars = map[rune]int32{}
	for i := range m.ascii {
		m.ascii[i] = -1
	}
	for token, id := range m.vocab.ids {
		if len(token) > utf8.UTFMax {
			continue
		}
		if c, size := utf8.DecodeRuneInString(token); size == len(token) && size > 0 {
			if c < utf8.RuneSelf {
				m.ascii[c] = id
			} else {
				m.chars[c] = id
			}
		}
	}
	return nil
}

// appendWord appends the ids of one word, which is not empty.
func (m *bpeModel) appendWord(dst []int32, word string, s *scratch) ([]int32, error) {
	if !m.cutBeforeMark {
		return m.appendPart(dst, word, s)
	}
	for word != "" {
		end := cutBeforeMark(word)
		var err error
		if dst, err = m.appendPart(dst, word[:end], s); err != nil {
			return dst, err
		}
		word = word[end:]
	}
	return dst, nil
}

// spaceMark is SentencePiece's space, U+2581.
const spaceMark = "▁"

// cutBeforeMark returns the first place where a space mark follows something else, or the length of word.
func cutBeforeMark(word string) int {
	for i := 0; ; {
		for strings.HasPrefix(word[i:], spaceMark) {
			i += len(spaceMark)
		}
		next := strings.Index(word[i:], spaceMark)
		switch {
		case next < 0:
			return len(word)
		case i+next > 0:
			return i + next
		}
	}
}

// marksBegin says that no merge joins a space mark to something else before it. Then words can be cut there, and the
// usual SentencePiece pipeline, in which the whole text is one word, gets short words and the cache.
func (m *bpeModel) marksBegin() bool {
	if id, ok := m.vocab.ids[spaceMark]; !ok || m.ignoreMerges || m.byteLevel || id < 0 {
		return false
	}
	for _, slot := range m.merges.slots {
		if slot.pair == noPair {
			continue
		}
		left, right := m.vocab.tokens[slot.pair>>32], m.vocab.tokens[uint32(slot.pair)]
		if strings.HasPrefix(right, spaceMark) && !strings.HasSuffix(left, spaceMark) {
			return false
		}
	}
	return true
}

// appendPart appends the ids of a word, or of a part that no merge crosses.
func (m *bpeModel) appendPart(dst []int32, word string, s *scratch) ([]int32, error) {
	if len(word) == 1 && m.byteLevel && m.bytes[word[0]] >= 0 {
		return append(dst, m.bytes[word[0]]), nil
	}
	slot, cacheable := uint64(0), len(word) <= maxCacheWord
	if cacheable {
		at, ids, ok := m.cache.get(word)
		if ok {
			return append(dst, ids...), nil
		}
		slot = at
	}
	from := len(dst)
	whole, ok := int32(0), false
	if m.ignoreMerges {
		whole, ok = m.whole(word, s)
	}
	if ok {
		dst = append(dst, whole)
	} else {
		ids, err := m.symbols(slices.Grow(s.ids[:0], m.maxSymbols(word)), word, nil)
		if err != nil {
			return dst, err
		}
		s.ids = ids
		dst = append(dst, m.merges.merge(ids, s)...)
	}
	if cacheable {
		m.cache.put(slot, word, dst[from:])
	}
	return dst, nil
}

// whole looks up the word itself, as the file spells it.
func (m *bpeModel) whole(word string, s *scratch) (int32, bool) {
	if !m.byteLevel {
		id, ok := m.vocab.ids[word]
		return id, ok
	}
	s.text = s.text[:0]
	for i := range len(word) {
		s.text = utf8.AppendRune(s.text, byteChars[word[i]])
	}
	id, ok := m.vocab.ids[string(s.text)]
	return id, ok
}

// maxSymbols bounds the number of first symbols, so that a large word is not copied while it grows.
func (m *bpeModel) maxSymbols(word string) int {
	if m.byteLevel || m.byteFallback {
		return len(word)
	}
	return utf8.RuneCountInString(word)
}

// symbols appends the ids that merging starts from, and unless lengths is nil to it how many bytes of word each is for.
func (m *bpeModel) symbols(dst []int32, word string, lengths *[]int32) ([]int32, error) {
	add := func(id int32, length int) {
		dst = append(dst, id)
		if lengths != nil {
			*lengths = append(*lengths, int32(length))
		}
	}
	unknown := 0 // bytes waiting to become unk
	flush := func() {
		add(m.unk, unknown)
		unknown = 0
	}
	for i := 0; i < len(word); {
		var id int32
		size := 1
		if m.byteLevel {
			id = m.bytes[word[i]]
		} else if c := word[i]; c < utf8.RuneSelf {
			id = m.ascii[c]
		} else {
			var c rune
			c, size = utf8.DecodeRuneInString(word[i:])
			var ok bool
			if id, ok = m.chars[c]; !ok {
				id = -1
			}
		}
		char := word[i : i+size]
		i += size
		if id >= 0 {
			if unknown > 0 {
				flush()
			}
			add(id, size)
			continue
		}
		if m.byteFallback && !m.byteLevel {
			complete := true
			for j := range len(char) {
				complete = complete && m.bytes[char[j]] >= 0
			}
			if complete {
				// Hugging Face leaves a waiting unk waiting here, so that it lands after these bytes.
				for j := range len(char) {
					add(m.bytes[char[j]], 1)
				}
				continue
			}
		}
		if m.unk < 0 {
			return nil, fmt.Errorf("tokenizer: the vocabulary has no token for %q and no unk_token", char)
		}
		if unknown > 0 && !m.fuseUnk {
			flush()
		}
		unknown += size
	}
	if unknown > 0 {
		flush()
	}
	return dst, nil
}
