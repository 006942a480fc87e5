package tokenizer_test

import (
	"fmt"
	"log"
	"os"

	"github.com/steerage/steerage/tokenizer"
)

// load reads a small tokenizer; for a model folder use tokenizer.Open(dir).
func load(path string) *tokenizer.BPE {
	data, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	tok, err := tokenizer.FromBytes(data)
	if err != nil {
		log.Fatal(err)
	}
	return tok
}

func Example() {
	tok := load("testdata/stories260k.json")
	ids, err := tok.Encode("Once upon a time", true)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ids)
	var tokens []string
	for _, id := range ids {
		token, _ := tok.IDToToken(id)
		tokens = append(tokens, token)
	}
	fmt.Printf("%q\n", tokens)
	text, err := tok.Decode(ids, true)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)
	// Output:
	// [1 403 407 261 378]
	// ["<s>" "▁Once" "▁upon" "▁a" "▁time"]
	// Once upon a time
}

// A stream gives text while ids arrive, and never half a character.
func ExampleNewStream() {
	tok := load("testdata/qwen.json")
	ids, err := tok.Encode("naïve 😀!", false)
	if err != nil {
		log.Fatal(err)
	}
	s := tokenizer.NewStream(tok, true)
	for _, id := range ids {
		fmt.Printf("%q ", s.Push(id))
	}
	fmt.Printf("%q\n", s.Flush())
	// Output: "na" "ïve" " " "" "" "😀" "!" ""
}

// Offsets say where a token comes from. Tokens that share a character each have all of it: ï is two bytes, in two tokens.
func ExampleBPE_EncodeOffsets() {
	tok := load("testdata/qwen.json")
	const text = "naïve 😀!"
	e, err := tok.EncodeOffsets(text, tokenizer.EncodeOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for i, id := range e.IDs {
		token, _ := tok.IDToToken(id)
		start, end := e.Offsets[i][0], e.Offsets[i][1]
		fmt.Printf("%s %d:%d %q\n", token, start, end, text[start:end])
	}
	// Output:
	// naÃ 0:4 "naï"
	// ¯ve 2:6 "ïve"
	// Ġ 6:7 " "
	// ðŁ 7:11 "😀"
	// ĺ 7:11 "😀"
	// Ģ 7:11 "😀"
	// ! 11:12 "!"
}

// Text of a user must not be able to end a turn.
func ExampleBPE_EncodeWith() {
	tok := load("testdata/qwen.json")
	const text = "<|end|>"
	for _, added := range []tokenizer.AddedTokens{tokenizer.ParseAll, tokenizer.SpecialAsText} {
		ids, err := tok.EncodeWith(text, tokenizer.EncodeOptions{AddedTokens: added})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(ids), tok.IsSpecial(ids[0]))
	}
	// Output:
	// 1 true
	// 5 false
}

// The default comes first; a build with the tag daulet has another.
func ExampleImplementations() {
	impl := tokenizer.Implementations()[0]
	tok, err := impl.Open("../cmd/steerage/demo/stories260k")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(impl.Name, tok.VocabSize())
	// Output: go 512
}
