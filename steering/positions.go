package steering

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Positions says at which tokens of a row an entry acts: at those that some clause includes and none excludes. It is a pure
// function of the token, its position and the prompt's length, so it is the same however a prompt is cut into blocks and
// whatever else is in the batch. Nil is All.
type Positions []Clause

// Clause is one condition on a token. Its parts must all hold.
type Clause struct {
	Exclude bool
	Phase   Phase
	Window  *Window // nil: the whole phase; not with Everywhere
	Tokens  []int32 // ids of which the token must be one; nil: any
}

// Phase is a part of a row's tokens.
type Phase uint8

const (
	Everywhere Phase = iota + 1
	// InPrompt is the tokens of the prompt.
	InPrompt
	// InResponse is the generated tokens. A token is steered when it is fed back; so the last token of the prompt
	// is not of the response, and the first generated token is chosen by an unsteered step.
	InResponse
)

var phaseNames = [...]string{Everywhere: "all", InPrompt: "prompt", InResponse: "response"}

// Window is a half-open range of positions from the beginning of a phase, [Lo, Hi). In the prompt a negative number counts from its
// end, and positions that a short prompt does not have match nothing.
type Window struct {
	Lo, Hi int // Hi == End: to the end of the phase
}

// End, as Hi of a Window, is the end of the phase.
const End = math.MaxInt

// The positions that papers use.
var (
	All      = Positions{{Phase: Everywhere}} // every token, those of the prompt included
	Prompt   = Positions{{Phase: InPrompt}}
	Response = Positions{{Phase: InResponse}}
)

// maxWindow bounds what a window may name, far beyond any context.
const maxWindow = 1 << 30

// Mask reports whether the token at a position, counted from 0, of a row whose prompt has promptLen tokens is one of these.
func (p Positions) Mask(position, promptLen int, token int32) bool {
	included := len(p) == 0
	for i := range p {
		if p[i].matches(position, promptLen, token) {
			if p[i].Exclude {
				return false
			}
			included = true
		}
	}
	return included
}

func (c *Clause) matches(position, promptLen int, token int32) bool {
	begin, end := 0, End // of the phase
	switch c.Phase {
	case InPrompt:
		end = promptLen
	case InResponse:
		begin = promptLen
	}
	if position < begin || position >= end {
		return false
	}
	if c.Window != nil {
		at := position - begin
		if at < fromEnd(c.Window.Lo, promptLen) || at >= fromEnd(c.Window.Hi, promptLen) {
			return false
		}
	}
	return c.Tokens == nil || slices.Contains(c.Tokens, token)
}

// fromEnd resolves an end of a window of the prompt.
func fromEnd(at, promptLen int) int {
	if at < 0 {
		return promptLen + at
	}
	return at
}

// Validate refuses what can never match or has no meaning, because a clause that is ignored is a mistake nobody sees.
func (p Positions) Validate() error {
	if p == nil {
		return nil
	}
	includes := 0
	for i := range p {
		if err := p[i].validate(); err != nil {
			return fmt.Errorf("positions: clause %s: %w", quote(p[i].String()), err)
		}
		if !p[i].Exclude {
			includes++
		}
	}
	if includes == 0 {
		return errors.New("positions: no clause includes anything; begin with all, prompt or response")
	}
	return nil
}

func (c *Clause) validate() error {
	if c.Phase < Everywhere || c.Phase > InResponse {
		return fmt.Errorf("phase %d is none of all, prompt, response", c.Phase)
	}
	if w := c.Window; w != nil {
		for _, at := range []int{w.Lo, w.Hi} {
			if at != End && (at > maxWindow || at < -maxWindow) {
				return fmt.Errorf("position %d is out of range", at)
			}
		}
		switch {
		case c.Phase == Everywhere:
			return errors.New("a window needs prompt or response, to say where it counts from")
		case c.Phase == InResponse && (w.Lo < 0 || w.Hi < 0):
			return errors.New("a window of the response cannot count from its end, which is not known")
		case w.Lo == End || w.Hi == 0, (w.Lo < 0) == (w.Hi < 0) && w.Lo >= w.Hi:
			return errors.New("the window is empty (it is half-open)")
		}
	}
	if c.Tokens != nil && len(c.Tokens) == 0 {
		return errors.New("no token ids")
	}
	for _, id := range c.Tokens {
		if id < 0 {
			return fmt.Errorf("token id %d is negative", id)
		}
	}
	return nil
}

// ParsePositions reads the text form:
//
//	positions = clause { ("+" | "-") clause }     "+" includes more, "-" excludes, and exclusions win
//	clause    = phase [ "/" window ] [ "=" id { "," id } ]
//	phase     = "all" | "prompt" | "response"
//	window    = [ lo ] ".." [ hi ]                half-open; negative counts from the prompt's end
//
// "all-prompt/0..4" is all but the first four tokens, "prompt/-16.." the last sixteen of the prompt, "response-all=128009" the
// response without a special token, "response/..32" its first 32 tokens.
func ParsePositions(text string) (Positions, error) {
	var p Positions
	for rest, exclude := text, false; ; {
		end := len(rest)
		// A sign begins a clause where a letter follows it; before a digit it belongs to a number.
		for i := range len(rest) {
			if (rest[i] == '+' || rest[i] == '-') && (i+1 == len(rest) || !isDigit(rest[i+1])) {
				end = i
				break
			}
		}
		if end > 0 || len(p) > 0 || exclude || rest == "" {
			c, err := parseClause(rest[:end])
			if err != nil {
				return nil, fmt.Errorf("positions %s: clause %s: %w", quote(text), quote(rest[:end]), err)
			}
			c.Exclude = exclude
			p = append(p, c)
		}
		if end == len(rest) {
			break
		}
		exclude = rest[end] == '-'
		rest = rest[end+1:]
	}
	return p, p.Validate()
}

func parseClause(text string) (c Clause, err error) {
	head, ids, hasIDs := strings.Cut(text, "=")
	name, window, hasWindow := strings.Cut(head, "/")
	if name == "" {
		return c, errors.New("it is empty")
	}
	phase := slices.Index(phaseNames[1:], name)
	if phase < 0 {
		return c, fmt.Errorf("%s is none of all, prompt, response", quote(name))
	}
	c.Phase = Phase(phase + 1)
	if hasWindow {
		lo, hi, ok := strings.Cut(window, "..")
		if !ok {
			return c, fmt.Errorf("window %s is not LO..HI", quote(window))
		}
		c.Window = &Window{0, End}
		for _, end := range []struct {
			text string
			at   *int
		}{{lo, &c.Window.Lo}, {hi, &c.Window.Hi}} {
			if end.text == "" {
				continue
			}
			if *end.at, err = parseInt(end.text); err != nil {
				return c, fmt.Errorf("window %s: %w", quote(window), err)
			}
		}
	}
	if hasIDs {
		for id := range strings.SplitSeq(ids, ",") {
			n, err := parseInt(id)
			if err != nil || n < 0 || n > math.MaxInt32 {
				return c, fmt.Errorf("%s is not a token id", quote(id))
			}
			c.Tokens = append(c.Tokens, int32(n))
		}
	}
	return c, nil
}

// String returns the text that ParsePositions reads.
func (p Positions) String() string {
	if len(p) == 0 {
		return "all"
	}
	var b strings.Builder
	for i := range p {
		switch {
		case p[i].Exclude:
			b.WriteByte('-')
		case i > 0:
			b.WriteByte('+')
		}
		b.WriteString(p[i].String())
	}
	return b.String()
}

// String returns the clause without its sign.
func (c *Clause) String() string {
	var b strings.Builder
	if c.Phase >= Everywhere && c.Phase <= InResponse {
		b.WriteString(phaseNames[c.Phase])
	} else {
		fmt.Fprintf(&b, "Phase(%d)", c.Phase)
	}
	if c.Window != nil {
		b.WriteByte('/')
		if c.Window.Lo != 0 {
			b.WriteString(strconv.Itoa(c.Window.Lo))
		}
		b.WriteString("..")
		if c.Window.Hi != End {
			b.WriteString(strconv.Itoa(c.Window.Hi))
		}
	}
	for i, id := range c.Tokens {
		b.WriteByte("=,"[min(i, 1)])
		b.WriteString(strconv.Itoa(int(id)))
	}
	return b.String()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// parseInt reads a decimal number with an optional minus, and nothing else.
func parseInt(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || text[0] == '+' || n > maxWindow || n < -maxWindow {
		return 0, fmt.Errorf("%s is not a number in range", quote(text))
	}
	return n, nil
}
