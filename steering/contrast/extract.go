package contrast

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
)

// ExtractOptions are the choices of [Extract]. The zero value is the paper's protocol.
type ExtractOptions struct {
	// Sampling of the answers. The zero values are the paper's: 0.6, 0.9, 42. A negative temperature is greedy.
	Temperature, TopP float32
	Seed              uint64
	MaxTokens         int // of an answer; 256 if 0

	Format Format // how texts become tokens

	Layers   []int      // nil: all
	Poolings []Pooling  // the first is the one that the vector comes from; nil: DefaultPoolings
	Splits   int        // as Options.Splits
	Date     time.Time  // for the vector's provenance; zero: now
	Model    string     // the same: the model's name
	Data     string     // the same: the data's name
	Keep     string     // path of a JSONL file in which responses are kept as they come, and from which a run that was cut off goes on
	Progress func(Step) // called after each piece of work, from one goroutine at a time
}

// Step is a piece of Extract's work.
type Step struct {
	What        string // "generate", "capture", "fit" or "probe"
	Done, Total int
}

// Pooling says which hidden states of a response make its embedding.
type Pooling struct {
	Name string
	engine.Pool
}

// ParsePooling reads a pooling: "response" (the mean over the response: the paper's), "prompt:last" (the last token of the prompt),
// or any positions that steering.ParsePositions reads, with ":last" for the last of them and else their mean: "response/0..8",
// "response=13,198".
func ParsePooling(text string) (Pooling, error) {
	positions, isLast := strings.CutSuffix(text, ":last")
	p, err := steering.ParsePositions(positions)
	if err != nil {
		return Pooling{}, fmt.Errorf("pooling %.60q: %w", text, err)
	}
	pool := engine.Pool{Positions: p}
	if isLast {
		pool.Reduce = engine.Last
	}
	return Pooling{Name: text, Pool: pool}, nil
}

// DefaultPoolings are the paper's response mean, and for comparison the last token of the prompt, the response's beginning and its
// last token. Where both texts of a scenario follow the same prompt, the second says nothing and is left out.
func DefaultPoolings(samePrompt bool) []Pooling {
	var out []Pooling
	for _, text := range []string{"response", "prompt:last", "response/..8", "response:last"} {
		if p, err := ParsePooling(text); err == nil && !(samePrompt && text == "prompt:last") {
			out = append(out, p)
		}
	}
	return out
}

// Extraction is what Extract found.
type Extraction struct {
	Responses []Response // in the order of the scenarios, the positive one first
	LeftOut   []string   // pairs that were not used, and why
	Fits      []Named    // by pooling; the first is the one that Vector takes
	Report    *Report

	provenance steering.Provenance
	pairs      [][2]Response // positive, negative
	embeddings Embeddings    // of the first pooling, row i of both classes from pairs[i]
}

// Vector returns the direction of an estimator at all layers, from the first pooling.
func (x *Extraction) Vector(k Estimator) (*steering.Vector, error) {
	return x.Fits[0].Vector(k, x.provenance)
}

// Extract finds the direction between two behaviours of a model. The model answers each scenario in both ways (or the texts are given), the
// hidden states of the answers are pooled to one embedding for each text and layer, and all estimators are fitted at all layers.
func Extract(ctx context.Context, m *engine.Model, scenarios []Scenario, opt ExtractOptions) (*Extraction, error) {
	e, err := newExtraction(m, scenarios, opt)
	if err != nil {
		return nil, err
	}
	all, err := e.responses(ctx)
	if err != nil {
		return nil, err
	}
	x := &Extraction{Responses: all}
	pairs := e.usable(all, x)
	if len(pairs) < 2 {
		return nil, fmt.Errorf("contrast: %d of %d scenarios gave a pair of texts that can be used, want at least 2: %s",
			len(pairs), len(scenarios), strings.Join(x.LeftOut, "; "))
	}
	x.pairs = pairs
	if err := e.fit(ctx, x); err != nil {
		return nil, err
	}
	if x.Report, err = NewReport(x.Fits...); err != nil {
		return nil, err
	}
	x.provenance = e.provenance(len(pairs))
	return x, nil
}

// extraction is a run of Extract.
type extraction struct {
	m         *engine.Model
	encoder   *Encoder
	scenarios []Scenario
	opt       ExtractOptions
	context   int // tokens that the model's context holds
}

func newExtraction(m *engine.Model, scenarios []Scenario, opt ExtractOptions) (*extraction, error) {
	encoder, err := NewEncoder(m, opt.Format)
	if err != nil {
		return nil, err
	}
	given := len(scenarios) > 0
	for i := range scenarios {
		if err := scenarios[i].validate(); err != nil {
			return nil, fmt.Errorf("contrast: scenario %d: %w", i, err)
		}
		given = given && scenarios[i].Given()
	}
	if opt.Temperature == 0 {
		opt.Temperature = 0.6
	}
	opt.Temperature = max(opt.Temperature, 0)
	if opt.TopP == 0 {
		opt.TopP = 0.9
	}
	if opt.Seed == 0 {
		opt.Seed = 42
	}
	if opt.MaxTokens == 0 {
		opt.MaxTokens = 256
	}
	if opt.MaxTokens < 1 {
		return nil, fmt.Errorf("contrast: answers of at most %d tokens", opt.MaxTokens)
	}
	if opt.Poolings == nil {
		opt.Poolings = DefaultPoolings(given)
	}
	if opt.Date.IsZero() {
		opt.Date = time.Now()
	}
	if opt.Progress == nil {
		opt.Progress = func(Step) {}
	}
	return &extraction{m: m, encoder: encoder, scenarios: scenarios, opt: opt, context: m.Stats().Memory.MaxContext}, nil
}

// responses returns the texts of all scenarios, generating what is neither given nor kept.
func (e *extraction) responses(ctx context.Context) ([]Response, error) {
	key, err := keyOf(e.m.SteeringConfig(), e.opt.Model, e.scenarios, e.opt.Temperature, e.opt.TopP, e.opt.Seed, e.opt.MaxTokens, e.opt.Format)
	if err != nil {
		return nil, err
	}
	kept, err := openLedger(e.opt.Keep, key, len(e.scenarios))
	if err != nil {
		return nil, err
	}
	defer kept.close()
	var missing []Response
	for i := range e.scenarios {
		for _, class := range []string{positive, negative} {
			if kept.have[place{i, class}] {
				continue
			}
			r, err := e.begin(i, class)
			if err != nil {
				return nil, fmt.Errorf("contrast: scenario %d: %w", i, err)
			}
			if r.Finish == "" {
				missing = append(missing, r)
			} else if err := kept.add(r); err != nil {
				return nil, err
			}
		}
	}
	if err := e.generate(ctx, kept, missing); err != nil {
		return nil, err
	}
	return kept.finish()
}

// begin returns the response to be: with its prompt, and with its text if that is given.
func (e *extraction) begin(i int, class string) (Response, error) {
	s := &e.scenarios[i]
	r := Response{Scenario: i, Class: class, Prompt: s.Prompt}
	systems, text := s.PositiveSystem, s.Positive
	if class == negative {
		systems, text = s.NegativeSystem, s.Negative
	}
	if len(systems) > 0 {
		r.System = systems[i%len(systems)]
	}
	var err error
	if s.Given() {
		r.Text, r.Finish = text, "given"
		r.Before, r.IDs, err = e.encoder.Answer("", s.Prompt, text)
	} else {
		r.Before, err = e.encoder.Prompt(r.System, s.Prompt)
	}
	return r, err
}

// generate lets the model answer, as many at a time as it takes. Which answers are generated together changes none of them.
func (e *extraction) generate(ctx context.Context, kept *ledger, missing []Response) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	var mu sync.Mutex // guards done
	done := len(kept.all)
	slots := make(chan struct{}, 2*e.m.Stats().Memory.MaxBatch)
	for _, r := range missing {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := e.answer(ctx, &r); err != nil {
				cancel(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if err := kept.add(r); err != nil {
				cancel(err)
				return
			}
			done++
			e.opt.Progress(Step{"generate", done, 2 * len(e.scenarios)})
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// answer generates a response.
func (e *extraction) answer(ctx context.Context, r *Response) error {
	seed := e.opt.Seed + 2*uint64(r.Scenario)
	if r.Class == negative {
		seed++
	}
	g, err := e.m.Generate(ctx, engine.Request{
		IDs: r.Before, MaxTokens: e.opt.MaxTokens, Temperature: e.opt.Temperature, TopP: e.opt.TopP, Seed: seed,
	})
	if err != nil {
		return fmt.Errorf("contrast: scenario %d, %s: %w", r.Scenario, r.Class, err)
	}
	result := g.Result()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if result.Finish == "cancelled" {
		result.Err = engine.ErrClosed
	}
	if result.Err != nil {
		return fmt.Errorf("contrast: scenario %d, %s: %w", r.Scenario, r.Class, result.Err)
	}
	r.IDs, r.Text, r.Finish = result.IDs, result.Text, result.Finish
	return nil
}

// usable pairs the responses up and notes in x which cannot be used: a pair with an empty answer, or one too long for the context.
func (e *extraction) usable(all []Response, x *Extraction) [][2]Response {
	var pairs [][2]Response
	for i := 0; i+1 < len(all); i += 2 {
		pair := [2]Response{all[i], all[i+1]}
		why := ""
		for _, r := range pair {
			switch n := len(r.Before) + len(r.IDs); {
			case len(r.IDs) == 0:
				why = "an empty " + r.Class + " response"
			case n > e.context:
				why = fmt.Sprintf("the %s one has %d tokens with its prompt, the context has %d", r.Class, n, e.context)
			}
		}
		if why != "" {
			x.LeftOut = append(x.LeftOut, fmt.Sprintf("scenario %d: %s", pair[0].Scenario, why))
			continue
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

// captureBatch is how many sequences are captured between two reports of progress.
const captureBatch = 16

// fit captures the embeddings of the pairs and fits each pooling.
func (e *extraction) fit(ctx context.Context, x *Extraction) error {
	layers := e.opt.Layers
	if layers == nil {
		for l := range e.m.Config().NumHiddenLayers {
			layers = append(layers, l)
		}
	}
	pools := make([]engine.Pool, len(e.opt.Poolings))
	embeddings := make([]Embeddings, len(pools))
	for i, p := range e.opt.Poolings {
		pools[i] = p.Pool
		embeddings[i] = Embeddings{
			Hidden: e.m.Config().HiddenSize, NumHiddenLayers: e.m.Config().NumHiddenLayers, Layers: layers, Paired: true,
		}
	}
	var sequences []engine.Sequence
	for _, pair := range x.pairs {
		for _, r := range pair {
			sequences = append(sequences, engine.Sequence{Prompt: r.Before, Continuation: r.IDs})
		}
	}
	captured, err := capture(ctx, e.m, sequences, layers, pools, func(done int) {
		e.opt.Progress(Step{"capture", done, len(sequences)})
	})
	if err != nil {
		return err
	}
	for n, c := range captured {
		for i := range pools {
			if err := embeddings[i].Append(n%2 == 0, c[i].Values); err != nil {
				return err
			}
		}
	}
	x.embeddings = embeddings[0]
	for i := range pools {
		fitted, err := fitOn(ctx, e.m, embeddings[i], Options{Splits: e.opt.Splits, Seed: e.opt.Seed})
		if err != nil {
			return fmt.Errorf("pooling %s: %w", e.opt.Poolings[i].Name, err)
		}
		x.Fits = append(x.Fits, Named{e.opt.Poolings[i].Name, fitted})
		e.opt.Progress(Step{"fit", i + 1, len(pools)})
	}
	return nil
}

// fitOn is Fit on the model's device.
func fitOn(ctx context.Context, m *engine.Model, e Embeddings, opt Options) (fitted *Fitted, err error) {
	err = m.Use(ctx, func(d *engine.Device) (err error) {
		fitted, err = Fit(ctx, d.Backend(), e, opt)
		return err
	})
	return fitted, err
}

// capture is engine.Capture in parts, the longest sequences first so that parts are of like length.
func capture(ctx context.Context, m *engine.Model, sequences []engine.Sequence, layers []int, pools []engine.Pool,
	progress func(done int)) ([]engine.Captured, error) {
	order := make([]int, len(sequences))
	for i := range order {
		order[i] = i
	}
	length := func(i int) int { return len(sequences[i].Prompt) + len(sequences[i].Continuation) }
	slices.SortStableFunc(order, func(a, b int) int { return length(b) - length(a) })
	out := make([]engine.Captured, len(sequences))
	done := 0
	for part := range slices.Chunk(order, captureBatch) {
		var some []engine.Sequence
		for _, i := range part {
			some = append(some, sequences[i])
		}
		captured, err := m.Capture(ctx, some, layers, pools...)
		if err != nil {
			return nil, err
		}
		for n, i := range part {
			out[i] = captured[n]
		}
		done += len(part)
		progress(done)
	}
	return out, nil
}

func (e *extraction) provenance(pairs int) steering.Provenance {
	given := 0
	for i := range e.scenarios {
		if e.scenarios[i].Given() {
			given++
		}
	}
	notes := map[string]string{
		"pooling": e.opt.Poolings[0].Name,
		"pairs":   fmt.Sprint(pairs),
	}
	if given < len(e.scenarios) {
		notes["sampling"] = fmt.Sprintf("temperature %v, top_p %v, seed %d, at most %d tokens",
			roundOff(e.opt.Temperature), roundOff(e.opt.TopP), e.opt.Seed, e.opt.MaxTokens)
	}
	return steering.Provenance{
		Model: e.opt.Model, Fingerprint: e.m.SteeringConfig().Fingerprint(), NumHiddenLayers: e.m.Config().NumHiddenLayers,
		Data: e.opt.Data, Date: e.opt.Date.UTC().Format(time.RFC3339), Notes: notes,
	}
}

// roundOff shows a float32 as it was written.
func roundOff(x float32) float64 { return math.Round(float64(x)*1e6) / 1e6 }
