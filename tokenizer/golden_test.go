package tokenizer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// golden is a line of a golden file made by Hugging Face's tokenizers: of text (decode lines have none) and ids.
type golden struct {
	N                int
	Text             *string
	AddSpecialTokens bool `json:"add_special_tokens"`
	SpecialAsText    bool `json:"special_as_text"`
	IDs              []int32
	Decoded          *string // Text when absent
	SkipSpecial      *string `json:"skip_special"` // Decoded when absent
}

func readGolden(t testing.TB, path string) []golden {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var lines []golden
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<26)
	for scan.Scan() {
		var g golden
		require.NoError(t, json.Unmarshal(scan.Bytes(), &g))
		if g.Decoded == nil {
			g.Decoded = g.Text
		}
		if g.SkipSpecial == nil {
			g.SkipSpecial = g.Decoded
		}
		lines = append(lines, g)
	}
	require.NoError(t, scan.Err())
	require.NotEmpty(t, lines)
	return lines
}

// check compares every direction, whole and streamed, with what Hugging Face gave.
func (g golden) check(t *testing.T, tok Tokenizer) {
	t.Helper()
	if g.Text != nil {
		opts := EncodeOptions{AddSpecialTokens: g.AddSpecialTokens}
		if g.SpecialAsText {
			opts.AddedTokens = SpecialAsText
		}
		ids, err := tok.EncodeWith(*g.Text, opts)
		require.NoError(t, err, "line %d", g.N)
		require.Equal(t, g.IDs, append([]int32{}, ids...), "line %d: %q", g.N, *g.Text)
	}
	for _, skip := range []bool{false, true} {
		want := *g.Decoded
		if skip {
			want = *g.SkipSpecial
		}
		text, err := tok.Decode(g.IDs, skip)
		require.NoError(t, err, "line %d", g.N)
		require.Equal(t, want, text, "line %d: %v skip=%v", g.N, g.IDs, skip)
		require.Equal(t, want, streamed(t, tok, g.IDs, skip), "line %d: %v streamed, skip=%v", g.N, g.IDs, skip)
	}
}

// small are the tokenizers of testdata, made by testdata/make_golden.py.
var small = []string{"llama3", "qwen", "gpt2", "llama2", "pieces", "stories260k"}

func loadSmall(t testing.TB, name string) *BPE {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	require.NoError(t, err)
	tok, err := FromBytes(data)
	require.NoError(t, err)
	return tok
}

func TestGolden(t *testing.T) {
	for _, name := range small {
		t.Run(name, func(t *testing.T) {
			tok := loadSmall(t, name)
			for _, g := range readGolden(t, filepath.Join("testdata", name+".golden.jsonl")) {
				g.check(t, tok)
			}
		})
	}
}

// reference finds the project's folder of reference data, which a clone does not contain: $STEERAGE_REFERENCE, or
// shared/reference beside the clone.
func reference(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("STEERAGE_REFERENCE")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "reference")
	}
	if _, err := os.Stat(filepath.Join(dir, "golden")); err != nil {
		t.Skipf("no reference data: %v (set STEERAGE_REFERENCE to the folder that holds golden/ and tokenizers/)", err)
	}
	return dir
}

// referenceTokenizer returns the unpacked tokenizer.json of a published vocabulary.
func referenceTokenizer(t testing.TB, dir, name string) []byte {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join(dir, "tokenizers", name, "tokenizer.json.gz"))
	require.NoError(t, err)
	z, err := gzip.NewReader(bytes.NewReader(packed))
	require.NoError(t, err)
	data, err := io.ReadAll(z)
	require.NoError(t, err)
	return data
}

// referenceFolder unpacks a published vocabulary as a model folder, with its tokenizer_config.json.
func referenceFolder(t testing.TB, dir, name string) string {
	t.Helper()
	model := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(model, "tokenizer.json"), referenceTokenizer(t, dir, name), 0o600))
	config, err := os.ReadFile(filepath.Join(dir, "tokenizers", name, "tokenizer_config.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(model, "tokenizer_config.json"), config, 0o600))
	return model
}

// TestGoldenReference runs the real Qwen3 and Llama-3 vocabularies in every implementation that is linked.
func TestGoldenReference(t *testing.T) {
	dir := reference(t)
	for _, name := range []string{"qwen3", "llama3"} {
		model := referenceFolder(t, dir, name)
		for _, impl := range Implementations() {
			tok, err := impl.Open(model)
			require.NoError(t, err)
			t.Run(name+" "+impl.Name, func(t *testing.T) {
				for _, file := range []string{"tokenize_", "decode_"} {
					for _, g := range readGolden(t, filepath.Join(dir, "golden", file+name+".jsonl")) {
						g.check(t, tok)
					}
				}
			})
			t.Run(name+" chat "+impl.Name, func(t *testing.T) {
				for _, g := range readGolden(t, filepath.Join(dir, "golden", "chat_"+name+".jsonl")) {
					ids, err := tok.Encode(*g.Text, false)
					require.NoError(t, err)
					require.Equal(t, g.IDs, ids, "line %d", g.N)
				}
			})
		}
	}
}

// TestStories260kReference encodes the prompts that the reference model was run on.
func TestStories260kReference(t *testing.T) {
	dir := filepath.Join(reference(t), "models", "stories260k")
	tok, err := Open(dir)
	require.NoError(t, err)
	var story struct {
		Text string
		IDs  []int32
	}
	data, err := os.ReadFile(filepath.Join(dir, "story.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &story))
	require.NotEmpty(t, story.IDs)
	text, err := tok.Decode(story.IDs, true)
	require.NoError(t, err)
	require.Equal(t, story.Text, text)
}

// streamed joins what a Stream gives for ids and checks that no piece is broken.
func streamed(t testing.TB, tok Tokenizer, ids []int32, skip bool) string {
	t.Helper()
	s := NewStream(tok, skip)
	var text []byte
	for _, id := range ids {
		piece := s.Push(id)
		require.True(t, utf8.ValidString(piece), "piece %q", piece)
		text = append(text, piece...)
	}
	return string(append(text, s.Flush()...))
}
