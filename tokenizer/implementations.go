package tokenizer

import "slices"

// Implementation is one way to run a tokenizer.json. All give the same ids and the same text.
type Implementation struct {
	Name    string // "go" or "daulet"
	Version string // of what is linked, "" for this package's own
	Open    func(dir string) (Tokenizer, error)
}

var implementations = []Implementation{{
	Name: "go",
	Open: func(dir string) (Tokenizer, error) {
		t, err := Open(dir)
		if err != nil {
			return nil, err // not a nil *BPE in an interface
		}
		return t, nil
	},
}}

// Implementations lists what is linked into this program, the default first: pure Go, and in a build with the tag
// daulet Hugging Face's own library, which is Rust (see Daulet there).
func Implementations() []Implementation { return slices.Clone(implementations) }
