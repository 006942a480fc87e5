package contrast

import (
	"errors"
	"fmt"
	"slices"

	"github.com/steerage/steerage/chat"
	"github.com/steerage/steerage/engine"
)

// Format says how texts become tokens. The zero value uses the model's chat template, if it has one.
type Format struct {
	Raw                bool           // texts as they stand, even if the model has a chat template
	ChatTemplateKwargs map[string]any // for the template, see chat.Conversation
}

// Encoder turns texts into tokens for one model.
type Encoder struct {
	m      *engine.Model
	format Format
	chat   bool
}

// NewEncoder returns an error for a model without a tokenizer, and for one whose chat template cannot be read.
func NewEncoder(m *engine.Model, f Format) (*Encoder, error) {
	if m.Tokenizer() == nil {
		return nil, errors.New("contrast: texts need a tokenizer, and the model's folder has no tokenizer.json")
	}
	e := &Encoder{m: m, format: f}
	if _, err := m.Template(); err == nil {
		e.chat = !f.Raw
	} else if !f.Raw && !errors.Is(err, chat.ErrNoTemplate) {
		return nil, fmt.Errorf("contrast: %w (or take the texts raw)", err)
	}
	return e, nil
}

// Prompt returns what an answer follows: the conversation of a system prompt, if there is one, and the prompt as the user's message; as
// plain text both, separated by an empty line, after the special tokens that the tokenizer adds.
func (e *Encoder) Prompt(system, prompt string) ([]int32, error) {
	if e.chat {
		var messages []chat.Message
		if system != "" {
			messages = append(messages, chat.Message{Role: "system", Content: system})
		}
		messages = append(messages, chat.Message{Role: "user", Content: prompt})
		return e.m.Chat(chat.Conversation{Messages: messages, AddGenerationPrompt: true, Kwargs: e.format.ChatTemplateKwargs})
	}
	return e.m.Tokenizer().Encode(plain(system, prompt), true)
}

func plain(system, prompt string) string {
	if system == "" {
		return prompt
	}
	return system + "\n\n" + prompt
}

// Answer returns a prompt and a text that follows it. Plain texts are encoded together, as a tokenizer may see other tokens at
// the border; where it does, the prompt's last tokens are counted to the text.
func (e *Encoder) Answer(system, prompt, text string) (before, ids []int32, err error) {
	if before, err = e.Prompt(system, prompt); err != nil {
		return nil, nil, err
	}
	tok := e.m.Tokenizer()
	if e.chat {
		ids, err = tok.Encode(text, false)
		return before, ids, err
	}
	whole, err := tok.Encode(plain(system, prompt)+text, true)
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for n < min(len(whole), len(before)) && whole[n] == before[n] {
		n++
	}
	return whole[:n], whole[n:], nil
}

// Pair returns a scenario whose texts are given as training takes it: both texts after the same tokens.
func (e *Encoder) Pair(s *Scenario) (p Pair, err error) {
	before, positive, err := e.Answer("", s.Prompt, s.Positive)
	if err != nil {
		return p, err
	}
	other, negative, err := e.Answer("", s.Prompt, s.Negative)
	if err != nil {
		return p, err
	}
	n := min(len(before), len(other)) // the shorter begins the longer
	return Pair{
		Prompt: before[:n], Positive: slices.Concat(before[n:], positive), Negative: slices.Concat(other[n:], negative),
	}, nil
}
