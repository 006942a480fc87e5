package parity

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/steerage/steerage/model"
)

// Files of a dump, beside the model. The contrastive ones may be absent.
const (
	DumpName        = "dump.safetensors"
	dumpJSON        = "dump.json"
	contrastiveName = "contrastive.safetensors"
	contrastiveJSON = "contrastive.json"
)

// Files of embeddings without a model.
const (
	LogisticName = "logistic.safetensors"
	logisticJSON = "logistic.json"
)

// maxJSON bounds a dump.json; those of the largest models stay below a tenth of it.
const maxJSON = 64 << 20

// References of a dump, in the order in which they are run.
const (
	refF32  = "f32"
	refBF16 = "bf16"
)

// dump is an open reference dump; see README.md for its format.
type dump struct {
	*store
	dir  string
	name string // of the folder
	cfg  *model.Config
	info struct {
		NumLayers  int               `json:"num_layers"`
		HiddenSize int               `json:"hidden_size"`
		VocabSize  int               `json:"vocab_size"`
		References []string          `json:"references"`
		Prompts    []json.RawMessage `json:"prompts"`
		Batch      *struct {
			RowPrompt []int `json:"row_prompt"`
		} `json:"batch"`
		Steer *steerInfo `json:"steer"`
		Mixed *mixedInfo `json:"mixed"`
	}
	prompts []prompt
	sides   []side
	steer   []text // of each sequence: unsteered, then the cases
	mixed   []text // rows of one batch

	contrastive *contrastive // nil if there is none
}

// prompt is prompt.<i> of a dump.
type prompt struct {
	index  int
	ids    []int32
	greedy []int32   // f32
	margin []float32 // f32
}

func (p prompt) name(ref, what string) string {
	return fmt.Sprintf("%s.prompt.%d.%s", ref, p.index, what)
}

// side is batch.left or batch.right of a dump.
type side struct {
	name   string
	rows   [][]int32 // without padding
	prompt []int     // which prompt each row is
}

// openDump reads everything but logits and hidden states, and checks it against the model's configuration.
func openDump(dir string) (_ *dump, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	d := &dump{dir: dir, name: filepath.Base(abs)}
	if d.cfg, err = model.LoadConfig(dir); err != nil {
		return nil, err
	}
	if err = readJSON(dir, dumpJSON, &d.info); err != nil {
		return nil, err
	}
	if d.store, err = openStore(dir, DumpName); err != nil {
		return nil, err
	}
	for _, read := range []func() error{d.readReferences, d.readPrompts, d.readBatches, d.readTexts} {
		if err = read(); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), d.Close())
		}
	}
	if d.contrastive, err = openContrastive(dir, d.cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), d.Close())
	}
	return d, nil
}

// Close closes the files.
func (d *dump) Close() error {
	if d.contrastive != nil {
		return errors.Join(d.store.Close(), d.contrastive.file.Close())
	}
	return d.store.Close()
}

func (d *dump) readReferences() error {
	refs := d.info.References
	if !slices.Contains(refs, refF32) {
		return fmt.Errorf("%s: references are %q; %q, which all else is measured by, is missing", dumpJSON, refs, refF32)
	}
	for i, ref := range refs {
		if ref != refF32 && ref != refBF16 || slices.Contains(refs[:i], ref) {
			return fmt.Errorf("%s: references %q: want %q, or %q and %q", dumpJSON, refs, refF32, refF32, refBF16)
		}
	}
	slices.SortFunc(refs, func(a, b string) int { return len(a) - len(b) }) // f32 first: bf16 is compared with it
	return nil
}

func (d *dump) readPrompts() error {
	n := len(d.info.Prompts)
	if n == 0 {
		return fmt.Errorf("%s: no prompts", dumpJSON)
	}
	for i := range n {
		p := prompt{index: i}
		var err error
		if p.ids, err = d.tokens(fmt.Sprintf("prompt.%d.ids", i)); err != nil {
			return err
		}
		if p.greedy, err = d.tokens(p.name(refF32, "greedy")); err != nil {
			return err
		}
		if p.margin, err = d.floats(p.name(refF32, "greedy_margin"), len(p.greedy)); err != nil {
			return err
		}
		d.prompts = append(d.prompts, p)
	}
	for _, name := range d.file.Names() {
		rest, is := strings.CutPrefix(name, "prompt.")
		if !is {
			continue
		}
		if i, err := strconv.Atoi(strings.TrimSuffix(rest, ".ids")); err != nil || i < 0 || i >= n {
			return fmt.Errorf("%s: tensor %q, but %s lists %d prompts", DumpName, name, dumpJSON, n)
		}
	}
	return nil
}

func (d *dump) readBatches() error {
	if d.info.Batch == nil {
		return nil
	}
	for _, name := range []string{"left", "right"} {
		s, prefix := side{name: name}, "batch."+name
		rows := len(d.info.Batch.RowPrompt)
		ids, width, err := d.table(prefix+".ids", rows)
		if err != nil {
			return err
		}
		mask, maskWidth, err := d.table(prefix+".mask", rows)
		if err != nil {
			return err
		}
		if width != maskWidth {
			return fmt.Errorf("tensor %s.mask has %d columns, %s.ids has %d", prefix, maskWidth, prefix, width)
		}
		for r, p := range d.info.Batch.RowPrompt {
			if p < 0 || p >= len(d.prompts) {
				return fmt.Errorf("%s: row %d of the batch is prompt %d, there are %d", dumpJSON, r, p, len(d.prompts))
			}
			var row []int32
			for c := r * width; c < (r+1)*width; c++ {
				if mask[c] == 1 {
					row = append(row, ids[c])
				}
			}
			if !slices.Equal(row, d.prompts[p].ids) {
				return fmt.Errorf("row %d of tensor %s.ids, without padding, is not prompt %d", r, prefix, p)
			}
			s.rows, s.prompt = append(s.rows, row), append(s.prompt, p)
		}
		d.sides = append(d.sides, s)
	}
	return nil
}

// sizes returns what an engine must hold to be compared; the context is at most the model's own.
func (d *dump) sizes() sizes {
	var s sizes
	for _, p := range d.prompts {
		s.context = max(s.context, len(p.ids)+len(p.greedy))
	}
	s.rows, s.row = max(1, len(d.mixed)), 1
	for _, side := range d.sides {
		s.rows = max(s.rows, len(side.rows))
		for _, row := range side.rows {
			s.row = max(s.row, len(row))
		}
	}
	for _, x := range slices.Concat(d.steer, d.mixed) {
		s.row = max(s.row, len(x.ids), x.prompt+len(x.greedy))
	}
	if d.contrastive != nil {
		for _, x := range d.contrastive.sequences() {
			s.row = max(s.row, len(x.Prompt)+len(x.Continuation))
		}
	}
	s.context = min(max(s.context, s.row), d.cfg.MaxPositionEmbeddings)
	s.row = min(s.row, s.context)
	s.queue = max(2*s.rows, len(d.steer))
	return s
}

// tokens returns a list of ids, each inside the vocabulary.
func (d *dump) tokens(name string) ([]int32, error) {
	ids, _, err := d.ints(name, 1)
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if id < 0 || int(id) >= d.cfg.VocabSize {
			return nil, fmt.Errorf("%s: tensor %q holds id %d at %d, the vocabulary has %d", DumpName, name, id, i, d.cfg.VocabSize)
		}
	}
	return ids, nil
}

// table returns an I32 tensor [rows, width] and its width.
func (d *dump) table(name string, rows int) ([]int32, int, error) {
	values, shape, err := d.ints(name, 2)
	if err != nil {
		return nil, 0, err
	}
	if shape[0] != rows {
		return nil, 0, fmt.Errorf("%s: tensor %q has %d rows, row_prompt of %s has %d", DumpName, name, shape[0], dumpJSON, rows)
	}
	return values, shape[1], nil
}
