package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/steerage/steerage/chat"
	"github.com/steerage/steerage/engine/schedule"
	"github.com/steerage/steerage/hub"
	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/pjrt"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/tokenizer"
)

const (
	defaultMaxBatch = 16
	chunkTokens     = 512
)

// Options of [Open]. The zero value is a good start.
type Options struct {
	// Backend is "", "xla", "xla:cpu", "xla:cuda", "xla:/path/to/plugin.so" or "go"; see pjrt.Select. Empty means $GOMLX_BACKEND, else
	// the best plugin found, else the Go backend.
	Backend string
	// DType is the type that matrices and cache have on the device: "" as stored (float16 becomes float32 where a CPU computes), or "float32".
	DType string
	// MaxBatch is how many requests may be in work at a time (16 if 0); more wait.
	MaxBatch int
	// MaxContext bounds prompt and answer of one request together; 0 is the model's own bound, at most 8192, less if memory is short.
	MaxContext int
	// MemoryLimit in bytes; 0 is what the device, or for CPU backends the host, has free.
	MemoryLimit int64
	// Schedule replaces schedule.DefaultConfig(MaxContext, MaxBatch).
	Schedule *schedule.Config
	// RandomWeights fills the declared weights with seeded random numbers, in config.json's torch_dtype (bfloat16 if it names none), and
	// reads no checkpoint: to measure a shape whose weights are not at hand.
	RandomWeights bool
	// Logger gets one line per program compiled; nil is silence.
	Logger *slog.Logger
}

// Model is an opened model. Its methods may be called from any number of goroutines.
type Model struct {
	cfg    *model.Config
	tok    tokenizer.Tokenizer
	choice pjrt.Choice

	template    *chat.Template // nil with templateErr
	templateErr error

	plan  Plan
	dev   *device
	load  time.Duration
	sched schedule.Config

	mu     sync.Mutex // guards what follows
	core   *schedule.Core
	gens   map[schedule.ID]*Generation
	lastID schedule.ID
	jobs   []*job
	chores []chore
	closed bool

	wake chan struct{}
	done chan struct{} // closed when the loop has ended
}

// job is a piece of work that has the device to itself, between two plans.
type job struct {
	ctx  context.Context
	run  func(*device) error
	done chan error
}

// ErrClosed is returned by the methods of a model that has been closed.
var ErrClosed = errors.New("engine: the model is closed")

// Open loads a model: a folder with config.json, model.safetensors or its shards, and, if they are there, tokenizer.json and a
// chat template; or, where there is no such folder, "org/name[@revision]" of the Hugging Face hub, which is fetched into its cache.
// Everything is checked before anything is loaded: the configuration, each tensor's name, shape and type, and the memory plan.
func Open(ctx context.Context, name string, opt Options) (_ *Model, err error) {
	began := time.Now()
	log := opt.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir, err := locate(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("engine: model %w", err)
	}
	cfg, err := model.LoadConfig(dir)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	m := &Model{cfg: cfg, gens: map[schedule.ID]*Generation{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err == nil {
		if m.tok, err = tokenizer.Open(dir); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("engine: %w", err)
	}
	// A template that is missing or beyond us matters to who uses it.
	m.template, m.templateErr = chat.Open(dir)
	weights := randomWeights(cfg)
	if !opt.RandomWeights {
		if weights, err = openCheckpoint(cfg, dir); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
	}
	defer func() { _ = weights.close() }()

	// float32 asked for is float32 meant: no TF32 in matrix products on a GPU.
	backend, choice, err := pjrt.Select(opt.Backend, pjrt.Options{NoTF32: opt.DType == "float32" || weights.dtype == dtypes.Float32})
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	defer func() {
		if err != nil {
			backend.Finalize()
		}
	}()
	m.choice = choice
	platform := platformOf(choice)
	dtype, err := computeDType(opt.DType, weights.dtype, platform)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if opt.MemoryLimit == 0 {
		opt.MemoryLimit = freeMemory(backend, platform)
	}
	if m.plan, err = PlanMemory(cfg, dtype, opt); err != nil {
		return nil, fmt.Errorf("engine: %s: %w", dir, err)
	}
	sched := schedule.DefaultConfig(m.plan.MaxContext, m.plan.MaxBatch)
	if opt.Schedule != nil {
		sched = *opt.Schedule
	}
	m.sched = sched
	if m.core, err = schedule.New(sched); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}

	ps := &programs{backend: backend, platform: platform, cfg: cfg, weights: cfg.Weights(), kv: dtype, log: log, cache: map[string]*program{}}
	for _, w := range ps.weights {
		ps.stored = append(ps.stored, storedShape(platform, w, weights.stored(w.Name), dtype))
	}
	m.dev = &device{backend: backend, cfg: cfg, ps: ps, rope: map[int][2]compute.Buffer{}, kept: map[*Session]kvCache{}}
	m.dev.steerMain.table = steering.NewTable(cfg.NumHiddenLayers, cfg.HiddenSize)
	m.dev.steerPrompt.table = steering.NewTable(cfg.NumHiddenLayers, cfg.HiddenSize)
	if m.dev.weights, err = loadWeights(ctx, backend, platform, ps.weights, ps.stored, weights); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	m.load = time.Since(began)
	log.Info("loaded", "model", dir, "seconds", fmt.Sprintf("%.2f", m.load.Seconds()),
		"weights", bytesString(m.plan.Weights), "backend", platform.String())
	go m.loop()
	return m, nil
}

// locate returns the folder of a model.
func locate(ctx context.Context, name string) (dir string, err error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && !info.IsDir():
		return "", fmt.Errorf("%s is not a folder", name)
	case err == nil:
		return name, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	ref, noRef := hub.Parse(name)
	if noRef != nil {
		return "", fmt.Errorf("%w; nor is it a name on the hub: %w", err, noRef)
	}
	client, err := hub.FromEnv()
	if err != nil {
		return "", err
	}
	s, err := client.Pull(ctx, ref, hub.Model)
	return s.Folder, err
}

func platformOf(c pjrt.Choice) layers.Platform {
	switch c.Kind {
	case pjrt.XLACPU:
		return layers.XLACPU
	case pjrt.XLACUDA:
		return layers.XLAGPU
	default:
		return layers.Go
	}
}

// computeDType is the type that matrices have on the device.
func computeDType(option string, stored dtypes.DType, p layers.Platform) (dtypes.DType, error) {
	switch option {
	case "float32":
		return dtypes.Float32, nil
	case "":
		if stored == dtypes.Float16 && p != layers.XLAGPU {
			return dtypes.Float32, nil // no CPU backend multiplies float16 at a useful speed
		}
		return stored, nil
	}
	return 0, fmt.Errorf("dtype %q is not one of \"\" (as stored), float32", option)
}

// freeMemory is what the device has to give; the host's free memory for CPU backends, 0 if unknown.
func freeMemory(b compute.Backend, p layers.Platform) int64 {
	if p == layers.XLAGPU {
		if mem, err := pjrt.Memory(b); err == nil && len(mem) > 0 {
			return mem[0].Limit - mem[0].InUse
		}
		return 0
	}
	return hostMemory()
}

// Config returns the model's configuration; it must not be changed.
func (m *Model) Config() *model.Config { return m.cfg }

// Tokenizer returns the model's tokenizer, nil if its folder has none.
func (m *Model) Tokenizer() tokenizer.Tokenizer { return m.tok }

// Backend says which backend runs the model, and why.
func (m *Model) Backend() pjrt.Choice { return m.choice }

// Stats is a snapshot of what the model has done.
type Stats struct {
	Load           time.Duration // from Open's call to weights on the device
	Compile        time.Duration // spent in building and compiling programs so far
	Programs       int
	Memory         Plan
	Schedule       schedule.Stats
	DeviceElements int64 // parameters on the device
}

// Stats returns a snapshot.
func (m *Model) Stats() Stats {
	m.mu.Lock()
	s := Stats{Load: m.load, Memory: m.plan, Schedule: m.core.Stats(), DeviceElements: m.cfg.Parameters()}
	m.mu.Unlock()
	m.dev.ps.mu.Lock()
	defer m.dev.ps.mu.Unlock()
	s.Compile, s.Programs = time.Duration(m.dev.ps.seconds*float64(time.Second)), len(m.dev.ps.cache)
	return s
}

// Close ends all requests (they finish as cancelled), frees the device and returns when all is done. Closing twice is fine.
func (m *Model) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.signal()
	<-m.done
	return nil
}

func (m *Model) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// loop owns the device: it carries out jobs and plans until the model is closed.
func (m *Model) loop() {
	defer close(m.done)
	afterJob := false // jobs and plans take turns when there are both
	for {
		m.mu.Lock()
		if m.closed {
			m.shutdown()
			m.mu.Unlock()
			m.dev.close()
			m.dev.backend.Finalize()
			return
		}
		var next *job
		var plan schedule.Plan
		busy := false
		if afterJob || len(m.jobs) == 0 {
			plan, busy = m.core.Next()
		}
		if !busy && len(m.jobs) > 0 {
			next, m.jobs = m.jobs[0], m.jobs[1:]
		}
		afterJob = next != nil
		var c crew
		if busy {
			c = m.crew(plan)
		}
		chores := m.chores
		m.chores = nil
		m.mu.Unlock()
		m.dev.carryOutChores(chores, m.sched.Lengths)

		switch {
		case next != nil:
			err := next.ctx.Err()
			if err == nil {
				err = next.run(m.dev)
			}
			next.done <- err
		case busy:
			tokens, err := m.dev.carryOut(plan, c)
			m.mu.Lock()
			m.publish(m.core.Done(plan, toResult(tokens, err)), logprobs(plan, tokens))
			m.mu.Unlock()
		default:
			m.dev.main.free()
			m.dev.staged.free()
			<-m.wake
		}
	}
}

// carryOut runs a plan and samples a token for each of its rows that is to get one.
func (d *device) carryOut(p schedule.Plan, c crew) ([]drawn, error) {
	var logits compute.Buffer
	var err error
	var rows []int
	var steps []uint64
	total := p.R
	if p.Kind == schedule.Prefill {
		logits, err = d.prefill(p, c)
		for i, r := range p.Rows {
			if r.Last {
				rows, steps = append(rows, i), append(steps, 0)
			}
		}
	} else {
		total = p.Batch
		logits, err = d.decode(p, c)
		for _, s := range p.Slots {
			rows, steps = append(rows, s.Slot), append(steps, s.Step)
		}
	}
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, logits.Finalize()
	}
	return d.sample(logits, total, rows, c.samplers, steps)
}

// sampled lists the requests of a plan that get a token, in the order of carryOut's results.
func sampled(p schedule.Plan) []schedule.ID {
	var ids []schedule.ID
	for _, r := range p.Rows {
		if r.Last {
			ids = append(ids, r.ID)
		}
	}
	for _, s := range p.Slots {
		ids = append(ids, s.ID)
	}
	return ids
}

func logprobs(p schedule.Plan, tokens []drawn) map[schedule.ID]float32 {
	out := map[schedule.ID]float32{}
	for i, id := range sampled(p) {
		if i < len(tokens) {
			out[id] = tokens[i].logprob
		}
	}
	return out
}

func toResult(tokens []drawn, err error) schedule.Result {
	r := schedule.Result{Err: err}
	if err != nil {
		return r
	}
	for i, t := range tokens {
		r.Tokens = append(r.Tokens, t.id)
		if t.err != nil {
			if r.Errs == nil {
				r.Errs = make([]error, len(tokens))
			}
			r.Errs[i] = t.err
		}
	}
	return r
}

// shutdown ends everything that waits. The caller holds the lock.
func (m *Model) shutdown() {
	for id := range m.gens {
		m.publish(m.core.Cancel(id), nil)
	}
	for _, j := range m.jobs {
		j.done <- ErrClosed
	}
	m.jobs = nil
}

// exclusive runs f on the device between two plans and waits for it.
func (m *Model) exclusive(ctx context.Context, f func(*device) error) error {
	j := &job{ctx: ctx, run: f, done: make(chan error, 1)}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	m.jobs = append(m.jobs, j)
	m.mu.Unlock()
	m.signal()
	return <-j.done
}
