package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/hub"
	"github.com/steerage/steerage/tokenizer"
)

// maxLine is the longest line of --jsonl, in bytes, and the longest text that is read from standard input.
const maxLine = 16 << 20

func newTokenize() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tokenize --model DIR [TEXT | -]",
		Short: "Turn text into token ids, or ids into text",
		Long: `Tokenize prints the ids of TEXT, or of standard input for "-", with the token of each.

With --jsonl it reads lines from standard input and answers each with a line, as soon as it is read:

  {"text": "Hello", "add_special_tokens": true}    ->  {"ids": [1, 403]}
  {"ids": [1, 403], "skip_special_tokens": false}  ->  {"text": "<s> Hello"}

Where they are missing, add_special_tokens is true and skip_special_tokens false. Other keys are ignored and so are
blank lines. A bad line is answered {"error": "line 3: ..."} in its place, the lines after it are still read, and the
exit status is 1 at the end. A line has at most 16 MiB.`,
		Example: `  steerage tokenize --model ./Qwen3-0.6B "Hello, world"
  echo '{"text": "Hello", "add_special_tokens": false}' | steerage tokenize --model ./Qwen3-0.6B --jsonl`,
		Args: cobra.MaximumNArgs(1),
	}
	name := cmd.Flags().String("model", "", "folder with tokenizer.json, or org/name on the hub")
	jsonl := cmd.Flags().Bool("jsonl", false, "read and write JSON lines")
	special := cmd.Flags().Bool("add-special-tokens", true, "let the tokenizer add what the model expects around TEXT")
	asJSON := jsonFlag(cmd)
	var linked []string
	for _, impl := range tokenizer.Implementations() {
		linked = append(linked, impl.Name)
	}
	with := cmd.Flags().String("implementation", linked[0], "which tokenizer works, of those linked: "+strings.Join(linked, ", "))
	_ = cmd.RegisterFlagCompletionFunc("implementation", cobra.FixedCompletions(linked, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("model", completeFolders)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *name == "":
			return badUsage("--model is missing")
		case *jsonl && (len(args) > 0 || *asJSON || cmd.Flags().Changed("add-special-tokens")):
			return badUsage("--jsonl takes neither TEXT nor --json nor --add-special-tokens: each line has its own")
		case !*jsonl && len(args) == 0:
			return badUsage("TEXT is missing; \"-\" reads it from standard input, --jsonl reads lines")
		}
		at := slices.Index(linked, *with)
		if at < 0 {
			return badUsage("--implementation %q is not linked, only %s (daulet needs a build with -tags daulet)", *with, strings.Join(linked, ", "))
		}
		dir, err := resolve(cmd, *name, hub.Text)
		if err != nil {
			return err
		}
		tok, err := tokenizer.Implementations()[at].Open(dir)
		if err != nil {
			return err
		}
		if *jsonl {
			return tokenizeLines(cmd.Context(), tok, cmd.InOrStdin(), cmd.OutOrStdout())
		}
		text, err := textArgument(cmd, args[0])
		if err != nil {
			return err
		}
		ids, err := tok.Encode(text, *special)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), encoded(ids))
		}
		out := bufio.NewWriter(cmd.OutOrStdout())
		for _, id := range ids {
			token, _ := tok.IDToToken(id)
			_, _ = fmt.Fprintf(out, "%d\t%q\n", id, token)
		}
		return out.Flush()
	}
	return cmd
}

// textArgument returns an argument, or all of standard input if it is "-".
func textArgument(cmd *cobra.Command, arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() { // a read of a terminal cannot be cancelled, only left behind
		data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxLine+1))
		done <- result{data, err}
	}()
	select {
	case <-cmd.Context().Done():
		return "", cmd.Context().Err()
	case r := <-done:
		if r.err == nil && len(r.data) > maxLine {
			r.err = fmt.Errorf("standard input: more than %d bytes of text", maxLine)
		}
		return string(r.data), r.err
	}
}

type idsLine struct {
	IDs []int32 `json:"ids"`
}

type textLine struct {
	Text string `json:"text"`
}

type errorLine struct {
	Error string `json:"error"`
}

// encoded never prints null.
func encoded(ids []int32) idsLine {
	if ids == nil {
		ids = []int32{}
	}
	return idsLine{ids}
}

// tokenizeLines answers line after line. Output is flushed whenever no further line is at hand, so that a program can
// hold a conversation over two pipes, and a large file is still written in large pieces.
func tokenizeLines(ctx context.Context, tok tokenizer.Tokenizer, in io.Reader, w io.Writer) error {
	out := bufio.NewWriterSize(w, 1<<16)
	lines := make(chan line, 16)
	ctx, stop := context.WithCancel(ctx)
	defer stop() // releases the reader
	go readLines(ctx, in, lines)

	var read, bad, firstBad int
	for {
		var l line
		var more bool
		select {
		case l, more = <-lines:
		default:
			if err := out.Flush(); err != nil {
				return err
			}
			select {
			case l, more = <-lines:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !more {
			break
		}
		read++
		var answer any
		err := l.err
		if err == nil {
			answer, err = answerLine(tok, l.data)
		}
		if err != nil {
			if bad++; bad == 1 {
				firstBad = l.number
			}
			answer = errorLine{fmt.Sprintf("line %d: %v", l.number, err)}
		}
		if err := printJSON(out, answer); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d lines are bad, the first is line %d", bad, read, firstBad)
	}
	return nil
}

// line is a line of input, counted from 1, or why it could not be read.
type line struct {
	number int
	data   []byte
	err    error
}

// readLines sends all lines that are not blank, without their ends, and closes the channel. A line over maxLine is
// sent as an error and its rest is skipped, so that it costs no memory.
func readLines(ctx context.Context, in io.Reader, lines chan<- line) {
	defer close(lines)
	r := bufio.NewReaderSize(in, 1<<16)
	for n := 1; ; n++ {
		l := line{number: n}
		var err error
		for {
			var part []byte
			part, err = r.ReadSlice('\n')
			if len(l.data)+len(part) > maxLine {
				l.data, l.err = nil, fmt.Errorf("longer than %d bytes", maxLine)
			}
			if l.err == nil {
				l.data = append(l.data, part...)
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		if err != nil && err != io.EOF {
			l.err = err
		}
		if l.data = bytes.TrimSpace(l.data); len(l.data) > 0 || l.err != nil {
			select {
			case lines <- l:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// answerLine does what one line of --jsonl asks for.
func answerLine(tok tokenizer.Tokenizer, data []byte) (any, error) {
	var q struct {
		Text    *string   `json:"text"`
		IDs     *[]*int32 `json:"ids"` // pointers tell null from 0
		Special *bool     `json:"add_special_tokens"`
		Skip    bool      `json:"skip_special_tokens"`
	}
	// encoding/json would replace both silently.
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	if i := loneSurrogate(data); i >= 0 {
		return nil, fmt.Errorf("half a surrogate pair at byte %d", i)
	}
	if err := json.Unmarshal(data, &q); err != nil {
		return nil, err
	}
	switch {
	case q.Text != nil && q.IDs != nil:
		return nil, errors.New(`has both "text" and "ids"`)
	case q.Text != nil:
		ids, err := tok.Encode(*q.Text, q.Special == nil || *q.Special)
		return encoded(ids), err
	case q.IDs != nil:
		ids := make([]int32, len(*q.IDs))
		for i, id := range *q.IDs {
			if id == nil {
				return nil, fmt.Errorf("ids[%d] is null", i)
			}
			ids[i] = *id
		}
		text, err := tok.Decode(ids, q.Skip)
		return textLine{text}, err
	}
	return nil, errors.New(`has neither "text" nor "ids"`)
}

// loneSurrogate returns the offset of the first \uD800-\uDFFF in JSON that is not part of a pair, or -1.
func loneSurrogate(data []byte) int {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		switch hi := surrogate(data[i:]); {
		case hi == 0xD800 && surrogate(data[i+6:]) == 0xDC00:
			i += 11
		case hi != 0:
			return i
		default:
			i++ // the escaped character, which may be a backslash
		}
	}
	return -1
}

// surrogate returns 0xD800 if data begins with the escape of a first half, 0xDC00 for a second half, and 0 otherwise.
func surrogate(data []byte) int {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' || data[2]|0x20 != 'd' {
		return 0
	}
	switch third := data[3] | 0x20; {
	case strings.IndexByte("89ab", third) >= 0 || data[3] == '8' || data[3] == '9':
		return 0xD800
	case strings.IndexByte("cdef", third) >= 0:
		return 0xDC00
	}
	return 0
}
