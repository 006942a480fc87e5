package contrast

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/steering"
)

// Pair is one prompt with a response to be made likelier and one to be made less likely, as token ids.
type Pair struct{ Prompt, Positive, Negative []int32 }

// Point is one step of the history.
type Point struct {
	Step    int     // from 1
	Epoch   int     // from 1
	Rate    float64 // learning rate
	Loss    float64 // mean over the step's pairs, before the step; without the penalty
	KL      float64 // mean divergence on the step's neutral texts; 0 without KLWeight
	HeldOut float64 // loss of the held-out pairs after the step; NaN where it was not measured
}

// Trained is a trained vector and how it came about.
type Trained struct {
	// Vector has at each layer the direction and, as DeltaMu, the length that training gave it: SwFC with coefficient 1
	// adds exactly what was trained. Its statistics are those of the training pairs' response means along it, in the
	// unsteered model (M is the middle between the means); without negative responses there are none.
	Vector  *steering.Vector
	History []Point
	Step    int     // after which the vector was taken
	HeldOut float64 // its loss on the held-out pairs; NaN without any
	Before  float64 // the unsteered model's loss on the held-out pairs; NaN without any
}

// Train trains a vector at each of some layers by gradient descent through the frozen model: Adam on the vectors alone,
// so that the model is in memory once, without gradients or optimiser state of its own. A micro-batch is one call of
// one compiled program (forward, loss, backward, step); between calls other requests of the model are served.
//
// The result is a function of model, backend, pairs and options, to the bit, however often training was stopped and
// resumed. When ctx ends, the checkpoint is written (if there is to be one) and the error is ctx's.
func Train(ctx context.Context, m *engine.Model, data []Pair, opt TrainOptions) (*Trained, error) {
	t, err := newTrainer(m, data, opt)
	if err == nil {
		err = t.run(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("contrast: training: %w", err)
	}
	trained, err := t.result(ctx)
	if err != nil {
		return nil, fmt.Errorf("contrast: training: %w", err)
	}
	return trained, nil
}

// trainer is a training run.
type trainer struct {
	model    *engine.Model
	opt      TrainOptions
	programs *trainPrograms
	rope     *ropeTables
	pairs    []Pair // trained on
	held     []Pair // held out
	neutral  []text
	data     string // digest of all of them
	config   steering.Config
	backend  string // on which bits depend

	state trainState
	saved time.Time
}

// trainState is all that changes; it is what a checkpoint holds.
type trainState struct {
	vectors, moment1, moment2 []float32 // [K, hidden]
	best                      []float32 // the vectors that did best on the held-out pairs
	bestStep                  int
	reference                 []float64 // of pairs, then of held: log p(pos) - log p(neg), unsteered; Contrastive only
	before                    float64   // the unsteered model's loss on the held-out pairs
	probe                     []float64 // log p(pos) of the first batch, unsteered: tells other weights of the same shape
	history                   []Point
}

func newTrainer(m *engine.Model, data []Pair, opt TrainOptions) (*trainer, error) {
	orDefault(&opt.Beta, 0.1)
	orDefault(&opt.LearningRate, 5e-4)
	orDefault(&opt.Epochs, 10)
	orDefault(&opt.Batch, 4)
	orDefault(&opt.Accumulate, 1)
	orDefault(&opt.CheckpointEvery, 10*time.Second)
	opt.Layers = slices.Sorted(slices.Values(opt.Layers))
	cfg := m.Config()
	if err := opt.validate(m.SteeringConfig()); err != nil {
		return nil, err
	}
	t := &trainer{
		model: m, opt: opt, programs: &trainPrograms{cfg, opt.Layers, opt.Loss},
		rope: &ropeTables{cfg, map[int][2][]float32{}}, data: digestPairs(data, &opt),
		config: m.SteeringConfig(), backend: m.Backend().Kind,
	}
	context := m.Stats().Memory.MaxContext
	for i, p := range data {
		if err := checkPair(p, opt.Loss, cfg, context); err != nil {
			return nil, fmt.Errorf("pair %d: %w", i, err)
		}
	}
	for i, p := range opt.HeldOut {
		if err := checkPair(p, opt.Loss, cfg, context); err != nil {
			return nil, fmt.Errorf("held-out pair %d: %w", i, err)
		}
	}
	for i, s := range opt.Neutral {
		n := text{s.Prompt, s.Continuation}
		if err := n.check(cfg, context); err != nil {
			return nil, fmt.Errorf("neutral text %d: %w", i, err)
		}
		if len(s.Steering) > 0 {
			return nil, fmt.Errorf("neutral text %d: it has a steering of its own", i)
		}
		t.neutral = append(t.neutral, n)
	}
	if err := t.split(data); err != nil {
		return nil, err
	}
	if err := t.checkPositions(); err != nil {
		return nil, err
	}
	return t, t.begin()
}

func checkPair(p Pair, loss Loss, cfg *model.Config, context int) error {
	for _, r := range []struct {
		name   string
		ids    []int32
		needed bool
	}{{"positive", p.Positive, true}, {"negative", p.Negative, loss == Contrastive}} {
		if len(r.ids) == 0 && r.needed {
			return fmt.Errorf("%s response: it is empty", r.name)
		}
		if err := (text{p.Prompt, r.ids}).check(cfg, context); err != nil {
			return fmt.Errorf("%s response: %w", r.name, err)
		}
	}
	return nil
}

// split sets pairs aside.
func (t *trainer) split(data []Pair) error {
	t.pairs, t.held = data, t.opt.HeldOut
	if f := t.opt.HeldOutFraction; f > 0 {
		n := max(1, int(math.Round(f*float64(len(data)))))
		order := random(t.opt.Seed, streamSplit, 0).Perm(len(data))
		if n >= len(data) {
			return fmt.Errorf("holding out %d of %d pairs leaves none to train on", n, len(data))
		}
		t.pairs, t.held = nil, nil
		for i, at := range order {
			if i < n {
				t.held = append(t.held, data[at])
			} else {
				t.pairs = append(t.pairs, data[at])
			}
		}
	}
	if len(t.pairs) == 0 {
		return errors.New("no pairs")
	}
	t.opt.Batch = min(t.opt.Batch, len(t.pairs))
	return nil
}

// checkPositions refuses positions that no text has: a vector that is never added stays what it was.
func (t *trainer) checkPositions() error {
	acts := func(texts []text, at where) bool {
		for _, x := range texts {
			_, to := at.of(x)
			for i, id := range x.tokens()[:to] {
				if t.opt.Positions.Mask(i, len(x.prompt), id) {
					return true
				}
			}
		}
		return false
	}
	if !acts(t.texts(t.pairs), predicting) {
		return fmt.Errorf("positions %v: no pair has a token there that is read before the response's last", t.opt.Positions)
	}
	if len(t.neutral) > 0 && !acts(t.neutral, after) {
		return fmt.Errorf("positions %v: no neutral text has a token there, so the vector cannot change it", t.opt.Positions)
	}
	return nil
}

// texts lists what the loss needs of pairs: the positive responses, then the negative ones if it is contrastive.
func (t *trainer) texts(pairs []Pair) []text {
	var out []text
	for _, p := range pairs {
		out = append(out, text{p.Prompt, p.Positive})
	}
	if t.opt.Loss == Contrastive {
		for _, p := range pairs {
			out = append(out, text{p.Prompt, p.Negative})
		}
	}
	return out
}

// begin sets the state to what the checkpoint says, or to the start.
func (t *trainer) begin() error {
	t.saved = time.Now()
	if t.opt.Checkpoint != "" {
		s, err := loadState(t.opt.Checkpoint, t)
		if err == nil {
			t.state = *s
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	n := t.programs.vectors().Size()
	zeros := func() []float32 { return make([]float32, n) }
	t.state = trainState{vectors: zeros(), moment1: zeros(), moment2: zeros(), before: math.NaN()}
	if v := t.opt.Start; v != nil {
		for k, l := range t.opt.Layers {
			from := v.Layers[slices.Index(v.Indices(), l)]
			for i, x := range from.Direction {
				t.state.vectors[k*v.Hidden+i] = float32(from.DeltaMu * float64(x))
			}
		}
	}
	return nil
}

// call runs a program, with the device to itself for so long.
func (t *trainer) call(ctx context.Context, p *engine.Program, inputs ...any) (out [][]float32, err error) {
	err = t.model.Use(ctx, func(d *engine.Device) error {
		results, err := d.Call(p, inputs...)
		for _, r := range results {
			out = append(out, r.([]float32))
		}
		return err
	})
	return out, err
}

// epochSteps is the number of steps in an epoch.
func (t *trainer) epochSteps() int {
	size := t.opt.Batch * t.opt.Accumulate
	return (len(t.pairs) + size - 1) / size
}

func (t *trainer) totalSteps() int { return t.opt.Epochs * t.epochSteps() }

// rate is the learning rate of a step, from 0.
func (t *trainer) rate(step int) float64 {
	peak, warm, total := t.opt.LearningRate, t.opt.Warmup, t.totalSteps()
	switch {
	case step < warm:
		return peak * float64(step+1) / float64(warm)
	case t.opt.Schedule == Constant:
		return peak
	default:
		return peak * 0.5 * (1 + math.Cos(math.Pi*float64(step-warm)/float64(total-warm)))
	}
}

// run trains until the end, or until ctx ends.
func (t *trainer) run(ctx context.Context) error {
	err := t.train(ctx)
	if len(t.state.history) > 0 {
		err = errors.Join(err, t.save())
	}
	return err
}

func (t *trainer) train(ctx context.Context) error {
	s := &t.state
	first := t.measureUnsteered
	if len(s.history) > 0 {
		first = t.checkProbe
	}
	if err := first(ctx); err != nil {
		return err
	}
	for len(s.history) < t.totalSteps() && !t.stopped() {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := *s // a step that fails leaves no trace
		if err := t.step(ctx, &next); err != nil {
			return err
		}
		*s = next
		if t.opt.Progress != nil {
			t.opt.Progress(len(s.history), t.totalSteps(), s.history[len(s.history)-1])
		}
		if time.Since(t.saved) >= t.opt.CheckpointEvery {
			if err := t.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// stopped says whether the held-out pairs have had enough.
func (t *trainer) stopped() bool {
	past := len(t.state.history) - t.state.bestStep
	return t.opt.Patience > 0 && t.state.bestStep > 0 && past >= t.opt.Patience*t.epochSteps()
}

// measureProbe returns the log-probabilities of the first batch's positive responses, unsteered.
func (t *trainer) measureProbe(ctx context.Context) (probe []float64, err error) {
	scores, err := t.scores(ctx, make([]float32, len(t.state.vectors)), t.pairs[:t.opt.Batch])
	for _, s := range scores {
		probe = append(probe, s.positive)
	}
	return probe, err
}

// checkProbe holds the model against that of the checkpoint. It allows for another machine's rounding, which is all that could
// differ if the weights are the same.
func (t *trainer) checkProbe(ctx context.Context) error {
	probe, err := t.measureProbe(ctx)
	if err != nil {
		return err
	}
	for i, x := range probe {
		if want := t.state.probe[i]; !(math.Abs(x-want) <= 1e-2*max(1, math.Abs(want))) {
			return fmt.Errorf("checkpoint %s: log p of pair %d's positive response was %g, this model's is %g: it was made with other weights",
				t.opt.Checkpoint, i, want, x)
		}
	}
	return nil
}

// measureUnsteered fills what the unsteered model says of the pairs.
func (t *trainer) measureUnsteered(ctx context.Context) error {
	var err error
	if t.state.probe, err = t.measureProbe(ctx); err != nil {
		return err
	}
	zero := make([]float32, len(t.state.vectors))
	if t.opt.Loss == Contrastive {
		scores, err := t.scores(ctx, zero, slices.Concat(t.pairs, t.held))
		if err != nil {
			return err
		}
		t.state.reference = make([]float64, len(scores))
		for i, s := range scores {
			t.state.reference[i] = s.positive - s.negative
		}
	}
	if len(t.held) == 0 {
		return nil
	}
	t.state.before, err = t.heldOutLoss(ctx, zero)
	return err
}

// score is the log-probability of a pair's responses.
type score struct{ positive, negative float64 }

// scores runs pairs through the model with the given vectors.
func (t *trainer) scores(ctx context.Context, vectors []float32, pairs []Pair) ([]score, error) {
	var out []score
	for part := range slices.Chunk(pairs, t.opt.Batch) {
		b := newBatch(t.rows(), t.padded(part), predicting, t.opt.Positions, nil)
		rows, err := t.call(ctx, t.programs.score(b.shape), append([]any{vectors}, b.inputs(t.rope)...)...)
		if err != nil {
			return nil, err
		}
		for i := range part {
			s := score{positive: float64(rows[0][i])}
			if t.opt.Loss == Contrastive {
				s.negative = float64(rows[0][t.opt.Batch+i])
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// rows of a batch of pairs.
func (t *trainer) rows() int {
	if t.opt.Loss == Contrastive {
		return 2 * t.opt.Batch
	}
	return t.opt.Batch
}

// padded is texts with empty ones behind the positive responses of less than a batch, so that the negative ones begin
// where the program expects them.
func (t *trainer) padded(pairs []Pair) []text {
	texts := t.texts(pairs)
	if n := len(pairs); len(texts) > n {
		texts = slices.Insert(texts, n, make([]text, t.opt.Batch-n)...)
	}
	return texts
}

// heldOutLoss is the loss of the held-out pairs with the given vectors.
func (t *trainer) heldOutLoss(ctx context.Context, vectors []float32) (float64, error) {
	scores, err := t.scores(ctx, vectors, t.held)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for i, s := range scores {
		if t.opt.Loss == Contrastive {
			margin := t.opt.Beta * (s.positive - s.negative - t.state.reference[len(t.pairs)+i])
			sum += max(-margin, 0) + math.Log1p(math.Exp(-math.Abs(margin)))
		} else {
			sum -= s.positive / float64(len(t.held[i].Positive))
		}
	}
	return sum / float64(len(scores)), nil
}

// step makes one step of Adam on s.
func (t *trainer) step(ctx context.Context, s *trainState) error {
	n := len(s.history)
	epoch, at := n/t.epochSteps(), n%t.epochSteps()
	order := random(t.opt.Seed, streamOrder, uint64(epoch)).Perm(len(t.pairs))
	size := t.opt.Batch * t.opt.Accumulate
	order = order[at*size : min((at+1)*size, len(order))]
	point := Point{Step: n + 1, Epoch: epoch + 1, Rate: t.rate(n), HeldOut: math.NaN()}
	ceiling := t.opt.MaxNorm
	if ceiling == 0 {
		ceiling = math.Inf(1)
	}
	scalar := make([]float32, scalars)
	scalar[scalarRate], scalar[scalarCeiling] = float32(point.Rate), float32(ceiling)
	scalar[scalarDecay1] = float32(1 - math.Pow(beta1, float64(n+1)))
	scalar[scalarDecay2] = float32(1 - math.Pow(beta2, float64(n+1)))
	sum := make([]float32, len(s.vectors))
	run := func(p *engine.Program, inputs ...any) (float64, error) {
		out, err := t.call(ctx, p, append([]any{s.vectors, s.moment1, s.moment2, sum, scalar}, inputs...)...)
		if err != nil {
			return 0, err
		}
		s.vectors, s.moment1, s.moment2, sum = out[0], out[1], out[2], out[3]
		return float64(out[4][0]), nil
	}
	if t.opt.KLWeight > 0 {
		kl, err := t.stay(n, run)
		if err != nil {
			return err
		}
		point.KL = kl / t.opt.KLWeight
	}
	signs := random(t.opt.Seed, streamSigns, uint64(n))
	for done := 0; done < len(order); done += t.opt.Batch {
		part := order[done:min(done+t.opt.Batch, len(order))]
		if done+len(part) == len(order) {
			scalar[scalarApply] = 1
		}
		p, inputs := t.microBatch(part, len(order), signs.Uint64())
		loss, err := run(p, inputs...)
		if err != nil {
			return err
		}
		point.Loss += loss
	}
	if !finite(s.vectors) || point.Loss-point.Loss != 0 {
		return fmt.Errorf("step %d: the loss is %g, and loss and vectors are not all finite; try a smaller learning rate than %g, "+
			"or a greatest norm", n+1, point.Loss, t.opt.LearningRate)
	}
	if last := at+1 == t.epochSteps(); last && len(t.held) > 0 {
		loss, err := t.heldOutLoss(ctx, s.vectors)
		if err != nil {
			return err
		}
		point.HeldOut = loss
		if best := bestLoss(s); math.IsNaN(best) || loss < best {
			s.best, s.bestStep = s.vectors, n+1
		}
	}
	s.history = append(s.history, point)
	return nil
}

// bestLoss is the held-out loss of the best vectors, NaN before the first.
func bestLoss(s *trainState) float64 {
	if s.bestStep == 0 {
		return math.NaN()
	}
	return s.history[s.bestStep-1].HeldOut
}

// microBatch is the program and the inputs behind the state for some pairs of a step of so many. The bits of coins are
// the pairs' signs.
func (t *trainer) microBatch(pairs []int, of int, coins uint64) (*engine.Program, []any) {
	chosen := make([]Pair, len(pairs))
	weight, scale, reference := make([]float32, t.opt.Batch), make([]float32, t.opt.Batch), make([]float32, t.opt.Batch)
	signs := make([]float32, t.rows())
	draw := random(coins, streamSigns, 0)
	for i, at := range pairs {
		chosen[i] = t.pairs[at]
		sign := float32(1)
		if t.opt.BothSigns && draw.Uint64()&1 == 1 {
			sign = -1
		}
		weight[i] = 1 / float32(of)
		signs[i] = sign
		if t.opt.Loss == Contrastive {
			signs[t.opt.Batch+i] = sign
			scale[i] = sign * float32(t.opt.Beta)
			reference[i] = float32(t.state.reference[at])
		}
	}
	b := newBatch(t.rows(), t.padded(chosen), predicting, t.opt.Positions, signs)
	inputs := append(b.inputs(t.rope), weight)
	if t.opt.Loss == Contrastive {
		inputs = append(inputs, scale, reference)
	}
	return t.programs.train(b.shape), inputs
}

// stay adds the gradient of the penalty and returns its value.
func (t *trainer) stay(step int, run func(p *engine.Program, inputs ...any) (float64, error)) (float64, error) {
	rows := min(t.opt.Batch, len(t.neutral))
	texts, weight := make([]text, rows), make([]float32, rows)
	for i := range texts {
		at := step*rows + i
		order := random(t.opt.Seed, streamNeutral, uint64(at/len(t.neutral))).Perm(len(t.neutral))
		texts[i] = t.neutral[order[at%len(t.neutral)]]
		weight[i] = float32(t.opt.KLWeight / float64(rows))
	}
	b := newBatch(rows, texts, after, t.opt.Positions, nil)
	return run(t.programs.stay(b.shape), append(b.inputs(t.rope), weight)...)
}

func finite(x []float32) bool {
	for _, v := range x {
		if v-v != 0 {
			return false
		}
	}
	return true
}
