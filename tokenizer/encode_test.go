package tokenizer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEncodeRefusesBrokenText(t *testing.T) {
	tok := loadSmall(t, "llama3")
	for text, at := range map[string]string{
		"\xff": "byte 0", "ab\xe4\xb8": "byte 2", "\xed\xa0\x80": "byte 0", "é\xc0\x80": "byte 2",
	} {
		_, err := tok.Encode(text, false)
		require.ErrorContains(t, err, "not UTF-8 at "+at, "%q", text)
	}
	ids, err := tok.Encode("\x00\uFFFD", false)
	require.NoError(t, err)
	text, err := tok.Decode(ids, false)
	require.NoError(t, err)
	require.Equal(t, "\x00\uFFFD", text)
	for limit, refused := range map[int]bool{0: false, 3: true, 4: false, 1 << 40: false} {
		_, err := tok.EncodeWith("\x00\uFFFD", EncodeOptions{MaxBytes: limit})
		require.Equal(t, refused, err != nil, "%d", limit)
	}
	_, err = tok.EncodeWith("\x00\uFFFD", EncodeOptions{MaxBytes: 3})
	require.EqualError(t, err, "tokenizer: text has 4 bytes, limit 3")
	_, err = tok.Decode([]int32{1, -1}, false)
	require.ErrorContains(t, err, "id -1 at position 1 is negative")
}

func TestAddedTokenOptions(t *testing.T) {
	tok := loadSmall(t, "qwen")
	end, ok := tok.TokenToID("<|end|>")
	require.True(t, ok)
	think, ok := tok.TokenToID("<think>")
	require.True(t, ok)
	require.True(t, tok.IsSpecial(end))
	require.False(t, tok.IsSpecial(think))
	const text = "hi<|end|><think>"
	for _, c := range []struct {
		opts        AddedTokens
		end, thinks bool
	}{{ParseAll, true, true}, {SpecialAsText, false, true}, {AllAsText, false, false}} {
		ids, err := tok.EncodeWith(text, EncodeOptions{AddedTokens: c.opts})
		require.NoError(t, err)
		require.Equal(t, c.end, slices.Contains(ids, end), "%v", c.opts)
		require.Equal(t, c.thinks, slices.Contains(ids, think), "%v", c.opts)
		back, err := tok.Decode(ids, false)
		require.NoError(t, err)
		require.Equal(t, text, back)
	}
}

func TestTokens(t *testing.T) {
	for _, name := range small {
		tok := loadSmall(t, name)
		for id := range int32(tok.VocabSize()) {
			token, ok := tok.IDToToken(id)
			require.True(t, ok, "%s %d", name, id)
			back, ok := tok.TokenToID(token)
			require.True(t, ok)
			require.Equal(t, id, back, "%s %q", name, token)
		}
		for _, id := range []int32{-1, int32(tok.VocabSize()), 1 << 30} {
			_, ok := tok.IDToToken(id)
			require.False(t, ok)
			require.False(t, tok.IsSpecial(id))
		}
		_, ok := tok.TokenToID("no such token")
		require.False(t, ok)
	}
}

// TestConcurrentUse is for the race detector, and checks that the shared cache never gives a wrong word.
func TestConcurrentUse(t *testing.T) {
	tok := loadSmall(t, "qwen")
	lines := readGolden(t, "testdata/qwen.golden.jsonl")
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			for i := range lines {
				g := lines[(i*7+worker*13)%len(lines)]
				if g.Text == nil || g.SpecialAsText {
					continue
				}
				ids, err := tok.Encode(*g.Text, g.AddSpecialTokens)
				if err != nil || !slices.Equal(g.IDs, ids) {
					t.Errorf("line %d: %v %v", g.N, ids, err)
				}
			}
		})
	}
	wait.Wait()
}

// TestMergeAgrees compares the three ways to merge with a plain one: find the smallest merge, do it, start again.
func TestMergeAgrees(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	plain := func(table *pairTable, ids []int32) []int32 {
		for {
			best, at := noMerge, 0
			for i := range len(ids) - 1 {
				if m := table.get(ids[i], ids[i+1]); m < best {
					best, at = m, i
				}
			}
			if best == noMerge {
				return ids
			}
			ids[at] = int32(uint32(best))
			ids = slices.Delete(ids, at+1, at+2)
		}
	}
	for range 300 {
		// Random tables, in the order of training and in none. Token i is made of any two tokens.
		tokens := 3 + random.IntN(30)
		table := newPairTable(tokens)
		table.firstUse = slices.Repeat([]uint32{^uint32(0)}, tokens)
		ranks := random.Perm(tokens)
		for id := int32(3); int(id) < tokens; id++ {
			rank := uint32(id)
			if tokens%2 == 0 {
				rank = uint32(ranks[id])
			}
			a, b := random.Int32N(id), random.Int32N(id)
			if table.get(a, b) == noMerge {
				table.set(a, b, rank, id)
				table.firstUse[a], table.firstUse[b] = min(table.firstUse[a], rank), min(table.firstUse[b], rank)
			}
		}
		ids := make([]int32, 1+random.IntN(400))
		for i := range ids {
			ids[i] = random.Int32N(1 + random.Int32N(3))
		}
		want := plain(table, slices.Clone(ids))
		require.Equal(t, want, table.mergeLarge(slices.Clone(ids), &scratch{}))
		require.Equal(t, want, table.merge(slices.Clone(ids), &scratch{}))
		if len(ids) <= smallWord {
			require.Equal(t, want, table.mergeSmall(slices.Clone(ids)))
		}
	}
}

// TestLongTexts: texts that are quadratic for a naive tokenizer. Each would take minutes.
func TestLongTexts(t *testing.T) {
	const n = 1 << 18
	random := rand.New(rand.NewPCG(3, 4))
	letters := make([]byte, n)
	for i := range letters {
		letters[i] = 'a' + byte(random.IntN(26))
	}
	for _, name := range small[:4] {
		tok := loadSmall(t, name)
		for what, text := range map[string]string{
			"letter": strings.Repeat("a", n), "letters": string(letters),
			"space": strings.Repeat(" ", n), "lines": strings.Repeat("\n", n),
			"spaces and a line end": strings.Repeat(" ", n) + "\n", "marks": "e" + strings.Repeat("\u0301\u0323", n/4),
			"almost special": strings.Repeat("<|", n/2), "special": strings.Repeat("<s>", n/3), "quotes": strings.Repeat("'", n),
		} {
			ids, err := tok.Encode(text, false)
			require.NoError(t, err, "%s %s", name, what)
			back, err := tok.Decode(ids, false)
			require.NoError(t, err)
			if name == "llama3" {
				require.True(t, text == back, "%s does not round trip", what)
			}
		}
	}
}

func TestLossy(t *testing.T) {
	for _, c := range []struct{ in, now, later string }{
		{"abc", "abc", ""},
		{"a\xff", "a\uFFFD", ""},
		{"\xe4\xb8\xad", "中", ""},
		{"\xe4\xb8", "", "\uFFFD"},
		{"\xe4\xb8a", "\uFFFDa", ""},
		{"\xf0\x9f\x98", "", "\uFFFD"},
		{"\xf0\x9f\x98\xff", "\uFFFD\uFFFD", ""},
		{"\xf0\x9f", "", "\uFFFD"},
		{"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD", ""}, // a surrogate: its first two bytes begin nothing
		{"\xc0\x80", "\uFFFD\uFFFD", ""},
		{"\xf4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD", ""},
		{"\xef\xbf\xbd", "\uFFFD", ""},
		{"\xef\xbf", "", "\uFFFD"},
	} {
		text, rest := appendLossy(nil, []byte(c.in), false)
		require.Equal(t, c.now, string(text), "%q", c.in)
		text, rest = appendLossy(nil, rest, true)
		require.Equal(t, c.later, string(text), "%q", c.in)
		require.Empty(t, rest)
	}
}

// TestStreamKeepsBack shows when text comes out.
func TestStreamKeepsBack(t *testing.T) {
	bytesOf := func(tok *BPE, s string) (ids []int32) {
		for i := range len(s) {
			ids = append(ids, tok.model.bytes[s[i]])
		}
		return ids
	}
	push := func(tok *BPE, ids []int32) (pieces []string) {
		s := NewStream(tok, true)
		for _, id := range ids {
			pieces = append(pieces, s.Push(id))
		}
		return append(pieces, s.Flush())
	}
	level := loadSmall(t, "llama3")
	require.Equal(t, []string{"", "", "", "😀", "x", ""}, push(level, bytesOf(level, "😀x")))
	require.Equal(t, []string{"", "", "\uFFFDx", ""}, push(level, bytesOf(level, "\xf0\x9fx")))
	require.Equal(t, []string{"", "", "\uFFFD"}, push(level, bytesOf(level, "\xf0\x9f")))

	// A run of byte tokens is text or not as a whole, so it comes out when it ends; the first space is never there.
	fallback := loadSmall(t, "llama2")
	a, ok := fallback.TokenToID("▁a")
	require.True(t, ok)
	good, bad := bytesOf(fallback, "é"), bytesOf(fallback, "é\xff")
	require.Equal(t, []string{"a", "", "", "é a", ""}, push(fallback, append(append([]int32{a}, good...), a)))
	require.Equal(t, []string{"", "", "", "\uFFFD\uFFFD\uFFFD"}, push(fallback, bad))

	s := NewStream(fallback, true)
	require.Equal(t, "a", s.Push(a))
	require.Equal(t, " a", s.Push(a))
	require.Empty(t, s.Push(-5))
	require.Empty(t, s.Push(1<<30))
	require.Empty(t, s.Flush())
	require.Equal(t, "a", s.Push(a), "after Flush a new text begins")

	foreign := NewStream(struct{ Tokenizer }{fallback}, true)
	require.Empty(t, foreign.Push(a))
	require.Equal(t, "a", foreign.Flush())
}
