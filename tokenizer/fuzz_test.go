package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
)

// FuzzFromBytes: no tokenizer.json panics, and what loads can be used.
func FuzzFromBytes(f *testing.F) {
	f.Add(tiny(nil))
	for _, name := range small {
		data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(strings.Repeat("[", 100000)))
	f.Add([]byte(strings.Repeat(`{"normalizer":`, 1000)))
	f.Add(tiny(file{"added_tokens": addedToken1("<new>", "5", "")}))
	f.Add(tiny(bpe(`"vocab":{"a":2147483647,"b":0},"merges":[["a","b"]]`)))
	f.Add(tiny(bpe(`"vocab":{"":0,"a":1},"merges":[["","a"],["a",""],["",""]]`))) // a merge of nothing
	f.Add(tiny(bpe(`"vocab":{"a":0,"aa":1,"aaa":2},"merges":[["aa","a"],["a","aa"],["a","a"]]`)))
	f.Add(tiny(bpe(`"vocab":{"a":0,"<0x41>":1},"merges":[],"byte_fallback":true,"unk_token":"a","fuse_unk":true`)))
	f.Add(tiny(file{"pre_tokenizer": `{"type":"Split","pattern":{"Regex":"x*"},"behavior":"MergedWithNext","invert":true}`}))
	f.Add(tiny(file{"normalizer": `{"type":"Replace","pattern":{"Regex":"a|ab|b*"},"content":"ba"}`}))
	f.Add(tiny(file{"decoder": `{"type":"Sequence","decoders":[
		{"type":"Fuse"},{"type":"Strip","content":"a","start":2147483647,"stop":2147483647}]}`}))
	f.Add([]byte("{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"\xff\":0},\"merges\":[]}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := FromBytes(data)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		ids, err := tok.Encode("ab \t<s>é▁\n", true)
		if err != nil {
			return
		}
		text, err := tok.Decode(ids, false)
		require.NoError(t, err)
		require.Equal(t, text, streamed(t, tok, ids, false))
		checkOffsets(t, tok, "ab \t<s>é▁\n", EncodeOptions{AddSpecialTokens: true}, ids)
	})
}

// FuzzEncode: byte-level tokenizers without a normalizer give back every text, every option gives valid ids, and these
// have offsets.
func FuzzEncode(f *testing.F) {
	for _, g := range readGolden(f, filepath.Join("testdata", "llama3.golden.jsonl")) {
		if g.Text != nil {
			f.Add(*g.Text)
		}
	}
	var toks []*BPE
	for _, name := range small {
		toks = append(toks, loadSmall(f, name))
	}
	f.Fuzz(func(t *testing.T, text string) {
		for i, tok := range toks {
			for _, added := range []AddedTokens{ParseAll, SpecialAsText, AllAsText} {
				opts := EncodeOptions{AddedTokens: added}
				ids, err := tok.EncodeWith(text, opts)
				require.Equal(t, utf8.ValidString(text), err == nil)
				if err != nil {
					continue
				}
				for _, id := range ids {
					_, ok := tok.IDToToken(id)
					require.True(t, ok, "%s: id %d", small[i], id)
				}
				back, err := tok.Decode(ids, false)
				require.NoError(t, err)
				require.True(t, utf8.ValidString(back))
				if small[i] == "llama3" {
					require.Equal(t, text, back)
				}
				offsets := checkOffsets(t, tok, text, opts, ids)
				if small[i] == "qwen" && norm.NFC.IsNormalString(text) {
					requireCover(t, text, offsets)
				}
			}
		}
	})
}

// FuzzStream: the pieces of any ids are whole characters and join to what Decode gives.
func FuzzStream(f *testing.F) {
	f.Add([]byte{1, 2, 3}, false)
	f.Add([]byte{0xf0, 0, 0x9f, 0, 0x98, 0, 0x80, 1}, true)
	var toks []*BPE
	for _, name := range small {
		toks = append(toks, loadSmall(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte, skip bool) {
		for i, tok := range toks {
			var ids []int32
			for j := 0; j+1 < len(data); j += 2 {
				ids = append(ids, (int32(data[j])|int32(data[j+1])<<8)%int32(tok.VocabSize()+2))
			}
			want, err := tok.Decode(ids, skip)
			require.NoError(t, err)
			require.Equal(t, want, streamed(t, tok, ids, skip), "%s %v", small[i], ids)
		}
	})
}
