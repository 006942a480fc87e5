package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	tty "golang.org/x/term"
)

// errInterrupt is what a lineReader returns for Ctrl-C, and chat to end as interrupted.
var errInterrupt = errors.New("interrupt")

// lineReader reads the lines of a chat. The end of them is io.EOF.
type lineReader interface {
	line() (string, error)
	// ready prepares for line, and the function it returns undoes that.
	ready() (undo func(), err error)
}

// input reads what is said, from a terminal or from lines of a pipe, and can be called away from it.
type input struct {
	lines      lineReader
	interrupts <-chan os.Signal
	result     chan inputLine
	reading    bool // a line that nobody has taken yet is being read
	number     int  // of the last line
}

type inputLine struct {
	text string
	err  error
}

func newInput(stdin io.Reader, echo io.Writer, interrupts <-chan os.Signal) *input {
	in := &input{interrupts: interrupts, result: make(chan inputLine, 1)}
	if isTerminal(stdin) && isTerminal(echo) {
		in.lines = newEditor(stdin.(*os.File), echo)
	} else {
		scanner := bufio.NewScanner(stdin)
		scanner.Buffer(nil, maxLine)
		in.lines = scanned{scanner}
	}
	return in
}

// next returns the next line. Reading cannot be cancelled, only left behind: after an interrupt the next call takes it up again.
func (in *input) next(ctx context.Context) (string, error) {
	undo, err := in.lines.ready()
	if err != nil {
		return "", err
	}
	defer undo()
	if !in.reading {
		in.reading = true
		go func() {
			text, err := in.lines.line()
			in.result <- inputLine{text, err}
		}()
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-in.interrupts:
		return "", errInterrupt
	case l := <-in.result:
		in.reading = false
		in.number++
		return l.text, l.err
	}
}

// scanned reads lines that no person types.
type scanned struct{ *bufio.Scanner }

func (s scanned) ready() (func(), error) { return func() {}, nil }

func (s scanned) line() (string, error) {
	if s.Scan() {
		return s.Text(), nil
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return "", fmt.Errorf("standard input: a line of more than %d bytes", maxLine)
	}
	if s.Err() != nil {
		return "", s.Err()
	}
	return "", io.EOF
}

// The prompts of the editor.
const (
	firstPrompt = "> "
	nextPrompt  = ". " // of the further lines of a pasted text
)

// longestTyped is how many characters x/term takes; it drops what is typed beyond.
const longestTyped = 4096

// errTooLong is for a line that may have lost its end.
var errTooLong = fmt.Errorf("a line of %d characters may have lost what came after them, and is not sent: paste it", longestTyped)

// editor reads lines from a terminal, with history and the usual keys. A pasted text of several lines is one message, which Enter sends.
type editor struct {
	f        *os.File
	keys     *keys
	terminal *tty.Terminal
	out      io.Writer
}

// keys remembers whether Ctrl-C was pressed, which x/term does not tell from Ctrl-D.
type keys struct {
	io.Reader
	interrupt bool
}

func (k *keys) Read(p []byte) (int, error) {
	n, err := k.Reader.Read(p)
	k.interrupt = strings.ContainsRune(string(p[:n]), '\x03')
	return n, err
}

func newEditor(f *os.File, out io.Writer) *editor {
	e := &editor{f: f, keys: &keys{Reader: f}, out: out}
	e.renew()
	return e
}

// renew forgets a line begun, and nothing else.
func (e *editor) renew() {
	old := e.terminal
	e.terminal = tty.NewTerminal(struct {
		io.Reader
		io.Writer
	}{e.keys, e.out}, firstPrompt)
	if old != nil {
		e.terminal.History = old.History
	}
	e.terminal.AutoCompleteCallback = completeChatCommand
}

func (e *editor) ready() (func(), error) {
	state, err := tty.MakeRaw(int(e.f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	if width, height, err := tty.GetSize(int(e.f.Fd())); err == nil && width > 0 {
		_ = e.terminal.SetSize(width, height)
	}
	_, _ = io.WriteString(e.out, "\x1b[?2004h") // bracketed paste
	return func() {
		_, _ = io.WriteString(e.out, "\x1b[?2004l")
		_ = tty.Restore(int(e.f.Fd()), state)
	}, nil
}

func (e *editor) line() (string, error) {
	defer e.terminal.SetPrompt(firstPrompt)
	var text strings.Builder
	for {
		line, err := e.terminal.ReadLine()
		text.WriteString(line)
		switch {
		case errors.Is(err, tty.ErrPasteIndicator):
			text.WriteByte('\n')
			e.terminal.SetPrompt(nextPrompt)
		case errors.Is(err, io.EOF) && e.keys.interrupt:
			e.renew()
			_, _ = io.WriteString(e.out, "^C\r\n")
			return "", errInterrupt
		case errors.Is(err, io.EOF):
			_, _ = io.WriteString(e.out, "\r\n")
			return "", err
		case err == nil && len([]rune(line)) == longestTyped:
			return "", errTooLong
		default:
			return strings.TrimRight(text.String(), "\n"), err
		}
	}
}

// completeChatCommand completes a command's name when Tab is pressed.
func completeChatCommand(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' || pos != len(line) || !strings.HasPrefix(line, "/") {
		return "", 0, false
	}
	var found []string
	for _, c := range chatCommands {
		if strings.HasPrefix("/"+c.name, line) {
			found = append(found, "/"+c.name)
		}
	}
	if len(found) != 1 {
		return "", 0, false
	}
	return found[0] + " ", len(found[0]) + 1, true
}
