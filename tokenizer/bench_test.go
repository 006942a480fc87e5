package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The benchmarks need the real vocabularies of the reference data.

func BenchmarkLoad(b *testing.B) {
	dir := reference(b)
	for _, name := range []string{"qwen3", "llama3"} {
		data := referenceTokenizer(b, dir, name)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				_, err := FromBytes(data)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	dir := reference(b)
	prose, err := os.ReadFile(filepath.Join(dir, "README.md"))
	require.NoError(b, err)
	var short []string
	for _, g := range readGolden(b, filepath.Join(dir, "golden", "tokenize_qwen3.jsonl")) {
		if len(*g.Text) < 80 {
			short = append(short, *g.Text)
		}
	}
	stories, err := os.ReadFile(filepath.Join("testdata", "stories260k.json"))
	require.NoError(b, err)
	for name, data := range map[string][]byte{
		"qwen3": referenceTokenizer(b, dir, "qwen3"), "llama3": referenceTokenizer(b, dir, "llama3"), "stories260k": stories,
	} {
		tok, err := FromBytes(data)
		require.NoError(b, err)
		run := func(what string, texts ...string) {
			b.Run(name+"/"+what, func(b *testing.B) {
				b.SetBytes(int64(len(strings.Join(texts, "")) / len(texts)))
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					_, err := tok.Encode(texts[i%len(texts)], true)
					require.NoError(b, err)
					i++
				}
			})
		}
		run("short", short...)
		run("prose", string(prose))
		run("chinese", strings.Repeat("天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。", 300))
		run("onecharacter", strings.Repeat("a", 1<<20))
		run("spaces", strings.Repeat(" ", 1<<20))
	}
}

func BenchmarkEncodeOffsets(b *testing.B) {
	dir := reference(b)
	prose, err := os.ReadFile(filepath.Join(dir, "README.md"))
	require.NoError(b, err)
	for _, name := range []string{"qwen3", "llama3"} {
		tok, err := FromBytes(referenceTokenizer(b, dir, name))
		require.NoError(b, err)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(prose)))
			b.ReportAllocs()
			for b.Loop() {
				_, err := tok.EncodeOffsets(string(prose), EncodeOptions{})
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	dir := reference(b)
	prose, err := os.ReadFile(filepath.Join(dir, "README.md"))
	require.NoError(b, err)
	tok, err := FromBytes(referenceTokenizer(b, dir, "qwen3"))
	require.NoError(b, err)
	ids, err := tok.Encode(string(prose), false)
	require.NoError(b, err)
	b.Run("whole", func(b *testing.B) {
		b.SetBytes(int64(len(prose)))
		for b.Loop() {
			_, err := tok.Decode(ids, true)
			require.NoError(b, err)
		}
	})
	b.Run("stream", func(b *testing.B) {
		b.SetBytes(int64(len(prose)))
		for b.Loop() {
			s := NewStream(tok, true)
			for _, id := range ids {
				s.Push(id)
			}
			s.Flush()
		}
	})
}
