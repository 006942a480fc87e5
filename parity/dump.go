package parity

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/safetensors"
)

// Files of a dump, beside the model.
const (
	DumpName        = "dump.safetensors"
	dumpJSON        = "dump.json"
	contrastiveName = "contrastive.safetensors"
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
	dir  string
	name string // of the folder
	file *safetensors.File
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
	}
	prompts []prompt
	sides   []side
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
	path := filepath.Join(dir, dumpJSON)
	if info, err := os.Stat(path); err == nil && info.Size() > maxJSON {
		return nil, fmt.Errorf("%s: %d bytes, the limit is %d", path, info.Size(), maxJSON)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err = json.Unmarshal(text, &d.info); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if d.file, err = safetensors.OpenFile(filepath.Join(dir, DumpName)); err != nil {
		return nil, err
	}
	for _, read := range []func() error{d.readReferences, d.readPrompts, d.readBatches} {
		if err = read(); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), d.file.Close())
		}
	}
	return d, nil
}

func (d *dump) Close() error { return d.file.Close() }

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
	s.context, s.rows, s.row = min(s.context, d.cfg.MaxPositionEmbeddings), 1, 1
	for _, side := range d.sides {
		s.rows = max(s.rows, len(side.rows))
		for _, row := range side.rows {
			s.row = max(s.row, len(row))
		}
	}
	return s
}

// has reports whether the dump holds a tensor whose name starts so.
func (d *dump) has(prefix string) bool {
	return slices.ContainsFunc(d.file.Names(), func(name string) bool { return strings.HasPrefix(name, prefix) })
}

func (d *dump) tensor(name string) (safetensors.Tensor, error) {
	t, ok := d.file.Tensor(name)
	if !ok {
		return t, fmt.Errorf("%s: tensor %q is missing", DumpName, name)
	}
	return t, nil
}

// floats returns a tensor of that shape, F32 or BF16, as float32.
func (d *dump) floats(name string, shape ...int) ([]float32, error) {
	t, err := d.tensor(name)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(t.Shape, shape) {
		return nil, fmt.Errorf("%s: tensor %q has shape %v, want %v", DumpName, name, t.Shape, shape)
	}
	values := make([]float32, t.Elements())
	switch t.DType {
	case safetensors.F32:
		for i := range values {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		}
	case safetensors.BF16:
		for i := range values {
			values[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16)
		}
	default:
		return nil, fmt.Errorf("%s: tensor %q is %s, want F32 or BF16", DumpName, name, t.DType)
	}
	d.file.Release(name)
	return values, nil
}

// ints returns an I32 tensor of that rank and its shape.
func (d *dump) ints(name string, rank int) ([]int32, []int, error) {
	t, err := d.tensor(name)
	if err != nil {
		return nil, nil, err
	}
	if t.DType != safetensors.I32 || len(t.Shape) != rank || t.Elements() == 0 {
		return nil, nil, fmt.Errorf("%s: tensor %q is %s %v, want I32 with %d dimensions, not empty",
			DumpName, name, t.DType, t.Shape, rank)
	}
	values := make([]int32, t.Elements())
	for i := range values {
		values[i] = int32(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return values, t.Shape, nil
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

// output gathers what the engine computed, under the dump's tensor names.
type output struct{ tensors []safetensors.Tensor }

// floats adds values under name: as F32, or as BF16 under a name that starts with "bf16.".
func (o *output) floats(name string, values []float32, shape ...int) {
	t := safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: shape}
	if strings.HasPrefix(name, refBF16+".") {
		t.DType, t.Data = safetensors.BF16, make([]byte, 0, 2*len(values))
		for _, v := range values {
			t.Data = binary.LittleEndian.AppendUint16(t.Data, toBF16(v))
		}
	} else {
		t.Data = make([]byte, 0, 4*len(values))
		for _, v := range values {
			t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
		}
	}
	o.tensors = append(o.tensors, t)
}

func (o *output) ints(name string, values []int32) {
	t := safetensors.Tensor{Name: name, DType: safetensors.I32, Shape: []int{len(values)}, Data: make([]byte, 0, 4*len(values))}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, uint32(v))
	}
	o.tensors = append(o.tensors, t)
}

// write writes folder/name.safetensors.
func (o *output) write(folder, name string, metadata map[string]string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return safetensors.WriteFile(filepath.Join(folder, name+".safetensors"), o.tensors, metadata)
}

// toBF16 rounds to the nearest bfloat16, ties to even, and keeps NaN a NaN.
func toBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40 // quiet: the payload may have been in the half that goes
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
