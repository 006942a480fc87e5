//go:build daulet

package tokenizer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// byteLevelOnes are those of small that a Daulet takes.
var byteLevelOnes = []string{"llama3", "qwen"}

func dauletSmall(t testing.TB, name string) *Daulet {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	require.NoError(t, err)
	d, err := DauletFromBytes(data)
	require.NoError(t, err)
	return d
}

func TestDauletGolden(t *testing.T) {
	for _, name := range byteLevelOnes {
		t.Run(name, func(t *testing.T) {
			d := dauletSmall(t, name)
			for _, g := range readGolden(t, filepath.Join("testdata", name+".golden.jsonl")) {
				g.check(t, d)
			}
		})
	}
}

// TestDauletLikeBPE: what the Rust library cannot be asked is answered, and refused, as by a BPE.
func TestDauletLikeBPE(t *testing.T) {
	d := dauletSmall(t, "qwen")
	same := func(text string, opts EncodeOptions) {
		want, wantErr := d.BPE.EncodeWith(text, opts)
		ids, err := d.EncodeWith(text, opts)
		require.Equal(t, wantErr, err, "%.20q", text)
		require.True(t, slices.Equal(want, ids), "%.20q %+v", text, opts)
	}
	for _, text := range []string{
		"", "\x00", "a\x00b<|end|>\x00\x00 c", "\xff", "ab\xe4\xb8", "\xed\xa0\x80", "hi<|end|><think>",
		strings.Repeat("<|end|>", 1000), strings.Repeat("<|", 1000),
	} {
		for _, added := range []AddedTokens{ParseAll, SpecialAsText, AllAsText} {
			same(text, EncodeOptions{AddedTokens: added})
			same(text, EncodeOptions{AddedTokens: added, AddSpecialTokens: true})
		}
	}
	// As long as the Rust library gets them, and longer: the pattern steps back over all of the spaces.
	for _, text := range []string{strings.Repeat(" ", maxDauletText-1) + "x", strings.Repeat("a", maxDauletText+1)} {
		same(text, EncodeOptions{})
	}
	nul, err := d.Encode("a\x00b", false)
	require.NoError(t, err)
	for _, ids := range [][]int32{nil, nul, {1 << 30, 0}, {-1}, {0, -5}, {1 << 30}} {
		for _, skip := range []bool{false, true} {
			want, wantErr := d.BPE.Decode(ids, skip)
			text, err := d.Decode(ids, skip)
			require.Equal(t, wantErr, err)
			require.Equal(t, want, text, "%v", ids)
		}
	}
}

// TestDauletAddedTokens: the tokens of tokenizer_config.json reach the Rust library, in a file with added_tokens and in
// one without.
func TestDauletAddedTokens(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "qwen.json"))
	require.NoError(t, err)
	for _, config := range []string{`{}`, `{"pad_token": "<pad>", "extra_special_tokens": ["\"<q>\""], "additional_special_tokens":
		[{"content": "<l>", "lstrip": true}, {"content": "<r>", "rstrip": true}, {"content": "word", "single_word": true, "special": false}]}`} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(config), 0o600))
		d, err := OpenDaulet(dir)
		require.NoError(t, err)
		for _, text := range []string{"a<pad>b \"<q>\"", "x \n <l> y <r> \t z", "a word, words sword word", "<r> <l> <r>\u3000<l>"} {
			for _, added := range []AddedTokens{ParseAll, SpecialAsText, AllAsText} {
				want, err := d.BPE.EncodeWith(text, EncodeOptions{AddedTokens: added})
				require.NoError(t, err)
				ids, err := d.EncodeWith(text, EncodeOptions{AddedTokens: added})
				require.NoError(t, err)
				require.Equal(t, want, ids, "%q %v", text, added)
				text, err := d.Decode(ids, true)
				require.NoError(t, err)
				plain, err := d.BPE.Decode(ids, true)
				require.NoError(t, err)
				require.Equal(t, plain, text)
			}
		}
	}
	bare := byteLevelFile(file{"added_tokens": ""})
	tok, err := FromBytes(bare)
	require.NoError(t, err)
	require.NoError(t, tok.addTokens([]addedToken{{id: 256, content: "<new>", special: true}}))
	tok.source.addedChanged = true
	d, err := newDaulet(tok, bare)
	require.NoError(t, err)
	ids, err := d.Encode("a<new>", false)
	require.NoError(t, err)
	require.Equal(t, int32(256), ids[1])
}

// byteLevelFile is a file without merges that a Daulet takes.
func byteLevelFile(changes file) []byte {
	var vocab []string
	for b, c := range byteChars {
		vocab = append(vocab, fmt.Sprintf("%q:%d", string(c), b))
	}
	parts := file{
		"model":         `{"type":"BPE","vocab":{` + strings.Join(vocab, ",") + `},"merges":[]}`,
		"pre_tokenizer": `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}`,
		"decoder":       `{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}`,
	}
	for k, v := range changes {
		parts[k] = v
	}
	return tiny(parts)
}

// TestDauletRefuses: nothing reaches the Rust library that could make it panic or take for ever.
func TestDauletRefuses(t *testing.T) {
	_, err := DauletFromBytes(byteLevelFile(nil))
	require.NoError(t, err)
	many := make([]string, maxDauletAdded+1)
	for i := range many {
		many[i] = strings.Trim(addedToken1(fmt.Sprintf("<%d>", i), fmt.Sprint(256+i), ""), "[]")
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"what BPE refuses", []byte("{}"), "model is missing"},
		{"SentencePiece", tiny(nil), "pre_tokenizer"},
		{"normalizer", byteLevelFile(file{"normalizer": `{"type":"Sequence","normalizers":[{"type":"NFC"},
			{"type":"Replace","pattern":{"Regex":"(a+)+b"},"content":""}]}`}), "normalizer Replace"},
		{"other pattern", byteLevelFile(file{"pre_tokenizer": `{"type":"Sequence","pretokenizers":[
			{"type":"Split","pattern":{"Regex":"(a+)+b"},"behavior":"Isolated","invert":false},
			{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]}`}), "pre_tokenizer"},
		{"Strip, whose stop is counted below zero", byteLevelFile(file{"decoder": `{"type":"Sequence","decoders":[{"type":"ByteLevel"},
			{"type":"Strip","content":"a","start":0,"stop":9}]}`}), "decoder"},
		{"no decoder", byteLevelFile(file{"decoder": "null"}), "decoder"},
		{"lacking bytes", byteLevelFile(bpe(`"vocab":{"a":0},"merges":[]`)), "no token for byte 0x00"},
		{"many added tokens", byteLevelFile(file{"added_tokens": "[" + strings.Join(many, ",") + "]"}), "16385 added tokens, limit 16384"},
		{"NUL", byteLevelFile(file{"added_tokens": strings.Replace(addedToken1("<x>", "256", ""), "<x>", `\u0000`, 1)}), "NUL at offset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := DauletFromBytes(c.data)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err = OpenDaulet(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestDauletKeptWhileUsed: the cleanup of a tokenizer does not free it under a call.
func TestDauletKeptWhileUsed(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "qwen.json"))
	require.NoError(t, err)
	for range 50 {
		d, err := DauletFromBytes(data)
		require.NoError(t, err)
		runtime.GC()
		ids, err := d.Encode("hello", false)
		require.NoError(t, err)
		require.NotEmpty(t, ids)
	}
}

// pieces are what FuzzDifferential builds texts from: what split patterns, normalization, added tokens and merging tell
// apart. Bytes from len(pieces) on take the next three for a character.
var pieces = strings.Split("'s|'S|'\u017f|'T|'re|'LL|'d|'|’s| |  |   |\t|\n|\r|\r\n|\n\n| \n |\u3000|\u00a0|\u2028|\u0085|\u200b|\u1680|a|b|hello| world|The|"+
	" quick| the|ing|tion|é|e\u0301|\u0301|\u0327\u0301|\u0323\u0307|\u0307\u0323|ﬁ|ß|İ|ı|K|Å|中文|日本|の|한국|각|\u1100\u1161\u11a8|\u1100|\u1161|"+
	"0|1|12|1234|12345|٣|½|Ⅷ|²|!|?!|...|_|-|=|==|(|)|{|}|[|]|;|</|/>|//|/*|#|*|**|<s>|<unk>|<think>|</think>|<tool_call>|</tool_call>|"+
	"<|end|>|<|start|>|<|im_start|>|<|im_end|>|<|endoftext|>|<|begin_of_text|>|<|eot_id|>|<|start_header_id|>|<|end_header_id|>|<||"+
	"▁|Ġ|Ċ|\x7f|\x1b|\u00ad|😀|👨\u200d👩\u200d👧|🇩🇪|\ufffd|\ufeff|\u0344|\u0958|\U00011935\U00011930|\u09c7\u09be|\U00010d50|\U0002ebf0|\ue000|\U0010ffff|"+
	"नमस्ते|दुनिया|مرحبا|שלום|สวัสดี|Съешь|ещё|Ξεσ|function|return| = |self.|std::|http://|.com|ABC|XYZ|aaaaaaaaaaaaaaaa|                |--------", "|")

// FuzzDifferential: the two implementations give the same ids and the same text. It runs on the published vocabularies
// where the reference data is there, else on those of testdata.
func FuzzDifferential(f *testing.F) {
	type both struct {
		name string
		d    *Daulet
	}
	var all []both
	dir := os.Getenv("STEERAGE_REFERENCE")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "reference")
	}
	if _, err := os.Stat(filepath.Join(dir, "tokenizers")); err == nil {
		for _, name := range []string{"llama3", "qwen3"} {
			d, err := OpenDaulet(referenceFolder(f, dir, name))
			require.NoError(f, err)
			all = append(all, both{name, d})
		}
	} else {
		for _, name := range byteLevelOnes {
			all = append(all, both{name, dauletSmall(f, name)})
		}
	}
	for _, name := range byteLevelOnes {
		for _, g := range readGolden(f, filepath.Join("testdata", name+".golden.jsonl")) {
			if g.Text != nil {
				f.Add(*g.Text, []byte{})
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		recipe := make([]byte, random.IntN(60))
		for i := range recipe {
			recipe[i] = byte(random.IntN(256))
		}
		f.Add("", recipe)
	}
	f.Fuzz(func(t *testing.T, text string, recipe []byte) {
		text += cook(recipe)
		for _, b := range all {
			for _, opts := range []EncodeOptions{{}, {AddSpecialTokens: true}, {AddedTokens: SpecialAsText}, {AddedTokens: AllAsText}} {
				want, wantErr := b.d.BPE.EncodeWith(text, opts)
				ids, err := b.d.EncodeWith(text, opts)
				require.Equal(t, wantErr, err, "%s %q", b.name, text)
				require.True(t, slices.Equal(want, ids), "%s %q %+v\ngo     %v\ndaulet %v", b.name, text, opts, want, ids)
				same(t, b.name, b.d, ids)
			}
			var ids []int32 // that no text would give
			for i := 0; i+2 < len(recipe); i += 3 {
				ids = append(ids, (int32(recipe[i])|int32(recipe[i+1])<<8|int32(recipe[i+2])<<16)%int32(b.d.VocabSize()+9))
			}
			same(t, b.name, b.d, ids)
		}
	})
}

// same compares what the implementations decode.
func same(t *testing.T, name string, d *Daulet, ids []int32) {
	for _, skip := range []bool{false, true} {
		want, err := d.BPE.Decode(ids, skip)
		require.NoError(t, err)
		text, err := d.Decode(ids, skip)
		require.NoError(t, err)
		require.Equal(t, want, text, "%s %v skip=%v", name, ids, skip)
	}
}

// cook makes a text of a recipe.
func cook(recipe []byte) string {
	var b strings.Builder
	for i := 0; i < len(recipe); i++ {
		if n := int(recipe[i]); n < len(pieces) {
			b.WriteString(pieces[n])
		} else if i+3 < len(recipe) {
			b.WriteRune(rune(recipe[i+1])<<16&0x10ffff | rune(recipe[i+2])<<8 | rune(recipe[i+3]))
			i += 3
		}
	}
	return b.String()
}
