package main

import (
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	tty "golang.org/x/term"
)

// The tags around reasoning, as Qwen3, DeepSeek and others write them.
const (
	beginReasoning = "<think>"
	endReasoning   = "</think>"

	dim   = "\x1b[2m"
	plain = "\x1b[m"
)

// isTerminal reports whether w, or r, is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && tty.IsTerminal(int(f.Fd()))
}

// answer prints an answer piece by piece. A terminal gets the reasoning dim, and no control characters but line ends and tabs: a
// model must not move the cursor. Anything else gets the text as it is.
type answer struct {
	w        io.Writer
	terminal bool
	place    place
	held     string // what may be the beginning of a tag
}

// place is where in an answer the text is.
type place int

const (
	atStart place = iota // only here reasoning begins
	inReasoning
	afterReasoning
)

// newAnswer begins an answer; reasoning says that the prompt has ended with the tag that opens it.
func newAnswer(w io.Writer, reasoning bool) *answer {
	a := &answer{w: w, terminal: isTerminal(w)}
	if reasoning {
		a.place = inReasoning
	}
	return a
}

func (a *answer) print(piece string) error {
	if !a.terminal {
		return a.write(piece)
	}
	text := a.held + piece
	a.held = ""
	if a.place == atStart {
		begun := strings.TrimLeftFunc(text, unicode.IsSpace)
		switch {
		case strings.HasPrefix(begun, beginReasoning):
			a.place = inReasoning
		case strings.HasPrefix(beginReasoning, begun): // nothing yet, or a part of the tag
			a.held = text
			return nil
		default:
			a.place = afterReasoning
		}
	}
	if a.place == afterReasoning {
		return a.write(visible(text))
	}
	head, tail, found := strings.Cut(text, endReasoning)
	if !found {
		n := overlap(text, endReasoning)
		a.held = text[len(text)-n:]
		return a.write(faint(text[:len(text)-n]))
	}
	a.place = afterReasoning
	return a.write(faint(head+endReasoning) + visible(tail))
}

// end prints what was held back, and a line end.
func (a *answer) end() error {
	text := a.held
	a.held = ""
	if a.place == inReasoning {
		text = faint(text)
	}
	return a.write(text + "\n")
}

func (a *answer) write(text string) error {
	_, err := io.WriteString(a.w, text)
	return err
}

// faint is text that a terminal shows dim. Every piece has its own beginning and end, so that whatever interrupts is not dim.
func faint(text string) string {
	if text == "" {
		return ""
	}
	return dim + visible(text) + plain
}

// visible replaces control characters by U+FFFD.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return utf8.RuneError
		}
		return r
	}, text)
}

// overlap is the length of the longest end of text that tag begins with, short of all of it.
func overlap(text, tag string) int {
	for n := min(len(text), len(tag)-1); n > 0; n-- {
		if strings.HasSuffix(text, tag[:n]) {
			return n
		}
	}
	return 0
}
