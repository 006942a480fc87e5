package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/chat"
	"github.com/steerage/steerage/hub"
	"github.com/steerage/steerage/tokenizer"
)

// maxConversation is the largest input of render, in bytes.
const maxConversation = 64 << 20

func newRender() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "render MODEL --messages FILE|-",
		Short: "Print the exact prompt of a conversation",
		Long: `Render prints the text that the model reads for a conversation: the messages, put together by the chat template of
the model folder (chat_template.jinja, or chat_template in tokenizer_config.json). The bytes are exactly those of
transformers' apply_chat_template, with nothing added, not even a newline at the end.

The conversation is JSON, from a file or from standard input for "-": a list of messages, or an object

  {"messages": [...], "tools": [...], "add_generation_prompt": true, "chat_template_kwargs": {"enable_thinking": false}}

of which only messages is needed. The prompt ends with the beginning of the assistant's answer, as a server has it and
unlike apply_chat_template, unless the object or --add-generation-prompt=false says otherwise. With --ids the tokens
are printed, as a JSON list: special tokens in the text are recognised and none are added.`,
		Example: `  echo '[{"role": "user", "content": "Hello!"}]' | steerage render ./Qwen3-0.6B --messages -
  steerage render ./Qwen3-0.6B --messages conversation.json --ids`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFolders,
	}
	file := cmd.Flags().String("messages", "", "JSON file with the conversation, or - for standard input")
	generation := cmd.Flags().Bool("add-generation-prompt", true, "end with the beginning of the assistant's answer")
	asIDs := cmd.Flags().Bool("ids", false, "print token ids")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *file == "" {
			return badUsage("--messages is missing")
		}
		dir, err := resolve(cmd, args[0], hub.Text)
		if err != nil {
			return err
		}
		template, err := chat.Open(dir)
		if err != nil {
			return err
		}
		conversation, err := readConversation(cmd, *file)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("add-generation-prompt") {
			conversation.AddGenerationPrompt = *generation
		}
		text, err := template.Render(conversation)
		if err != nil {
			return err
		}
		if !*asIDs {
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		}
		tok, err := tokenizer.Open(dir)
		if err != nil {
			return err
		}
		ids, err := tok.Encode(text, false)
		if err != nil {
			return err
		}
		return printJSON(cmd.OutOrStdout(), encoded(ids).IDs)
	}
	return cmd
}

// readConversation reads a conversation from a file, or from standard input for "-".
func readConversation(cmd *cobra.Command, path string) (c chat.Conversation, err error) {
	name := path
	in := cmd.InOrStdin()
	if path == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return c, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxConversation+1))
	if err != nil {
		return c, err
	}
	if len(data) > maxConversation {
		return c, fmt.Errorf("%s: more than %d bytes", name, maxConversation)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}
