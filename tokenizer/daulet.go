//go:build daulet

package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	hf "github.com/daulet/tokenizers"
)

func init() {
	implementations = append(implementations, Implementation{
		Name:    "daulet",
		Version: hf.WANT_VERSION, // the module refuses to start with another libtokenizers.a
		Open: func(dir string) (Tokenizer, error) {
			d, err := OpenDaulet(dir)
			if err != nil {
				return nil, err
			}
			return d, nil
		},
	})
}

// Daulet runs a tokenizer.json in Hugging Face's tokenizers library itself, through github.com/daulet/tokenizers and
// cgo. It exists to check [BPE] against; in the build tag daulet only.
//
// The Rust library aborts the process where it panics, takes texts that end at a NUL, and knows no limits. So a BPE
// reads the file first and refuses what it always refuses; then only byte-level pipelines (GPT-2, Llama-3, Qwen2 and
// Qwen3) are let through; and texts that have a NUL or more than 1 MiB are encoded by the BPE. It decodes streams as
// well: Rust can only decode whole texts.
type Daulet struct {
	*BPE
	rust [3]func() (*hf.Tokenizer, error) // by AddedTokens, each loaded when it is first needed
}

var _ Tokenizer = (*Daulet)(nil)

const (
	// Oniguruma gives up, and the library panics, after 10 million steps back in one match; the patterns let through
	// take a few steps for each byte. An encoding takes a few hundred bytes for each token.
	maxDauletText = 1 << 20
	// Adding a token compares it with all those before.
	maxDauletAdded = 1 << 14
)

// OpenDaulet is [Open] for a Daulet.
func OpenDaulet(dir string) (*Daulet, error) {
	t, data, err := open(dir)
	if err != nil {
		return nil, err
	}
	d, err := newDaulet(t, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "tokenizer.json"), err)
	}
	return d, nil
}

// DauletFromBytes is [FromBytes] for a Daulet.
func DauletFromBytes(data []byte) (*Daulet, error) {
	t, err := FromBytes(data)
	if err != nil {
		return nil, err
	}
	d, err := newDaulet(t, bytes.Clone(data))
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	return d, nil
}

// newDaulet keeps data.
func newDaulet(t *BPE, data []byte) (*Daulet, error) {
	if err := t.suitsDaulet(data); err != nil {
		return nil, fmt.Errorf("daulet/tokenizers: %w", err)
	}
	d := &Daulet{BPE: t}
	d.rust[ParseAll] = sync.OnceValues(func() (*hf.Tokenizer, error) { return load(t.rewritten(data, false)) })
	d.rust[SpecialAsText] = sync.OnceValues(func() (*hf.Tokenizer, error) {
		return load(t.rewritten(data, false), hf.WithEncodeSpecialTokens())
	})
	d.rust[AllAsText] = sync.OnceValues(func() (*hf.Tokenizer, error) {
		return load(t.rewritten(data, true), hf.WithEncodeSpecialTokens())
	})
	_, err := d.rust[ParseAll]()
	return d, err
}

func load(data []byte, opts ...hf.TokenizerOption) (*hf.Tokenizer, error) {
	h, err := hf.FromBytes(data, opts...)
	if err != nil {
		return nil, fmt.Errorf("daulet/tokenizers: %.500w", err)
	}
	runtime.AddCleanup(h, func(t hf.Tokenizer) { _ = t.Close() }, *h)
	return h, nil
}

// suitsDaulet says why a file must not reach the Rust library.
func (t *BPE) suitsDaulet(data []byte) error {
	for _, typ := range componentTypes(t.source.normalizer, "normalizers") {
		if typ != "NFC" {
			return fmt.Errorf("normalizer %s is not supported, only NFC is", quoteName(typ))
		}
	}
	if !t.pre.byteLevel || t.pre.scan == nil {
		return fmt.Errorf("the pre_tokenizer is not one of GPT-2, Llama-3, Qwen2 and Qwen3")
	}
	if types := componentTypes(t.source.decoder, "decoders"); len(types) != 1 || types[0] != "ByteLevel" {
		return fmt.Errorf("decoder %.200q is not supported, only ByteLevel is", types)
	}
	for b, id := range t.model.bytes {
		if id < 0 {
			return fmt.Errorf("the vocabulary has no token for byte 0x%02X", b)
		}
	}
	if len(t.added) > maxDauletAdded {
		return fmt.Errorf("%d added tokens, limit %d", len(t.added), maxDauletAdded)
	}
	// An error message of the library with a NUL in it would be a panic.
	if at := bytes.Index(data, []byte(`\u0000`)); at >= 0 {
		return fmt.Errorf("NUL at offset %d", at)
	}
	return nil
}

// componentTypes lists the types of a component, those of a Sequence one by one.
func componentTypes(n node, children string) []string {
	o, ok := n.(*object)
	if !ok {
		return nil
	}
	list, ok := o.values[children].([]node)
	if !ok {
		typ, _ := o.values["type"].(string)
		return []string{typ}
	}
	var types []string
	for _, child := range list {
		types = append(types, componentTypes(child, children)...)
	}
	return types
}

// rewritten returns the file with the added tokens that t has: tokenizer_config.json may have changed them. allSpecial
// marks every one special, so that WithEncodeSpecialTokens recognises none.
func (t *BPE) rewritten(data []byte, allSpecial bool) []byte {
	if !t.source.addedChanged && !allSpecial {
		return data
	}
	type entry struct {
		ID         int32  `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	}
	list := make([]entry, len(t.added))
	for i, a := range t.added {
		list[i] = entry{a.id, a.content, a.singleWord, a.lstrip, a.rstrip, a.normalized, a.special || allSpecial}
	}
	added, err := json.Marshal(list)
	if err != nil {
		panic(err) // such structs can always be written
	}
	from, to := t.source.addedAt, t.source.addedEnd
	if to == 0 {
		from = bytes.IndexByte(data, '{') + 1
		to, added = from, append(append([]byte(`"added_tokens":`), added...), ',')
	}
	out := make([]byte, 0, len(data)+len(added))
	return append(append(append(out, data[:from]...), added...), data[to:]...)
}

// Encode is [Tokenizer.Encode].
func (d *Daulet) Encode(text string, addSpecialTokens bool) ([]int32, error) {
	return d.EncodeWith(text, EncodeOptions{AddSpecialTokens: addSpecialTokens})
}

// EncodeWith is [Tokenizer.EncodeWith].
func (d *Daulet) EncodeWith(text string, opts EncodeOptions) ([]int32, error) {
	if err := opts.check(text); err != nil {
		return nil, err
	}
	if len(text) > maxDauletText || strings.IndexByte(text, 0) >= 0 {
		return d.BPE.EncodeWith(text, opts)
	}
	h, err := d.rust[opts.AddedTokens]()
	if err != nil {
		return nil, err
	}
	encoding := h.EncodeWithOptions(text, opts.AddSpecialTokens)
	runtime.KeepAlive(h)
	if len(encoding.IDs) == 0 { // no tokens, or an error, of which the interface tells nothing
		return d.BPE.EncodeWith(text, opts)
	}
	ids := make([]int32, len(encoding.IDs))
	for i, id := range encoding.IDs {
		ids[i] = int32(id)
	}
	return ids, nil
}

// Decode is [Tokenizer.Decode].
func (d *Daulet) Decode(ids []int32, skipSpecialTokens bool) (string, error) {
	unsigned := make([]uint32, len(ids))
	for i, id := range ids {
		if id < 0 {
			return "", errNegative(id, i)
		}
		unsigned[i] = uint32(id)
	}
	h, err := d.rust[ParseAll]()
	if err != nil {
		return "", err
	}
	text := h.Decode(unsigned, skipSpecialTokens)
	runtime.KeepAlive(h)
	if text == "" { // no text, or one with a NUL
		return d.BPE.Decode(ids, skipSpecialTokens)
	}
	return text, nil
}
