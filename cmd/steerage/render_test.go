package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRender: exact bytes, ids that give them back, and what goes wrong.
func TestRender(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile(filepath.Join(demoFolder(t), "tokenizer.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o644))
	template := filepath.Join(dir, "chat_template.jinja")
	require.NoError(t, os.WriteFile(template, []byte(
		"{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{% endfor %}{{ '<assistant>' if add_generation_prompt }}{{ mood }}{{ tools|tojson if tools }}\n"), 0o644))

	render := func(stdin string, args ...string) (status int, stdout, stderr string) {
		return command(t, stdin, append([]string{"render", dir}, args...)...)
	}
	for _, c := range []struct {
		name, in, want string
		args           []string
	}{
		{"list", `[{"role": "user", "content": "Hi"}]`, "<user>\nHi<assistant>", nil},
		{"flag", `[{"role": "user", "content": "Hi"}]`, "<user>\nHi", []string{"--add-generation-prompt=false"}},
		{"object", `{"messages": [{"role": "user", "content": "<é>"}], "add_generation_prompt": false, "chat_template_kwargs": {"mood": "!"}, "tools": [{"b": 1, "a": "é"}]}`,
			"<user>\n<é>![{\"b\": 1, \"a\": \"é\"}]", nil},
		{"flag over object", `{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": false}`, "<user>\nHi<assistant>", []string{"--add-generation-prompt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, out, errs := render(c.in, append([]string{"--messages", "-"}, c.args...)...)
			require.Zero(t, status, errs)
			require.Equal(t, c.want, out)
			require.Empty(t, errs)
			file := filepath.Join(t.TempDir(), "c.json")
			require.NoError(t, os.WriteFile(file, []byte(c.in), 0o644))
			_, out, _ = render("", append([]string{"--messages", file}, c.args...)...)
			require.Equal(t, c.want, out)
		})
	}

	status, out, errs := render(`[{"role": "user", "content": "a day"}]`, "--messages", "-", "--ids")
	require.Zero(t, status, errs)
	var ids []int32
	require.NoError(t, json.Unmarshal([]byte(out), &ids))
	want, err := demoTokenizer(t).Encode("<user>\na day<assistant>", false)
	require.NoError(t, err)
	require.Equal(t, want, ids)

	for _, c := range []struct {
		name, in string
		args     []string
		status   int
		want     string
	}{
		{"no messages", "", nil, exitUsage, "--messages is missing"},
		{"no file", "", []string{"--messages", "nowhere.json"}, exitFailure, "nowhere.json"},
		{"not JSON", "{", []string{"--messages", "-"}, exitFailure, "standard input: "},
		{"empty", "[]", []string{"--messages", "-"}, exitFailure, "without messages"},
		{"template", `[{"role": "user"}]`, []string{"--messages", "-"}, exitFailure, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "template" {
				require.NoError(t, os.WriteFile(template, []byte("\n{{ raise_exception('No content') }}"), 0o644))
				c.want = template + ", line 2: No content"
			}
			status, out, errs := render(c.in, c.args...)
			require.Equal(t, c.status, status, errs)
			require.Empty(t, out)
			require.Contains(t, errs, c.want)
		})
	}
}
