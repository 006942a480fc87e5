package tokenizer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Tokenizer turns text into token ids and back. Implementations are immutable and safe for concurrent use.
type Tokenizer interface {
	// Encode returns the ids of text. With addSpecialTokens the file's post-processor adds what the model expects
	// around a text (for Llama-3 <|begin_of_text|>, for Qwen3 nothing). Added tokens that occur in text become their
	// own ids, special ones too: use EncodeWith for text that is not trusted. Text that is not UTF-8 is an error.
	Encode(text string, addSpecialTokens bool) ([]int32, error)
	// EncodeWith is Encode with the choice of which added tokens are recognised inside the text.
	EncodeWith(text string, opts EncodeOptions) ([]int32, error)
	// Decode returns the text of ids. Ids the vocabulary does not know are dropped, as Hugging Face does; a negative
	// id is an error. Bytes that are not UTF-8 become U+FFFD. White space is never cleaned up.
	Decode(ids []int32, skipSpecialTokens bool) (string, error)
	// VocabSize is one more than the largest id.
	VocabSize() int
	// TokenToID returns the id of a token as tokenizer.json spells it ("Ġhello", "▁hello", "<0x0A>").
	TokenToID(token string) (int32, bool)
	// IDToToken is the inverse of TokenToID.
	IDToToken(id int32) (string, bool)
	// IsSpecial says whether Decode with skipSpecialTokens drops id.
	IsSpecial(id int32) bool
}

// AddedTokens says which of the file's added_tokens are recognised inside a text.
type AddedTokens int

const (
	// ParseAll recognises every added token.
	ParseAll AddedTokens = iota
	// SpecialAsText treats tokens marked special as plain text and recognises the others, as Hugging Face's
	// encode_special_tokens (split_special_tokens) does. Qwen3's <think> and <tool_call> are not marked special.
	SpecialAsText
	// AllAsText recognises none: no text can produce a control token.
	AllAsText
)

// EncodeOptions are the choices of EncodeWith; the zero value encodes like Encode(text, false).
type EncodeOptions struct {
	AddSpecialTokens bool        // apply the post-processor
	AddedTokens      AddedTokens // what to recognise inside the text
	MaxBytes         int         // a longer text is an error; 0 is 512 MiB, which is also the most
}

// Files larger than these are refused before they are read. The largest published tokenizer.json is near 35 MB.
const (
	maxTokenizerFile = 512 << 20
	maxConfigFile    = 64 << 20
)

// Open reads tokenizer.json in a model folder, and from tokenizer_config.json the few keys that change ids
// (see the package documentation). A missing tokenizer.json satisfies errors.Is(err, fs.ErrNotExist).
func Open(dir string) (*BPE, error) {
	t, _, err := open(dir)
	return t, err
}

// open also returns the contents of tokenizer.json.
func open(dir string) (*BPE, []byte, error) {
	path := filepath.Join(dir, "tokenizer.json")
	data, err := readFile(path, maxTokenizerFile)
	if err != nil {
		return nil, nil, fmt.Errorf("tokenizer: %w", err)
	}
	config, err := readFile(filepath.Join(dir, "tokenizer_config.json"), maxConfigFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("tokenizer: %w", err)
	}
	var more []addedToken
	if config != nil {
		if more, err = readConfig(config); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, "tokenizer_config.json"), err)
		}
	}
	t, err := parseTokenizer(data, more)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, data, nil
}

// FromBytes reads the contents of a tokenizer.json. It keeps no reference to data.
func FromBytes(data []byte) (*BPE, error) {
	if len(data) > maxTokenizerFile {
		return nil, fmt.Errorf("tokenizer.json: %d bytes, limit %d", len(data), maxTokenizerFile)
	}
	t, err := parseTokenizer(data, nil)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	return t, nil
}

// readFile reads a regular file of at most limit bytes: a named pipe would block for ever.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, limit %d", path, info.Size(), limit)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}
