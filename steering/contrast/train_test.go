package contrast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/pjrt/pjrttest"
	"github.com/steerage/steerage/steering"
)

const (
	llamaF32 = "../../parity/testdata/llama-linear-f32"
	qwenBF16 = "../../parity/testdata/qwen3-tied-bf16"
	qwenF32  = "../../parity/testdata/qwen3-yarn-f32"
)

// models are opened once, so that tests share what is compiled.
var models = map[string]*engine.Model{}

func openModel(t testing.TB, folder string, opt engine.Options) *engine.Model {
	key := fmt.Sprint(folder, opt)
	if models[key] == nil {
		m, err := engine.Open(context.Background(), folder, opt)
		require.NoError(t, err)
		models[key] = m
	}
	return models[key]
}

// eachModel runs a test on a model on every backend.
func eachModel(t *testing.T, folder string, test func(t *testing.T, m *engine.Model)) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) { test(t, openModel(t, folder, engine.Options{Backend: b})) })
	}
}

// somePairs are prompts with positive responses from one part of the vocabulary and negative ones from another.
func somePairs(n int, seed uint64) []Pair {
	rng := rand.New(rand.NewPCG(seed, 1))
	draw := func(from, to, most int) []int32 {
		ids := make([]int32, 1+rng.IntN(most))
		for i := range ids {
			ids[i] = int32(from + rng.IntN(to-from))
		}
		return ids
	}
	pairs := make([]Pair, n)
	for i := range pairs {
		pairs[i] = Pair{draw(10, 170, 7), draw(40, 60, 9), draw(100, 120, 9)}
	}
	return pairs
}

func someNeutral(n int) []engine.Sequence {
	var out []engine.Sequence
	for _, p := range somePairs(n, 77) {
		out = append(out, engine.Sequence{Prompt: p.Prompt, Continuation: p.Prompt})
	}
	return out
}

func train(t *testing.T, m *engine.Model, data []Pair, opt TrainOptions) *Trained {
	t.Helper()
	trained, err := Train(context.Background(), m, data, opt)
	require.NoError(t, err)
	return trained
}

// lengthened returns a vector's layers at their trained length, as the optimiser saw them.
func lengthened(v *steering.Vector) (flat []float32) {
	for _, l := range v.Layers {
		for _, x := range l.Direction {
			flat = append(flat, float32(l.DeltaMu*float64(x)))
		}
	}
	return flat
}

// The gradient that a program hands on is the slope of the loss that it returns.
func TestGradient(t *testing.T) {
	long := somePairs(3, 5)
	for len(long[0].Prompt) < 300 { // more than one block of queries
		long[0].Prompt = append(long[0].Prompt, long[0].Positive...)
	}
	for name, c := range map[string]struct {
		folder string
		opt    TrainOptions
		pairs  []Pair
	}{
		"contrastive": {llamaF32, TrainOptions{Loss: Contrastive, Layers: []int{1}}, somePairs(3, 3)},
		"both signs, two layers, response": {qwenF32, TrainOptions{Loss: Contrastive, Layers: []int{0, 2}, BothSigns: true,
			Positions: steering.Response}, somePairs(3, 3)},
		"ce":         {qwenF32, TrainOptions{Loss: CE, Layers: []int{1, 3}}, somePairs(3, 4)},
		"ce, long":   {llamaF32, TrainOptions{Loss: CE, Layers: []int{2}}, long},
		"divergence": {llamaF32, TrainOptions{Loss: CE, Layers: []int{1}, KLWeight: 0.7, Neutral: someNeutral(3)}, somePairs(3, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			eachModel(t, c.folder, func(t *testing.T, m *engine.Model) {
				tr, err := newTrainer(m, c.pairs, c.opt)
				require.NoError(t, err)
				require.NoError(t, tr.measureUnsteered(context.Background()))
				loss := func(v []float32) (float64, []float32) { return lossAndGradient(t, tr, v) }
				rng := rand.New(rand.NewPCG(8, 8))
				v := gaussian(rng, len(tr.state.vectors), 0.15)
				_, g := loss(v)
				size := math.Sqrt(squares(g))
				require.Greater(t, size, 1e-3)
				directions := 3
				if len(c.pairs[0].Prompt) > 256 {
					directions = 1 // it is slow on the Go backend
				}
				for i := range directions {
					u := gaussian(rng, len(v), 1/math.Sqrt(float64(len(v))))
					if i == 0 { // along the gradient itself
						for j := range u {
							u[j] = g[j] / float32(size)
						}
					}
					slope := func(h float64) float64 {
						at := func(h float64) float64 {
							x := make([]float32, len(v))
							for j := range x {
								x[j] = v[j] + float32(h*float64(u[j]))
							}
							l, _ := loss(x)
							return l
						}
						return (at(h) - at(-h)) / (2 * h)
					}
					const h = 0.04
					want := (4*slope(h/2) - slope(h)) / 3 // Richardson: the error is of order h^4
					require.InDelta(t, want, inner(g, u), 1e-3*size, "direction %d, slope %g of at most %g", i, want, size)
				}
			})
		})
	}
}

// lossAndGradient runs one micro-batch of all pairs, or of the neutral texts if there are any, without a step.
func lossAndGradient(t *testing.T, tr *trainer, v []float32) (float64, []float32) {
	var value float64
	var gradient []float32
	run := func(p *engine.Program, inputs ...any) (float64, error) {
		zero := make([]float32, len(v))
		out, err := tr.call(context.Background(), p, append([]any{v, zero, zero, zero, make([]float32, scalars)}, inputs...)...)
		if err != nil {
			return 0, err
		}
		require.Equal(t, v, out[0])
		require.Equal(t, zero, out[1])
		gradient, value = out[3], float64(out[4][0])
		return value, nil
	}
	var err error
	if len(tr.neutral) > 0 {
		_, err = tr.stay(0, run)
	} else {
		p, inputs := tr.microBatch([]int{0, 1, 2}, 3, 12345)
		_, err = run(p, inputs...)
	}
	require.NoError(t, err)
	return value, gradient
}

func gaussian(rng *rand.Rand, n int, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(scale * rng.NormFloat64())
	}
	return x
}

func inner(x, y []float32) (sum float64) {
	for i := range x {
		sum += float64(x[i]) * float64(y[i])
	}
	return sum
}

func squares(x []float32) float64 { return inner(x, x) }

// With bfloat16 weights the gradient is that of the float32 model but for rounding.
func TestGradientBF16(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			var gradients [2][]float32
			for i, dtype := range []string{"", "float32"} {
				tr, err := newTrainer(openModel(t, qwenBF16, engine.Options{Backend: b, DType: dtype}), somePairs(3, 6),
					TrainOptions{Loss: Contrastive, Layers: []int{0}})
				require.NoError(t, err)
				require.NoError(t, tr.measureUnsteered(context.Background()))
				_, gradients[i] = lossAndGradient(t, tr, gaussian(rand.New(rand.NewPCG(9, 9)), len(tr.state.vectors), 0.1))
			}
			exact := math.Sqrt(squares(gradients[1]))
			require.InDelta(t, 1, inner(gradients[0], gradients[1])/exact/math.Sqrt(squares(gradients[0])), 1e-3)
			require.InDelta(t, 1, math.Sqrt(squares(gradients[0]))/exact, 0.02)
		})
	}
}

// What training promises shows when the engine itself steers held-out texts with the vector.
func TestTrain(t *testing.T) {
	held := somePairs(6, 2)
	for name, opt := range map[string]TrainOptions{
		"ce":                   {Loss: CE, Layers: []int{1}, LearningRate: 0.03},
		"contrastive":          {Loss: Contrastive, Layers: []int{1}, LearningRate: 0.03},
		"contrastive response": {Loss: Contrastive, Layers: []int{0, 2}, Positions: steering.Response, LearningRate: 0.03, BothSigns: true},
	} {
		t.Run(name, func(t *testing.T) {
			eachModel(t, llamaF32, func(t *testing.T, m *engine.Model) {
				opt := opt
				opt.Epochs, opt.HeldOut, opt.Warmup = 6, held, 2
				trained := train(t, m, somePairs(16, 1), opt)
				require.Equal(t, opt.Layers, trained.Vector.Indices())

				spec := steering.Spec{{Vector: trained.Vector, Method: steering.SwFC, Coefficient: 1, Positions: opt.Positions}}
				logProb := func(prompt, response []int32, spec steering.Spec) (sum float64) {
					s, err := m.Score(context.Background(), engine.Sequence{Prompt: prompt, Continuation: response, Steering: spec})
					require.NoError(t, err)
					for _, lp := range s.LogProbs {
						sum += float64(lp)
					}
					return sum
				}
				var loss, before, rise, fall float64
				for _, p := range held {
					n := float64(len(held))
					pos, neg := logProb(p.Prompt, p.Positive, nil), logProb(p.Prompt, p.Negative, nil)
					steeredPos, steeredNeg := logProb(p.Prompt, p.Positive, spec), logProb(p.Prompt, p.Negative, spec)
					rise, fall = rise+(steeredPos-pos)/n, fall+(steeredNeg-neg)/n
					if opt.Loss == CE {
						loss, before = loss-steeredPos/float64(len(p.Positive))/n, before-pos/float64(len(p.Positive))/n
					} else {
						loss += math.Log1p(math.Exp(-0.1*(steeredPos-pos-steeredNeg+neg))) / n
						before += math.Ln2 / n
					}
				}
				require.InDelta(t, loss, trained.HeldOut, 1e-4, "the engine's loss and training's")
				require.InDelta(t, before, trained.Before, 1e-4)
				require.Less(t, loss, before-0.03)
				require.Greater(t, rise, 0.3)
				require.Greater(t, rise, fall+0.3)
			})
		})
	}
}

// Statistics are those of the projections of response means.
func TestTrainStatistics(t *testing.T) {
	data := somePairs(5, 1)
	eachModel(t, llamaF32, func(t *testing.T, m *engine.Model) {
		v := train(t, m, data, TrainOptions{Loss: Contrastive, Layers: []int{2, 1}, Epochs: 1, LearningRate: 0.03}).Vector
		require.Equal(t, []int{1, 2}, v.Indices())
		for _, l := range v.Layers {
			rho := map[bool][]float64{}
			for _, p := range data {
				for positive, response := range map[bool][]int32{true: p.Positive, false: p.Negative} {
					trace, err := m.Trace(context.Background(), engine.Sequence{Prompt: p.Prompt, Continuation: response})
					require.NoError(t, err)
					sum := 0.0
					for at := range response {
						from := (len(p.Prompt) + at) * v.Hidden
						sum += inner(trace.Layers[l.Index][from:from+v.Hidden], l.Direction)
					}
					rho[positive] = append(rho[positive], sum/float64(len(response)))
				}
			}
			want := classStatistics(rho[true], rho[false])
			for _, x := range [][2]float64{{want.M, l.Statistics.M}, {want.MuPos, l.Statistics.MuPos}, {want.MuNeg, l.Statistics.MuNeg},
				{want.SigmaPos, l.Statistics.SigmaPos}, {want.SigmaNeg, l.Statistics.SigmaNeg}, {want.CohensD, l.Statistics.CohensD}} {
				require.InDelta(t, x[0], x[1], 1e-5)
			}
		}
		positive := somePairs(5, 1)
		for i := range positive {
			positive[i].Negative = nil
		}
		require.Nil(t, train(t, m, positive, TrainOptions{Layers: []int{1}, Epochs: 1}).Vector.Layers[0].Statistics)
	})
}

func TestTrainMaxNorm(t *testing.T) {
	eachModel(t, llamaF32, func(t *testing.T, m *engine.Model) {
		opt := TrainOptions{Loss: Contrastive, Layers: []int{0, 2}, LearningRate: 0.05, Epochs: 3}
		free := train(t, m, somePairs(8, 1), opt)
		opt.MaxNorm = 0.3
		bound := train(t, m, somePairs(8, 1), opt)
		for i := range opt.Layers {
			require.Greater(t, free.Vector.Layers[i].DeltaMu, 0.5)
			require.InDelta(t, 0.3, bound.Vector.Layers[i].DeltaMu, 1e-6)
		}
	})
}

func TestTrainKL(t *testing.T) {
	neutral := someNeutral(6)
	eachModel(t, llamaF32, func(t *testing.T, m *engine.Model) {
		// divergence of the engine's own logits, steered and not
		divergence := func(v *steering.Vector) (mean float64) {
			n := 0.0
			for _, s := range neutral {
				plain, err := m.Trace(context.Background(), s)
				require.NoError(t, err)
				s.Steering = steering.Spec{{Vector: v, Method: steering.SwFC, Coefficient: 1}}
				steered, err := m.Trace(context.Background(), s)
				require.NoError(t, err)
				vocab := m.Config().VocabSize
				for at := len(s.Prompt) - 1; at < len(s.Prompt)+len(s.Continuation); at++ {
					p, q := hostLogSoftmax(plain.Logits[at*vocab:(at+1)*vocab]), hostLogSoftmax(steered.Logits[at*vocab:(at+1)*vocab])
					for i := range p {
						mean += math.Exp(p[i]) * (p[i] - q[i])
					}
					n++
				}
			}
			return mean / n
		}
		opt := TrainOptions{Loss: CE, Layers: []int{1}, LearningRate: 0.05, Epochs: 6}
		free := divergence(train(t, m, somePairs(8, 1), opt).Vector)
		opt.KLWeight, opt.Neutral = 5, neutral
		trained := train(t, m, somePairs(8, 1), opt)
		held := divergence(trained.Vector)
		require.Less(t, held, free/2)
		require.InDelta(t, 0, trained.History[0].KL, 1e-6, "the first vector is zero")
		require.Greater(t, trained.History[len(trained.History)-1].KL, 0.0)
		require.Less(t, trained.History[len(trained.History)-1].Loss, trained.History[0].Loss)
	})
}

func hostLogSoftmax(logits []float32) []float64 {
	top, sum := math.Inf(-1), 0.0
	for _, x := range logits {
		top = max(top, float64(x))
	}
	for _, x := range logits {
		sum += math.Exp(float64(x) - top)
	}
	out := make([]float64, len(logits))
	for i, x := range logits {
		out[i] = float64(x) - top - math.Log(sum)
	}
	return out
}

// One batch and its parts accumulated are the same step; so is a batch that is mostly padding.
func TestAccumulate(t *testing.T) {
	eachModel(t, llamaF32, func(t *testing.T, m *engine.Model) {
		opt := TrainOptions{Loss: Contrastive, Layers: []int{1}, Epochs: 2, LearningRate: 0.03, BothSigns: false}
		data := somePairs(7, 1) // in parts of 3: 3, 3, 1
		opt.Batch = 7
		whole := train(t, m, data, opt)
		opt.Batch, opt.Accumulate = 3, 3
		parts := train(t, m, data, opt)
		require.Len(t, parts.History, 2)
		require.InDeltaSlice(t, lengthened(whole.Vector), lengthened(parts.Vector), 1e-5)
		require.InDelta(t, whole.History[1].Loss, parts.History[1].Loss, 1e-6)
	})
}

// Training that gets worse ends, and gives the vector from before.
func TestEarlyStopping(t *testing.T) {
	m := openModel(t, llamaF32, engine.Options{Backend: "go"})
	trained := train(t, m, somePairs(16, 1), TrainOptions{
		Loss: Contrastive, Layers: []int{1}, LearningRate: 0.3, Schedule: Constant, Epochs: 40, HeldOutFraction: 0.25, Patience: 2,
	})
	require.Less(t, len(trained.History), 40*3)
	require.Equal(t, trained.Step+2*3, len(trained.History))
	for _, p := range trained.History {
		require.Equal(t, p.Step%3 != 0, math.IsNaN(p.HeldOut), "12 pairs make 3 steps an epoch")
		if !math.IsNaN(p.HeldOut) {
			require.GreaterOrEqual(t, p.HeldOut, trained.HeldOut)
		}
	}
	var svg, raster bytes.Buffer
	require.NoError(t, trained.WritePlot(&svg, "svg"))
	require.Contains(t, svg.String(), "held-out pairs")
	require.NotContains(t, svg.String(), "KL on neutral texts")
	require.NoError(t, trained.WritePlot(&raster, "png"))
	_, err := png.Decode(&raster)
	require.NoError(t, err)
	require.ErrorContains(t, trained.WritePlot(&raster, "gif"), `a plot is svg or png, not "gif"`)
}

// resumed is what the tests of resuming train.
func resumed(folder string) TrainOptions {
	return TrainOptions{
		Loss: Contrastive, Layers: []int{0, 2}, BothSigns: true, LearningRate: 0.03, Epochs: 4, Batch: 2, Accumulate: 2, Warmup: 3,
		HeldOutFraction: 0.2, KLWeight: 0.1, Neutral: someNeutral(3), MaxNorm: 2, Seed: 5, Checkpoint: filepath.Join(folder, "checkpoint"),
	}
}

// Stopped at random steps, again and again, training gives the same vector, bit for bit.
func TestResume(t *testing.T) {
	data := somePairs(15, 1)
	eachModel(t, llamaF32, func(t *testing.T, m *engine.Model) {
		opt := resumed(t.TempDir())
		straight := train(t, m, data, opt)
		require.Len(t, straight.History, 12)

		opt = resumed(t.TempDir())
		rng := rand.New(rand.NewPCG(1, 1))
		var got *Trained
		runs := 0
		for ; got == nil; runs++ {
			ctx, cancel := context.WithCancel(context.Background())
			left := rng.IntN(5)
			opt.Progress = func(int, int, Point) {
				if left--; left < 0 {
					cancel()
				}
			}
			var err error
			if got, err = Train(ctx, m, data, opt); err != nil {
				require.ErrorIs(t, err, context.Canceled)
				require.FileExists(t, opt.Checkpoint)
			}
			cancel()
		}
		require.Greater(t, runs, 2)
		requireSame(t, straight, got)

		opt.Progress = func(int, int, Point) { t.Error("training that is done goes on") }
		requireSame(t, straight, train(t, m, data, opt))
	})
}

// requireSame compares to the bit, NaN included.
func requireSame(t *testing.T, want, got *Trained) {
	t.Helper()
	require.Equal(t, want.Vector, got.Vector)
	require.Equal(t, want.Step, got.Step)
	require.Equal(t, fmt.Sprint(want.History, want.HeldOut, want.Before), fmt.Sprint(got.History, got.HeldOut, got.Before))
}

// killedFolder is how TestKilled tells its own child processes where to train.
const killedFolder = "STEERAGE_TEST_KILLED"

// A process that is killed at any moment has lost nothing but time.
func TestKilled(t *testing.T) {
	data := somePairs(15, 1)
	once := func(folder string) *Trained {
		opt := resumed(folder)
		opt.CheckpointEvery = time.Nanosecond // after each step
		return train(t, openModel(t, llamaF32, engine.Options{Backend: "go"}), data, opt)
	}
	if folder := os.Getenv(killedFolder); folder != "" {
		require.NoError(t, once(folder).Vector.Save(filepath.Join(folder, "vector")))
		return
	}
	folder := t.TempDir()
	want := filepath.Join(folder, "want")
	began := time.Now()
	require.NoError(t, once(t.TempDir()).Vector.Save(want))
	whole := time.Since(began)

	rng := rand.New(rand.NewPCG(3, 3))
	for run := 0; ; run++ {
		child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		child.Env = append(os.Environ(), killedFolder+"="+folder)
		require.NoError(t, child.Start())
		if run < 4 {
			time.Sleep(time.Duration((0.3 + 0.5*rng.Float64()) * float64(whole)))
			_ = child.Process.Kill()
		}
		if err := child.Wait(); err == nil {
			break
		}
		require.Less(t, run, 5)
	}
	a, err := os.ReadFile(want)
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(folder, "vector"))
	require.NoError(t, err)
	require.Equal(t, a, b)
}

func TestResumeRefused(t *testing.T) {
	m := openModel(t, llamaF32, engine.Options{Backend: "go"})
	data := somePairs(15, 1)
	opt := resumed(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	opt.Progress = func(int, int, Point) { cancel() }
	_, err := Train(ctx, m, data, opt)
	require.ErrorIs(t, err, context.Canceled)
	opt.Progress = nil

	refuse := func(data []Pair, opt TrainOptions, m *engine.Model, want string) {
		t.Helper()
		_, err := Train(context.Background(), m, data, opt)
		require.ErrorContains(t, err, "checkpoint "+opt.Checkpoint)
		require.ErrorContains(t, err, want)
	}
	refuse(somePairs(15, 2), opt, m, "its data is")
	refuse(data, opt, openModel(t, qwenF32, engine.Options{Backend: "go"}), "its model is")
	other := opt
	other.Beta = 0.2
	refuse(data, other, m, "beta=0.1")
	other = opt
	other.Start = &steering.Vector{Hidden: 48}
	for _, l := range opt.Layers {
		layer, err := steering.NewLayer(l, append(make([]float64, 47), 1))
		require.NoError(t, err)
		other.Start.Layers = append(other.Start.Layers, layer)
	}
	refuse(data, other, m, "start=zero")
	tr, err := newTrainer(m, data, opt)
	require.NoError(t, err)
	tr.state.probe[1] *= 1.1
	require.NoError(t, tr.save())
	refuse(data, opt, m, "log p of pair 1's positive response was")
	require.NoError(t, os.WriteFile(opt.Checkpoint, []byte("torn"), 0o600))
	_, err = Train(context.Background(), m, data, opt)
	require.ErrorContains(t, err, opt.Checkpoint)
}

func TestTrainStart(t *testing.T) {
	m := openModel(t, llamaF32, engine.Options{Backend: "go"})
	first := train(t, m, somePairs(8, 1), TrainOptions{Layers: []int{1, 2}, Epochs: 1, LearningRate: 0.05}).Vector
	next := train(t, m, somePairs(8, 1), TrainOptions{Layers: []int{2}, Epochs: 1, LearningRate: 1e-9, Start: first}).Vector
	require.InDelta(t, first.Layers[1].DeltaMu, next.Layers[0].DeltaMu, 1e-6)
	require.InDeltaSlice(t, first.Layers[1].Direction, next.Layers[0].Direction, 1e-6)
}

func TestTrainErrors(t *testing.T) {
	m := openModel(t, llamaF32, engine.Options{Backend: "go"})
	good := TrainOptions{Loss: Contrastive, Layers: []int{1}}
	data := somePairs(4, 1)
	nan := math.NaN()
	for want, change := range map[string]func(o *TrainOptions, data *[]Pair){
		"beta NaN is not a positive number":                           func(o *TrainOptions, _ *[]Pair) { o.Beta = nan },
		"beta -1 is not a positive number":                            func(o *TrainOptions, _ *[]Pair) { o.Beta = -1 },
		"learning rate +Inf is not a positive number":                 func(o *TrainOptions, _ *[]Pair) { o.LearningRate = math.Inf(1) },
		"greatest norm NaN is not a positive number":                  func(o *TrainOptions, _ *[]Pair) { o.MaxNorm = nan },
		"KL weight -2 is not a positive number":                       func(o *TrainOptions, _ *[]Pair) { o.KLWeight = -2 },
		"a KL weight of 1 with 0 neutral texts: each needs the other": func(o *TrainOptions, _ *[]Pair) { o.KLWeight = 1 },
		"epochs -1 is not a number from 1":                            func(o *TrainOptions, _ *[]Pair) { o.Epochs = -1 },
		"batch -1 is not a number from 1":                             func(o *TrainOptions, _ *[]Pair) { o.Batch = -1 },
		"warm-up -1 is not a number from 0":                           func(o *TrainOptions, _ *[]Pair) { o.Warmup = -1 },
		"layer 4 is not between 0 and 3":                              func(o *TrainOptions, _ *[]Pair) { o.Layers = []int{4} },
		"layer 1 is given twice":                                      func(o *TrainOptions, _ *[]Pair) { o.Layers = []int{1, 1} },
		"no layers":                                                   func(o *TrainOptions, _ *[]Pair) { o.Layers = nil },
		"no pairs":                                                    func(_ *TrainOptions, d *[]Pair) { *d = nil },
		"pair 2: positive response: the prompt is empty":              func(_ *TrainOptions, d *[]Pair) { (*d)[2].Prompt = nil },
		"pair 2: negative response: it is empty":                      func(_ *TrainOptions, d *[]Pair) { (*d)[2].Negative = nil },
		"pair 0: positive response: prompt and response have 3 + 766 = 769 tokens, the context has 768": func(_ *TrainOptions, d *[]Pair) {
			(*d)[0].Prompt, (*d)[0].Positive = []int32{1, 2, 3}, make([]int32, 766)
		},
		"id 208 at 1 lies outside the vocabulary of 208":        func(_ *TrainOptions, d *[]Pair) { (*d)[0].Prompt = []int32{1, 208} },
		"loss Loss(7) is none of":                               func(o *TrainOptions, _ *[]Pair) { o.Loss = 7 },
		"both signs need the contrastive loss":                  func(o *TrainOptions, _ *[]Pair) { o.Loss, o.BothSigns = CE, true },
		"held-out fraction 1 is not between 0 and 1":            func(o *TrainOptions, _ *[]Pair) { o.HeldOutFraction = 1 },
		"holding out 4 of 4 pairs leaves none":                  func(o *TrainOptions, _ *[]Pair) { o.HeldOutFraction = 0.9 },
		"both held-out pairs and a fraction":                    func(o *TrainOptions, d *[]Pair) { o.HeldOut, o.HeldOutFraction = *d, 0.5 },
		"patience needs held-out pairs":                         func(o *TrainOptions, _ *[]Pair) { o.Patience = 1 },
		"positions response=3: no pair has a token there":       func(o *TrainOptions, _ *[]Pair) { o.Positions = positions("response=3") },
		"no clause includes anything":                           func(o *TrainOptions, _ *[]Pair) { o.Positions = steering.Positions{} },
		"start: vector: no layers":                              func(o *TrainOptions, _ *[]Pair) { o.Start = &steering.Vector{} },
		"positions response: no neutral text has a token there": neutralPrompt,
		"held-out pair 0: positive response: it is empty":       func(o *TrainOptions, _ *[]Pair) { o.HeldOut = []Pair{{Prompt: []int32{1}}} },
		"step 1: the loss is":                                   func(o *TrainOptions, _ *[]Pair) { o.LearningRate, o.Epochs = 3e38, 3 },
	} {
		t.Run(want, func(t *testing.T) {
			opt, data := good, append([]Pair{}, data...)
			change(&opt, &data)
			_, err := Train(context.Background(), m, data, opt)
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, "contrast: training: ")
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Train(ctx, m, data, good)
	require.True(t, errors.Is(err, context.Canceled), err)
}

func neutralPrompt(o *TrainOptions, _ *[]Pair) {
	o.Positions, o.KLWeight, o.Neutral = steering.Response, 1, []engine.Sequence{{Prompt: []int32{1, 2}}}
}

func positions(text string) steering.Positions {
	p, err := steering.ParsePositions(text)
	if err != nil {
		panic(err)
	}
	return p
}

func TestNames(t *testing.T) {
	for i, name := range lossNames {
		l, err := ParseLoss(name)
		require.NoError(t, err)
		require.Equal(t, Loss(i), l)
		require.Equal(t, name, l.String())
	}
	for i, name := range scheduleNames {
		s, err := ParseSchedule(name)
		require.NoError(t, err)
		require.Equal(t, Schedule(i), s)
	}
	_, err := ParseLoss("dpo")
	require.ErrorContains(t, err, `loss "dpo" is none of ["ce" "contrastive"]`)
}

func TestRate(t *testing.T) {
	tr := &trainer{pairs: make([]Pair, 8), opt: TrainOptions{LearningRate: 1, Warmup: 2, Epochs: 5, Batch: 4, Accumulate: 1}}
	require.Equal(t, 10, tr.totalSteps())
	var rates []float64
	for i := range 10 {
		rates = append(rates, tr.rate(i))
	}
	require.InDeltaSlice(t, []float64{0.5, 1, 1, 0.9619398, 0.8535534, 0.6913417, 0.5, 0.3086583, 0.1464466, 0.0380602}, rates, 1e-6)
	tr.opt.Schedule = Constant
	require.Equal(t, 1.0, tr.rate(9))
}

func TestRung(t *testing.T) {
	for n, want := range map[int]int{0: 16, 1: 16, 16: 16, 17: 24, 24: 24, 25: 32, 33: 48, 49: 64, 97: 128, 129: 192, 500: 512, 513: 768} {
		require.Equal(t, want, rung(n))
	}
}
