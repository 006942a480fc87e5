package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/steerage/steerage/chat"
	"github.com/steerage/steerage/engine/schedule"
	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/tokenizer"
)

// Request asks for a continuation. The zero value of each sampling field means what it means in layers.Params: temperature 0 is greedy,
// and top_k, top_p and min_p are off.
type Request struct {
	// What is continued; at most one of three. Prompt is text, encoded with the special tokens that the tokenizer adds. IDs is the prompt as
	// token ids, used as they are. Messages is a conversation, rendered by the model's chat template. With none the prompt is
	// the BOS token alone.
	Prompt   string
	IDs      []int32
	Messages []chat.Message
	// Tools and ChatTemplateKwargs go into the template, see chat.Conversation.
	Tools              []json.RawMessage
	ChatTemplateKwargs map[string]any

	MaxTokens   int // tokens to generate at most; 0 is as many as the context holds
	Temperature float32
	TopK        int
	TopP, MinP  float32
	Seed        uint64 // same seed, same text, whatever else is in the batch

	Stop      []string // texts that end the answer; they are not part of it
	StopIDs   []int32  // token ids that end the answer, besides the model's own eos_token_id
	IgnoreEOS bool     // do not stop at eos_token_id
	Logprobs  bool     // fill Token.Logprob

	// Steering edits the residual stream of this request, and of no other in the batch. It must not be changed before the request ends.
	Steering steering.Spec

	// Session is the conversation that the prompt goes on with, if any: what it shares with the last turn is not run again.
	Session *Session
}

// Token is one generated token.
type Token struct {
	ID int32
	// Text is what became certain with this token: it may be empty (a rune or a stop text may be under way) or hold more than
	// the token. All pieces joined are Result.Text. Empty without a tokenizer.
	Text    string
	Logprob float32 // natural logarithm of the token's probability at temperature 1, unfiltered; only with Request.Logprobs
}

// Timing of a request.
type Timing struct {
	FirstToken time.Duration // from Generate to the first token
	Total      time.Duration // from Generate to the end
}

// Result is a finished request.
type Result struct {
	IDs          []int32 // generated tokens, without the token that stopped it
	Text         string
	Finish       string // "stop", "length", "cancelled" or "error"
	PromptTokens int
	CachedTokens int // of the prompt, kept by the session
	Timing       Timing
	Steering     []steering.Effect // what each entry of Request.Steering did to the tokens that were run
	Err          error             // set if Finish is "error"
}

// Generation is a request under way. Its tokens wait in memory until they are read; reading them is not needed for it to go on.
type Generation struct {
	model   *Model
	id      schedule.ID
	sampler sampler
	course  *course
	prompt  []int32
	spec    steering.Spec
	stop    []string
	stream  *tokenizer.Stream
	began   time.Time
	unhook  func() bool

	// Guarded by the model's lock.
	session  *Session // nil once the request has ended
	restored bool

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	tokens   []Token
	sampled  []int32 // all, the one that stopped it too
	held     string  // decoded text that may be the beginning of a stop text
	finished bool
	result   Result
}

// maxStops bounds Request.Stop and Request.StopIDs; each is looked at for every token.
const maxStops = 64

// Generate starts a request and returns at once. It goes on until it is finished, ctx is cancelled or the model is closed. A request that
// cannot be served (a prompt longer than the context: both numbers are in the error) is refused here.
func (m *Model) Generate(ctx context.Context, r Request) (*Generation, error) {
	params := layers.Params{Temperature: r.Temperature, TopK: r.TopK, TopP: r.TopP, MinP: r.MinP}
	if err := params.Validate(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if r.MaxTokens < 0 {
		return nil, fmt.Errorf("engine: max tokens = %d, want at least 0", r.MaxTokens)
	}
	if len(r.Stop) > maxStops || len(r.StopIDs) > maxStops {
		return nil, fmt.Errorf("engine: %d stop texts and %d stop ids, want at most %d of each", len(r.Stop), len(r.StopIDs), maxStops)
	}
	if len(r.Stop) > 0 && m.tok == nil {
		return nil, errors.New("engine: stop texts need a tokenizer, and the model's folder has no tokenizer.json")
	}
	for _, s := range r.Stop {
		if s == "" {
			return nil, errors.New("engine: an empty stop text")
		}
	}
	prompt, err := m.promptIDs(r)
	if err != nil {
		return nil, err
	}
	prompt = slices.Clone(prompt) // the caller's slice may change
	plan, err := m.steer(r.Steering)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g := &Generation{
		model: m, sampler: sampler{params: params, seed: r.Seed, logprob: r.Logprobs}, stop: r.Stop,
		course: newCourse(plan, len(prompt)), prompt: prompt, spec: r.Steering, began: time.Now(), changed: make(chan struct{}),
		result: Result{PromptTokens: len(prompt)},
	}
	if m.tok != nil {
		// Text is what the answer adds to the decoded prompt, so that a leading space survives.
		g.stream = tokenizer.NewStream(m.tok, true)
		for _, id := range prompt {
			g.stream.Push(id)
		}
	}
	stops := append([]int32(nil), r.StopIDs...)
	if !r.IgnoreEOS {
		stops = append(stops, m.cfg.EOSTokenID...)
	}
	maxTokens := r.MaxTokens
	if maxTokens == 0 {
		maxTokens = m.plan.MaxContext
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, ErrClosed
	}
	kept := 0
	if r.Session != nil {
		kept, err = r.Session.begin(m, prompt, r.Steering, plan)
	}
	if err == nil {
		m.lastID++
		g.id = m.lastID
		err = m.core.Submit(schedule.Request{ID: g.id, Prompt: prompt, MaxTokens: maxTokens, StopIDs: stops, Kept: kept})
		if err != nil {
			err = fmt.Errorf("engine: %w", err)
		}
	}
	if err == nil {
		m.gens[g.id] = g
		if g.session = r.Session; g.session != nil {
			g.session.busy = true
		}
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	if g.unhook = context.AfterFunc(ctx, g.Cancel); g.finished {
		g.unhook()
	}
	g.mu.Unlock()
	m.signal()
	return g, nil
}

func (m *Model) promptIDs(r Request) ([]int32, error) {
	given := 0
	for _, there := range []bool{r.Prompt != "", r.IDs != nil, r.Messages != nil} {
		if there {
			given++
		}
	}
	switch {
	case given > 1:
		return nil, errors.New("engine: a request has more than one of a prompt text, prompt ids and messages")
	case r.Messages == nil && (r.Tools != nil || r.ChatTemplateKwargs != nil):
		return nil, errors.New("engine: tools and chat template arguments are for a request with messages")
	case r.Messages != nil:
		return m.Chat(chat.Conversation{
			Messages: r.Messages, Tools: r.Tools, Kwargs: r.ChatTemplateKwargs, AddGenerationPrompt: true,
		})
	case r.IDs != nil:
		return r.IDs, m.inVocabulary(r.IDs)
	case r.Prompt == "":
		if len(m.cfg.BOSTokenID) == 0 {
			return nil, errors.New("engine: an empty prompt, and the model has no bos_token_id to start from")
		}
		return m.cfg.BOSTokenID, nil
	}
	return m.encode(r.Prompt, true)
}

// encode returns the ids of a text in which special tokens are parsed.
func (m *Model) encode(text string, addSpecialTokens bool) ([]int32, error) {
	if m.tok == nil {
		return nil, errors.New("engine: a prompt text needs a tokenizer, and the model's folder has no tokenizer.json")
	}
	ids, err := m.tok.Encode(text, addSpecialTokens)
	if err != nil {
		return nil, fmt.Errorf("engine: prompt: %w", err)
	}
	if err := m.inVocabulary(ids); err != nil {
		return nil, fmt.Errorf("%w, and the tokenizer gave it", err)
	}
	return ids, nil
}

// Template returns the model's chat template. A model without one gives an error that wraps chat.ErrNoTemplate.
func (m *Model) Template() (*chat.Template, error) {
	if m.templateErr != nil {
		return nil, fmt.Errorf("engine: %w", m.templateErr)
	}
	return m.template, nil
}

// Chat returns the ids of a conversation, as the model's chat template renders it. A message that spells out a special token gets that
// token, as in every system that renders to text.
func (m *Model) Chat(c chat.Conversation) ([]int32, error) {
	t, err := m.Template()
	if err != nil {
		return nil, err
	}
	text, err := t.Render(c)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return m.encode(text, false) // the template has written them
}

// Cancel ends the request; it finishes as "cancelled" unless it has finished already.
func (g *Generation) Cancel() {
	g.model.mu.Lock()
	defer g.model.mu.Unlock()
	if _, ok := g.model.gens[g.id]; ok {
		g.model.publish(g.model.core.Cancel(g.id), nil)
	}
}

// crew is what the device must know of the requests in a plan.
type crew struct {
	samplers []sampler // of each row that gets a token
	courses  []*course // of each row
	session  *Session  // of a plan that restores
}

// crew returns that of a plan. The caller holds the lock.
func (m *Model) crew(p schedule.Plan) (c crew) {
	for _, id := range sampled(p) {
		c.samplers = append(c.samplers, m.gens[id].sampler)
	}
	for _, r := range p.Rows {
		c.courses = append(c.courses, m.gens[r.ID].course)
	}
	for _, s := range p.Slots {
		c.courses = append(c.courses, m.gens[s.ID].course)
	}
	if p.Restore {
		g := m.gens[p.Rows[0].ID]
		c.session, g.restored = g.session, true
		g.mu.Lock()
		g.result.CachedTokens = p.Rows[0].Start
		g.mu.Unlock()
	}
	return c
}

// publish hands events to their requests. The caller holds the lock.
func (m *Model) publish(events []schedule.Event, logprob map[schedule.ID]float32) {
	for _, e := range events {
		g := m.gens[e.ID]
		if g == nil {
			continue
		}
		stopped := g.take(e, logprob[e.ID])
		if e.Finish != schedule.None {
			delete(m.gens, e.ID)
			m.end(g, e)
		} else if stopped {
			delete(m.gens, e.ID)
			for _, end := range m.core.Cancel(e.ID) {
				m.end(g, end)
			}
		}
	}
}

// take records an event and reports whether the request has ended by a stop text.
func (g *Generation) take(e schedule.Event, logprob float32) (stopped bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.finished {
		return false
	}
	finish := ""
	if e.Finish != schedule.None {
		finish = e.Finish.String()
	}
	if e.HasToken {
		g.sampled = append(g.sampled, e.Token)
	}
	if e.HasToken && e.Finish != schedule.Stop {
		if len(g.tokens) == 0 {
			g.result.Timing.FirstToken = time.Since(g.began)
		}
		t := Token{ID: e.Token, Logprob: logprob}
		if g.stream != nil {
			g.held += g.stream.Push(e.Token)
			if t.Text, stopped = g.release(); stopped {
				finish = schedule.Stop.String()
			}
		}
		g.result.IDs = append(g.result.IDs, t.ID)
		g.tokens = append(g.tokens, t)
	}
	if finish != "" {
		if g.stream != nil && !stopped {
			g.held += g.stream.Flush()
			rest, cut := g.release()
			if !cut {
				rest += g.held
			}
			if rest != "" && len(g.tokens) > 0 {
				// Its token has been seen, perhaps read: the rest travels as a last piece without a token of its own.
				g.tokens = append(g.tokens, Token{ID: -1, Text: rest})
			}
		}
		var text strings.Builder
		for _, t := range g.tokens {
			text.WriteString(t.Text)
		}
		g.result.Text = text.String()
		g.finished, g.held = true, ""
		g.result.Finish, g.result.Err = finish, e.Err
		g.result.Steering = g.course.effects
		g.result.Timing.Total = time.Since(g.began)
		if g.unhook != nil {
			g.unhook()
		}
	}
	close(g.changed)
	g.changed = make(chan struct{})
	return stopped
}

// release returns the part of the held text that no stop text can claim any more; stopped if one has been completed.
func (g *Generation) release() (text string, stopped bool) {
	cut := -1
	for _, s := range g.stop {
		if i := strings.Index(g.held, s); i >= 0 && (cut < 0 || i < cut) {
			cut = i
		}
	}
	if cut >= 0 {
		text, g.held = g.held[:cut], ""
		return text, true
	}
	keep := 0
	for _, s := range g.stop {
		for n := min(len(s)-1, len(g.held)); n > keep; n-- {
			if strings.HasSuffix(g.held, s[:n]) {
				keep = n
			}
		}
	}
	text, g.held = g.held[:len(g.held)-keep], g.held[len(g.held)-keep:]
	return text, false
}

// Tokens yields the tokens as they come. A last piece of text that belongs to no single token comes with ID -1. It ends with an error if
// the request fails or is cancelled.
func (g *Generation) Tokens() iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		for i := 0; ; {
			g.mu.Lock()
			fresh, finished, changed, result := g.tokens[i:], g.finished, g.changed, g.result
			g.mu.Unlock()
			for _, t := range fresh {
				if !yield(t, nil) {
					return
				}
			}
			if i += len(fresh); len(fresh) > 0 {
				continue
			}
			if finished {
				if result.Finish == schedule.Cancelled.String() {
					yield(Token{ID: -1}, context.Canceled)
				} else if result.Err != nil {
					yield(Token{ID: -1}, result.Err)
				}
				return
			}
			<-changed
		}
	}
}

// Text yields the answer's text piece by piece; no piece ends inside a rune. It needs a tokenizer.
func (g *Generation) Text() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if g.stream == nil {
			yield("", errors.New("engine: text needs a tokenizer, and the model's folder has no tokenizer.json"))
			return
		}
		for t, err := range g.Tokens() {
			if (t.Text != "" || err != nil) && !yield(t.Text, err) {
				return
			}
		}
	}
}

// Result waits for the end of the request and returns it.
func (g *Generation) Result() Result {
	for {
		g.mu.Lock()
		finished, changed, result := g.finished, g.changed, g.result
		g.mu.Unlock()
		if finished {
			return result
		}
		<-changed
	}
}
