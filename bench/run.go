package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/pjrt"
)

// Result is what was measured. peers/ write the same keys, as far as they measure the same.
type Result struct {
	Engine   string     `json:"engine"`  // "steerage", or the peer and its version
	Backend  string     `json:"backend"` // pjrt.Choice.Kind
	Model    string     `json:"model"`   // folder or Options.Config
	DType    string     `json:"dtype"`   // Options.DType, "as stored" if that is empty
	Machine  Machine    `json:"machine"`
	Start    Start      `json:"start"`
	Decode   []Decode   `json:"decode"`
	Prefill  []Prefill  `json:"prefill"`
	Steering []Steering `json:"steering,omitempty"`

	PeakRSS      int64   `json:"peak_rss_bytes"`              // 0 where the system does not tell
	DeviceMemory int64   `json:"device_peak_bytes,omitempty"` // of a device with memory of its own
	WeightBytes  int64   `json:"weights_bytes"`
	IDs          []int32 `json:"ids"`       // greedy continuation of Prompt(0, Options.Context[0], vocab_size)
	Discarded    int     `json:"discarded"` // runs that were repeated; see the package's documentation
}

// Start is the way to the first token.
type Start struct {
	Seconds  float64 `json:"s"`            // from engine.Open to the first token of a short prompt
	Load     float64 `json:"load_s"`       // of that, until the weights were on the device
	Compile  float64 `json:"compile_s"`    // of that, building programs and compiling them or loading them from the cache on disk
	Compiled int64   `json:"compiled"`     // programs that were compiled: 0 is a warm start
	Cached   int64   `json:"from_cache"`   // programs that were loaded
	Weights  float64 `json:"load_bytes_s"` // bytes of weights per second of Load
}

// Decode is what one batch size and one context gave.
type Decode struct {
	Batch   int     `json:"batch"`
	Context int     `json:"context"` // tokens in each row's cache at the beginning
	Rate    Summary `json:"tok_s"`   // tokens per second, all rows together, of each run
	// Time between two tokens of a row in seconds, over all steps of all runs.
	Latency      float64 `json:"latency_median_s"`
	LatencyP95   float64 `json:"latency_p95_s"`
	FirstToken   Summary `json:"first_token_s"` // from the first request to the last row's first token
	Work         Work    `json:"step_work"`
	CeilingRate  float64 `json:"ceiling_tok_s"`
	BandwidthUse float64 `json:"mbu"` // share of the machine's read bandwidth
}

// Prefill is what one length of prompt gave.
type Prefill struct {
	Prompt      int     `json:"prompt"`
	Rate        Summary `json:"tok_s"`
	FirstToken  Summary `json:"first_token_s"`
	Work        Work    `json:"work"`
	CeilingRate float64 `json:"ceiling_tok_s"`
	FLOPUse     float64 `json:"mfu"` // share of the machine's matmul rate
}

// Prompt returns the n token ids of a row's prompt, below vocabulary: the upper bits of Knuth's MMIX generator, which
// peers/ repeat.
func Prompt(row, n, vocabulary int) []int32 {
	ids := make([]int32, n)
	x := uint64(row) + 1
	for i := range ids {
		x = x*6364136223846793005 + 1442695040888963407
		ids[i] = int32((x >> 33) % uint64(vocabulary))
	}
	return ids
}

// Run opens the model in a folder, measures it and closes it. The table is written to w (which may be io.Discard) as it is measured: the
// machine and the ceiling before what was reached.
func Run(ctx context.Context, dir string, opt Options, w io.Writer) (_ *Result, err error) {
	if err := opt.Validate(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	r := &Result{Engine: "steerage", Model: dir, DType: opt.DType, Machine: describe()}
	if r.DType == "" {
		r.DType = "as stored"
	}
	if opt.Config != "" {
		r.Model = opt.Config
		if dir, err = os.MkdirTemp("", "steerage-bench-"); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if err := writeConfig(dir, opt.Config); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
	}
	if r.Machine.ReadBandwidth, err = hostBandwidth(ctx); err != nil {
		return nil, err
	}

	before, began := pjrt.ReadStats(), time.Now()
	m, err := engine.Open(ctx, dir, engine.Options{Backend: opt.Backend, DType: opt.DType, Logger: opt.Logger,
		MaxBatch: slices.Max(opt.Batch), MaxContext: opt.context(), RandomWeights: opt.Config != ""})
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := m.Close(); err == nil {
			err = e
		}
	}()
	b := &bench{ctx: ctx, m: m, opt: opt, r: r, table: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if err := b.start(began, before); err != nil {
		return nil, err
	}
	for _, step := range []func() error{b.machine, b.decode, b.prefill, b.memory, b.steering} {
		if err := step(); err != nil {
			return nil, err
		}
		if err := b.table.Flush(); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
	}
	r.Discarded = b.discarded
	if len(b.apart) > 0 {
		return nil, &SpreadError{opt.Spread, b.apart}
	}
	return r, nil
}

// bench is an opened model under measurement.
type bench struct {
	ctx       context.Context
	m         *engine.Model
	opt       Options
	r         *Result
	table     *tabwriter.Writer
	discarded int
	apart     []string // figures whose runs disagreed
}

// line writes a line of the table. An error stays with the writer until Flush.
func (b *bench) line(format string, args ...any) { _, _ = fmt.Fprintf(b.table, format+"\n", args...) }

// figure writes a figure's line, or, if its runs disagree, that they do.
func (b *bench) figure(name string, s Summary, unit, note string) {
	if s.Spread() > b.opt.Spread {
		b.apart = append(b.apart, fmt.Sprintf("%s %.4g to %.4g %s", name, s.Min, s.Max, unit))
		b.line("%s\t%.4g\tnot reported\t%.4g\t%s\truns disagree by %.0f%%", name, s.Min, s.Max, unit, 100*s.Spread())
		return
	}
	b.line("%s\t%.4g\t%.4g\t%.4g\t%s\t%s", name, s.Min, s.Median, s.Max, unit, note)
}

// start measures the first token. What it says is written by machine, which comes first in the table.
func (b *bench) start(began time.Time, before pjrt.Stats) error {
	g, err := b.m.Generate(b.ctx, engine.Request{IDs: Prompt(0, startPrompt, b.m.Config().VocabSize), MaxTokens: 1, IgnoreEOS: true})
	if err != nil {
		return err
	}
	if r := g.Result(); r.Err != nil {
		return r.Err
	}
	seconds, stats, after := time.Since(began).Seconds(), b.m.Stats(), pjrt.ReadStats()
	b.r.Backend, b.r.WeightBytes = b.m.Backend().Kind, stats.Memory.Weights
	b.r.Start = Start{Seconds: seconds, Load: stats.Load.Seconds(), Compile: stats.Compile.Seconds(),
		Compiled: after.Compiles - before.Compiles, Cached: after.CacheHits - before.CacheHits,
		Weights: float64(stats.Memory.Weights) / stats.Load.Seconds()}
	return b.ctx.Err()
}

// machine measures what the ceiling needs, and writes the machine, the ceiling and the start.
func (b *bench) machine() (err error) {
	m, cfg, memory := &b.r.Machine, b.m.Config(), b.m.Stats().Memory
	if x := b.m.Backend().XLA; x != nil {
		m.Devices = x.Devices
	}
	if b.r.Backend == pjrt.XLACUDA {
		m.GPU = gpuName(b.ctx)
		if m.ReadBandwidth, err = deviceBandwidth(b.ctx, b.m); err != nil {
			return err
		}
	}
	if m.MatmulRate, err = matmulRate(b.ctx, b.m); err != nil {
		return err
	}
	where := fmt.Sprintf("%d cores of %s", m.Cores, m.CPU)
	if m.GPU != "" {
		where = m.GPU + ", beside " + where
	}
	b.line("machine\t%s", where)
	b.line("backend\t%s, %s", b.r.Backend, b.r.DType)
	b.line("can\tread %.1f GB/s, multiply %.0f GFLOP/s", m.ReadBandwidth/1e9, m.MatmulRate/1e9)
	b.line("model\t%s: %.2f G parameters, %.2f GB of weights, %.1f kB of cache for each token", b.r.Model, float64(cfg.Parameters())/1e9,
		float64(memory.Weights)/1e9, float64(memory.KVPerToken)/1e3)
	for _, batch := range b.opt.Batch {
		for _, context := range b.opt.Context {
			w := b.stepWork(batch, context)
			b.line("ceiling\tdecode, batch %d, context %d: %.4g tokens/s (%.2f GB and %.1f GFLOP a step)", batch, context,
				float64(batch)/w.Seconds(*m), w.Bytes/1e9, w.FLOPs/1e9)
		}
	}
	for _, prompt := range b.opt.Prompt {
		w := prefillWork(cfg, memory.Weights, prompt)
		b.line("ceiling\tprefill of %d: %.4g tokens/s (%.0f GFLOP)", prompt, float64(prompt)/w.Seconds(*m), w.FLOPs/1e9)
	}
	s := b.r.Start
	b.line("start\tfirst token after %.2f s: load %.2f s (%.1f GB/s), programs %.2f s (%d compiled, %d from the cache)",
		s.Seconds, s.Load, s.Weights/1e9, s.Compile, s.Compiled, s.Cached)
	b.line("\n\tmin\tmedian\tmax\t\t")
	return nil
}

// stepWork is the work of a decode step half way through a run.
func (b *bench) stepWork(batch, context int) Work {
	memory := b.m.Stats().Memory
	return decodeWork(b.m.Config(), memory.Weights, memory.KVPerToken, batch, context+b.opt.Tokens/2)
}

func (b *bench) decode() error {
	for _, context := range b.opt.Context {
		for _, batch := range b.opt.Batch {
			d := Decode{Batch: batch, Context: context, Work: b.stepWork(batch, context)}
			var rates, firsts, steps []float64
			err := b.measure(func() error {
				run, err := b.batch(batch, context, nil)
				if err != nil {
					return err
				}
				if b.r.IDs == nil {
					b.r.IDs = run.ids
				}
				rates = append(rates, run.rate(batch))
				firsts = append(firsts, run.first.Seconds())
				steps = append(steps, run.steps...)
				return nil
			}, func() { rates, firsts, steps = nil, nil, nil })
			if err != nil {
				return fmt.Errorf("bench: decode, batch %d, context %d: %w", batch, context, err)
			}
			slices.Sort(steps)
			d.Rate, d.FirstToken = Summarize(rates), Summarize(firsts)
			d.Latency, d.LatencyP95 = quantile(steps, 0.5), quantile(steps, 0.95)
			d.CeilingRate = float64(batch) / d.Work.Seconds(b.r.Machine)
			d.BandwidthUse = d.Work.Bytes * d.Rate.Median / float64(batch) / b.r.Machine.ReadBandwidth
			b.figure(fmt.Sprintf("decode, batch %d, context %d", batch, context), d.Rate, "tokens/s",
				fmt.Sprintf("%.0f%% of the ceiling, MBU %.0f%%; between tokens %.1f ms, p95 %.1f ms",
					100*d.Rate.Median/d.CeilingRate, 100*d.BandwidthUse, 1e3*d.Latency, 1e3*d.LatencyP95))
			b.r.Decode = append(b.r.Decode, d)
		}
	}
	return nil
}

func (b *bench) prefill() error {
	for _, prompt := range b.opt.Prompt {
		p := Prefill{Prompt: prompt, Work: prefillWork(b.m.Config(), b.m.Stats().Memory.Weights, prompt)}
		var rates, seconds []float64
		err := b.measure(func() error {
			took, err := b.firstToken(prompt, nil)
			if err != nil {
				return err
			}
			rates, seconds = append(rates, float64(prompt)/took.Seconds()), append(seconds, took.Seconds())
			return nil
		}, func() { rates, seconds = nil, nil })
		if err != nil {
			return fmt.Errorf("bench: prefill of %d: %w", prompt, err)
		}
		p.Rate, p.FirstToken = Summarize(rates), Summarize(seconds)
		p.CeilingRate = float64(prompt) / p.Work.Seconds(b.r.Machine)
		p.FLOPUse = p.Work.FLOPs * p.Rate.Median / float64(prompt) / b.r.Machine.MatmulRate
		b.figure(fmt.Sprintf("prefill of %d", prompt), p.Rate, "tokens/s", fmt.Sprintf(
			"%.0f%% of the ceiling, MFU %.0f%%; first token after %.3f s", 100*p.Rate.Median/p.CeilingRate, 100*p.FLOPUse, p.FirstToken.Median))
		b.r.Prefill = append(b.r.Prefill, p)
	}
	return nil
}

func (b *bench) memory() (err error) {
	if b.r.PeakRSS, err = peakRSS(); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if b.r.PeakRSS > 0 {
		b.line("host memory, peak\t\t%.2f\t\tGB\tof it weights %.2f GB", float64(b.r.PeakRSS)/1e9, float64(b.r.WeightBytes)/1e9)
	}
	if b.r.Backend != pjrt.XLACUDA {
		return nil
	}
	return b.m.Use(b.ctx, func(d *engine.Device) error {
		if all, err := pjrt.Memory(d.Backend()); err == nil && len(all) > 0 { // a plugin that does not say is no failure
			b.r.DeviceMemory = all[0].Peak
			b.line("device memory, peak\t\t%.2f\t\tGB\tof %.2f GB", float64(all[0].Peak)/1e9, float64(all[0].Limit)/1e9)
		}
		return nil
	})
}

// patience is how many runs in a row may be discarded. Requests that meet in a different order need other programs, of which
// there are few.
const patience = 10

var (
	errApart   = errors.New("the rows were never all at work")
	errCompile = errors.New("a program was compiled")
)

// measure calls run until it has succeeded Repeats times; drop throws away what it has recorded after the first call, which is
// not measured.
func (b *bench) measure(run func() error, drop func()) error {
	if err := run(); err != nil && !useless(err) {
		return err
	}
	drop()
	for range b.opt.Repeats {
		if err := b.settled(run); err != nil {
			return err
		}
	}
	return nil
}

func useless(err error) bool { return errors.Is(err, errCompile) || errors.Is(err, errApart) }

// settled calls run until a call succeeds during which nothing was compiled. run must not record anything if it fails, and b.batch and
// b.firstToken do fail if a program was compiled.
func (b *bench) settled(run func() error) error {
	for range patience {
		err := run()
		if err == nil || !useless(err) {
			return err
		}
		b.discarded++
	}
	return fmt.Errorf("%d runs in a row were of no use: %w, or %w", patience, errCompile, errApart)
}
