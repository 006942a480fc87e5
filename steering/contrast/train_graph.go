package contrast

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
)

// The programs of training, as graphs. All of them run the model on a padded batch of texts with the trained vectors
// added to the outputs of their blocks, and differ in what they do with the log-probabilities of the responses:
//
//	train   one micro-batch: loss, gradient by the vectors, and Adam's step (or only its share of the gradient)
//	stay    the same for the Kullback-Leibler divergence from the unsteered model on neutral texts
//	score   log-probabilities: of the unsteered model (the vectors being zero) and of held-out pairs
//
// Only the vectors have a gradient. Nothing below the lowest trained layer has a backward pass.

// shape is what a batch looks like to a program.
type shape struct {
	rows   int // texts
	tokens int // of each, padded
	picked int // positions at which the next token is judged, padded
}

// inputs of a batch, in this order: see batch for what they hold.
func (s shape) inputs(cfg *model.Config) []shapes.Shape {
	return []shapes.Shape{
		shapes.Make(dtypes.Int32, s.rows, s.tokens),          // tokens
		shapes.Make(dtypes.Int32, s.rows),                    // count
		shapes.Make(dtypes.Float32, s.rows, s.tokens),        // steer
		shapes.Make(dtypes.Float32, s.tokens, cfg.HeadDim/2), // cos
		shapes.Make(dtypes.Float32, s.tokens, cfg.HeadDim/2), // sin
		shapes.Make(dtypes.Int32, s.picked, 2),               // pick
		shapes.Make(dtypes.Int32, s.picked),                  // target
		shapes.Make(dtypes.Float32, s.rows, s.picked),        // share
	}
}

const batchInputs = 8

// names of the scalars of a step, in the order of its input.
const (
	scalarRate    = iota // learning rate
	scalarDecay1         // 1 - beta1^t
	scalarDecay2         // 1 - beta2^t
	scalarCeiling        // greatest norm of a vector, +Inf for none
	scalarApply          // 1: make the step; 0: only add to the gradient
	scalars
)

// Adam's constants, those of its paper.
const (
	beta1   = 0.9
	beta2   = 0.999
	epsilon = 1e-8
)

// trainPrograms builds the programs of one training run.
type trainPrograms struct {
	cfg    *model.Config
	layers []int // trained, ascending
	loss   Loss
}

func (p *trainPrograms) name(what string, s shape) string {
	return fmt.Sprintf("contrast %s layers=%v rows=%d tokens=%d picked=%d", what, p.layers, s.rows, s.tokens, s.picked)
}

// vectors is the shape of all vectors together, and of everything Adam keeps: [layers trained, hidden].
func (p *trainPrograms) vectors() shapes.Shape {
	return shapes.Make(dtypes.Float32, len(p.layers), p.cfg.HiddenSize)
}

// state declares vectors, first moment, second moment, gradient so far, and the scalars of a step.
func (p *trainPrograms) state() []shapes.Shape {
	v := p.vectors()
	return []shapes.Shape{v, v, v, v, shapes.Make(dtypes.Float32, scalars)}
}

const stateInputs = 5

// forward runs the decoder on a batch and returns the output of its last block, [rows, tokens, hidden]. Vectors [K,
// hidden] are added where steer says so, with its sign; nil is no steering.
func (p *trainPrograms) forward(b engine.Builder, batch []*Node, vectors *Node) *Node {
	tokens, count, steer := batch[0], batch[1], InsertAxes(batch[2], -1)
	return b.Config.Forward(b.Platform, b.Params, model.Inputs{
		Tokens: tokens, Count: count, KV: b.KV,
		Cos: InsertAxes(batch[3], 0), Sin: InsertAxes(batch[4], 0),
		AfterBlock: func(layer int, hidden *Node) *Node {
			for k, l := range p.layers {
				if l == layer && vectors != nil {
					v := Slice(vectors, AxisRange(k, k+1))             // [1, hidden]
					hidden = Add(hidden, Mul(steer, InsertAxes(v, 0))) // where steer is 0 this adds 0
				}
			}
			return hidden
		},
	}).Hidden
}

// pick gathers hidden states [rows, tokens, hidden] at the picked positions, [picked, hidden].
func pick(batch []*Node, hidden *Node) *Node { return Gather(hidden, batch[5]) }

// headTokens is how many positions go through the head at a time: their logits are what takes the most memory.
const headTokens = 256

// blocks cuts the picked positions into the head's portions.
func blocks(picked int, visit func(from, to int)) {
	for from := 0; from < picked; from += headTokens {
		visit(from, min(from+headTokens, picked))
	}
}

// logProbs returns the log-probability of each target after hidden [picked, hidden], [picked]. If wanted, it also
// returns each one's own gradient with respect to its hidden state, [picked, hidden]: a log-probability depends on no
// other's, so that logits are needed for one block at a time, forward and backward, and are never in memory all at
// once.
func logProbs(b engine.Builder, batch []*Node, hidden *Node, wanted bool) (lp, gradient *Node) {
	var lps, gradients []*Node
	blocks(hidden.Shape().Dim(0), func(from, to int) {
		h := Slice(hidden, AxisRange(from, to))
		at := layers.LogProb(b.Config.Head(b.Platform, b.Params, h), Slice(batch[6], AxisRange(from, to)))
		lps = append(lps, at)
		if wanted {
			gradients = append(gradients, Gradient(ReduceAllSum(at), h)[0])
		}
	})
	if !wanted {
		return Concatenate(lps, 0), nil
	}
	return Concatenate(lps, 0), Concatenate(gradients, 0)
}

// byRow sums values of the picked positions [picked] over each row, [rows].
func byRow(batch []*Node, values *Node) *Node {
	return ReduceSum(Mul(batch[7], InsertAxes(values, 0)), -1)
}

// toPicked is byRow's transpose: each position gets its row's value.
func toPicked(batch []*Node, values *Node) *Node {
	return ReduceSum(Mul(batch[7], InsertAxes(values, -1)), 0)
}

// score is the program of log-probabilities. Inputs: vectors, batch. Output: log-probability of each row's response,
// [rows].
func (p *trainPrograms) score(s shape) *engine.Program {
	return &engine.Program{
		Name: p.name("score", s), Weights: true,
		Inputs: append([]shapes.Shape{p.vectors()}, s.inputs(p.cfg)...),
		Build: func(b engine.Builder, in []*Node) []*Node {
			batch := in[1:]
			lp, _ := logProbs(b, batch, pick(batch, p.forward(b, batch, in[0])), false)
			return []*Node{byRow(batch, lp)}
		},
	}
}

// train is the program of a micro-batch. Inputs: state, batch, then weight [pairs] (of each pair in the whole batch's
// loss; 0 is padding) and, for Contrastive, scale [pairs] (beta, with the sign of the pair's vectors) and reference
// [pairs] (log-probability of the positive response minus that of the negative, both unsteered). With Contrastive rows
// are the pairs' positive responses and then their negative ones, else only positive ones. Outputs: state but for the
// scalars, then the loss, [].
func (p *trainPrograms) train(s shape) *engine.Program {
	pairs := s.rows
	extra := []shapes.Shape{}
	if p.loss == Contrastive {
		pairs /= 2
		extra = append(extra, shapes.Make(dtypes.Float32, pairs), shapes.Make(dtypes.Float32, pairs))
	}
	extra = append([]shapes.Shape{shapes.Make(dtypes.Float32, pairs)}, extra...)
	return &engine.Program{
		Name: p.name("train "+p.loss.String(), s), Weights: true,
		Inputs: append(append(p.state(), s.inputs(p.cfg)...), extra...),
		Build: func(b engine.Builder, in []*Node) []*Node {
			batch := in[stateInputs:]
			extra := batch[batchInputs:]
			hidden := pick(batch, p.forward(b, batch, in[0]))
			lp, slope := logProbs(b, batch, hidden, true)

			// The loss is a function of one number a row, so its gradient there is written down, and the rest is a chain rule.
			rows, weight := byRow(batch, lp), extra[0]
			var loss, byRowGradient *Node
			if p.loss == Contrastive {
				scale, reference := extra[1], extra[2]
				half := func(i int) *Node { return Slice(rows, AxisRange(i*pairs, (i+1)*pairs)) }
				margin := Mul(scale, Sub(Sub(half(0), half(1)), reference))
				loss = Mul(weight, softplus(Neg(margin)))
				g := Neg(Mul(Mul(weight, scale), Logistic(Neg(margin))))
				byRowGradient = Concatenate([]*Node{g, Neg(g)}, 0)
			} else {
				byRowGradient = Neg(Div(weight, MaxScalar(ReduceSum(batch[7], -1), 1))) // the mean over tokens
				loss = Mul(byRowGradient, rows)
			}
			cotangent := Mul(slope, InsertAxes(toPicked(batch, byRowGradient), -1)) // [picked, hidden]
			return append(p.step(in, hidden, cotangent), ReduceAllSum(loss))
		},
	}
}

// softplus is log(1 + exp(x)), without overflow.
func softplus(x *Node) *Node {
	return Add(MaxScalar(x, 0), Log1P(Exp(Neg(Abs(x)))))
}

// stay is the program of the penalty. Inputs: state, batch of neutral texts (targets are not read), weight [rows]. The
// divergence KL(unsteered || steered) of the next token is taken at each picked position; its mean over a row has the
// row's weight. Outputs: state but for the scalars, then the weighted sum of divergences, [].
func (p *trainPrograms) stay(s shape) *engine.Program {
	return &engine.Program{
		Name: p.name("stay", s), Weights: true,
		Inputs: append(append(p.state(), s.inputs(p.cfg)...), shapes.Make(dtypes.Float32, s.rows)),
		Build: func(b engine.Builder, in []*Node) []*Node {
			batch := in[stateInputs:]
			weight := Div(batch[batchInputs], MaxScalar(ReduceSum(batch[7], -1), 1)) // of each of the row's positions
			hidden := pick(batch, p.forward(b, batch, in[0]))
			before := pick(batch, p.forward(b, batch, nil))
			var kls, slopes []*Node
			blocks(s.picked, func(from, to int) {
				h := Slice(hidden, AxisRange(from, to))
				steered := logSoftmax(b.Config.Head(b.Platform, b.Params, h))
				unsteered := logSoftmax(b.Config.Head(b.Platform, b.Params, Slice(before, AxisRange(from, to))))
				kl := ReduceSum(Mul(Exp(unsteered), Sub(unsteered, steered)), -1)
				kls, slopes = append(kls, kl), append(slopes, Gradient(ReduceAllSum(kl), h)[0])
			})
			kl := ReduceAllSum(Mul(weight, byRow(batch, Concatenate(kls, 0))))
			cotangent := Mul(Concatenate(slopes, 0), InsertAxes(toPicked(batch, weight), -1))
			return append(p.step(in, hidden, cotangent), kl)
		},
	}
}

// logSoftmax works on the last axis, in float32.
func logSoftmax(logits *Node) *Node {
	x := Sub(logits, StopGradient(ReduceAndKeep(logits, ReduceMax, -1)))
	return Sub(x, Log(ReduceAndKeep(Exp(x), ReduceSum, -1)))
}

// step ends a program: it takes the gradient of hidden [picked, hidden] to the vectors, adds it to what was there, and
// makes Adam's step if it is asked for. It returns the new state but for the scalars.
func (p *trainPrograms) step(in []*Node, hidden, cotangent *Node) []*Node {
	v, m1, m2, sum := in[0], in[1], in[2], in[3]
	scalar := func(i int) *Node { return Reshape(Slice(in[4], AxisElem(i))) }
	g := Add(sum, Gradient(ReduceAllSum(Mul(hidden, StopGradient(cotangent))), v)[0])

	newM1 := Add(MulScalar(m1, beta1), MulScalar(g, 1-beta1))
	newM2 := Add(MulScalar(m2, beta2), MulScalar(Mul(g, g), 1-beta2))
	change := Div(Div(newM1, scalar(scalarDecay1)), AddScalar(Sqrt(Div(newM2, scalar(scalarDecay2))), epsilon))
	newV := Sub(v, Mul(scalar(scalarRate), change))
	norm := Sqrt(ReduceAndKeep(Mul(newV, newV), ReduceSum, -1)) // [K, 1]
	newV = Mul(newV, MinScalar(Div(scalar(scalarCeiling), norm), 1))

	apply := BroadcastToShape(GreaterThan(scalar(scalarApply), ScalarZero(v.Graph(), dtypes.Float32)), v.Shape())
	return []*Node{Where(apply, newV, v), Where(apply, newM1, m1), Where(apply, newM2, m2), Where(apply, ZerosLike(g), g)}
}
