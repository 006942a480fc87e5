package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// asProgram makes this test binary the program itself, which then has a terminal and a process of its own.
const asProgram = "STEERAGE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// screen is a terminal with the program in it.
type screen struct {
	t        *testing.T
	keyboard *os.File
	cmd      *exec.Cmd
	ended    chan struct{} // closed when the program has ended and all is read

	mu    sync.Mutex
	shown strings.Builder
	seen  int // what expect has found already
}

// startOnTerminal starts a command line on a terminal of its own, in a folder.
func startOnTerminal(t *testing.T, folder string, args ...string) *screen {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	fd := int(keyboard.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200}))
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	s := &screen{t: t, keyboard: keyboard, ended: make(chan struct{}), cmd: exec.Command(os.Args[0], args...)}
	s.cmd.Env = append(os.Environ(), asProgram+"=1")
	s.cmd.Dir = folder
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, s.cmd.Start())
	require.NoError(t, tty.Close())
	go func() {
		defer close(s.ended)
		p := make([]byte, 4096)
		for {
			n, err := keyboard.Read(p)
			s.mu.Lock()
			s.shown.Write(p[:n])
			s.mu.Unlock()
			if err != nil { // EIO: nobody holds the other side any more
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // if it has not ended
		<-s.ended
		_ = keyboard.Close()
	})
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// expect waits until the text appears behind what was expected before, and returns what stands between.
func (s *screen) expect(text string) string {
	s.t.Helper()
	patience := time.After(time.Minute)
	for ended := false; ; {
		if rest := s.text()[s.seen:]; strings.Contains(rest, text) {
			before, _, _ := strings.Cut(rest, text)
			s.seen += len(before) + len(text)
			return before
		}
		if ended {
			s.t.Fatalf("the program ended, and %q is not in\n%s", text, s.text())
		}
		select {
		case <-s.ended:
			ended = true
		case <-patience:
			s.t.Fatalf("%q did not appear in\n%s", text, s.text())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *screen) press(keys string) {
	s.t.Helper()
	_, err := s.keyboard.WriteString(keys)
	require.NoError(s.t, err)
}

func (s *screen) exitStatus() int {
	_ = s.cmd.Wait() // the status says it
	<-s.ended
	return s.cmd.ProcessState.ExitCode()
}

const (
	ctrlC, ctrlD = "\x03", "\x04"
	waiting      = firstPrompt // what a person sees when it is their turn
)

func TestChatOnTerminal(t *testing.T) {
	start := func(t *testing.T, args ...string) *screen {
		s := startOnTerminal(t, ".", append([]string{"chat", chatFolder(t), "--backend", "go"}, args...)...)
		s.expect("/help lists the commands, /quit leaves")
		s.expect(waiting)
		return s
	}
	t.Run("interrupt", func(t *testing.T) {
		s := start(t)
		s.press("Once upon a time, Lily\r")
		s.expect("Lily")
		s.expect("the") // a part of the answer
		s.press(ctrlC)  // which would go on for 8000 tokens
		s.expect("tokens (cancelled)")
		s.expect(waiting)
		s.press("/set max_tokens 3\rOne day\r")
		s.expect("3 tokens (length)")
		s.expect(waiting)

		s.press("half a line" + ctrlC)
		s.expect("Ctrl-C again")
		s.expect(waiting)
		s.press("and so\r") // without the half
		s.expect("3 tokens (length)")
		s.expect(waiting)
		s.press(ctrlC)
		s.expect("Ctrl-C again")
		s.press(ctrlC)
		require.Equal(t, exitOK, s.exitStatus(), s.text())
	})
	t.Run("leave", func(t *testing.T) {
		s := start(t)
		s.press(ctrlD)
		require.Equal(t, exitOK, s.exitStatus())
		s = start(t)
		s.press("/nonsense\r")
		s.expect("steerage: there is no command /nonsense")
		s.press("/qu\t\r")
		require.Equal(t, exitOK, s.exitStatus(), "a person has seen the error")
	})
	t.Run("terminate", func(t *testing.T) {
		s := start(t)
		require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
		require.Equal(t, exitInterrupted, s.exitStatus(), s.text())
		require.True(t, strings.HasSuffix(s.text(), "steerage: interrupted\r\n"), "the terminal is as it was, and has line ends: %q", s.text())
	})
	t.Run("paste", func(t *testing.T) {
		s := start(t, "--max-tokens", "2")
		s.press("\x1b[200~Lily was\rsad. Max\x1b[201~ saw\r")
		s.expect("2 tokens (length)")
		s.expect(waiting)
		file := filepath.Join(t.TempDir(), "saved.json")
		s.press("/save " + file + "\r")
		s.expect("2 messages are in")
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Contains(t, string(data), `"content": "Lily was\nsad. Max saw"`)
	})
	t.Run("a typed line that is too long", func(t *testing.T) {
		s := start(t, "--max-tokens", "2")
		for range 50 {
			s.press(strings.Repeat("Lily ", 100))
			time.Sleep(time.Millisecond)
		}
		s.press("\r")
		s.expect("steerage: a line of 4096 characters may have lost")
		s.expect(waiting)
		s.press("Lily\r")
		s.expect("2 tokens (length)")
	})
	t.Run("a terminal that goes away", func(t *testing.T) {
		s := start(t)
		s.press("Lily\r")
		s.expect("the")
		require.NoError(t, s.keyboard.Close())
		require.NotEqual(t, exitOK, s.exitStatus())
	})
	t.Run("reasoning is dim", func(t *testing.T) {
		s := start(t, "--max-tokens", "9", "--chat-template-kwargs", `{"enable_thinking": true}`)
		s.press("Once upon a time\r")
		s.expect("time")
		answer := s.expect("9 tokens (length)")
		require.Contains(t, answer, dim)
		plainly := regexp.MustCompile(regexp.QuoteMeta(dim)+`[^\x1b]*`+regexp.QuoteMeta(plain)).ReplaceAllString(answer, "")
		require.NotRegexp(t, "[a-z]{2}", regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]`).ReplaceAllString(plainly, ""), "%q", answer)
	})
}

// Ctrl-C while a model is loaded, or while another command runs, ends the program as ever.
func TestInterruptOnTerminal(t *testing.T) {
	s := startOnTerminal(t, ".", "run", chatFolder(t), "Lily", "--backend", "go")
	s.expect("the")
	s.press(ctrlC)
	require.Equal(t, exitInterrupted, s.exitStatus(), s.text())
}

var update = flag.Bool("update", false, "write the conversation of docs/chat.md anew")

// TestTranscript holds the conversation of docs/chat.md: it takes place on a terminal, and what the terminal shows is what the file has,
// times aside.
func TestTranscript(t *testing.T) {
	const file = "../../docs/chat.md"
	folder := t.TempDir()
	require.NoError(t, os.Rename(chatFolder(t), filepath.Join(folder, "stories")))
	status, _, stderr := command(t, "", "extract", filepath.Join(folder, "stories"), "demo/happy.jsonl", filepath.Join(folder, "happy.safetensors"),
		"--backend", "go")
	require.Equal(t, exitOK, status, stderr)

	args := []string{"chat", "stories", "--backend", "go", "--max-tokens", "45"}
	s := startOnTerminal(t, folder, args...)
	for _, line := range []string{
		"Once upon a time, there was a boy named Tim. He", "Max found a key. He",
		"/steer happy.safetensors:swfc:2@3", "Sue found a key. She",
		"/steer happy.safetensors:-swfc:2@3", "Lily found a key. She",
		"/steer off", "/save keys.json", "/quit",
	} {
		s.expect(waiting)
		s.press(line + "\r")
		s.expect(line)
	}
	require.Equal(t, exitOK, s.exitStatus(), s.text())
	shown := "$ steerage " + strings.Join(args, " ") + "\n" +
		regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]|\r`).ReplaceAllString(s.text(), "")
	require.FileExists(t, filepath.Join(folder, "keys.json"))

	data, err := os.ReadFile(file)
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```text\n(.*?)```")
	found := block.FindStringSubmatch(string(data))
	require.NotNil(t, found, "the conversation in %s", file)
	if *update {
		text := strings.Replace(string(data), found[0], "```text\n"+shown+"```", 1)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return
	}
	times := regexp.MustCompile(`[0-9.]+ tokens/s, first after [0-9.]+ s`)
	require.Equal(t, times.ReplaceAllString(found[1], ""), times.ReplaceAllString(shown, ""),
		"go test ./cmd/steerage -run TestTranscript -update writes it anew")
}
