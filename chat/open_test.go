package chat

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// folder writes a model folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return dir
}

// TestOpen: which template and which tokens a folder has.
func TestOpen(t *testing.T) {
	show := `"{{ bos_token }}|{{ eos_token }}|{{ image_token }}|{{ unk_token }}"`
	for _, c := range []struct {
		name  string
		files map[string]string
		tools bool
		want  string
	}{
		{name: "string", files: map[string]string{configFile: `{"chat_template": "one"}`}, want: "one"},
		{name: "list", files: map[string]string{configFile: `{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}`}, want: "d"},
		{name: "list with tools", files: map[string]string{configFile: `{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}`}, tools: true, want: "t"},
		{name: "file", files: map[string]string{jinjaFile: "file"}, want: "file"},
		{name: "file first", files: map[string]string{jinjaFile: "file", configFile: `{"chat_template": "config"}`}, want: "file"},
		{name: "CRLF", files: map[string]string{jinjaFile: "a\r\nb\r\n"}, want: "a\nb"},
		{name: "named files", files: map[string]string{jinjaFile: "file", jinjaFolder + "/tool_use.jinja": "tools"}, tools: true, want: "tools"},
		{name: "named files hide the config", files: map[string]string{jinjaFolder + "/default.jinja": "d", configFile: `{"chat_template": "config"}`}, want: "d"},
		{name: "other files", files: map[string]string{jinjaFile: "file", jinjaFolder + "/README.md": "{% bad"}, want: "file"},
		{name: "tokens", files: map[string]string{configFile: `{"chat_template": ` + show + `, "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "image_token": "<i>", "add_bos_token": true, "unk_token": null}`}, want: "<s>|</s>|<i>|"},
		{name: "extra tokens", files: map[string]string{configFile: `{"chat_template": ` + show + `, "extra_special_tokens": {"image_token": "<i>"}}`}, want: "||<i>|"},
		{name: "legacy tokens", files: map[string]string{configFile: `{"chat_template": ` + show + `, "bos_token": "a"}`, mapFile: `{"bos_token": {"content": "b"}, "unk_token": "u"}`}, want: "b|||u"},
		{name: "no legacy tokens", files: map[string]string{configFile: `{"chat_template": ` + show + `, "bos_token": "a", "added_tokens_decoder": {}}`, mapFile: `{"bos_token": "b"}`}, want: "a|||"},
		{name: "defaults of Llama", files: map[string]string{configFile: `{"chat_template": ` + show + `, "tokenizer_class": "LlamaTokenizerFast", "unk_token": null}`}, want: "<s>|</s>||"},
		{name: "defaults of Qwen", files: map[string]string{configFile: `{"chat_template": ` + show + `, "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}`}, want: "|<|im_end|>||<|endoftext|>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmpl, err := Open(folder(t, c.files))
			require.NoError(t, err)
			conversation := Conversation{Messages: []Message{{Role: "user", Content: "Hi"}}}
			if c.tools {
				conversation.Tools = []json.RawMessage{[]byte(`{"name": "f"}`)}
			}
			text, err := tmpl.Render(conversation)
			require.NoError(t, err)
			require.Equal(t, c.want, text)
		})
	}
}

// TestOpenRefuses: a folder that is wrong is refused with the file named.
func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"bad JSON", map[string]string{configFile: `{`}, "unexpected EOF"},
		{"not an object", map[string]string{configFile: `[]`}, "want an object, have an array"},
		{"bad template type", map[string]string{configFile: `{"chat_template": 5}`}, "chat_template is a number"},
		{"bad list", map[string]string{configFile: `{"chat_template": [5]}`}, "chat_template[0] is a number"},
		{"bad entry", map[string]string{configFile: `{"chat_template": [{"name": "x"}]}`}, "chat_template[0] must have a name and a template"},
		{"bad token", map[string]string{configFile: `{"chat_template": "x", "bos_token": 5}`}, "bos_token is a number"},
		{"syntax", map[string]string{jinjaFile: "a\n{% if %}"}, jinjaFile + ", line 2: expected an expression"},
		{"syntax in config", map[string]string{configFile: `{"chat_template": "{% if"}`}, configFile + ", line 1"},
		{"syntax of the template for tools", map[string]string{jinjaFile: "a", jinjaFolder + "/tool_use.jinja": "{{"}, "tool_use.jinja, line 1"},
		{"too long", map[string]string{jinjaFile: strings.Repeat("a", maxTemplate+1)}, "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(folder(t, c.files))
			require.ErrorContains(t, err, c.want)
			require.False(t, errors.Is(err, ErrNoTemplate))
		})
	}
	for name, files := range map[string]map[string]string{
		"nothing":    {},
		"config":     {configFile: `{"bos_token": "<s>"}`},
		"no default": {configFile: `{"chat_template": [{"name": "rag", "template": "t"}]}`},
	} {
		_, err := Open(folder(t, files))
		require.ErrorIs(t, err, ErrNoTemplate, name)
	}
}

// TestConversation: what JSON is a conversation, and what a template then sees.
func TestConversation(t *testing.T) {
	const all = "{{ messages }}{{ tools }}{{ documents }}{{ add_generation_prompt }}{{ x is defined }}"
	tmpl, err := New(all, map[string]string{"x": "token"})
	require.NoError(t, err)
	for _, c := range []struct{ name, json, want string }{
		{"list", `[{"role": "user", "content": "é'"}]`, `[{'role': 'user', 'content': "é'"}]NoneNoneTrueTrue`},
		{"object", `{"messages": [{"b": 1, "a": 1.0, "n": null}], "tools": [], "add_generation_prompt": false, "documents": [{"t": 1e16}], "chat_template_kwargs": {"y": 1}}`,
			`[{'b': 1, 'a': 1.0}][][{'t': 1e+16}]FalseTrue`},
		{"reasoning", `[{"role": "assistant", "reasoning": "r"}]`, `[{'thinking': 'r', 'role': 'assistant', 'reasoning': 'r', 'reasoning_content': 'r'}]NoneNoneTrueTrue`},
		{"double keys", `[{"a": 1, "b": 2, "a": 3}]`, `[{'a': 3, 'b': 2}]NoneNoneTrueTrue`},
		{"numbers", `[{"a": [0, -0, -0.0, 1e2, 123456789012345678901, 1e999, 0.1]}]`, `[{'a': [0, 0, -0.0, 100.0, 123456789012345678901, inf, 0.1]}]NoneNoneTrueTrue`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var conversation Conversation
			require.NoError(t, json.Unmarshal([]byte(c.json), &conversation))
			text, err := tmpl.Render(conversation)
			require.NoError(t, err)
			require.Equal(t, c.want, text)
			for i, m := range conversation.Messages { // and back
				data, err := json.Marshal(m)
				require.NoError(t, err)
				var again Message
				require.NoError(t, json.Unmarshal(data, &again))
				v, err := again.value()
				require.NoError(t, err)
				want, err := conversation.Messages[i].value()
				require.NoError(t, err)
				require.Equal(t, want, v)
			}
		})
	}
	for name, c := range map[string]struct{ json, want string }{
		"unknown key":     {`{"messages": [], "temperature": 1}`, "temperature"},
		"no messages":     {`{"tools": []}`, `an object with "messages"`},
		"message":         {`["Hi"]`, "a message must be an object, not a string"},
		"half a pair":     {`[{"role": "\ud800"}]`, "half a surrogate pair"},
		"not UTF-8":       {"[{\"role\": \"\xff\"}]", "UTF-8"},
		"deep":            {`[{"a": ` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + "}]", "nested more than"},
		"empty":           {`[]`, "without messages"},
		"tool":            {`{"messages": [{}], "tools": [1]}`, "tools[0] must be an object"},
		"reserved":        {`{"messages": [{}], "chat_template_kwargs": {"messages": 1}}`, `"messages" cannot be set`},
		"number too long": {`[{"a": ` + strings.Repeat("9", 5000) + `}]`, "digits"},
	} {
		t.Run(name, func(t *testing.T) {
			var conversation Conversation
			err := json.Unmarshal([]byte(c.json), &conversation)
			if err == nil {
				_, err = tmpl.Render(conversation)
			}
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err = tmpl.Render(Conversation{Messages: []Message{{Role: "user", Content: "\xff"}}})
	require.ErrorContains(t, err, "messages[0]: content: not UTF-8")
}

// TestKwargs: Go values become the Python values that their JSON would.
func TestKwargs(t *testing.T) {
	for want, v := range map[string]any{
		"None": nil, "True": true, "1": 1, "2.0": 2.0, "it's": "it's", "[1, 'a']": []any{1, "a"}, "{'a': 1, 'b': '<'}": map[string]any{"b": "<", "a": 1},
		"{'b': 1, 'a': 2}": json.RawMessage(`{"b": 1, "a": 2}`),
	} {
		text, err := renderOnce("{{ v }}", map[string]any{"v": v})
		require.NoError(t, err)
		require.Equal(t, want, text)
	}
	_, err := renderOnce("{{ v }}", map[string]any{"v": func() {}})
	require.ErrorContains(t, err, `the variable "v"`)
	_, err = renderOnce("{{ v }}", map[string]any{"tools": 1})
	require.ErrorContains(t, err, `"tools" cannot be set`)
}

func BenchmarkRender(b *testing.B) {
	templates := goldenTemplates(b)
	conversations := map[string]*Conversation{}
	readLines(b, "testdata/templates.golden.jsonl.gz", func(data []byte) {
		var g goldenLine
		require.NoError(b, json.Unmarshal(data, &g))
		if g.Conversation != nil {
			conversations[g.Case] = g.Conversation
		}
	})
	for _, name := range []string{"qwen3", "llama3", "typescript_tools"} {
		tmpl, err := New(templates[name], map[string]string{"bos_token": "<s>"})
		require.NoError(b, err)
		for _, c := range []string{"user", "turns", "calls in a row"} {
			if name == "llama3" && c == "calls in a row" {
				continue
			}
			b.Run(name+"/"+c, func(b *testing.B) {
				for b.Loop() {
					_, err := tmpl.Render(*conversations[c])
					require.NoError(b, err)
				}
			})
		}
	}
	b.Run("read qwen3", func(b *testing.B) {
		for b.Loop() {
			_, err := New(templates["qwen3"], nil)
			require.NoError(b, err)
		}
	})
}
