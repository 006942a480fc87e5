package bench

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/pjrt"
)

// Machine is what the computer can do at best, as far as it was measured.
type Machine struct {
	CPU     string   `json:"cpu"` // "" where the system does not tell
	Cores   int      `json:"cores"`
	GPU     string   `json:"gpu,omitempty"`     // name and clocks, in nvidia-smi's words
	Devices []string `json:"devices,omitempty"` // in the plugin's words
	// ReadBandwidth in bytes per second: of the device's memory, all cores reading. On a CPU it is the median of several passes over 512 MB,
	// elsewhere the fastest pass over the weights.
	ReadBandwidth float64 `json:"read_bytes_per_s"`
	// MatmulRate in operations per second: of square matrix products in the model's type, by the fastest of several runs.
	MatmulRate float64 `json:"matmul_flops_per_s"`
}

// describe fills in what can be known before a model is open.
func describe() Machine {
	return Machine{CPU: cpuName(), Cores: runtime.NumCPU()}
}

// cpuName is the processor's name in Linux's words.
func cpuName() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // other systems have none
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t :\n")
		}
	}
	return ""
}

// gpuName is the first GPU's name, clocks and power limit; "" without nvidia-smi.
func gpuName(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nvidia-smi",
		"--query-gpu=name,clocks.max.sm,clocks.max.memory,power.limit,driver_version", "--format=csv,noheader").Output()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}

const probePasses = 5

var probeBytes = 512 << 20 // beyond most caches; less in tests

// hostBandwidth reads memory with all cores at once and returns bytes per second, the median of several passes. The memory is given back.
func hostBandwidth(ctx context.Context) (float64, error) {
	defer debug.FreeOSMemory()
	threads := runtime.GOMAXPROCS(0)
	parts := make([][]byte, threads)
	each := func(f func(i int)) {
		var wg sync.WaitGroup
		for i := range parts {
			wg.Go(func() { f(i) })
		}
		wg.Wait()
	}
	each(func(i int) {
		parts[i] = make([]byte, probeBytes/threads)
		for at := 0; at < len(parts[i]); at += 512 { // pages that nobody wrote to are all the same one
			parts[i][at] = 1
		}
	})
	var seconds []float64
	for range probePasses {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		found := make([]int, threads)
		began := time.Now()
		each(func(i int) { found[i] = bytes.IndexByte(parts[i], 2) }) // vector instructions, to the end
		seconds = append(seconds, time.Since(began).Seconds())
		for _, at := range found {
			if at >= 0 {
				return 0, errors.New("bench: memory changed while it was read")
			}
		}
	}
	return float64(probeBytes/threads*threads) / Summarize(seconds).Median, nil
}

// deviceBandwidth has the device read every weight of the model.
func deviceBandwidth(ctx context.Context, m *engine.Model) (float64, error) {
	p := &engine.Program{Name: "bench read", Weights: true, Build: func(b engine.Builder, _ []*graph.Node) []*graph.Node {
		var all []*graph.Node
		for _, w := range b.Params {
			all = append(all, graph.ReduceAllMax(graph.ConvertDType(w, dtypes.Float32)))
		}
		return []*graph.Node{graph.ReduceAllMax(graph.Stack(all, 0))}
	}}
	best, err := fastest(ctx, m, p)
	return float64(m.Stats().Memory.Weights) / best, err
}

// matmulRate multiplies square matrices of the model's type on its device.
func matmulRate(ctx context.Context, m *engine.Model) (float64, error) {
	n, chain := 1024, 8
	switch m.Backend().Kind {
	case pjrt.XLACUDA:
		n, chain = 8192, 16
	case pjrt.Go:
		n, chain = 256, 1
	}
	square := shapes.Make(dtypes.Float32, n, n)
	flat := make([]float32, n*n)
	for i := range flat {
		flat[i] = float32(i%7-3) / 64
	}
	p := &engine.Program{Name: "bench matmul", Inputs: []shapes.Shape{square}, Build: func(b engine.Builder, in []*graph.Node) []*graph.Node {
		x, w := in[0], graph.ConvertDType(in[0], b.KV)
		for range chain {
			x = layers.Linear(b.Platform, x, w)
		}
		return []*graph.Node{graph.ReduceAllMax(x)}
	}}
	best, err := fastest(ctx, m, p, flat)
	return 2 * float64(n) * float64(n) * float64(n) * float64(chain) / best, err
}

// fastest runs a program several times, once before, and returns the seconds of the fastest run.
func fastest(ctx context.Context, m *engine.Model, p *engine.Program, inputs ...any) (float64, error) {
	best := math.Inf(1)
	err := m.Use(ctx, func(d *engine.Device) error {
		for pass := range 1 + probePasses {
			began := time.Now()
			if _, err := d.Call(p, inputs...); err != nil {
				return err
			}
			if pass > 0 {
				best = min(best, time.Since(began).Seconds())
			}
		}
		return nil
	})
	return best, err
}

// Work is what a piece of computation needs at least.
type Work struct {
	Bytes float64 `json:"bytes"` // read from the device's memory
	FLOPs float64 `json:"flops"`
}

// Seconds is the least time that a machine takes for it, if it reads and multiplies at the same time.
func (w Work) Seconds(m Machine) float64 { return max(w.Bytes/m.ReadBandwidth, w.FLOPs/m.MatmulRate) }

// decodeWork is one step of rows with that many tokens in their caches; weights are the bytes of all of the model's weights.
func decodeWork(cfg *model.Config, weights, kvPerToken int64, rows, context int) Work {
	read := float64(weights) * float64(cfg.DecodeParameters()) / float64(cfg.Parameters())
	return Work{Bytes: read + float64(kvPerToken)*float64(rows)*float64(context), FLOPs: float64(rows) * float64(cfg.FLOPs(context))}
}

// prefillWork is one prompt. Position p attends to p + 1 tokens, and only the last one passes the head.
func prefillWork(cfg *model.Config, weights int64, prompt int) Work {
	head := 2 * float64(cfg.VocabSize) * float64(cfg.HiddenSize)
	read := float64(weights) * float64(cfg.DecodeParameters()) / float64(cfg.Parameters())
	return Work{Bytes: read, FLOPs: (float64(cfg.FLOPs((prompt+1)/2))-head)*float64(prompt) + head}
}

// peakRSS is the greatest resident memory of this process in bytes (VmHWM of Linux); 0 on other systems.
func peakRSS() (int64, error) {
	const name = "/proc/self/status"
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" && f[2] == "kB" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib * 1024, err
		}
	}
	return 0, errors.New(name + " has no VmHWM")
}
