package engine

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/pjrt"
	"github.com/steerage/steerage/pjrt/pjrttest"
)

func TestSurveyModel(t *testing.T) {
	cfg, err := model.LoadConfig(small)
	require.NoError(t, err)
	for _, b := range pjrttest.Specs(t) {
		s, err := SurveyModel(cfg, dtypes.Float16, Options{Backend: b, MaxBatch: 3, MaxContext: 64})
		require.NoError(t, err)
		require.Contains(t, []string{pjrt.Go, pjrt.XLACPU, pjrt.XLACUDA}, s.Backend.Kind)
		want, err := PlanMemory(cfg, s.DType, Options{MaxBatch: 3, MaxContext: 64, MemoryLimit: s.Plan.Limit})
		require.NoError(t, err)
		require.Equal(t, want, s.Plan)

		s, err = SurveyModel(cfg, dtypes.Float32, Options{Backend: b, MaxBatch: 3, MaxContext: 64, MemoryLimit: 1})
		require.NoError(t, err, "what does not fit is no error")
		require.Equal(t, int64(1), s.Plan.Limit)
		require.Greater(t, s.Plan.Total(), s.Plan.Limit)
	}
	_, err = SurveyModel(cfg, dtypes.Float32, Options{Backend: "tpu"})
	require.ErrorContains(t, err, "tpu")
}

// The largest context is one that PlanMemory accepts, and the next is not.
func TestLargestContext(t *testing.T) {
	cfg, err := model.LoadConfig(small)
	require.NoError(t, err)
	for _, batch := range []int{1, 5} {
		p, err := PlanMemory(cfg, dtypes.Float32, Options{MaxBatch: batch, MaxContext: 32})
		require.NoError(t, err)
		opt := Options{MaxBatch: batch, MemoryLimit: p.Total() + p.KVPerToken*int64(batch)*7 + 3}
		p.Limit = opt.MemoryLimit
		opt.MaxContext = p.LargestContext(batch, cfg.MaxPositionEmbeddings)
		require.Equal(t, 39, opt.MaxContext)
		_, err = PlanMemory(cfg, dtypes.Float32, opt)
		require.NoError(t, err)
		opt.MaxContext++
		_, err = PlanMemory(cfg, dtypes.Float32, opt)
		require.Error(t, err)

		require.Equal(t, 20, p.LargestContext(batch, 20), "never more than the model has positions")
		p.Limit = p.Weights
		require.Zero(t, p.LargestContext(batch, 20))
		p.Limit = 0
		require.Equal(t, 20, p.LargestContext(batch, 20))
	}
}
