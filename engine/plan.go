package engine

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"github.com/steerage/steerage/model"
)

// Plan is a model's need of device memory, worked out from its declaration alone, before anything is loaded. All in bytes.
type Plan struct {
	Weights   int64 `json:"weights_bytes"`   // every tensor in the type it is computed in
	KV        int64 `json:"kv_bytes"`        // the main cache when MaxBatch requests all have MaxContext tokens
	Workspace int64 `json:"workspace_bytes"` // the largest program's activations and logits, estimated
	Limit     int64 `json:"limit_bytes"`     // what there is; 0 if not known

	KVPerToken int64 `json:"kv_bytes_per_token"`
	MaxBatch   int   `json:"max_batch"`
	MaxContext int   `json:"max_context"`
}

// Total is what the model needs at most.
func (p Plan) Total() int64 { return p.Weights + p.KV + p.Workspace }

// defaultMaxContext bounds Options.MaxContext when it is not given: a longer context must be asked for, as it is paid for by every row.
const defaultMaxContext = 8192

// PlanMemory works out the plan for a configuration whose matrices have the given dtype on the device. With
// opt.MaxContext 0 the context is the model's own, at most 8192, halved until the plan fits the limit (but not below 512).
// It is an error that names both numbers if even that does not fit, or if a context asked for does not.
func PlanMemory(cfg *model.Config, dtype dtypes.DType, opt Options) (Plan, error) {
	p := Plan{Limit: opt.MemoryLimit, MaxBatch: opt.MaxBatch, MaxContext: opt.MaxContext}
	if p.MaxBatch == 0 {
		p.MaxBatch = defaultMaxBatch
	}
	size := int64(dtype.Size())
	for _, w := range cfg.Weights() {
		if w.Kind == model.Norm {
			p.Weights += 4 * w.Size()
		} else {
			p.Weights += size * w.Size()
		}
	}
	p.KVPerToken = size * cfg.KVElements()
	// A prefill of one chunk holds a few activations of the MLP's width and one layer's scores; every program the logits of its rows.
	p.Workspace = 4 * (chunkTokens*int64(4*cfg.HiddenSize+3*cfg.IntermediateSize) +
		2*chunkTokens*chunkTokens*int64(cfg.NumAttentionHeads) + int64(p.MaxBatch)*int64(cfg.VocabSize)*2)
	if opt.MaxContext > cfg.MaxPositionEmbeddings {
		return p, fmt.Errorf("context of %d tokens asked for, the model has %d positions (max_position_embeddings)",
			opt.MaxContext, cfg.MaxPositionEmbeddings)
	}
	if p.MaxContext == 0 {
		p.MaxContext = min(cfg.MaxPositionEmbeddings, defaultMaxContext)
	}
	for {
		p.KV = int64(p.MaxBatch) * int64(p.MaxContext) * p.KVPerToken
		if p.Limit == 0 || p.Total() <= p.Limit {
			return p, nil
		}
		if opt.MaxContext != 0 || p.MaxContext <= 512 {
			return p, fmt.Errorf("the model needs %s (weights %s, cache of %d requests of %d tokens %s, workspace %s), there are %s: "+
				"ask for a shorter context or fewer requests at a time",
				bytesString(p.Total()), bytesString(p.Weights), p.MaxBatch, p.MaxContext, bytesString(p.KV),
				bytesString(p.Workspace), bytesString(p.Limit))
		}
		p.MaxContext = max(p.MaxContext/2, 512)
	}
}

func bytesString(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	if n < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

// hostMemory returns the bytes of memory that this process may still take, 0 if that cannot be told.
func hostMemory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
