package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"
	"unicode/utf8"
)

// Message is one turn of a conversation. Role and Content are enough for plain text; a message with more (tool calls,
// reasoning, parts) is JSON.
type Message struct {
	Role    string
	Content string
	// Raw, if set, is the whole message as a JSON object, and Role and Content are not looked at. It keeps all fields
	// and their order, which templates that print a message can show. Unmarshalling sets all three.
	Raw json.RawMessage
}

// UnmarshalJSON keeps the message as it is written.
func (m *Message) UnmarshalJSON(data []byte) error {
	v, err := readJSON(data)
	if err != nil {
		return err
	}
	d, ok := v.(*dict)
	if !ok {
		return fmt.Errorf("a message must be an object, not %s", jsonName(v))
	}
	*m = Message{Raw: slices.Clone(data)}
	role, _ := d.getString("role")
	m.Role, _ = role.(string)
	content, _ := d.getString("content")
	m.Content, _ = content.(string)
	return nil
}

// MarshalJSON returns Raw, or an object of Role and Content.
func (m Message) MarshalJSON() ([]byte, error) {
	if m.Raw != nil {
		return m.Raw, nil
	}
	return json.Marshal(struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}{m.Role, m.Content})
}

// Conversation is what a template is rendered with.
type Conversation struct {
	Messages []Message
	// Tools are JSON objects, in the form that the model's template expects (OpenAI's, as a rule). Nil is None in the
	// template, and empty an empty list.
	Tools []json.RawMessage
	// AddGenerationPrompt ends the prompt with the beginning of the assistant's answer.
	AddGenerationPrompt bool
	// Kwargs are further variables, such as enable_thinking. Values are nil, bool, string, int, int64, float64 and
	// json.RawMessage, which keeps the order of keys; anything else goes through encoding/json, where a whole float
	// becomes an integer. A name of a special token replaces that token.
	Kwargs map[string]any
	// Now is the time that strftime_now prints; the zero time stands for time.Now().
	Now time.Time
}

// UnmarshalJSON reads a list of messages, or an object with messages and, where wanted, tools, documents,
// add_generation_prompt (true if it is missing, also for a list) and chat_template_kwargs. Other keys are an error.
func (c *Conversation) UnmarshalJSON(data []byte) error {
	*c = Conversation{AddGenerationPrompt: true}
	if data = bytes.TrimSpace(data); len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, &c.Messages)
	}
	var o struct {
		Messages  *[]Message                 `json:"messages"`
		Tools     []json.RawMessage          `json:"tools"`
		Documents json.RawMessage            `json:"documents"`
		Add       *bool                      `json:"add_generation_prompt"`
		Kwargs    map[string]json.RawMessage `json:"chat_template_kwargs"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return err
	}
	if o.Messages == nil {
		return errors.New("want a list of messages, or an object with \"messages\"")
	}
	c.Messages, c.Tools = *o.Messages, o.Tools
	if o.Add != nil {
		c.AddGenerationPrompt = *o.Add
	}
	for name, v := range o.Kwargs {
		c.set(name, v)
	}
	if o.Documents != nil {
		c.set("documents", o.Documents)
	}
	return nil
}

func (c *Conversation) set(name string, v json.RawMessage) {
	if c.Kwargs == nil {
		c.Kwargs = map[string]any{}
	}
	c.Kwargs[name] = v
}

// Template is a chat template, ready to be rendered. It is immutable and safe for concurrent use.
type Template struct {
	file   string // for errors
	body   []node
	root   *funcInfo
	enter  []load
	tokens map[string]string // the special tokens, by their names in the template
	max    limits
	tools  *Template // used instead where there are tools, or nil
}

// New reads a template. tokens are the special tokens it can name, such as "bos_token"; nil is fine.
func New(template string, tokens map[string]string) (*Template, error) {
	return newTemplate("", template, tokens)
}

const maxTemplate = 4 << 20 // bytes

func newTemplate(file, source string, tokens map[string]string) (t *Template, err error) {
	if len(source) > maxTemplate {
		return nil, &Error{File: file, Msg: fmt.Sprintf("a template of %d bytes, where %d is the most", len(source), maxTemplate)}
	}
	defer catch(file, &err)
	t = &Template{file: file, max: defaultLimits, tokens: maps.Clone(tokens)}
	t.body = parse(source)
	t.root, t.enter = resolveScopes(t.body)
	return t, nil
}

// catch turns the panic of this package's own errors, which the parser and the interpreter use to get out, into err.
func catch(file string, err *error) {
	switch p := recover().(type) {
	case nil:
	case *Error:
		p.File = file
		*err = p
	default:
		panic(p)
	}
}

// Render returns the prompt of a conversation: what transformers' apply_chat_template(tokenize=False) returns for it.
// As there, the keys of a message that are null are left out, and a message's reasoning is found under
// reasoning_content and thinking whichever of reasoning_content, thinking and reasoning it came in. An error is an
// *Error where the template is at fault, or refused the conversation.
func (t *Template) Render(c Conversation) (text string, err error) {
	if c.Tools != nil && t.tools != nil {
		t = t.tools
	}
	vars, err := t.variables(c)
	if err != nil {
		return "", err
	}
	defer catch(t.file, &err)
	now := c.Now
	if now.IsZero() {
		now = time.Now()
	}
	r := &run{max: t.max, vars: vars, now: now}
	a := newActivation(t.root, nil)
	r.enter(a, t.enter)
	out := &builder{r: r}
	r.exec(t.body, a, out)
	return out.String(), nil
}

// reserved are the variables that Kwargs cannot set.
var reserved = []string{"messages", "tools", "add_generation_prompt"}

func (t *Template) variables(c Conversation) (map[string]value, error) {
	vars := maps.Clone(globals)
	for name, token := range t.tokens {
		vars[name] = token
	}
	vars["documents"] = nil
	for name, v := range c.Kwargs {
		if slices.Contains(reserved, name) {
			return nil, fmt.Errorf("the variable %q cannot be set by chat_template_kwargs", name)
		}
		x, err := fromGo(v)
		if err != nil {
			return nil, fmt.Errorf("the variable %q: %w", name, err)
		}
		vars[name] = x
	}
	if len(c.Messages) == 0 {
		return nil, errors.New("a conversation without messages")
	}
	messages := &list{}
	for i, m := range c.Messages {
		v, err := m.value()
		if err != nil {
			return nil, fmt.Errorf("messages[%d]: %w", i, err)
		}
		messages.items = append(messages.items, v)
	}
	vars["messages"] = messages
	vars["tools"] = nil
	if c.Tools != nil {
		tools := &list{}
		for i, tool := range c.Tools {
			v, err := readJSON(tool)
			if err != nil {
				return nil, fmt.Errorf("tools[%d]: %w", i, err)
			}
			if _, ok := v.(*dict); !ok {
				return nil, fmt.Errorf("tools[%d] must be an object, not %s", i, jsonName(v))
			}
			tools.items = append(tools.items, v)
		}
		vars["tools"] = tools
	}
	vars["add_generation_prompt"] = c.AddGenerationPrompt
	return vars, nil
}

// value is the message as the template sees it.
func (m Message) value() (value, error) {
	var d *dict
	if m.Raw == nil {
		d = &dict{}
		for _, f := range []struct{ key, text string }{{"role", m.Role}, {"content", m.Content}} {
			if !utf8.ValidString(f.text) {
				return nil, fmt.Errorf("%s: not UTF-8", f.key)
			}
			d.setString(f.key, f.text)
		}
		return d, nil
	}
	v, err := readJSON(m.Raw)
	if err != nil {
		return nil, err
	}
	d, ok := v.(*dict)
	if !ok {
		return nil, fmt.Errorf("must be an object, not %s", jsonName(v))
	}
	kept := &dict{}
	for _, e := range d.entries {
		if e.value != nil {
			kept.setString(e.key.(string), e.value)
		}
	}
	for _, name := range []string{"reasoning_content", "thinking", "reasoning"} {
		reasoning, ok := kept.getString(name)
		if !ok {
			continue
		}
		aliased := &dict{}
		aliased.setString("thinking", reasoning)
		for _, e := range kept.entries {
			aliased.setString(e.key.(string), e.value)
		}
		aliased.setString("reasoning_content", reasoning)
		return aliased, nil
	}
	return kept, nil
}

// fromGo turns a value of Kwargs into one of the template.
func fromGo(v any) (value, error) {
	switch v := v.(type) {
	case nil, bool, int64, float64:
		return v, nil
	case int:
		return int64(v), nil
	case *big.Int:
		return normInt(v), nil
	case json.RawMessage:
		return readJSON(v)
	case string:
		if !utf8.ValidString(v) {
			return nil, errors.New("not UTF-8")
		}
		return v, nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return readJSON(b.Bytes())
}

// jsonName is how errors about JSON call a value.
func jsonName(v value) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case *list:
		return "an array"
	case *dict:
		return "an object"
	}
	return "a number"
}
