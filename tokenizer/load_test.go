package tokenizer

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// file is a tokenizer.json in parts, each raw JSON; "" leaves a part out.
type file map[string]string

// tiny is a small valid file.
func tiny(changes file) []byte {
	parts := file{
		"version": `"1.0"`, "truncation": "null", "padding": "null", "added_tokens": "[]", "normalizer": "null",
		"pre_tokenizer": "null", "post_processor": "null", "decoder": "null",
		"model": `{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"<s>":3,"▁":4},"merges":[["a","b"]]}`,
	}
	for k, v := range changes {
		parts[k] = v
	}
	var list []string
	for k, v := range parts {
		if v != "" {
			list = append(list, fmt.Sprintf("%q:%s", k, v))
		}
	}
	return []byte("{" + strings.Join(list, ",") + "}")
}

func bpe(fields string) file {
	return file{"model": `{"type":"BPE",` + fields + `}`}
}

func addedToken1(content, id, more string) string {
	return fmt.Sprintf(`[{"id":%s,"content":%q,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true%s}]`,
		id, content, more)
}

func TestTinyLoads(t *testing.T) {
	tok, err := FromBytes(tiny(nil))
	require.NoError(t, err)
	require.Equal(t, 5, tok.VocabSize())
	ids, err := tok.Encode("abba", false)
	require.NoError(t, err)
	require.Equal(t, []int32{2, 1, 0}, ids)
	text, err := tok.Decode(ids, false)
	require.NoError(t, err)
	require.Equal(t, "ab b a", text, "without a decoder tokens are joined by spaces")
}

// TestRefused: every file that is broken, or asks for something this package does not do, is refused by name.
func TestRefused(t *testing.T) {
	deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	regex := func(r string) file {
		q, _ := json.Marshal(r)
		return file{"pre_tokenizer": `{"type":"Split","pattern":{"Regex":` + string(q) + `},"behavior":"Isolated","invert":false}`}
	}
	template := func(single, tokens string) file {
		return file{"post_processor": `{"type":"TemplateProcessing","single":` + single + `,"pair":[],"special_tokens":` + tokens + `}`}
	}
	const doubling = `{"type":"Replace","pattern":{"String":"a"},"content":"aa"}`
	const strip = `{"type":"Strip","strip_left":true,"strip_right":false}`
	const okVocab = `"vocab":{"a":0,"b":1,"ab":2}`
	for _, c := range []struct {
		name string
		file any // file or string
		want string
	}{
		{"empty", "", "offset 0"},
		{"not an object", "[]", `'['`},
		{"cut short", `{"model": {"type": "BPE", "voc`, "no end"},
		{"rubbish after", string(tiny(nil)) + "x", "after its end"},
		{"deep", file{"normalizer": deep}, "nested deeper than 64"},
		{"deep unknown", file{"zzz": deep}, "nested deeper than 64"},
		{"many values", file{"normalizer": "[" + strings.Repeat("0,", 1<<20) + "0]"}, "more than 1048576 values"},
		{"duplicate part", `{"version":"1.0","version":"1.0"}`, `duplicate key "version"`},
		{"duplicate field", file{"normalizer": `{"type":"NFC","type":"NFD"}`}, `duplicate key "type"`},
		{"unknown part", file{"extra": "{}"}, `unknown field "extra"`},
		{"version", file{"version": `"2.0"`}, `version "2.0"`},
		{"truncation", file{"truncation": `{"max_length":4}`}, "truncation is set"},
		{"padding", file{"padding": `{"strategy":"BatchLongest"}`}, "padding is set"},
		{"no model", file{"model": ""}, "model is missing"},
		{"null model", file{"model": "null"}, "model is missing"},
		{"half surrogate", file{"version": `"\ud800"`}, "half a surrogate"},
		{"half surrogate, other", file{"version": `"\ud800A"`}, "half a surrogate"},
		{"low surrogate", file{"version": `"\udc00"`}, "half a surrogate"},
		{"bad escape", file{"version": `"\q"`}, "unknown escape"},
		{"bad hex", file{"version": `"\u12g4"`}, "malformed"},
		{"control character", file{"version": "\"1\n0\""}, "control character"},
		{"not UTF-8", file{"version": "\"\xff\""}, "not UTF-8"},
		{"not UTF-8 after escape", file{"version": "\"\\n\xff\""}, "not UTF-8"},
		{"bad number", file{"version": `01`}, "JSON has"},
		{"Infinity", file{"version": `Infinity`}, "malformed"},
		{"huge number", file{"version": `1e999`}, "1e999"},
		{"comma", file{"added_tokens": `[,]`}, "JSON has ','"},
		{"comma at end", file{"normalizer": `[1,]`}, `comma before ']'`},

		{"model type", file{"model": `{"type":"Unigram","vocab":[]}`}, "model Unigram is not supported"},
		{"WordPiece", file{"model": `{"type":"WordPiece","vocab":{"a":0}}`}, "model WordPiece is not supported"},
		{"no type", file{"model": `{` + okVocab + `,"merges":[]}`}, "type is missing"},
		{"no vocab", bpe(`"dropout":null`), "vocab is missing"},
		{"empty vocab", bpe(`"vocab":{},"merges":[]`), "vocab is empty"},
		{"no merges", bpe(okVocab), "merges is missing"},
		{"merges first", bpe(`"merges":[],` + okVocab), "merges comes before vocab"},
		{"two vocabs", bpe(okVocab + "," + okVocab), `duplicate key "vocab"`},
		{"dropout", bpe(`"dropout":0.1,` + okVocab + `,"merges":[]`), "dropout 0.1"},
		{"prefix", bpe(`"continuing_subword_prefix":"##",` + okVocab + `,"merges":[]`), "continuing_subword_prefix"},
		{"suffix", bpe(`"end_of_word_suffix":"</w>",` + okVocab + `,"merges":[]`), `end_of_word_suffix "</w>"`},
		{"unknown model field", bpe(`"cache":1,` + okVocab + `,"merges":[]`), `unknown field "cache"`},
		{"flag", bpe(`"fuse_unk":"yes",` + okVocab + `,"merges":[]`), `fuse_unk is "yes"`},
		{"unk", bpe(`"unk_token":"<unk>",` + okVocab + `,"merges":[]`), `unk_token "<unk>" is not in the vocabulary`},
		{"negative id", bpe(`"vocab":{"a":-1},"merges":[]`), "non-negative"},
		{"fraction", bpe(`"vocab":{"a":1.5},"merges":[]`), "non-negative integer"},
		{"exponent", bpe(`"vocab":{"a":1e3},"merges":[]`), "non-negative integer"},
		{"leading zero", bpe(`"vocab":{"a":01},"merges":[]`), "non-negative integer"},
		{"huge id", bpe(`"vocab":{"a":99999999999999999999},"merges":[]`), "larger than 2147483647"},
		{"sparse id", bpe(`"vocab":{"a":2147483647},"merges":[]`), "too large for 1 tokens"},
		{"duplicate id", bpe(`"vocab":{"a":0,"b":0},"merges":[]`), `"a" and "b" both have id 0`},
		{"duplicate token", bpe(`"vocab":{"a":0,"a":1},"merges":[]`), `"a" occurs twice`},
		{"unknown left", bpe(okVocab + `,"merges":[["x","b"]]`), `"x" is not in the vocabulary`},
		{"unknown right", bpe(okVocab + `,"merges":["a x"]`), `"x" is not in the vocabulary`},
		{"unknown result", bpe(okVocab + `,"merges":[["b","a"]]`), `merges 0: token "ba" is not in the vocabulary`},
		{"one token", bpe(okVocab + `,"merges":["a"]`), "not two tokens"},
		{"three tokens", bpe(okVocab + `,"merges":["a b a"]`), "not two tokens"},
		{"triple", bpe(okVocab + `,"merges":[["a","b","a"]]`), "3 tokens, want 2"},
		{"mixed merges", bpe(okVocab + `,"merges":[["a","b"],"a b"]`), "mixes"},
		{"merges of numbers", bpe(okVocab + `,"merges":[1]`), "JSON has"},

		{"added: field missing", file{"added_tokens": `[{"id":3,"content":"<s>"}]`}, "added_tokens 0: single_word is missing"},
		{"added: unknown field", file{"added_tokens": addedToken1("<s>", "3", `,"zzz":1`)}, `unknown field "zzz"`},
		{"added: duplicate field", file{"added_tokens": addedToken1("<s>", "3", `,"id":3`)}, `duplicate key "id"`},
		{"added: other id", file{"added_tokens": addedToken1("<s>", "9", "")}, `"<s>" has id 9, but Hugging Face gives it 3`},
		{"added: gap", file{"added_tokens": addedToken1("<new>", "7", "")}, `"<new>" has id 7, but Hugging Face gives it 5`},
		{"added: long", file{"added_tokens": addedToken1(strings.Repeat("x", 5000), "5", "")}, "5000 bytes, limit 4096"},
		{"added: taken", file{
			"model":        `{"type":"BPE","vocab":{"a":0,"b":2},"merges":[]}`,
			"added_tokens": addedToken1("<new>", "2", ""),
		}, `which the vocabulary gives to "b"`},
		{"added: nothing left", file{
			"normalizer":   `{"type":"Replace","pattern":{"String":"x"},"content":""}`,
			"added_tokens": strings.Replace(addedToken1("xx", "5", ""), `"normalized":false`, `"normalized":true`, 1),
		}, "empty after normalization"},

		{"normalizer", file{"normalizer": `{"type":"Lowercase"}`}, "normalizer Lowercase is not supported"},
		{"normalizer in sequence", file{"normalizer": `{"type":"Sequence","normalizers":[{"type":"Nmt"}]}`}, "normalizer Nmt is not supported"},
		{"charsmap", file{"normalizer": `{"type":"Precompiled","precompiled_charsmap":""}`}, "Precompiled"},
		{"normalizer null in sequence", file{"normalizer": `{"type":"Sequence","normalizers":[null]}`}, "normalizer: want an object with a type, have null"},
		{"decoder null in sequence", file{"decoder": `{"type":"Sequence","decoders":[null]}`}, "decoder: want an object with a type, have null"},
		{"bomb", file{"normalizer": `{"type":"Sequence","normalizers":[` + strings.TrimSuffix(strings.Repeat(doubling+",", 40), ",") + `]}`}, "256 times longer"},
		{"bomb in decoder", file{"decoder": `{"type":"Sequence","decoders":[` + strings.TrimSuffix(strings.Repeat(doubling+",", 40), ",") + `]}`}, "256 times longer"},
		{"long replacement", file{"normalizer": strings.Replace(doubling, "aa", strings.Repeat("x", 1000), 1)}, "256 times longer"},
		{"long prefix", file{"normalizer": `{"type":"Prepend","prepend":"` + strings.Repeat("x", 1000) + `"}`}, "256 times longer"},
		{"many", file{"normalizer": `{"type":"Sequence","normalizers":[` + strings.TrimSuffix(strings.Repeat(strip+",", 65), ",") + `]}`}, "more than 64 components"},
		{"many splits", file{"pre_tokenizer": `{"type":"Sequence","pretokenizers":[` + strings.TrimSuffix(strings.Repeat(`{"type":"WhitespaceSplit"},`, 65), ",") + `]}`}, "more than 64 components"},
		{"long regex", regex(strings.Repeat(`\p{L}`, 300)), "limit 1024"},
		{"look-ahead in Replace", file{"normalizer": `{"type":"Replace","pattern":{"Regex":"` + strings.ReplaceAll(patternGPT2, `\`, `\\`) + `"},"content":""}`}, "in Split only"},
		{"normalizer field", file{"normalizer": `{"type":"NFC","form":"x"}`}, `normalizer NFC: unknown field "form"`},
		{"normalizer string", file{"normalizer": `"NFC"`}, `have "NFC"`},
		{"odd type", file{"normalizer": `{"type":"N\u0000C"}`}, `"N\x00C"`},
		{"empty pattern", file{"normalizer": `{"type":"Replace","pattern":{"String":""},"content":"x"}`}, "empty pattern"},
		{"pattern kind", file{"normalizer": `{"type":"Replace","pattern":{"Glob":"*"},"content":"x"}`}, `"Glob"`},
		{"pattern twice", file{"normalizer": `{"type":"Replace","pattern":{"String":"a","Regex":"b"},"content":"x"}`}, "want String or Regex"},

		{"pre-tokenizer", file{"pre_tokenizer": `{"type":"BertPreTokenizer"}`}, "pre_tokenizer BertPreTokenizer is not supported"},
		{"punctuation", file{"pre_tokenizer": `{"type":"Punctuation","behavior":"Isolated"}`}, "Punctuation is not supported"},
		{"after ByteLevel", file{"pre_tokenizer": `{"type":"Sequence","pretokenizers":[{"type":"ByteLevel","add_prefix_space":false},{"type":"WhitespaceSplit"}]}`}, "after ByteLevel"},
		{"behavior", file{"pre_tokenizer": `{"type":"Split","pattern":{"String":"a"},"behavior":"Kept","invert":false}`}, `behavior "Kept"`},
		{"scheme", file{"pre_tokenizer": `{"type":"Metaspace","replacement":"▁","prepend_scheme":"last"}`}, `prepend_scheme "last"`},
		{"replacement", file{"pre_tokenizer": `{"type":"Metaspace","replacement":"__"}`}, "one character"},
		{"first after normalizer", file{"normalizer": `{"type":"NFC"}`, "pre_tokenizer": `{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"}`}, `"first"`},
		{"contradiction", file{"pre_tokenizer": `{"type":"Metaspace","replacement":"▁","add_prefix_space":false,"prepend_scheme":"always"}`}, "contradicts"},
		{"look-ahead", regex(`\s+(?!\S)`), `group "(?!\\"`},
		{"o200k", regex(`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}]+(?i:'s)?|\s+`), "not supported"},
		{"possessive", regex(`a++`), "nothing to repeat"},
		{"word class", regex(`\w+`), "escape"},
		{"anchor", regex(`^a`), "anchor"},
		{"class operator", regex(`[a&&b]`), "class operator"},
		{"nested class", regex(`[a[b]]`), "class operator"},
		{"open class", regex(`[a`), "class without ]"},
		{"case", regex(`(?i)a`), "group"},
		{"bounds", regex(`a{,3}`), "quantifier"},
		{"lazy count", regex(`a{3}?`), "quantifier"},
		{"empty loop", regex(`(a*)*`), "can match nothing"},
		{"unbalanced", regex(`(a`), "missing closing"},
		{"huge repeat", regex(`a{2000}`), "repeat"},
		{"backslash", regex(`a\`), "backslash"},
		{"nearly Llama-3", regex(strings.Replace(patternLlama3, "{1,3}", "{1,2}", 1)), "not supported"},

		{"post-processor", file{"post_processor": `{"type":"BertProcessing","sep":["a",0],"cls":["b",1]}`}, "BertProcessing is not supported"},
		{"template without text", template(`[]`, `{}`), "single has the sequence 0 times"},
		{"template twice", template(`[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]`, `{}`), "2 times"},
		{"template of B", template(`[{"Sequence":{"id":"B","type_id":0}}]`, `{}`), "second sequence"},
		{"template of C", template(`[{"Sequence":{"id":"C","type_id":0}}]`, `{}`), "want A or B"},
		{"template unknown token", template(`[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]`, `{}`), "not in special_tokens"},
		{"template unknown id", template(`[{"Sequence":{"id":"A","type_id":0}}]`, `{"<s>":{"id":"<s>","ids":[77],"tokens":["<s>"]}}`), "not in the vocabulary"},
		{"template other id", template(`[{"Sequence":{"id":"A","type_id":0}}]`, `{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}`), `id 1 is "b"`},
		{"template lengths", template(`[{"Sequence":{"id":"A","type_id":0}}]`, `{"<s>":{"id":"<s>","ids":[3],"tokens":[]}}`), "1 ids and 0 tokens"},

		{"decoder", file{"decoder": `{"type":"WordPiece","prefix":"##","cleanup":true}`}, "decoder WordPiece is not supported"},
		{"decoder in sequence", file{"decoder": `{"type":"Sequence","decoders":[{"type":"CTC"}]}`}, "decoder CTC is not supported"},
		{"strip", file{"decoder": `{"type":"Strip","content":"ab","start":1,"stop":0}`}, "one character"},
		{"strip count", file{"decoder": `{"type":"Strip","content":"a","start":-1,"stop":0}`}, "want an integer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var data []byte
			switch f := c.file.(type) {
			case string:
				data = []byte(f)
			case file:
				data = tiny(f)
			}
			_, err := FromBytes(data)
			require.ErrorContains(t, err, c.want)
			require.Less(t, len(err.Error()), 2000)
		})
	}
}

func TestOpen(t *testing.T) {
	write := func(t *testing.T, config string) string {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), tiny(file{"added_tokens": addedToken1("<s>", "3", "")}), 0o600))
		if config != "" {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(config), 0o600))
		}
		return dir
	}
	t.Run("alone", func(t *testing.T) {
		tok, err := Open(write(t, ""))
		require.NoError(t, err)
		ids, err := tok.Encode("a<s>b", true)
		require.NoError(t, err)
		require.Equal(t, []int32{0, 3, 1}, ids)
	})
	t.Run("config adds tokens", func(t *testing.T) {
		tok, err := Open(write(t, `{"add_bos_token": true, "bos_token": "<s>", "pad_token": {"content": "<pad>", "__type": "AddedToken"},
			"added_tokens_decoder": {
				"5": {"content": "<x>", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": false},
				"3": {"content": "<s>", "lstrip": true, "normalized": false, "rstrip": false, "single_word": false, "special": false}},
			"extra_special_tokens": {"image_token": "<img>"}, "chat_template": "{{ x }}"}`))
		require.NoError(t, err)
		require.Equal(t, 8, tok.VocabSize())
		ids, err := tok.Encode("a <s><x><pad><img>", true)
		require.NoError(t, err)
		require.Equal(t, []int32{0, 3, 5, 6, 7}, ids, "lstrip of the config counts; add_bos_token does not")
		require.True(t, tok.IsSpecial(3), "once special, always special")
		require.False(t, tok.IsSpecial(5))
		require.True(t, tok.IsSpecial(6))
	})
	for config, want := range map[string]string{
		`{"added_tokens_decoder": {"9": {"content": "<x>"}}}`:             `"<x>" has id 9, but Hugging Face gives it 5`,
		`{"added_tokens_decoder": {"-1": {"content": "<x>"}}}`:            `"-1" is not an id`,
		`{"added_tokens_decoder": {"5": {"content": "<x>", "color": 1}}}`: `unknown field "color"`,
		`{"added_tokens_decoder": []}`:                                    "want an object",
		`{"pad_token": 3}`:                                                "pad_token is 3",
		`[]`:                                                              "want an object",
		`{`:                                                               "JSON ends",
	} {
		t.Run(config, func(t *testing.T) {
			_, err := Open(write(t, config))
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, ".json")
		})
	}
	t.Run("missing", func(t *testing.T) {
		_, err := Open(t.TempDir())
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, "tokenizer.json")
	})
	t.Run("folder instead of file", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "tokenizer.json"), 0o700))
		_, err := Open(dir)
		require.ErrorContains(t, err, "not a regular file")
	})
}

// TestManyAddedTokens: a million special tokens load and match.
func TestManyAddedTokens(t *testing.T) {
	var b strings.Builder
	const n = 1_000_000
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"content":"<%d>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}`, i+5, i)
	}
	tok, err := FromBytes(tiny(file{"added_tokens": "[" + b.String() + "]"}))
	require.NoError(t, err)
	ids, err := tok.Encode("a<7><999999><77", false)
	require.ErrorContains(t, err, `no token for "<"`)
	require.Nil(t, ids)
	ids, err = tok.Encode("a<7><999999>", false)
	require.NoError(t, err)
	require.Equal(t, []int32{0, 12, 1000004}, ids)
}
