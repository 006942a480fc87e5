package contrast

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/model"
)

// unopened is a training run that has made two steps, without a model.
func unopened(checkpoint string) *trainer {
	cfg := &model.Config{Architecture: model.Llama, HiddenSize: 3, NumHiddenLayers: 2, VocabSize: 5}
	opt := TrainOptions{Loss: Contrastive, Layers: []int{0, 1}, Epochs: 2, Batch: 1, Accumulate: 1, Checkpoint: checkpoint}
	t := &trainer{opt: opt, programs: &trainPrograms{cfg, opt.Layers, opt.Loss}, pairs: make([]Pair, 1), held: make([]Pair, 1), backend: "go"}
	six := func(x float32) []float32 { return []float32{x, 2, -3, 4, 5, float32(math.Copysign(0, -1))} }
	t.state = trainState{
		vectors: six(1), moment1: six(2), moment2: six(3), best: six(4), bestStep: 1, reference: []float64{0.25, -1e-300}, before: 0.7,
		probe:   []float64{-3},
		history: []Point{{1, 1, 0.5, 0.6, 0, 0.1}, {2, 2, 0.25, 0.3, 0, 0.2}},
	}
	return t
}

func TestCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	run := unopened(path)
	require.NoError(t, run.save())
	got, err := loadState(path, run)
	require.NoError(t, err)
	require.Equal(t, &run.state, got)

	for want, spoil := range map[string]func(s *trainState){
		"tensor best has elements that are not finite": func(s *trainState) { s.best[0] = float32(math.NaN()) },
		"tensor reference is F64 [1], want F64 [2]":    func(s *trainState) { s.reference = s.reference[:1] },
		"tensor reference has elements":                func(s *trainState) { s.reference[0] = math.Inf(1) },
		"tensor reference is missing":                  func(s *trainState) { s.reference = nil },
		"history[1] is of step 3, epoch 2, want 2, 2":  func(s *trainState) { s.history[1].Step = 3 },
		"tensor history is [3 6], want [1 to 2, 6]":    func(s *trainState) { s.history = append(s.history, Point{Step: 3}) },
		"tensor probe is F64 [2], want F64 [1]":        func(s *trainState) { s.probe = []float64{1, 2} },
		"best_step is 3 of 2 steps":                    func(s *trainState) { s.bestStep = 3 },
		"best_step is 1 of 2 steps, or was not judged": func(s *trainState) { s.history[0].HeldOut = math.NaN() },
	} {
		t.Run(want, func(t *testing.T) {
			broken := unopened(path)
			spoil(&broken.state)
			require.NoError(t, broken.save())
			_, err := loadState(path, run)
			require.ErrorContains(t, err, path+": "+want)
		})
	}
}

// Whatever a checkpoint holds, it is read as a state that training can go on from, or refused.
func FuzzCheckpoint(f *testing.F) {
	seed := filepath.Join(f.TempDir(), "seed")
	run := unopened(seed)
	require.NoError(f, run.save())
	data, err := os.ReadFile(seed)
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte{})
	path := filepath.Join(f.TempDir(), "checkpoint")
	f.Fuzz(func(t *testing.T, data []byte) {
		require.NoError(t, os.WriteFile(path, data, 0o600))
		s, err := loadState(path, run)
		if err != nil {
			return
		}
		require.True(t, finite(s.vectors) && finite(s.moment1) && finite(s.moment2))
		require.Len(t, s.vectors, 6)
		require.Len(t, s.reference, 2)
		require.NotEmpty(t, s.history)
		require.LessOrEqual(t, len(s.history), run.totalSteps())
		require.LessOrEqual(t, s.bestStep, len(s.history))
		if s.bestStep > 0 {
			require.Len(t, s.best, 6)
		}
	})
}
