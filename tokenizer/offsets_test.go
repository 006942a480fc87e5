package tokenizer

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
)

// offsetsCase is what Hugging Face's tokenizers gives for a text, its offsets in bytes; see testdata/make_offsets.py.
type offsetsCase struct {
	Text             string
	AddSpecialTokens bool `json:"add_special_tokens"`
	SpecialAsText    bool `json:"special_as_text"`
	IDs              []int32
	Offsets          [][2]int
}

func (c offsetsCase) check(t testing.TB, tok *BPE) {
	t.Helper()
	opts := EncodeOptions{AddSpecialTokens: c.AddSpecialTokens}
	if c.SpecialAsText {
		opts.AddedTokens = SpecialAsText
	}
	got, err := tok.EncodeOffsets(c.Text, opts)
	require.NoError(t, err, "%q", c.Text)
	require.Equal(t, c.IDs, append([]int32{}, got.IDs...), "%q", c.Text)
	require.Equal(t, c.Offsets, append([][2]int{}, got.Offsets...), "%q %+v %v", c.Text, opts, c.IDs)
}

// TestOffsets compares with Hugging Face: the tokenizers of testdata and variants of them, which replace some of the
// top-level keys.
func TestOffsets(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "offsets.golden.jsonl.gz"))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	scan := bufio.NewScanner(z)
	scan.Buffer(nil, 1<<24)
	variants := 0
	for ; scan.Scan(); variants++ {
		var variant struct {
			Tokenizer string
			Edit      map[string]json.RawMessage
			Cases     []offsetsCase
		}
		require.NoError(t, json.Unmarshal(scan.Bytes(), &variant))
		require.NotEmpty(t, variant.Cases)
		edit, err := json.Marshal(variant.Edit)
		require.NoError(t, err)
		t.Run(variant.Tokenizer+string(edit), func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", variant.Tokenizer+".json"))
			require.NoError(t, err)
			file := map[string]json.RawMessage{}
			require.NoError(t, json.Unmarshal(data, &file))
			maps.Copy(file, variant.Edit)
			data, err = json.Marshal(file)
			require.NoError(t, err)
			tok, err := FromBytes(data)
			require.NoError(t, err)
			for _, c := range variant.Cases {
				c.check(t, tok)
			}
		})
	}
	require.NoError(t, scan.Err())
	require.Greater(t, variants, 50)
}

// checkOffsets checks what is true of the offsets of every text, and returns them.
func checkOffsets(t testing.TB, tok *BPE, text string, opts EncodeOptions, ids []int32) [][2]int {
	t.Helper()
	e, err := tok.EncodeOffsets(text, opts)
	require.NoError(t, err)
	require.Equal(t, ids, e.IDs)
	require.Len(t, e.Offsets, len(ids))
	before, after := 0, len(ids)
	if opts.AddSpecialTokens {
		before, after = len(tok.template.before), len(ids)-len(tok.template.after)
	}
	// As in Hugging Face, spaces that one added token stripped can be found once more as another one.
	ascending := tok.trims == nil && !slices.ContainsFunc(tok.added, func(a addedToken) bool { return a.rstrip })
	var last [2]int
	for i, o := range e.Offsets {
		ok := false
		switch {
		case i < before || i >= after:
			ok = o == [2]int{}
		case 0 <= o[0] && o[0] <= o[1] && o[1] <= len(text) && utf8.ValidString(text[o[0]:o[1]]):
			ok = last[0] <= o[0] && last[1] <= o[1] || !ascending
			last = o
		}
		if !ok {
			require.Fail(t, "offsets", "%d is %v in %q: %v", i, o, text, e.Offsets)
		}
	}
	return e.Offsets
}

// requireCover checks that no byte of text is outside all offsets.
func requireCover(t testing.TB, text string, offsets [][2]int) {
	t.Helper()
	done := 0
	for _, o := range offsets {
		require.LessOrEqual(t, o[0], done, "%q: %v", text, offsets)
		done = o[1]
	}
	require.Equal(t, len(text), done, "%q: %v", text, offsets)
}

func TestOffsetsOfAnyText(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "hello", " world", " ", "  ", "\n", "é", "e\u0301", "q\u0307\u0323", "\u1100\u1161\u11a8", "ﬁ", "中文", "😀",
		"👨\u200d👩", "1234", "'s", "<s>", "<|end|>", " <|start|> ", "<think>", "▁", "\u3000"}
	for _, name := range small {
		tok := loadSmall(t, name)
		for range 300 {
			var b strings.Builder
			for range rng.IntN(20) {
				b.WriteString(parts[rng.IntN(len(parts))])
			}
			text := b.String()
			for _, opts := range []EncodeOptions{
				{}, {AddSpecialTokens: true}, {AddedTokens: SpecialAsText}, {AddedTokens: AllAsText},
			} {
				ids, err := tok.EncodeWith(text, opts)
				require.NoError(t, err)
				offsets := checkOffsets(t, tok, text, opts, ids)
				if name == "qwen" && norm.NFC.IsNormalString(text) {
					requireCover(t, text, offsets)
				}
			}
		}
	}
}

func TestOffsetsRefuse(t *testing.T) {
	tok := loadSmall(t, "llama3")
	_, err := tok.EncodeOffsets("ab\xff", EncodeOptions{})
	require.EqualError(t, err, "tokenizer: text is not UTF-8 at byte 2")
	_, err = tok.EncodeOffsets("abc", EncodeOptions{MaxBytes: 2})
	require.EqualError(t, err, "tokenizer: text has 3 bytes, limit 2")
	e, err := tok.EncodeOffsets("", EncodeOptions{})
	require.NoError(t, err)
	require.Equal(t, Encoding{[]int32{}, [][2]int{}}, e)
}

// TestOffsetsOfLongText: time and memory stay linear when a large text is one word, and when all of it is normalized.
func TestOffsetsOfLongText(t *testing.T) {
	for name, unit := range map[string]string{"llama3": "a", "qwen": "e\u0301", "llama2": "😀", "gpt2": " \u0301"} {
		tok := loadSmall(t, name)
		text := strings.Repeat(unit, 1<<20/len(unit))
		ids, err := tok.Encode(text, true)
		require.NoError(t, err)
		checkOffsets(t, tok, text, EncodeOptions{AddSpecialTokens: true}, ids)
	}
}
