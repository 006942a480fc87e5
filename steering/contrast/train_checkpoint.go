package contrast

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/steerage/steerage/safetensors"
)

// A checkpoint is a safetensors file with
//
//	vectors, moment1, moment2   F32 [K, hidden]   the vectors and Adam's moments
//	best                        F32 [K, hidden]   the vectors that did best on the held-out pairs, if any
//	reference                   F64 [pairs]       log p(positive) - log p(negative) of the unsteered model
//	probe                       F64 [batch]       log p(positive) of the first pairs, unsteered, to tell other weights
//	history                     F64 [steps, 6]    step, epoch, rate, loss, KL, held-out loss
//
// and in its metadata format, version, best_step, before, and what training was given: model, backend, data (a digest
// of all token ids) and options. Where one of these differs, training does not go on from it.
const (
	checkpointFormat  = "steerage.training"
	checkpointVersion = "1"
	historyColumns    = 6
)

func (p *Point) columns() [historyColumns]float64 {
	return [...]float64{float64(p.Step), float64(p.Epoch), p.Rate, p.Loss, p.KL, p.HeldOut}
}

// save writes the checkpoint, which appears complete or not at all.
func (t *trainer) save() error {
	if t.opt.Checkpoint == "" {
		return nil
	}
	s := &t.state
	shape := t.programs.vectors().Dimensions
	var tensors []safetensors.Tensor
	add := func(name string, dtype safetensors.DType, dims []int, values any) {
		var data bytes.Buffer
		_ = binary.Write(&data, binary.LittleEndian, values)
		tensors = append(tensors, safetensors.Tensor{Name: name, DType: dtype, Shape: dims, Data: data.Bytes()})
	}
	add("vectors", safetensors.F32, shape, s.vectors)
	add("moment1", safetensors.F32, shape, s.moment1)
	add("moment2", safetensors.F32, shape, s.moment2)
	if s.bestStep > 0 {
		add("best", safetensors.F32, shape, s.best)
	}
	if s.reference != nil {
		add("reference", safetensors.F64, []int{len(s.reference)}, s.reference)
	}
	add("probe", safetensors.F64, []int{len(s.probe)}, s.probe)
	history := make([]float64, 0, len(s.history)*historyColumns)
	for i := range s.history {
		c := s.history[i].columns()
		history = append(history, c[:]...)
	}
	add("history", safetensors.F64, []int{len(s.history), historyColumns}, history)
	metadata := t.identity()
	metadata["best_step"] = strconv.Itoa(s.bestStep)
	metadata["before"] = strconv.FormatFloat(s.before, 'g', -1, 64)
	if err := safetensors.WriteFile(t.opt.Checkpoint, tensors, metadata); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	t.saved = time.Now()
	return nil
}

// identity is what must be the same for training to go on.
func (t *trainer) identity() map[string]string {
	o := t.opt
	start := "zero"
	if o.Start != nil {
		h := sha256.New()
		for i := range o.Start.Layers {
			_ = binary.Write(h, binary.LittleEndian, o.Start.Layers[i].DeltaMu)
			_ = binary.Write(h, binary.LittleEndian, o.Start.Layers[i].Direction)
		}
		start = hex.EncodeToString(h.Sum(nil)[:8])
	}
	return map[string]string{
		"format": checkpointFormat, "version": checkpointVersion, "layer_convention": "block output, 0-based",
		"model":   t.config.Fingerprint(),
		"backend": t.backend,
		"data":    t.data,
		"options": fmt.Sprintf("loss=%v layers=%v positions=%v beta=%g both_signs=%t max_norm=%g kl_weight=%g learning_rate=%g "+
			"warmup=%d schedule=%v epochs=%d batch=%d accumulate=%d held_out_fraction=%g patience=%d seed=%d start=%s",
			o.Loss, o.Layers, o.Positions, o.Beta, o.BothSigns, o.MaxNorm, o.KLWeight, o.LearningRate, o.Warmup,
			o.Schedule, o.Epochs, o.Batch, o.Accumulate, o.HeldOutFraction, o.Patience, o.Seed, start),
	}
}

// digestPairs is a hash of all that is trained or judged on.
func digestPairs(data []Pair, o *TrainOptions) string {
	h := sha256.New()
	for _, pairs := range [][]Pair{data, o.HeldOut} {
		_ = binary.Write(h, binary.LittleEndian, int64(len(pairs)))
		for _, p := range pairs {
			digest(h, p.Prompt, p.Positive, p.Negative)
		}
	}
	for _, s := range o.Neutral {
		digest(h, s.Prompt, s.Continuation)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// loadState reads a checkpoint, and checks that it belongs to this training; fs.ErrNotExist if there is none.
func loadState(path string, t *trainer) (*trainState, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := safetensors.OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer func() { _ = f.Close() }()
	metadata := f.Metadata()
	identity := t.identity()
	for _, key := range []string{"format", "version", "model", "backend", "data", "options"} {
		if have, want := metadata[key], identity[key]; have != want {
			return nil, fmt.Errorf("checkpoint %s: its %s is %q, this training's %q; remove it to begin anew",
				path, key, clip(have), want)
		}
	}
	s, err := decodeState(f, t)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", path, err)
	}
	return s, nil
}

// clip shortens a string from a file.
func clip(s string) string {
	const most = 400
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func decodeState(f *safetensors.File, t *trainer) (*trainState, error) {
	metadata, shape := f.Metadata(), t.programs.vectors().Dimensions
	s := &trainState{}
	var err error
	if s.bestStep, err = strconv.Atoi(metadata["best_step"]); err != nil {
		return nil, fmt.Errorf("best_step: %w", err)
	}
	if s.before, err = strconv.ParseFloat(metadata["before"], 64); err != nil {
		return nil, fmt.Errorf("before: %w", err)
	}
	read := func(name string, dtype safetensors.DType, dims []int, into any) error {
		tensor, ok := f.Tensor(name)
		if !ok {
			return fmt.Errorf("tensor %s is missing", name)
		}
		if tensor.DType != dtype || !slices.Equal(tensor.Shape, dims) {
			return fmt.Errorf("tensor %s is %v %v, want %v %v", name, tensor.DType, tensor.Shape, dtype, dims)
		}
		data := make([]byte, len(tensor.Data))
		if err := tensor.CopyTo(data); err != nil {
			return err
		}
		return binary.Read(bytes.NewReader(data), binary.LittleEndian, into)
	}
	vectors := map[string]*[]float32{"vectors": &s.vectors, "moment1": &s.moment1, "moment2": &s.moment2}
	if s.bestStep != 0 {
		vectors["best"] = &s.best
	}
	for name, into := range vectors {
		*into = make([]float32, shape[0]*shape[1])
		if err := read(name, safetensors.F32, shape, *into); err != nil {
			return nil, err
		}
		if !finite(*into) {
			return nil, fmt.Errorf("tensor %s has elements that are not finite", name)
		}
	}
	if t.opt.Loss == Contrastive {
		s.reference = make([]float64, len(t.pairs)+len(t.held))
		if err := read("reference", safetensors.F64, []int{len(s.reference)}, s.reference); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(s.reference, func(x float64) bool { return x-x != 0 }) {
			return nil, errors.New("tensor reference has elements that are not finite")
		}
	}
	s.probe = make([]float64, t.opt.Batch)
	if err := read("probe", safetensors.F64, []int{len(s.probe)}, s.probe); err != nil {
		return nil, err
	}
	history, _ := f.Tensor("history")
	if len(history.Shape) != 2 || history.Shape[0] < 1 || history.Shape[0] > t.totalSteps() {
		return nil, fmt.Errorf("tensor history is %v, want [1 to %d, %d]", history.Shape, t.totalSteps(), historyColumns)
	}
	flat := make([]float64, history.Shape[0]*historyColumns)
	if err := read("history", safetensors.F64, []int{history.Shape[0], historyColumns}, flat); err != nil {
		return nil, err
	}
	for i := range history.Shape[0] {
		c := flat[i*historyColumns:]
		if c[0] != float64(i+1) || c[1] != float64(i/t.epochSteps()+1) {
			return nil, fmt.Errorf("history[%d] is of step %g, epoch %g, want %d, %d", i, c[0], c[1], i+1, i/t.epochSteps()+1)
		}
		s.history = append(s.history, Point{i + 1, i/t.epochSteps() + 1, c[2], c[3], c[4], c[5]})
	}
	if s.bestStep < 0 || s.bestStep > len(s.history) || (s.bestStep > 0 && math.IsNaN(bestLoss(s))) {
		return nil, fmt.Errorf("best_step is %d of %d steps, or was not judged", s.bestStep, len(s.history))
	}
	return s, nil
}
