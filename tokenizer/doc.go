// Package tokenizer turns text into token ids and back, exactly as Hugging Face's tokenizers library does for the same
// tokenizer.json. It is pure Go; in a build with the tag daulet that library itself, which is Rust, is there as well, to
// check against (daulet.go; `make tokenizers` builds it).
//
// [Open] reads a model folder, [FromBytes] the contents of a tokenizer.json. [BPE.Encode] and [BPE.Decode] are the two
// directions, [BPE.EncodeOffsets] says which part of the text each id comes from as well (offsets.go), [NewStream]
// decodes ids one by one while they are generated. Everything is immutable after loading and
// safe for concurrent use, except a [Stream].
//
// # How a text becomes ids
//
//	text ── added tokens that are not normalized are cut out      added.go
//	     ── normalizer: NFC, Replace, Prepend, …                  normalize.go, nfc.go
//	     ── added tokens that are normalized are cut out          added.go
//	     ── pre-tokenizer: words                                  pretokenize.go, scan.go, regex.go
//	     ── model: the merges of each word                        model.go, merge.go, cache.go
//	     ── post-processor: <|begin_of_text|> in front, …         post.go
//
// With a byte-level vocabulary (Llama-3, Qwen3) words are bytes, and every byte has a token. With a SentencePiece one
// (Llama-2) words are characters, a space is U+2581, and a character without a token falls back to its bytes.
// Decoding is a chain of stages in decode.go.
//
// # What is supported
//
//	model           BPE: byte_fallback, fuse_unk, unk_token, ignore_merges
//	normalizer      NFC NFD NFKC NFKD Prepend Replace Strip Sequence
//	pre_tokenizer   ByteLevel Digits Metaspace Split Whitespace WhitespaceSplit Sequence
//	post_processor  ByteLevel TemplateProcessing Sequence
//	decoder         ByteFallback ByteLevel Fuse Metaspace Replace Strip Sequence
//	added_tokens    special, lstrip, rstrip, single_word, normalized
//
// Anything else in the file, down to a field that is not known, is an error at load that names it: a component left out
// would give other ids than the model was trained with. Regular expressions are those of GPT-2, Llama-3 and Qwen2 to
// Qwen3, which are recognised and run by scanners written for them, and those that mean the same to Go's regexp.
//
// Character classes and normalization data are those of tokenizers 0.23.3, whatever Unicode version Go has (tables.go).
//
// # Where this package differs
//
//   - A text that is not UTF-8 is an error; Python cannot pass one.
//   - A character for which the vocabulary has neither a token nor bytes nor unk_token is an error; Hugging Face drops it.
//   - truncation and padding in tokenizer.json are refused rather than applied.
//   - An added token whose id in the file is not the one that Hugging Face would give it is refused; there it is a warning.
//
// # tokenizer_config.json
//
// When transformers (checked with 5.23) loads a folder with both files, tokenizer_config.json can add tokens
// (added_tokens_decoder, additional_special_tokens, extra_special_tokens, and the named ones such as pad_token) and
// change the flags of added tokens. Open does the same. add_bos_token, add_eos_token, add_prefix_space and
// clean_up_tokenization_spaces have no effect there when there is a tokenizer.json, and none here: what is put around a
// text is the post_processor's word.
//
// # Text that is not trusted
//
// A user who types <|im_end|> must not end the turn. [EncodeOptions] has a choice of which added tokens are recognised
// inside a text: all, those that are not special, or none.
//
// With a published tokenizer.json, time is O(n log n) in the length of a text and memory O(n), whatever the text. A
// hostile file cannot panic, costs memory in proportion to its size, and cannot make a text grow without bound; it can
// make encoding slow.
package tokenizer
