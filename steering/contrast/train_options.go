package contrast

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
)

// Loss is what training lowers.
type Loss int

const (
	// CE is the mean negative log-probability of a token of the positive responses; negative responses are not needed.
	CE Loss = iota
	// Contrastive is that of bi-directional preference optimisation (BiPO, arXiv 2406.00045, without its sign: see
	// BothSigns), which is DPO with the vector in place of the policy's weights:
	//
	//	-log sigmoid(beta * ((log p_s(pos) - log p_u(pos)) - (log p_s(neg) - log p_u(neg))))
	//
	// where p_s is the steered and p_u the unsteered model, and a response's log-probability is the sum over its tokens.
	Contrastive
)

var lossNames = []string{"ce", "contrastive"}

func (l Loss) String() string { return nameOf(lossNames, int(l), "Loss") }

// ParseLoss reads what String writes.
func ParseLoss(name string) (Loss, error) {
	i, err := parseName(lossNames, name, "loss")
	return Loss(i), err
}

// Schedule is how the learning rate goes on after the warm-up.
type Schedule int

const (
	Cosine   Schedule = iota // down to 0 at the end, as half a cosine
	Constant                 // as it is
)

var scheduleNames = []string{"cosine", "constant"}

func (s Schedule) String() string { return nameOf(scheduleNames, int(s), "Schedule") }

// ParseSchedule reads what String writes.
func ParseSchedule(name string) (Schedule, error) {
	i, err := parseName(scheduleNames, name, "schedule")
	return Schedule(i), err
}

func nameOf(names []string, i int, kind string) string {
	if i < 0 || i >= len(names) {
		return fmt.Sprintf("%s(%d)", kind, i)
	}
	return names[i]
}

func parseName(names []string, name, kind string) (int, error) {
	if i := slices.Index(names, name); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("contrast: %s %q is none of %q", kind, name, names)
}

// TrainOptions of [Train]. Layers must be given; other zero values stand for the default named.
type TrainOptions struct {
	Loss   Loss
	Layers []int // at whose outputs a vector is added, each its own; layer = block output, from 0
	// Positions of the tokens to which it is added; nil is all. The vector is best used at the positions that it was
	// trained for.
	Positions steering.Positions
	Beta      float64 // of Contrastive; 0.1
	// BothSigns draws for each pair and step whether the vector is added, or subtracted with the responses exchanged,
	// so that the vector's negative is trained to do the opposite (BiPO's direction d). Contrastive only.
	BothSigns bool
	// MaxNorm is the greatest L2 norm of each layer's vector: after each step a longer one is scaled down to it. 0 is
	// no bound.
	MaxNorm float64
	// KLWeight adds, so many times, the mean divergence KL(unsteered || steered) of the next token on the neutral
	// texts, in nats: after the prompt, and after each token of the continuation. Each step sees Batch of them.
	KLWeight float64
	Neutral  []engine.Sequence

	LearningRate float64 // of Adam; 5e-4
	Warmup       int     // steps in which the rate rises to that
	Schedule     Schedule
	Epochs       int // passes through the pairs; 10
	Batch        int // pairs run together; 4
	Accumulate   int // batches whose gradients make one step; 1
	// Start is a vector to begin from, which has the layers; nil is to begin from zero.
	Start *steering.Vector

	// HeldOut are pairs that are not trained on, but judged after each epoch; or HeldOutFraction of the pairs is set
	// aside. With either, the result is the vector of the epoch that did best on them, and training stops after
	// Patience epochs without a better one (0: never).
	HeldOut         []Pair
	HeldOutFraction float64
	Patience        int

	Seed uint64 // of the order of pairs, of the split, and of signs
	// Checkpoint is a file that is written every CheckpointEvery (10 s), when training ends, and when the context is
	// cancelled. If it is there, training goes on from it, to the same vector, bit for bit, as without a stop.
	Checkpoint      string
	CheckpointEvery time.Duration
	// Progress, if set, is called after each step.
	Progress func(done, total int, p Point)
	// Provenance of the vector; what is left empty and is known is filled in.
	Provenance steering.Provenance
}

func orDefault[T comparable](x *T, value T) {
	if zero := *new(T); *x == zero {
		*x = value
	}
}

// validate checks what can be checked without data.
func (o *TrainOptions) validate(cfg steering.Config) error {
	for _, x := range []struct {
		name  string
		value float64
		least float64 // greater than this, or equal if it is 0 and zero means none
		zero  bool
	}{
		{"beta", o.Beta, 0, false}, {"learning rate", o.LearningRate, 0, false},
		{"greatest norm", o.MaxNorm, 0, true}, {"KL weight", o.KLWeight, 0, true},
	} {
		if !(x.value > 0 && x.value <= math.MaxFloat32) && !(x.zero && x.value == 0) {
			return fmt.Errorf("%s %v is not a positive number", x.name, x.value)
		}
	}
	for _, x := range []struct {
		name         string
		value, least int
	}{
		{"epochs", o.Epochs, 1}, {"batch", o.Batch, 1}, {"accumulate", o.Accumulate, 1},
		{"warm-up", o.Warmup, 0}, {"patience", o.Patience, 0},
	} {
		if x.value < x.least || x.value > 1<<30 {
			return fmt.Errorf("%s %d is not a number from %d", x.name, x.value, x.least)
		}
	}
	switch {
	case o.Loss < CE || o.Loss > Contrastive:
		return fmt.Errorf("loss %v is none of %q", o.Loss, lossNames)
	case o.Schedule < Cosine || o.Schedule > Constant:
		return fmt.Errorf("schedule %v is none of %q", o.Schedule, scheduleNames)
	case o.BothSigns && o.Loss != Contrastive:
		return fmt.Errorf("both signs need the contrastive loss: %v has no opposite", o.Loss)
	case !(o.HeldOutFraction >= 0 && o.HeldOutFraction < 1):
		return fmt.Errorf("held-out fraction %v is not between 0 and 1", o.HeldOutFraction)
	case o.HeldOutFraction > 0 && len(o.HeldOut) > 0:
		return errors.New("both held-out pairs and a fraction to hold out are given")
	case o.Patience > 0 && o.HeldOutFraction == 0 && len(o.HeldOut) == 0:
		return errors.New("patience needs held-out pairs to judge by")
	case (o.KLWeight > 0) != (len(o.Neutral) > 0):
		return fmt.Errorf("a KL weight of %v with %d neutral texts: each needs the other", o.KLWeight, len(o.Neutral))
	case len(o.Layers) == 0:
		return errors.New("no layers")
	}
	for i, l := range o.Layers {
		if l < 0 || l >= cfg.NumHiddenLayers {
			return fmt.Errorf("layer %d is not between 0 and %d (layer = block output, from 0)", l, cfg.NumHiddenLayers-1)
		}
		if i > 0 && o.Layers[i-1] == l {
			return fmt.Errorf("layer %d is given twice", l)
		}
	}
	if o.Start != nil {
		if err := o.Start.Validate(); err != nil {
			return fmt.Errorf("start: %w", err)
		}
		if err := o.Start.Check(cfg, false); err != nil {
			return fmt.Errorf("start: %w", err)
		}
		for _, l := range o.Layers {
			if !slices.Contains(o.Start.Indices(), l) {
				return fmt.Errorf("start: the vector has no layer %d, it has %v", l, o.Start.Indices())
			}
		}
	}
	return o.Positions.Validate()
}
