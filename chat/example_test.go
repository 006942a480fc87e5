package chat_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/steerage/steerage/chat"
)

const chatML = `{% for m in messages %}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
`

// A template as text; Open reads that of a model folder.
func ExampleTemplate_Render() {
	t, err := chat.New(chatML, nil)
	if err != nil {
		panic(err)
	}
	prompt, err := t.Render(chat.Conversation{
		Messages: []chat.Message{
			{Role: "system", Content: "You are terse."},
			{Role: "user", Content: "Hello!"},
		},
		AddGenerationPrompt: true,
	})
	if err != nil {
		panic(err)
	}
	fmt.Print(prompt)
	// Output:
	// <|im_start|>system
	// You are terse.<|im_end|>
	// <|im_start|>user
	// Hello!<|im_end|>
	// <|im_start|>assistant
}

// A conversation as JSON keeps all fields of its messages, in their order.
func ExampleConversation() {
	t, err := chat.New(`{% for m in messages %}{{ m | tojson }}{% endfor %}{{ " thinking" if thinking }}`, nil)
	if err != nil {
		panic(err)
	}
	var c chat.Conversation
	err = json.Unmarshal([]byte(`{
		"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"z": 1.0, "a": 1}}], "content": null}],
		"chat_template_kwargs": {"thinking": true}
	}`), &c)
	if err != nil {
		panic(err)
	}
	fmt.Println(t.Render(c))
	// Output: {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"z": 1.0, "a": 1}}]} thinking <nil>
}

// A template refuses a conversation with raise_exception; the error says so, and where.
func ExampleError() {
	t, err := chat.New("{% if messages[0].role != 'user' %}\n{{ raise_exception('The first turn must be the user') }}\n{% endif %}", nil)
	if err != nil {
		panic(err)
	}
	_, err = t.Render(chat.Conversation{Messages: []chat.Message{{Role: "assistant", Content: "Hi"}}})
	var e *chat.Error
	if errors.As(err, &e) {
		fmt.Println(e.Raised, e.Line, e)
	}
	// Output: true 2 chat template, line 2: The first turn must be the user
}
