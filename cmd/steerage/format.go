package main

import (
	"github.com/spf13/cobra"

	"github.com/steerage/steerage/steering/contrast"
)

// formatHelp explains how texts become tokens.
const formatHelp = `Prompts go through
the model's chat template, if it has one, as the user's message; --raw takes the texts as they stand.`

// formatFlags adds --raw and --chat-template-kwargs. The function it returns reads them.
func formatFlags(cmd *cobra.Command) func() (contrast.Format, error) {
	raw := cmd.Flags().Bool("raw", false, "no chat template: texts as they stand")
	kwargs := templateFlag(cmd)
	return func() (f contrast.Format, err error) {
		f.Raw = *raw
		f.ChatTemplateKwargs, err = kwargs()
		return f, err
	}
}
