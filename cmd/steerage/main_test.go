package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/parity"
	"github.com/steerage/steerage/pjrt"
	"github.com/steerage/steerage/tokenizer"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

// story is what llama2.c prints for stories260K, from BOS and greedily.
const story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " +
	"One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n" +
	"Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She said, \"I want to play " +
	"with your ball, but I can't find it.\"\n"

// demoFolder writes the embedded model to a folder of the test.
func demoFolder(t testing.TB) string {
	dir := t.TempDir()
	require.NoError(t, writeDemo(dir))
	return dir
}

func demoTokenizer(t testing.TB) tokenizer.Tokenizer {
	tok, err := tokenizer.Open(demoFolder(t))
	require.NoError(t, err)
	return tok
}

// command runs a command line in this process.
func command(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

// decodeLines decodes JSON lines, and fails on fields that T does not have.
func decodeLines[T any](t *testing.T, text string) []T {
	t.Helper()
	var all []T
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	for {
		var v T
		err := d.Decode(&v)
		if err == io.EOF {
			return all
		}
		require.NoError(t, err, text)
		all = append(all, v)
	}
}

func TestDemo(t *testing.T) {
	for _, backend := range pjrttest.Specs(t) {
		t.Run(backend, func(t *testing.T) {
			status, stdout, stderr := command(t, "", "demo", "--backend", backend)
			require.Equal(t, exitOK, status, stderr)
			require.True(t, strings.HasPrefix(stdout, story), stdout)
			require.Regexp(t, `^backend (go|xla-cpu): .*\n200 tokens \(length\), [0-9.]+ tokens/s, first after .* on (go|xla-cpu)\n$`, stderr)
		})
	}
}

func TestRun(t *testing.T) {
	dir := demoFolder(t)
	for _, backend := range pjrttest.Specs(t) {
		t.Run(backend, func(t *testing.T) {
			generate := func(args ...string) []sample {
				status, stdout, stderr := command(t, "", append([]string{"run", dir, "--backend", backend, "--json"}, args...)...)
				require.Equal(t, exitOK, status, stderr)
				return decodeLines[sample](t, stdout)
			}
			t.Run("greedy", func(t *testing.T) {
				s := generate("--max-tokens", "8")[0]
				require.Equal(t, []int32{403, 407, 261, 378, 432, 383, 286, 261}, s.IDs)
				require.Equal(t, "Once upon a time, there was a", s.Text)
				require.Equal(t, "length", s.Finish)
				require.Equal(t, 1, s.PromptTokens)
				require.Positive(t, s.TokensPerSecond)
				require.Positive(t, s.FirstTokenSeconds)
				require.Contains(t, []string{pjrt.Go, pjrt.XLACPU}, s.Backend)
			})
			t.Run("stop", func(t *testing.T) {
				s := generate("Once upon a time", "--stop", "little", "--max-tokens", "50")[0]
				require.Equal(t, "stop", s.Finish)
				require.Equal(t, ", there was a ", s.Text)
			})
			t.Run("seeds", func(t *testing.T) {
				args := []string{"--temperature", "1", "--top-p", "0.95", "--max-tokens", "20"}
				three := generate(append(args, "-n", "3", "--seed", "7")...)
				require.Len(t, three, 3)
				for i, s := range three {
					require.Equal(t, uint64(7+i), s.Seed)
				}
				require.NotEqual(t, three[0].IDs, three[1].IDs)
				again := generate(append(args, "--seed", "8")...)
				require.Equal(t, three[1].IDs, again[0].IDs, "a sample depends on its seed alone")
			})
		})
	}
}

func TestRunText(t *testing.T) {
	dir := demoFolder(t)
	status, stdout, stderr := command(t, "Once upon a time", "run", dir, "-", "--backend", "go", "--max-tokens", "5")
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, ", there was a little\n", stdout)

	t.Run("without a tokenizer", func(t *testing.T) {
		require.NoError(t, os.Remove(filepath.Join(dir, "tokenizer.json")))
		status, stdout, stderr := command(t, "", "run", dir, "--backend", "go", "--max-tokens", "3")
		require.Equal(t, exitOK, status, stderr)
		require.Equal(t, "403 407 261\n", stdout)
	})
}

func TestInterrupt(t *testing.T) {
	for name, args := range map[string][]string{
		"run":      {"run", demoFolder(t), "--backend", "go", "--ignore-eos", "--max-tokens", "500"},
		"tokenize": {"tokenize", "--model", demoFolder(t), "--jsonl"},
		"stdin":    {"run", demoFolder(t), "-", "--backend", "go"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			r, w := io.Pipe() // nobody writes to it: reading blocks for ever
			t.Cleanup(func() { _ = w.Close() })
			var stderr bytes.Buffer
			done := make(chan int, 1)
			go func() { done <- run(ctx, args, r, writerFunc(func() { cancel() }), &stderr) }()
			if name != "run" { // which is cancelled by its first piece of text
				time.AfterFunc(50*time.Millisecond, cancel)
			}
			require.Equal(t, exitInterrupted, <-done, stderr.String())
			require.True(t, strings.HasSuffix(stderr.String(), "steerage: interrupted\n"), stderr.String())
		})
	}
}

// writerFunc is called at each write.
type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) { f(); return len(p), nil }

func TestUsage(t *testing.T) {
	dir := demoFolder(t)
	for _, args := range [][]string{
		{"rnu"},
		{"--no-such-flag"},
		{"run"},
		{"run", dir, "a", "b"},
		{"run", dir, "--max-tokens", "many"},
		{"run", dir, "--max-tokens", "0"},
		{"run", dir, "--temperature", "-1"},
		{"run", dir, "--temperature", "NaN"},
		{"run", dir, "--top-p", "1.5"},
		{"run", dir, "-n", "0"},
		{"run", dir, "--dtype", "float8"},
		{"tokenize", "text"},
		{"tokenize", "--model", dir},
		{"tokenize", "--model", dir, "--implementation", "perl", "text"},
		{"tokenize", "--model", dir, "--jsonl", "text"},
		{"inspect"},
		{"inspect", dir, "--batch", "-1"},
		{"parity"},
		{"parity", "--dump", t.TempDir(), dir, dir},
		{"setup", "tpu"},
		{"version", "x"},
		{"demo", "x"},
	} {
		status, stdout, stderr := command(t, "", args...)
		require.Equal(t, exitUsage, status, args)
		require.Empty(t, stdout, args)
		require.Regexp(t, `^steerage: [^\n]* \(see .steerage[a-z ]* --help.\)\n$`, stderr, args)
	}
}

func TestFailure(t *testing.T) {
	dir := demoFolder(t)
	broken := demoFolder(t)
	require.NoError(t, os.WriteFile(filepath.Join(broken, "config.json"), []byte("{"), 0o600))
	file := filepath.Join(dir, "config.json")
	for want, args := range map[string][]string{
		"no such file":    {"run", filepath.Join(dir, "nowhere")},
		"is a file":       {"run", file},
		"config.json":     {"inspect", broken},
		"tpu":             {"run", dir, "--backend", "tpu"},
		"/no/such/plugin": {"demo", "--backend", "xla:/no/such/plugin.so"},
		"tokenizer.json":  {"tokenize", "--model", t.TempDir(), "text"},
		"1024":            {"inspect", dir, "--context", "1024"},
		"dump.json":       {"parity", dir, "--backend", "go"},
		"not_a_real_kind": {"doctor", "--backend", "not_a_real_kind"},
		"max_position":    {"run", dir, "--backend", "go", "--context", "4096"},
		"601 tokens":      {"run", dir, "--backend", "go", "--context", "511", strings.Repeat("Lily ", 600)},
	} {
		status, _, stderr := command(t, "", args...)
		require.Equal(t, exitFailure, status, args)
		last := stderr[strings.LastIndex(strings.TrimSuffix(stderr, "\n"), "\n")+1:]
		require.True(t, strings.HasPrefix(last, "steerage: "), stderr)
		require.Contains(t, last, want, args)
	}
}

func TestInspect(t *testing.T) {
	dir := demoFolder(t)
	status, stdout, stderr := command(t, "", "inspect", dir, "--json", "--context", "256", "--batch", "2")
	require.Equal(t, exitOK, status, stderr)
	in := decodeLines[inspection](t, stdout)[0]
	require.Equal(t, 5, in.Config.NumHiddenLayers)
	require.Equal(t, int64(260032), in.Parameters)
	require.Equal(t, []storedDType{{DType: "F32", Tensors: 47, Elements: 260032, Bytes: 4 * 260032}}, in.Stored)
	require.Equal(t, int64(4*260032), in.Plan.Weights)
	require.Equal(t, int64(2*5*4*8*4), in.Plan.KVPerToken)
	require.Equal(t, 256*2*in.Plan.KVPerToken, in.Plan.KV)
	require.Empty(t, in.Problem)
	require.Positive(t, in.Plan.Limit)
	require.True(t, in.Fits)
	require.False(t, in.Template)
	require.Equal(t, 512, in.LargestContext, "all positions of this small model")
	require.Contains(t, []string{pjrt.Go, pjrt.XLACPU, pjrt.XLACUDA}, in.Backend)

	status, stdout, _ = command(t, "", "inspect", dir)
	require.Equal(t, exitOK, status)
	for _, want := range []string{"LlamaForCausalLM", "260032", "F32: 47 tensors", "16 requests of 512 tokens", "1.2 KiB a token"} {
		require.Contains(t, stdout, want)
	}

	t.Run("too large", func(t *testing.T) {
		dir := t.TempDir() // without weights
		data, err := os.ReadFile(filepath.Join(demoFolder(t), "config.json"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600))
		rewrite(t, filepath.Join(dir, "config.json"), `"max_position_embeddings": 512`, `"max_position_embeddings": 100000000`)
		for args, fits := range map[string]bool{"--context=100000000 --batch=1000": false, "--context=256": true} {
			args := append([]string{"inspect", dir, "--backend", "go"}, strings.Fields(args)...)
			status, stdout, stderr := command(t, "", append(args, "--json")...)
			require.Equal(t, exitOK, status, stderr)
			in := decodeLines[inspection](t, stdout)[0]
			require.Equal(t, fits, in.Fits)
			require.Equal(t, fits, in.Plan.Total() <= in.Plan.Limit)
			require.Less(t, in.LargestContext, in.LargestContextOne)
			status, stdout, _ = command(t, "", args...)
			require.Equal(t, exitOK, status)
			require.Regexp(t, map[bool]string{true: `free .*: it fits
`, false: `free .*: it does not fit
`}[fits], stdout)
			require.Regexp(t, `largest context +\d+ tokens of \d+ requests, \d+ of one
`, stdout)
		}
	})
	t.Run("headers alone", func(t *testing.T) { // a sparse file of the full length, all of its data zero
		path := filepath.Join(dir, "model.safetensors")
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, int64(len(data)-4*260032)))
		status, _, stderr := command(t, "", "inspect", dir)
		require.Equal(t, exitFailure, status, "a file that ends too early")
		require.Contains(t, stderr, "model.safetensors")
		require.NoError(t, os.Truncate(path, int64(len(data))))
		status, again, stderr := command(t, "", "inspect", dir)
		require.Equal(t, exitOK, status, stderr)
		free := regexp.MustCompile(`(?m)^  free .*$`) // which changes
		require.Equal(t, free.ReplaceAllString(stdout, ""), free.ReplaceAllString(again, ""))
	})
	t.Run("configuration alone", func(t *testing.T) {
		require.NoError(t, os.Remove(filepath.Join(dir, "model.safetensors")))
		status, stdout, stderr := command(t, "", "inspect", dir)
		require.Equal(t, exitOK, status, stderr)
		require.Contains(t, stdout, "no weights in this folder")
	})
	t.Run("other weights", func(t *testing.T) {
		dir := demoFolder(t)
		path := filepath.Join(dir, "config.json")
		config, err := os.ReadFile(path)
		require.NoError(t, err)
		config = bytes.Replace(config, []byte(`"num_hidden_layers": 5`), []byte(`"num_hidden_layers": 4`), 1)
		require.NoError(t, os.WriteFile(path, config, 0o600))
		status, _, stderr := command(t, "", "inspect", dir)
		require.Equal(t, exitFailure, status)
		require.Contains(t, stderr, "9 tensors are not declared, the first: model.layers.4.")
	})
}

func TestParity(t *testing.T) {
	const models = "../../parity/testdata"
	dump := t.TempDir()
	status, stdout, stderr := command(t, "", "parity", "--backend", "go", "--json", "--dump", dump, filepath.Join(models, "llama-linear-f32"))
	require.Equal(t, exitOK, status, stdout+stderr)
	report := decodeLines[parity.Report](t, stdout)[0]
	require.True(t, report.OK())
	require.FileExists(t, filepath.Join(dump, "llama-linear-f32.safetensors"))

	t.Run("another model's dump", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(models, "llama-linear-f32"))))
		path := filepath.Join(dir, "model.safetensors")
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		data[len(data)-1] ^= 0x80 // the sign of the last weight
		require.NoError(t, os.WriteFile(path, data, 0o600))
		status, stdout, stderr := command(t, "", "parity", "--backend", "go", dir)
		require.Equal(t, exitFailure, status)
		require.Contains(t, stdout, "FAIL")
		require.Regexp(t, `^steerage: \d+ of \d+ parts disagree with the reference, the first: [^\n]+\n$`, stderr)
	})
}

func TestTokenize(t *testing.T) {
	dir := demoFolder(t)
	status, stdout, stderr := command(t, "", "tokenize", "--model", dir, "Once upon a time")
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, "1\t\"<s>\"\n403\t\"▁Once\"\n407\t\"▁upon\"\n261\t\"▁a\"\n378\t\"▁time\"\n", stdout)

	status, stdout, _ = command(t, "Once upon", "tokenize", "--model", dir, "-", "--json", "--add-special-tokens=false")
	require.Equal(t, exitOK, status)
	require.JSONEq(t, `{"ids":[403,407]}`, stdout)
}

func TestTokenizeLines(t *testing.T) {
	dir := demoFolder(t)
	lines := func(in string) (int, []string, string) {
		status, stdout, stderr := command(t, in, "tokenize", "--model", dir, "--jsonl")
		return status, strings.Split(strings.TrimSuffix(stdout, "\n"), "\n"), stderr
	}
	status, out, stderr := lines(`{"text":"Once upon"}
{"text":"Once upon","add_special_tokens":false}

{"ids":[1,403,407]}
{"ids":[1,403,407],"skip_special_tokens":true,"n":5}
{"text":"","add_special_tokens":false}
{"ids":[]}
{"text":"<&>","add_special_tokens":true}`) // no line end at the end
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, []string{`{"ids":[1,403,407]}`, `{"ids":[403,407]}`, `{"text":"<s> Once upon"}`, `{"text":"Once upon"}`,
		`{"ids":[]}`, `{"text":""}`}, out[:6])

	t.Run("bad lines", func(t *testing.T) {
		status, out, stderr := lines("{\"text\":1}\n{\"ids\":[null]}\n{}\n{\"text\":\"a\",\"ids\":[]}\n{\"ids\":[99999999999]}\n" +
			"{\"ids\":[-1]}\n\n{\"text\":\"\\ud83d\"}\n{\"text\":\"\xff\"}\nnonsense\n" + strings.Repeat("x", maxLine+1) + "\n{\"ids\":[403]}\n")
		require.Equal(t, exitFailure, status)
		require.Equal(t, "steerage: 10 of 11 lines are bad, the first is line 1\n", stderr)
		require.Len(t, out, 11, "each line has its answer")
		for i, number := range []string{"1", "2", "3", "4", "5", "6", "8", "9", "10", "11"} {
			require.Regexp(t, `^\{"error":"line `+number+`: .+"\}$`, out[i])
		}
		require.Equal(t, `{"text":"Once"}`, out[10])
	})
	t.Run("round trip", func(t *testing.T) {
		for _, text := range []string{"Lily's mom", "naïve — 東京 😀", "a\nb\tc", `"quoted" \ back`} {
			line, err := json.Marshal(map[string]any{"text": text, "add_special_tokens": false})
			require.NoError(t, err)
			_, ids, _ := lines(string(line))
			_, back, _ := lines(ids[0])
			require.Equal(t, text, decodeLines[textLine](t, back[0])[0].Text)
		}
	})
	t.Run("conversation", func(t *testing.T) { // each answer comes before the next question
		inR, inW := io.Pipe()
		outR, outW := io.Pipe()
		done := make(chan int, 1)
		go func() {
			done <- run(t.Context(), []string{"tokenize", "--model", dir, "--jsonl"}, inR, outW, io.Discard)
		}()
		answers := json.NewDecoder(outR)
		for range 3 {
			_, err := io.WriteString(inW, `{"text":"Once"}`+"\n")
			require.NoError(t, err)
			var a idsLine
			require.NoError(t, answers.Decode(&a))
			require.Equal(t, []int32{1, 403}, a.IDs)
		}
		require.NoError(t, inW.Close())
		require.Equal(t, exitOK, <-done)
	})
}

func TestDoctorAndVersion(t *testing.T) {
	status, stdout, stderr := command(t, "", "doctor", "--backend", "go", "--json")
	require.Equal(t, exitOK, status, stderr)
	require.Equal(t, pjrt.Go, decodeLines[checkup](t, stdout)[0].Backend.Kind)

	status, stdout, _ = command(t, "", "doctor", "--backend", "go")
	require.Equal(t, exitOK, status)
	require.Regexp(t, `(?m)^backend    go: .+$`, stdout)

	t.Run("hub", func(t *testing.T) {
		cache := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(cache, "models--org--name"), 0o700))
		t.Setenv("HF_HUB_CACHE", cache)
		t.Setenv("HF_ENDPOINT", "https://hub.example")
		t.Setenv("HF_TOKEN", "hf_secret")
		status, stdout, stderr := command(t, "", "doctor", "--backend", "go", "--json")
		require.Equal(t, exitOK, status, stderr)
		h := decodeLines[checkup](t, stdout)[0].Hub
		require.Equal(t, hubReport{Endpoint: "https://hub.example", Cache: cache, Models: 1, Offline: h.Offline, Token: true}, h)
		_, text, _ := command(t, "", "doctor", "--backend", "go")
		require.Contains(t, text, cache+": 1 models")
		require.NotContains(t, stdout+text, "hf_secret")
		t.Setenv("HF_ENDPOINT", "ftp://hub.example")
		_, text, _ = command(t, "", "doctor", "--backend", "go")
		require.Contains(t, text, "ftp://hub.example")
	})

	status, stdout, _ = command(t, "", "version", "--json")
	require.Equal(t, exitOK, status)
	require.NotEmpty(t, decodeLines[versions](t, stdout)[0].Go)
	require.Equal(t, "go", decodeLines[versions](t, stdout)[0].Tokenizers[0])
	status, stdout, _ = command(t, "", "version")
	require.Equal(t, exitOK, status)
	require.Contains(t, stdout, "\ntokenizer go")
}

// TestHelp holds every command to what a user may expect of its help.
func TestHelp(t *testing.T) {
	var check func(commands []*cobra.Command)
	check = func(commands []*cobra.Command) {
		for _, c := range commands {
			path := strings.Fields(c.CommandPath())[1:]
			status, stdout, stderr := command(t, "", append(path, "--help")...)
			require.Equal(t, exitOK, status, stderr)
			require.Contains(t, stdout, "Examples:\n  ", path)
			if c.HasSubCommands() {
				check(c.Commands())
			} else if c.Name() != "render" { // which prints bytes, and with --ids JSON
				require.NotNil(t, c.Flags().Lookup("json"), path)
			}
		}
	}
	check(newRoot().Commands())
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		status, stdout, stderr := command(t, "", "completion", shell)
		require.Equal(t, exitOK, status, stderr)
		require.Contains(t, stdout, "steerage")
	}
	_, stdout, _ := command(t, "", "__complete", "run", "--backend", "")
	require.Contains(t, stdout, "xla:cuda")
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1280: "1.2 KiB", 1 << 30: "1.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		require.Equal(t, want, size(n))
	}
}
