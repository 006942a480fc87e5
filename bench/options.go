package bench

import (
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Options of [Run]. The zero value measures decode at batch 1 and 8 and a prefill of 512.
type Options struct {
	Backend string // as engine.Options has it
	DType   string // as engine.Options has it
	// Config is the name of a shape (see Configs) or the path of a config.json, to be measured with random weights; Run's folder is
	// then not used.
	Config   string
	Batch    []int   // requests at once; nil is 1 and 8
	Context  []int   // tokens in each row's cache when decoding begins; nil is 16
	Tokens   int     // decode steps of a run; 0 is 32
	Prompt   []int   // tokens of the prompts whose prefill is measured; nil is 512, empty is none
	Steering []int   // numbers of distinct configurations whose cost is measured; none if empty
	Repeats  int     // runs of each figure, rounds of steering; 0 is 5
	Spread   float64 // how far apart the runs of a figure may be, (max-min)/median; 0 is 0.2
	Logger   *slog.Logger
}

const (
	startPrompt   = 16 // tokens of the prompt whose first token ends the start
	maxBatch      = 256
	maxLength     = 1 << 20
	maxDirections = 1 << 16
)

// Validate fills in the defaults, and reports the first field that cannot be measured, with its value.
func (o *Options) Validate() error {
	for _, f := range []struct {
		field *[]int
		zero  []int
	}{{&o.Batch, []int{1, 8}}, {&o.Context, []int{16}}, {&o.Prompt, []int{512}}} {
		if *f.field == nil {
			*f.field = f.zero
		}
	}
	if o.Tokens == 0 {
		o.Tokens = 32
	}
	if o.Repeats == 0 {
		o.Repeats = 5
	}
	if o.Spread == 0 {
		o.Spread = 0.2
	}
	for _, list := range []struct {
		name   string
		values []int
		most   int
	}{
		{"batch", o.Batch, maxBatch}, {"context", o.Context, maxLength},
		{"prompt", o.Prompt, maxLength}, {"steering", o.Steering, maxDirections},
	} {
		for _, n := range list.values {
			if n < 1 || n > list.most {
				return fmt.Errorf("%s is %d, want 1 to %d", list.name, n, list.most)
			}
		}
	}
	switch {
	case len(o.Batch) == 0:
		return errors.New("no batch to measure")
	case len(o.Context) == 0:
		return errors.New("no context to measure")
	case o.Tokens < 2 || o.Tokens > maxLength:
		return fmt.Errorf("tokens is %d, want 2 to %d", o.Tokens, maxLength)
	case o.Repeats < 1:
		return fmt.Errorf("repeats is %d, want at least 1", o.Repeats)
	case !(o.Spread > 0):
		return fmt.Errorf("spread is %g, want more than 0", o.Spread)
	}
	return nil
}

// room is how many tokens a row generates at most: the steps that are measured, and those before the last row has joined.
func (o *Options) room(rows int) int { return o.Tokens + 2*rows + 8 }

// context is the longest that a row gets.
func (o *Options) context() int {
	longest := startPrompt + 1
	for _, p := range o.Prompt {
		longest = max(longest, p+1)
	}
	return max(longest, slices.Max(o.Context)+o.room(slices.Max(o.Batch)))
}

//go:embed configs/*.json
var configs embed.FS

// Configs are the names that Options.Config knows: shapes of published models, from their config.json.
func Configs() []string {
	files, err := configs.ReadDir("configs")
	if err != nil {
		panic(err) // it is embedded
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".json"))
	}
	return names
}

// writeConfig makes a model folder that holds a configuration alone.
func writeConfig(dir, config string) error {
	data, err := configs.ReadFile("configs/" + config + ".json")
	if err != nil {
		if data, err = os.ReadFile(config); err != nil {
			return fmt.Errorf("config %q is none of %s, and no file that can be read: %w", config, strings.Join(Configs(), ", "), err)
		}
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
}
