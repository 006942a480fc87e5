package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// addedToken is one entry of "added_tokens".
type addedToken struct {
	id      int32
	content string
	pattern string // what is searched for: content, normalized when the token asks for that

	special, singleWord, lstrip, rstrip, normalized bool

	onlyIfNew bool // changes nothing when there is an added token of this content
}

// sameAs compares what a file says of two tokens.
func (a addedToken) sameAs(b addedToken) bool {
	a.pattern, a.onlyIfNew = b.pattern, b.onlyIfNew
	return a == b
}

// maxAddedToken bounds the work that a text can cause at each of its positions.
const maxAddedToken = 4096 // bytes

var addedFields = []string{"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}

// readAdded reads "added_tokens". It is streamed: a file may have very many.
func readAdded(r *reader) ([]addedToken, error) {
	var list []addedToken
	err := r.array(func() error {
		var tok addedToken
		seen := [7]bool{}
		err := r.object(func(key []byte) error {
			field := slices.Index(addedFields, string(key))
			if field < 0 {
				return r.errorf("added_tokens %d: unknown field %.200q", len(list), key)
			}
			if seen[field] {
				return r.errorf("added_tokens %d: duplicate key %q", len(list), addedFields[field])
			}
			seen[field] = true
			r.space()
			switch field {
			case 0:
				id, err := r.id()
				tok.id = id
				return err
			case 1:
				content, err := r.str()
				tok.content = string(content)
				return err
			}
			flag := []*bool{&tok.singleWord, &tok.lstrip, &tok.rstrip, &tok.normalized, &tok.special}[field-2]
			value, err := r.boolean()
			*flag = value
			return err
		})
		if err != nil {
			return err
		}
		if i := slices.Index(seen[:], false); i >= 0 {
			return r.errorf("added_tokens %d: %s is missing", len(list), addedFields[i])
		}
		if len(tok.content) > maxAddedToken {
			return r.errorf("added_tokens %d: content has %d bytes, limit %d", len(list), len(tok.content), maxAddedToken)
		}
		list = append(list, tok)
		return nil
	})
	return list, err
}

// addTokens gives the added tokens their ids by Hugging Face's rule, which does not look at the file's "id": a token of
// the vocabulary keeps its id, others follow the vocabulary in order. Where the file says otherwise it is refused,
// because ids and embeddings would not match.
func (t *BPE) addTokens(list []addedToken) error {
	t.added = make([]addedToken, 0, len(list))
	t.addedByID = make(map[int32]int, len(list))
	t.addedByContent = make(map[string]int, len(list))
	vocab := t.model.vocab
	next := int32(len(vocab.ids))
	for _, tok := range list {
		if tok.content == "" {
			continue
		}
		at, again := t.addedByContent[tok.content]
		if again && tok.onlyIfNew {
			continue
		}
		id, ok := vocab.ids[tok.content]
		switch {
		case ok:
		case again:
			id = t.added[at].id
		default:
			id = next
			next++
		}
		if tok.id != id && tok.id != anyID {
			return fmt.Errorf("added token %.200q has id %d, but Hugging Face gives it %d", tok.content, tok.id, id)
		}
		tok.id, tok.pattern = id, tok.content
		if tok.normalized {
			if tok.pattern = t.normalizers.apply(tok.content, nil); tok.pattern == "" {
				return fmt.Errorf("added token %.200q is empty after normalization", tok.content)
			}
		}
		if again {
			tok.special = tok.special || t.added[at].special // once special, always special
			t.added[at] = tok
			continue
		}
		if spelled, taken := vocab.token(id); taken && !ok {
			return fmt.Errorf("added token %.200q gets id %d, which the vocabulary gives to %.200q", tok.content, id, spelled)
		}
		if j, taken := t.addedByID[id]; taken {
			return fmt.Errorf("added tokens %.200q and %.200q both have id %d", t.added[j].content, tok.content, id)
		}
		t.addedByContent[tok.content], t.addedByID[id] = len(t.added), len(t.added)
		t.added = append(t.added, tok)
	}
	t.special = map[int32]bool{}
	for _, tok := range t.added {
		// Hugging Face looks a token up by the spelling it decodes, which for a normalized token is another.
		if i, ok := t.addedByContent[tok.pattern]; ok && t.added[i].special {
			t.special[tok.id] = true
		}
	}
	var err error
	if t.rawMatcher, err = newMatcher(t.added, false); err != nil {
		return err
	}
	t.normalizedMatcher, err = newMatcher(t.added, true)
	return err
}

// matcher finds added tokens in a text. Its patterns are sorted, so that the patterns with a common beginning are
// neighbours: matching narrows a range, byte by byte, and needs no further memory.
type matcher struct {
	tokens []*addedToken // sorted by pattern
	first  [256]struct{ lo, hi int32 }
	// If all patterns begin with one byte, single is that byte, else -1.
	single int
}

func newMatcher(added []addedToken, normalized bool) (*matcher, error) {
	m := &matcher{single: -1}
	for i := range added {
		if added[i].normalized == normalized {
			m.tokens = append(m.tokens, &added[i])
		}
	}
	slices.SortFunc(m.tokens, func(a, b *addedToken) int { return strings.Compare(a.pattern, b.pattern) })
	for i, tok := range m.tokens {
		if i > 0 && m.tokens[i-1].pattern == tok.pattern {
			return nil, fmt.Errorf("added tokens %.200q and %.200q are the same after normalization",
				m.tokens[i-1].content, tok.content)
		}
		f := &m.first[tok.pattern[0]]
		if f.hi == 0 {
			f.lo = int32(i)
		}
		f.hi = int32(i + 1)
	}
	if len(m.tokens) > 0 {
		if b := m.tokens[0].pattern[0]; b == m.tokens[len(m.tokens)-1].pattern[0] {
			m.single = int(b)
		}
	}
	return m, nil
}

// next finds the leftmost, and there the longest, pattern at or after from.
func (m *matcher) next(s string, from int) (start, end int, tok *addedToken) {
	if len(m.tokens) == 0 {
		return 0, 0, nil
	}
	for i := from; i < len(s); i++ {
		if m.single >= 0 {
			skip := strings.IndexByte(s[i:], byte(m.single))
			if skip < 0 {
				break
			}
			i += skip
		}
		if f := m.first[s[i]]; f.hi > f.lo {
			if tok := m.longest(s[i:], int(f.lo), int(f.hi)); tok != nil {
				return i, i + len(tok.pattern), tok
			}
		}
	}
	return 0, 0, nil
}

// longest returns the longest pattern that s begins with; tokens[lo:hi] are those that share its first byte.
func (m *matcher) longest(s string, lo, hi int) *addedToken {
	var found *addedToken
	for depth := 1; ; depth++ {
		// All of tokens[lo:hi] begin with s[:depth]; the shortest comes first.
		if len(m.tokens[lo].pattern) == depth {
			found = m.tokens[lo]
			if lo++; lo == hi {
				return found
			}
		}
		if depth == len(s) {
			return found
		}
		c := s[depth]
		lo, hi = narrow(m.tokens, lo, hi, depth, c)
		if lo == hi {
			return found
		}
	}
}

// narrow returns the part of tokens[lo:hi] whose pattern has byte c at depth.
func narrow(tokens []*addedToken, lo, hi, depth int, c byte) (int, int) {
	at := func(i int) byte { return tokens[i].pattern[depth] }
	search := func(lo, hi int, before func(byte) bool) int {
		for lo < hi {
			if mid := int(uint(lo+hi) >> 1); before(at(mid)) {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		return lo
	}
	lo = search(lo, hi, func(b byte) bool { return b < c })
	return lo, search(lo, hi, func(b byte) bool { return b == c })
}

// split calls text for the stretches of s between added tokens and token for each added token, in order.
func (m *matcher) split(s string, parse AddedTokens, text func(start, end int) error, token func(id int32, start, end int)) error {
	done := 0
	if parse != AllAsText {
		for from := 0; ; {
			start, end, tok := m.next(s, from)
			if tok == nil {
				break
			}
			from = end
			if parse == SpecialAsText && tok.special {
				continue
			}
			if tok.singleWord && (wordBefore(s[:start]) || wordAfter(s[end:])) {
				continue
			}
			if tok.lstrip {
				start = max(done, len(strings.TrimRightFunc(s[:start], isSpace)))
			}
			if tok.rstrip {
				end = len(s) - len(strings.TrimLeftFunc(s[end:], isSpace))
			}
			if done < start {
				if err := text(done, start); err != nil {
					return err
				}
			}
			// A token all of whose text was stripped by the one before it leaves nothing, and is not there.
			if start < end {
				token(tok.id, start, end)
			}
			done = end
		}
	}
	if done < len(s) {
		return text(done, len(s))
	}
	return nil
}

func wordBefore(s string) bool {
	c, size := utf8.DecodeLastRuneInString(s)
	return size > 0 && isWord(c)
}

func wordAfter(s string) bool {
	c, size := utf8.DecodeRuneInString(s)
	return size > 0 && isWord(c)
}
