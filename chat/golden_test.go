package chat

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// More cases made by reference/render.py; those of testdata are always read.
var casesFlag = flag.String("cases", "", "glob of further files of golden cases")

// referenceTime is the time at which reference/hf.py renders.
var referenceTime = time.Date(2026, 2, 3, 4, 5, 6, 789000000, time.UTC)

// goldenLine is a template, or a conversation and what transformers made of it.
type goldenLine struct {
	Name     string
	Template string
	Tokens   map[string]string

	Case         string
	Conversation *Conversation
	Text         *string
	Error        string
}

func readLines(t testing.TB, path string, line func(data []byte)) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		r, err = gzip.NewReader(f)
		require.NoError(t, err)
	}
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		data, err := in.ReadBytes('\n')
		if len(bytes.TrimSpace(data)) > 0 {
			line(data)
		}
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
	}
}

// TestGolden: where transformers renders a conversation, Render gives the same text, or refuses with the line named;
// where transformers fails, Render does not give a text.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.golden.jsonl.gz")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	shipped := len(paths)
	if *casesFlag != "" {
		more, err := filepath.Glob(*casesFlag)
		require.NoError(t, err)
		require.NotEmpty(t, more)
		paths = append(paths, more...)
	}
	for i, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			templates := map[string]*Template{}
			refusedTemplates := map[string]error{}
			var same, bothFail, refused, lenient, different int
			readLines(t, path, func(data []byte) {
				var g goldenLine
				require.NoError(t, json.Unmarshal(data, &g))
				if g.Name != "" {
					tmpl, err := New(g.Template, g.Tokens)
					if err != nil {
						refusedTemplates[g.Name] = err
					}
					templates[g.Name] = tmpl
					return
				}
				tmpl := templates[g.Template]
				var text string
				err := refusedTemplates[g.Template]
				if tmpl != nil {
					g.Conversation.Now = referenceTime
					text, err = tmpl.Render(*g.Conversation)
				}
				switch {
				case err == nil && g.Text != nil && text == *g.Text:
					same++
				case err != nil && g.Text == nil:
					bothFail++
				case err != nil:
					refused++
					t.Logf("refused: %s, %s: %v", g.Template, g.Case, err)
				case g.Text == nil:
					lenient++
					t.Logf("lenient: %s, %s: transformers fails with %s", g.Template, g.Case, g.Error)
				default:
					different++
					if different <= 5 {
						require.NotNil(t, g.Text)
						t.Errorf("%s, %s:\nwant %q\nhave %q", g.Template, g.Case, *g.Text, text)
					}
				}
			})
			t.Logf("%d templates: %d equal, %d fail in both, %d refused, %d rendered where transformers fails, %d different",
				len(templates), same, bothFail, refused, lenient, different)
			require.Zero(t, different)
			require.Positive(t, same)
			if i < shipped {
				require.Zero(t, refused, "the shipped templates are all supported")
				require.Zero(t, lenient)
			}
		})
	}
}

// goldenTemplates returns the templates of testdata by name.
func goldenTemplates(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/templates/*.jinja")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	templates := map[string]string{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		templates[strings.TrimSuffix(filepath.Base(path), ".jinja")] = string(data)
	}
	return templates
}
