package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/hub"
)

func newPull() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pull MODEL",
		Short: "Fetch a model from the Hugging Face hub",
		Long: `Pull fetches org/name or org/name@revision into the Hugging Face cache and prints the folder, which every other command
finds by the same name. What the cache has is used as it is, whoever put it there; if that is all, no request is made.

Only configuration, tokenizer, chat template and safetensors are fetched. Each file is checked against the hash that the
hub lists before it enters the cache. What is interrupted goes on from there the next time. HF_HOME, HF_HUB_CACHE,
HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to huggingface_hub; so does the token of hf auth login.`,
		Example: `  steerage pull Qwen/Qwen3-0.6B
  steerage pull meta-llama/Llama-3.1-8B-Instruct@main --update
  ls $(steerage pull Qwen/Qwen3-0.6B)`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFolders,
	}
	update := cmd.Flags().Bool("update", false, "ask whether the branch or tag has moved, and fetch where it leads now")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := find(cmd, args[0], hub.Model, *update)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), s)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), s.Folder)
		return err
	}
	return cmd
}

// resolve returns the folder of a MODEL: the folder of that name, if there is one, else the hub's model of that name, which is
// fetched if the cache does not have it.
func resolve(cmd *cobra.Command, arg string, need hub.Need) (dir string, err error) {
	s, err := find(cmd, arg, need, false)
	return s.Folder, err
}

func find(cmd *cobra.Command, arg string, need hub.Need, update bool) (hub.Snapshot, error) {
	info, err := os.Stat(arg)
	switch {
	case err == nil && info.IsDir():
		return hub.Snapshot{Folder: arg}, nil
	case err == nil:
		return hub.Snapshot{}, fmt.Errorf("model: %s is a file; a model is a folder with config.json and safetensors, "+
			"or org/name on the hub", arg)
	case !errors.Is(err, fs.ErrNotExist): // no permission, for one
		return hub.Snapshot{}, fmt.Errorf("model: %w", err)
	}
	ref, noRef := hub.Parse(arg)
	if noRef != nil {
		return hub.Snapshot{}, fmt.Errorf("model: %w; nor is it a name on the hub: %w", err, noRef)
	}
	client, err := hub.FromEnv()
	if err != nil {
		return hub.Snapshot{}, err
	}
	client.Update = update
	t := newTransfer(cmd, ref.String())
	client.Progress, client.Notice = t.show, t.note
	s, err := client.Pull(cmd.Context(), ref, need)
	t.bar.clear()
	if err != nil {
		return hub.Snapshot{}, fmt.Errorf("model: there is no folder %s here, and from the hub: %w", arg, err)
	}
	return s, nil
}

// transfer tells how far a pull is: in one line at its beginning, and with a bar where a person watches.
type transfer struct {
	cmd   *cobra.Command
	title string

	mu     sync.Mutex
	bar    *bar
	begun  time.Time
	before int64 // bytes that were there then
}

func newTransfer(cmd *cobra.Command, title string) *transfer {
	return &transfer{cmd: cmd, title: title, bar: newBar(cmd)}
}

func (t *transfer) show(p hub.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.begun.IsZero() {
		t.begun, t.before = now, p.Done
		note(t.cmd, "fetching %s: %d files, %s", t.title, p.Files, size(p.Total))
	}
	more := "MiB"
	if seconds, got := now.Sub(t.begun).Seconds(), p.Done-t.before; seconds > 1 && got > 0 {
		perSecond := float64(got) / seconds
		left := time.Duration(float64(p.Total-p.Done) / perSecond * float64(time.Second))
		more = fmt.Sprintf("MiB, %s/s, %s left", size(int64(perSecond)), left.Round(time.Second))
	}
	t.bar.show("fetching", int(p.Done>>20), int(p.Total>>20), more)
}

func (t *transfer) note(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bar.clear()
	note(t.cmd, "%s", what)
}
