package tokenizer

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"unicode/utf8"
)

// BPE is a tokenizer read from a tokenizer.json whose model is BPE. It is immutable and safe for concurrent use.
type BPE struct {
	model       *bpeModel
	normalizers normalizers
	pre         *preTokenizer
	template    template
	trims       []bool    // add_prefix_space of each post-processor that trims offsets
	decoders    []decoder // nil: tokens are joined by spaces

	added             []addedToken
	addedByID         map[int32]int  // index into added
	addedByContent    map[string]int // the same
	special           map[int32]bool
	rawMatcher        *matcher // tokens looked for before normalization
	normalizedMatcher *matcher // and after
	size              int

	source source

	scratch sync.Pool
}

// source is what another implementation must know of the file that was read; see daulet.go.
type source struct {
	normalizer, decoder node
	addedAt, addedEnd   int  // where the value of "added_tokens" lies in the file, both 0 without one
	addedChanged        bool // tokenizer_config.json had more to say
}

var _ Tokenizer = (*BPE)(nil)

// parseTokenizer reads a tokenizer.json. Component descriptions become trees first; vocab, merges and added_tokens,
// which may be large, are read straight into their tables.
// more are the added tokens that tokenizer_config.json has.
func parseTokenizer(data []byte, more []addedToken) (*BPE, error) {
	r := &reader{data: data}
	t := &BPE{}
	t.scratch.New = func() any { return new(scratch) }
	root := &fields{where: "top level", obj: &object{values: map[string]node{}}}
	var added []addedToken
	err := r.object(func(k []byte) error {
		key := string(k)
		if _, ok := root.obj.values[key]; ok {
			return r.errorf("duplicate key %.200q", key)
		}
		root.obj.keys, root.obj.values[key] = append(root.obj.keys, key), nil
		var err error
		switch {
		case key == "model" && r.peek() == '{':
			t.model, err = readModel(r)
		case key == "added_tokens":
			r.space()
			t.source.addedAt = r.pos
			added, err = readAdded(r)
			t.source.addedEnd = r.pos
		default:
			root.obj.values[key], err = r.value()
		}
		return err
	})
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return nil, err
	}
	if v := root.strOr("version", "1.0"); v != "1.0" {
		root.fail("version %.200q is not supported, want 1.0", v)
	}
	for _, name := range []string{"truncation", "padding"} {
		if v, _ := root.get(name); v != nil {
			root.fail("%s is set, which would change ids without a word; set it to null", name)
		}
	}
	if root.get("model"); t.model == nil {
		root.fail("model is missing or not an object")
	}
	root.get("added_tokens")
	normalizer, _ := root.get("normalizer")
	pre, _ := root.get("pre_tokenizer")
	post, _ := root.get("post_processor")
	decoder, _ := root.get("decoder")
	if err := root.done(); err != nil {
		return nil, err
	}
	t.source.normalizer, t.source.decoder = normalizer, decoder
	if t.normalizers, err = readNormalizer(normalizer); err != nil {
		return nil, err
	}
	if t.pre, err = readPreTokenizer(pre, normalizer == nil); err != nil {
		return nil, err
	}
	if err := t.model.index(t.pre.byteLevel); err != nil {
		return nil, err
	}
	if err := t.addTokens(append(added, more...)); err != nil {
		return nil, err
	}
	t.source.addedChanged = !slices.EqualFunc(added, t.added, addedToken.sameAs)
	t.size = len(t.model.vocab.tokens)
	for _, tok := range t.added {
		t.size = max(t.size, int(tok.id)+1)
	}
	if err := t.readPostProcessor(post); err != nil {
		return nil, err
	}
	if t.decoders, err = readDecoder(decoder); err != nil {
		return nil, err
	}
	return t, nil
}

// VocabSize is one more than the largest id. It can be smaller than the model's vocab_size, which is often padded.
func (t *BPE) VocabSize() int { return t.size }

// TokenToID returns the id of a token as tokenizer.json spells it.
func (t *BPE) TokenToID(token string) (int32, bool) {
	id, ok := t.model.vocab.ids[token]
	if ok {
		return id, true
	}
	if i, ok := t.addedByContent[token]; ok {
		return t.added[i].id, true
	}
	return 0, false
}

// IDToToken returns the token with an id as tokenizer.json spells it.
func (t *BPE) IDToToken(id int32) (string, bool) {
	if i, ok := t.addedByID[id]; ok {
		return t.added[i].content, true
	}
	return t.model.vocab.token(id)
}

// IsSpecial says whether Decode with skipSpecialTokens drops id.
func (t *BPE) IsSpecial(id int32) bool { return t.special[id] }

// spelling is the token that decoding starts from: Hugging Face takes an added token's normalized form.
func (t *BPE) spelling(id int32) (string, bool) {
	if i, ok := t.addedByID[id]; ok {
		return t.added[i].pattern, true
	}
	return t.model.vocab.token(id)
}

func (v *vocabulary) token(id int32) (string, bool) {
	if id < 0 || int(id) >= len(v.tokens) || !v.known[id] {
		return "", false
	}
	return v.tokens[id], true
}

// Encode is [Tokenizer.Encode].
func (t *BPE) Encode(text string, addSpecialTokens bool) ([]int32, error) {
	return t.EncodeWith(text, EncodeOptions{AddSpecialTokens: addSpecialTokens})
}

// maxText keeps positions inside int32; encoding needs up to about 30 bytes of memory for each byte of one word.
const maxText = math.MaxInt32 / 4

// EncodeWith encodes text with options.
func (t *BPE) EncodeWith(text string, opts EncodeOptions) ([]int32, error) {
	return t.encode(text, opts, nil)
}

// encode is EncodeWith; r, which may be nil, collects offsets.
func (t *BPE) encode(text string, opts EncodeOptions, r *recorder) ([]int32, error) {
	if err := opts.check(text); err != nil {
		return nil, err
	}
	s := t.scratch.Get().(*scratch)
	defer func() {
		s.trim()
		t.scratch.Put(s)
	}()
	ids := make([]int32, 0, len(t.template.before)+len(text)/3+len(t.template.after)+1)
	if opts.AddSpecialTokens {
		ids = append(ids, t.template.before...)
		r.added(len(t.template.before))
	}
	word := func(w string, a *alignment, at int) (err error) {
		from := len(ids)
		ids, err = t.model.appendWord(ids, w, s)
		if r != nil && err == nil {
			err = r.word(ids[from:], w, a, at)
		}
		return err
	}
	whole := r.start()
	err := t.rawMatcher.split(text, opts.AddedTokens, func(start, end int) error {
		a := whole.slice(start, end)
		part := t.normalizers.apply(text[start:end], a)
		return t.normalizedMatcher.split(part, opts.AddedTokens, func(from, to int) error {
			return t.pre.appendWords(part[from:to], a.slice(from, to), start == 0 && from == 0, s, word)
		}, func(id int32, from, to int) {
			ids = append(ids, id)
			if r != nil {
				r.token(part[from:to], a.offsets(from, to))
			}
		})
	}, func(id int32, start, end int) {
		ids = append(ids, id)
		if r != nil {
			r.token(text[start:end], whole.offsets(start, end))
		}
	})
	if err != nil {
		return nil, err
	}
	if opts.AddSpecialTokens {
		ids = append(ids, t.template.after...)
		r.added(len(t.template.after))
	}
	return ids, nil
}

// check refuses what no implementation encodes.
func (opts EncodeOptions) check(text string) error {
	limit := maxText
	if opts.MaxBytes > 0 {
		limit = min(limit, opts.MaxBytes)
	}
	if len(text) > limit {
		return fmt.Errorf("tokenizer: text has %d bytes, limit %d", len(text), limit)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("tokenizer: text is not UTF-8 at byte %d", invalidAt(text))
	}
	return nil
}

// invalidAt returns the offset of the first byte that is not UTF-8, or the length of s.
func invalidAt(s string) int {
	for i, c := range s {
		if c == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return len(s)
}
