package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// chatCommand is something that can be said to the program instead of the model.
type chatCommand struct {
	name, argument, help string
	do                   func(t *talk, argument string) error
}

var chatCommands []chatCommand

func init() { // help looks at the list
	chatCommands = []chatCommand{
		{"steer", "[ARG|+ARG|off|list]", "steer with ARG alone (as --steer), with it too, no more; say what steers", (*talk).steerBy},
		{"system", "[TEXT|off]", "set the system message, or take it away; say what it is", (*talk).setSystem},
		{"set", "[NAME VALUE]", "set temperature, top_k, top_p, min_p, seed, max_tokens or thinking (on, off); say what is set", (*talk).set},
		{"reset", "", "forget the conversation; the system message and steering stay", (*talk).reset},
		{"save", "FILE", "write the messages as JSON, which steerage render --messages reads", (*talk).save},
		{"help", "", "this list", (*talk).help},
		{"quit", "", "leave; so do Ctrl-D and a second Ctrl-C", nil},
	}
}

// errQuit is what /quit returns.
var errQuit = errors.New("quit")

// command carries out a line that begins with a slash.
func (t *talk) command(line string) error {
	name, argument := strings.TrimPrefix(line, "/"), ""
	if i := strings.IndexFunc(name, unicode.IsSpace); i >= 0 {
		name, argument = name[:i], name[i:]
	}
	i := slices.IndexFunc(chatCommands, func(c chatCommand) bool { return c.name == name })
	switch {
	case i < 0:
		return fmt.Errorf("there is no command /%s: /help lists them, and // begins a message with a slash", name)
	case chatCommands[i].do == nil:
		return errQuit
	}
	return chatCommands[i].do(t, strings.TrimSpace(argument))
}

func (t *talk) help(string) error {
	var b bytes.Buffer
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, c := range chatCommands {
		_, _ = fmt.Fprintf(tab, "/%s %s\t%s\n", c.name, c.argument, c.help) // a buffer does not fail
	}
	_ = tab.Flush()
	t.remark("%sCtrl-C stops an answer. A message that begins with a slash is written with two.", b.String())
	return nil
}

func (t *talk) steerBy(argument string) error {
	switch argument {
	case "off":
		t.steer = &steered{force: t.steer.force}
		t.remark("steering is off")
		return nil
	case "", "list":
		if len(t.steer.texts) == 0 {
			t.remark("nothing steers")
		}
		for i, text := range t.steer.texts {
			layers := t.steer.spec[i].Layers
			if layers == nil {
				layers = t.steer.spec[i].Vector.Indices()
			}
			t.remark("steer %s: layers %v", text, layers)
		}
		return nil
	}
	next := &steered{force: t.steer.force}
	if more, ok := strings.CutPrefix(argument, "+"); ok {
		next.texts = slices.Clone(t.steer.texts)
		argument = strings.TrimSpace(more)
	}
	next.texts = append(next.texts, argument)
	if err := next.parse(); err != nil {
		return err
	}
	if err := next.load(); err != nil {
		return err
	}
	if err := next.check(t.m.SteeringConfig()); err != nil {
		return err
	}
	t.steer = next
	return t.steerBy("list")
}

func (t *talk) setSystem(argument string) error {
	switch argument {
	case "":
	case "off":
		t.system = ""
	default:
		t.system = argument
	}
	if t.system == "" {
		t.remark("there is no system message")
	} else {
		t.remark("system: %s", t.system)
	}
	return nil
}

func (t *talk) set(argument string) error {
	name, value, _ := strings.Cut(argument, " ")
	value = strings.TrimSpace(value)
	chosen, req, kwargs := t.chosen, t.req, t.req.ChatTemplateKwargs
	var err error
	number := func(to *float32) {
		var v float64
		v, err = strconv.ParseFloat(value, 32)
		*to = float32(v)
	}
	switch name {
	case "":
	case "temperature":
		number(&chosen.Temperature)
	case "top_p":
		number(&chosen.TopP)
	case "min_p":
		number(&chosen.MinP)
	case "top_k":
		chosen.TopK, err = strconv.Atoi(value)
	case "seed":
		req.Seed, err = strconv.ParseUint(value, 10, 64)
	case "max_tokens":
		if req.MaxTokens, err = strconv.Atoi(value); err == nil && req.MaxTokens < 0 {
			err = errors.New("want at least 0, which is as many as the context holds")
		}
	case "thinking":
		if value != "on" && value != "off" {
			return fmt.Errorf("thinking %q: want on or off", value)
		}
		kwargs = map[string]any{}
		for k, v := range t.req.ChatTemplateKwargs {
			kwargs[k] = v
		}
		kwargs["enable_thinking"] = value == "on"
	default:
		return fmt.Errorf("there is no setting %q: temperature, top_k, top_p, min_p, seed, max_tokens, thinking", name)
	}
	if err == nil {
		err = chosen.validate()
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", name, value, err)
	}
	t.chosen, t.req = chosen, req
	t.req.ChatTemplateKwargs = kwargs
	most := "as many tokens as the context holds"
	if t.req.MaxTokens > 0 {
		most = fmt.Sprintf("at most %d tokens", t.req.MaxTokens)
	}
	t.remark("%s, seed %d, %s", t.chosen, t.req.Seed, most)
	if len(kwargs) > 0 {
		text, err := json.Marshal(kwargs)
		if err != nil {
			return err
		}
		t.remark("chat template: %s", text)
	}
	return nil
}

func (t *talk) reset(string) error {
	t.messages = nil
	t.remark("the conversation is forgotten")
	return nil
}

// save writes the messages. A file that was there before is left alone, unless this chat has written it.
func (t *talk) save(file string) (err error) {
	if file == "" {
		return errors.New("/save needs the name of a file")
	}
	type message struct { // for people, too: without HTML's escapes
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	var messages []message
	for _, m := range conversation(t.system, t.messages...) {
		messages = append(messages, message{m.Role, m.Content})
	}
	if messages == nil {
		return errors.New("there is nothing to save yet")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(messages); err != nil {
		return err
	}
	mode := os.O_EXCL
	if t.saved[file] {
		mode = os.O_TRUNC
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|mode, 0o666)
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, &b); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	t.saved[file] = true
	t.remark("%d messages are in %s", len(messages), file)
	return nil
}
