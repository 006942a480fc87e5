package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/chat"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

// chatTemplate makes stories260K chat: a message and its answer are one paragraph, the system message another. It is what a story
// looks like, which is all that the model knows.
const chatTemplate = `{{ bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' and message.content == 'refuse' %}{{ raise_exception('this was refused') }}{% endif %}
    {{- message.content }}{% if message.role != 'user' %}{{ '\n' }}{% endif %}
{%- endfor %}
{%- if enable_thinking is defined and enable_thinking and add_generation_prompt %}{{ '<think>\n' }}{% endif %}
`

// chatFolder is the demo's model with a chat template and a longer context.
func chatFolder(t testing.TB) string {
	dir := demoFolder(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(chatTemplate), 0o600))
	rewrite(t, filepath.Join(dir, "config.json"), `"max_position_embeddings": 512`, `"max_position_embeddings": 8192`)
	return dir
}

// rewrite replaces a part of a file.
func rewrite(t testing.TB, file, old, with string) {
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(data), old)
	require.NoError(t, os.WriteFile(file, bytes.Replace(data, []byte(old), []byte(with), 1), 0o600))
}

func lines(all ...string) string { return strings.Join(all, "\n") + "\n" }

// A conversation in turns gives what its whole text gives at once, and runs only what is new.
func TestChat(t *testing.T) {
	dir := chatFolder(t)
	for _, backend := range pjrttest.Specs(t) {
		t.Run(backend, func(t *testing.T) {
			flags := []string{dir, "--backend", backend, "--max-tokens", "20", "--json"}
			turns := []string{"Once upon a time, there was a dog named Max. He", "One day, Max", "He found a box. It"}
			status, stdout, stderr := command(t, lines(turns...), append([]string{"chat", "--system", "A story."}, flags...)...)
			require.Equal(t, exitOK, status, stderr)
			answers := decodeLines[sample](t, stdout)
			require.Len(t, answers, 3)
			text := "A story.\n"
			for i, a := range answers {
				text += turns[i]
				status, stdout, stderr := command(t, "", append([]string{"run", "--raw"}, append(flags, text)...)...)
				require.Equal(t, exitOK, status, stderr)
				whole := decodeLines[sample](t, stdout)[0]
				require.Equal(t, whole.Text, a.Text)
				require.Equal(t, whole.PromptTokens, a.PromptTokens)
				require.Equal(t, uint64(i), a.Seed)
				require.True(t, a.ChatTemplate)
				if i > 0 { // all but the last token of what was there before
					require.Equal(t, answers[i-1].PromptTokens+19, a.CachedTokens)
				}
				text += a.Text + "\n"
			}
		})
	}
}

func TestChatCommands(t *testing.T) {
	dir, file := chatFolder(t), vectorFile(t, "axis.safetensors")
	saved := filepath.Join(t.TempDir(), "saved.json")
	talk := func(flags []string, in ...string) (int, []sample, string) {
		status, stdout, stderr := command(t, lines(in...),
			append([]string{"chat", dir, "--backend", "go", "--max-tokens", "8", "--json"}, flags...)...)
		return status, decodeLines[sample](t, stdout), stderr
	}
	const hello = "Once upon a time, Lily"
	status, plain, _ := talk(nil, hello)
	require.Equal(t, exitOK, status)

	t.Run("steer", func(t *testing.T) {
		status, a, stderr := talk([]string{"--steer", file + ":swfc:20@2"}, hello, "/steer off", "/reset", hello,
			"/steer "+file+":swfc:20@2", "/steer list", "/reset", hello, "Then she", "/steer +"+file+":sttp:4:response", "/steer", "and", "/steer off", "so")
		require.Equal(t, exitOK, status, stderr)
		require.Len(t, a, 6)
		require.NotEqual(t, plain[0].Text, a[0].Text, "--steer")
		require.Equal(t, plain[0].Text, a[1].Text, "off")
		require.Empty(t, a[1].Steering)
		require.Equal(t, a[0].Text, a[2].Text, "/steer")
		require.Zero(t, a[2].CachedTokens, "what was kept was not steered")
		require.Positive(t, a[3].CachedTokens, "what was kept was steered the same")
		require.Equal(t, a[3].PromptTokens-a[3].CachedTokens+7, a[3].Steering[0].Eligible, "of the tokens that were run")
		require.Len(t, a[4].Steering, 2)
		require.Empty(t, a[5].Steering)
		require.Contains(t, stderr, "steering is off")
		require.Contains(t, stderr, "steer "+file+":swfc:20@2: layers [2]\n")
		require.Contains(t, stderr, "steer "+file+":sttp:4:response: layers [1 2 3]\n")
		require.Regexp(t, `steer \S+axis.safetensors:swfc:20@2: \d+ tokens eligible, \d+ moved, 0 capped, mean \|delta\| 40\n`, stderr)
	})
	t.Run("system", func(t *testing.T) {
		status, a, stderr := talk([]string{"--system", "One."}, hello, "/system", "/reset", "/system A sad story.", hello, "/reset", "/system off", hello)
		require.Equal(t, exitOK, status, stderr)
		require.Equal(t, plain[0].Text, a[2].Text)
		require.Greater(t, a[1].PromptTokens, a[0].PromptTokens)
		require.Greater(t, a[0].PromptTokens, a[2].PromptTokens)
		require.Contains(t, stderr, "system: One.\n")
	})
	t.Run("set", func(t *testing.T) {
		status, a, stderr := talk(nil, "/set temperature 1.5", "/set top_k 40", "/set top_p 0.9", "/set min_p 0.05", "/set seed 7",
			"/set max_tokens 3", "/set thinking on", "/set", hello, "/set max_tokens 0")
		require.Equal(t, exitOK, status, stderr)
		require.Equal(t, sampling{Temperature: 1.5, TopK: 40, TopP: 0.9, MinP: 0.05}, a[0].sampling)
		require.Equal(t, uint64(7), a[0].Seed)
		require.Len(t, a[0].IDs, 3)
		require.Greater(t, a[0].PromptTokens, plain[0].PromptTokens, "the template's variable")
		require.Contains(t, stderr, `chat template: {"enable_thinking":true}`)
	})
	t.Run("save", func(t *testing.T) {
		status, a, stderr := talk([]string{"--system", "Tom & <Sue>."}, hello, "/save "+saved, "and", "/save "+saved)
		require.Equal(t, exitOK, status, stderr)
		data, err := os.ReadFile(saved)
		require.NoError(t, err)
		require.Contains(t, string(data), "Tom & <Sue>.")
		var c chat.Conversation
		require.NoError(t, json.Unmarshal(data, &c))
		var got []string
		for _, m := range c.Messages {
			got = append(got, m.Role+": "+m.Content)
		}
		require.Equal(t, []string{"system: Tom & <Sue>.", "user: " + hello, "assistant: " + a[0].Text, "user: and", "assistant: " + a[1].Text}, got)

		status, _, stderr = talk(nil, hello, "/save "+saved)
		require.Equal(t, exitFailure, status)
		require.Contains(t, stderr, "exists")
		again, err := os.ReadFile(saved)
		require.NoError(t, err)
		require.Equal(t, data, again, "a file of another chat is left alone")
	})
	t.Run("errors", func(t *testing.T) {
		for in, want := range map[string]string{
			"/nonsense":             "no command /nonsense",
			"/steer nowhere.gguf":   "nowhere.gguf",
			"/steer " + file + ":x": "want FILE",
			"/steer " + file + "@4": "4",
			"/set temperature hot":  `temperature "hot"`,
			"/set top_p 2":          "top_p",
			"/set warmth 1":         `no setting "warmth"`,
			"/set max_tokens -1":    "at least 0",
			"/set thinking maybe":   "on or off",
			"/save":                 "name of a file",
			"/save " + dir:          "exists",
			"refuse":                "this was refused",
			"\xff":                  "UTF-8",
			strings.Repeat("Lily went to the park. ", 2000): "tokens",
		} {
			status, a, stderr := talk(nil, hello, in, "/reset", hello)
			require.Equal(t, exitFailure, status, in)
			require.Contains(t, stderr, "steerage: ", in)
			require.Contains(t, stderr, want, in)
			require.True(t, strings.HasSuffix(stderr, "steerage: 1 of 5 lines failed, the first is line 2\n"), stderr)
			require.Len(t, a, 2, in)
			require.Equal(t, plain[0].Text, a[1].Text, "the chat goes on")
		}
		status, _, stderr := talk(nil, strings.Repeat("x", maxLine+1))
		require.Equal(t, exitFailure, status)
		require.Contains(t, stderr, "a line of more than")
	})
	t.Run("other lines", func(t *testing.T) {
		status, a, stderr := talk(nil, "", "  ", "/help", "//x", "/quit", hello)
		require.Equal(t, exitOK, status, stderr)
		require.Len(t, a, 1, "/quit leaves")
		for _, c := range chatCommands {
			require.Contains(t, stderr, "\n/"+c.name+" ")
		}
		_, b, _ := command(t, "", "run", dir, "/x", "--backend", "go", "--max-tokens", "8", "--json")
		require.Equal(t, decodeLines[sample](t, b)[0].Text, a[0].Text, "two slashes are one")
	})
}

func TestChatRefuses(t *testing.T) {
	dir := chatFolder(t)
	noText := chatFolder(t)
	require.NoError(t, os.Remove(filepath.Join(noText, "tokenizer.json")))
	broken := chatFolder(t)
	require.NoError(t, os.WriteFile(filepath.Join(broken, "chat_template.jinja"), []byte("{% for %}"), 0o600))
	for want, args := range map[string][]string{
		"steerage run --raw":  {"chat", demoFolder(t)},
		"tokenizer.json":      {"chat", noText, "--backend", "go"},
		"chat_template.jinja": {"chat", broken},
		"--raw does without":  {"run", broken, "x"},
		"need a chat":         {"run", demoFolder(t), "x", "--system", "y"},
		"PROMPT is missing":   {"run", dir},
	} {
		status, stdout, stderr := command(t, "", args...)
		require.NotEqual(t, exitOK, status, args)
		require.Empty(t, stdout, args)
		require.Contains(t, stderr, want, args)
	}
	for _, args := range [][]string{
		{"chat"}, {"chat", dir, "hello"}, {"chat", dir, "--max-tokens", "0"}, {"chat", dir, "--top-p", "2"}, {"chat", dir, "--context", "-1"},
		{"chat", dir, "--chat-template-kwargs", "[]"}, {"run", dir, "x", "--chat-template-kwargs", "{"},
		{"run", dir, "x", "--raw", "--system", "y"}, {"run", dir, "x", "--raw", "--chat-template-kwargs", "{}"}, {"run", dir, "-", "-"},
	} {
		status, _, stderr := command(t, "", args...)
		require.Equal(t, exitUsage, status, args)
		require.Contains(t, stderr, "--help", args)
	}
}

// interruptible returns a function that interrupts this process, which survives it.
func interruptible(t *testing.T) func() error {
	process, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, os.Interrupt)
	t.Cleanup(func() { signal.Stop(ignored) })
	return func() error { return process.Signal(os.Interrupt) }
}

// An interrupt stops the answer; what was shown of it stays in the conversation, and the program goes on.
func TestChatInterrupt(t *testing.T) {
	interrupt := interruptible(t)
	var err error
	var once sync.Once
	var stdout, stderr bytes.Buffer
	out := writer(func(p []byte) (int, error) {
		once.Do(func() { err = interrupt() })
		return stdout.Write(p)
	})
	in := lines("Once upon a time, there was a dog named Max. He", "/save "+filepath.Join(t.TempDir(), "saved.json"), "/set max_tokens 4", "One day")
	status := run(t.Context(), []string{"chat", chatFolder(t), "--backend", "go"}, strings.NewReader(in), out, &stderr)
	require.NoError(t, err)
	require.Equal(t, exitOK, status, stderr.String())
	require.Regexp(t, `\d+ tokens \(cancelled\)`, stderr.String())
	require.Contains(t, stderr.String(), "2 messages are in ")
	require.Contains(t, stderr.String(), "4 tokens (length)")
	require.NotRegexp(t, `; 0 of \d+ prompt tokens kept\n$`, stderr.String())
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// Nobody reads the answers any more: the chat ends.
func TestChatBrokenPipe(t *testing.T) {
	var stderr bytes.Buffer
	out := writer(func([]byte) (int, error) { return 0, io.ErrClosedPipe })
	status := run(t.Context(), []string{"chat", chatFolder(t), "--backend", "go"}, strings.NewReader(lines("Lily", "Max")), out, &stderr)
	require.Equal(t, exitFailure, status)
	require.True(t, strings.HasSuffix(stderr.String(), "steerage: io: read/write on closed pipe\n"), stderr.String())
}

func TestRunTemplate(t *testing.T) {
	dir := chatFolder(t)
	ask := func(stdin string, args ...string) sample {
		in, out, err := os.Pipe()
		require.NoError(t, err)
		go func() { _, _ = io.WriteString(out, stdin); _ = out.Close() }()
		defer func() { _ = in.Close() }()
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), append([]string{"run", dir, "--backend", "go", "--max-tokens", "6", "--json"}, args...), in, &stdout, &stderr)
		require.Equal(t, exitOK, status, stderr.String())
		return decodeLines[sample](t, stdout.String())[0]
	}
	const text = "Once upon a time, Lily"
	want := ask("", text)
	require.True(t, want.ChatTemplate)
	for name, s := range map[string]sample{
		"the template as text": ask("", "--raw", text),
		"piped":                ask(text + "\n\r\n"),
		"dash":                 ask(text, "-"),
		"not read":             ask("something else", text),
	} {
		require.Equal(t, want.IDs, s.IDs, name)
		require.Equal(t, want.PromptTokens, s.PromptTokens, name)
	}
	require.Equal(t, ask("", "--raw", "Be kind.\n"+text).PromptTokens, ask("", text, "--system", "Be kind.").PromptTokens)
	require.Equal(t, ask("", "--raw", "Read this:\n\n"+text).PromptTokens, ask(text+"\n", "Read this:", "-").PromptTokens)
	require.Equal(t, ask("", "--raw", text+"\n").PromptTokens, ask(text+"\n", "--raw").PromptTokens, "a raw text is left as it is")
	require.Equal(t, 1, ask("", "--raw").PromptTokens, "BOS alone")
	require.Equal(t, ask("", "--raw", text+"<think>\n").PromptTokens,
		ask("", text, "--chat-template-kwargs", `{"enable_thinking": true}`).PromptTokens)

	t.Run("until the context is full", func(t *testing.T) {
		status, stdout, stderr := command(t, "", "run", dir, text, "--backend", "go", "--context", "64", "--json")
		require.Equal(t, exitOK, status, stderr)
		s := decodeLines[sample](t, stdout)[0]
		require.Equal(t, "length", s.Finish)
		require.Equal(t, 64, s.PromptTokens+len(s.IDs))
	})
}

// What generation_config.json says holds until a flag says otherwise.
func TestGenerationConfig(t *testing.T) {
	dir := demoFolder(t)
	used := func(args ...string) sample {
		status, stdout, stderr := command(t, "", append([]string{"run", dir, "Once", "--backend", "go", "--max-tokens", "30", "--json"}, args...)...)
		require.Equal(t, exitOK, status, stderr)
		return decodeLines[sample](t, stdout)[0]
	}
	greedy := used()
	require.Equal(t, sampling{TopP: 1}, greedy.sampling)
	rewrite(t, filepath.Join(dir, "generation_config.json"), "{", `{"do_sample": true, "temperature": 1.5, "top_k": 20, "top_p": 0.95,`)
	drawn := used()
	require.Equal(t, sampling{Temperature: 1.5, TopK: 20, TopP: 0.95}, drawn.sampling)
	require.NotEqual(t, greedy.IDs, drawn.IDs)
	require.Equal(t, greedy.IDs, used("--temperature", "0").IDs)
	require.Equal(t, sampling{Temperature: 1.5, TopK: 0, TopP: 0.5, MinP: 0.25}, used("--top-k", "0", "--top-p", "0.5", "--min-p", "0.25").sampling)

	status, stdout, stderr := command(t, "", "inspect", dir, "--backend", "go")
	require.Equal(t, exitOK, status, stderr)
	require.Contains(t, stdout, "temperature 1.5, top_k 20, top_p 0.95, min_p 0\n")
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		reasoning        bool
	}{
		{name: "nothing", text: "", want: "\n"},
		{name: "plain", text: "a < b\tc\nd", want: "a < b\tc\nd\n"},
		{name: "reasoning", text: "\n<think>\nwhy </thin\n</think>\n\nyes</think>", want: "{\n<think>\nwhy </thin\n</think>}\n\nyes</think>\n"},
		{name: "not at the start", text: "so <think> is a tag", want: "so <think> is a tag\n"},
		{name: "begun by the prompt", reasoning: true, text: "why</think>yes", want: "{why</think>}yes\n"},
		{name: "cut off", text: "<think>why</th", want: "{<think>why</th}\n"},
		{name: "a beginning of the tag", text: "<thi", want: "<thi\n"},
		{name: "control characters", text: "<think>\x1b[2J\u009bx\a</think>\x1b]0;t\a\r", want: "{<think>�[2J�x�</think>}�]0;t��\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for size := 1; size <= len(c.text)+1; size++ { // in runes
				var b bytes.Buffer
				a := newAnswer(&b, c.reasoning)
				a.terminal = true
				for rest := []rune(c.text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
					require.NoError(t, a.print(string(rest[:min(size, len(rest))])))
				}
				require.NoError(t, a.end())
				shown := strings.ReplaceAll(b.String(), plain+dim, "")
				shown = strings.NewReplacer(dim, "{", plain, "}").Replace(shown)
				require.Equal(t, c.want, shown, fmt.Sprintf("pieces of %d", size))
			}
			var b bytes.Buffer
			a := newAnswer(&b, c.reasoning)
			require.NoError(t, a.print(c.text))
			require.NoError(t, a.end())
			require.Equal(t, c.text+"\n", b.String(), "no terminal")
		})
	}
}

func TestCompleteChatCommand(t *testing.T) {
	for line, want := range map[string]string{"/h": "/help ", "/st": "/steer ", "/s": "", "/": "", "h": "", "/steer x": ""} {
		got, pos, ok := completeChatCommand(line, len(line), '\t')
		require.Equal(t, want, got)
		require.Equal(t, len(want), pos)
		require.Equal(t, want != "", ok)
	}
	_, _, ok := completeChatCommand("/h", 2, 'e')
	require.False(t, ok)
}

// At a pipe that gives nothing, an interrupt ends the chat.
func TestChatInterruptAtPipe(t *testing.T) {
	interrupt := interruptible(t)
	in, feed := io.Pipe()
	defer func() { _ = feed.Close() }()
	var stderr bytes.Buffer
	answered := make(chan struct{})
	out := writer(func(p []byte) (int, error) { close(answered); return len(p), nil }) // with --json there is one write
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"chat", chatFolder(t), "--backend", "go", "--max-tokens", "2", "--json"}, in, out, &stderr)
	}()
	_, err := io.WriteString(feed, "Lily\n")
	require.NoError(t, err)
	<-answered
	for { // until it waits for a line: an interrupt before that would be for the answer
		require.NoError(t, interrupt())
		select {
		case status := <-done:
			require.Equal(t, exitInterrupted, status, stderr.String())
			require.True(t, strings.HasSuffix(stderr.String(), "steerage: interrupted\n"), stderr.String())
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}
