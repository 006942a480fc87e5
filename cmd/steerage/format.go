package main

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/steering/contrast"
)

// formatHelp explains how texts become tokens.
const formatHelp = `Prompts go through
the model's chat template, if it has one, as the user's message; --raw takes the texts as they stand.`

// formatFlags adds --raw and --chat-template-kwargs.
func formatFlags(cmd *cobra.Command) *contrast.Format {
	f := new(contrast.Format)
	cmd.Flags().BoolVar(&f.Raw, "raw", false, "no chat template: texts as they stand")
	cmd.Flags().Var((*kwargs)(&f.ChatTemplateKwargs), "chat-template-kwargs", `variables of the chat template, a `+"`JSON`"+` object such as `+
		`{"enable_thinking": false}`)
	return f
}

// kwargs is a flag that holds a JSON object.
type kwargs map[string]any

func (k *kwargs) String() string { return "" }
func (k *kwargs) Type() string   { return "JSON" }

func (k *kwargs) Set(text string) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil || object == nil {
		return fmt.Errorf("want a JSON object such as {\"enable_thinking\": false}")
	}
	if *k == nil {
		*k = kwargs{}
	}
	maps.Copy(*k, anyValues(object))
	return nil
}

func anyValues(object map[string]json.RawMessage) map[string]any {
	out := make(map[string]any, len(object))
	for name, value := range object {
		out[name] = value
	}
	return out
}
