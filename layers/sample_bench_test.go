package layers

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

// BenchmarkSample samples from Qwen3's vocabulary on each backend and on the host (one core), and checks that they agree.
func BenchmarkSample(b *testing.B) {
	const vocab = 151936
	rng := rand.New(rand.NewPCG(1, 2))
	forms := []struct {
		name   string
		params Params
		fn     func(logits, params, u *graph.Node) *graph.Node
	}{
		{"greedy", Params{}, func(logits, _, _ *graph.Node) *graph.Node { return Greedy(logits) }},
		{"temperature", Params{Temperature: 0.8}, SampleTemperature},
		{"top_p", Params{Temperature: 0.8, TopP: 0.95}, SampleFiltered},
		{"all", Params{Temperature: 0.8, TopK: 50, TopP: 0.95, MinP: 0.01}, SampleFiltered},
	}
	for _, rows := range []int{1, 8, 16} {
		for _, form := range forms {
			var batch batch
			for r := range rows {
				logits := make([]float32, vocab)
				for i := range logits {
					logits[i] = float32(2.5 * rng.NormFloat64())
				}
				batch.add(logits, form.params, Uniform(1, uint64(r)))
			}
			want := batch.host()
			b.Run(fmt.Sprintf("host/%s/rows=%d", form.name, rows), func(b *testing.B) {
				for b.Loop() {
					batch.host()
				}
			})
			for name, backend := range pjrttest.Backends(b) {
				b.Run(fmt.Sprintf("%s/%s/rows=%d", name, form.name, rows), func(b *testing.B) {
					exec := graph.MustNewExec(backend, form.fn)
					args := batch.args()
					require.Equal(b, want, tensors.MustCopyFlatData[int32](exec.MustCall1(args...)))
					for b.Loop() {
						exec.MustCall1(args...).MustFinalizeAll()
					}
				})
			}
		}
	}
}
