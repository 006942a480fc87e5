package bench

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/pjrt"
)

const small = "../parity/testdata/qwen3-tied-bf16"

// backends are the Go backend and, where its plugin is installed, XLA.
func backends(t *testing.T) []string {
	if pjrt.Enabled {
		plugins, err := pjrt.Find("cpu")
		require.NoError(t, err)
		if len(plugins) > 0 {
			return []string{"go", "xla:cpu"}
		}
	}
	require.NotEqual(t, "true", os.Getenv("CI"), "under CI both backends must be tested; `make setup` fetches the plugin")
	t.Log("left out: XLA; `make setup` fetches its plugin")
	return []string{"go"}
}

func TestRun(t *testing.T) {
	for _, backend := range backends(t) {
		t.Run(backend, func(t *testing.T) {
			r, err := Run(t.Context(), small, Options{Backend: backend, DType: "float32", Batch: []int{1, 3}, Tokens: 32, Prompt: 40, Repeats: 2})
			require.NoError(t, err)
			require.Len(t, r.Decode, 2)
			summaries := []Summary{r.Start, r.Prefill, r.Decode[0].Rate, r.Decode[1].Rate}
			for i, s := range summaries {
				require.Positive(t, s.Min, i)
				require.LessOrEqual(t, s.Min, s.Median, i)
				require.LessOrEqual(t, s.Median, s.Max, i)
			}
			require.Equal(t, []int{1, 2, 2, 2}, []int{r.Start.Runs, r.Prefill.Runs, r.Decode[0].Rate.Runs, r.Decode[1].Rate.Runs})
			require.Equal(t, []int{1, 3}, []int{r.Decode[0].Batch, r.Decode[1].Batch})
			require.Positive(t, r.Load)
			require.Positive(t, r.Compile)
			require.LessOrEqual(t, r.Load, r.Start.Median)
			require.Equal(t, "float32", r.DType)
			require.NotContains(t, r.Backend, ":")
			if _, err := os.Stat("/proc/self/status"); err == nil {
				require.Greater(t, r.PeakRSS, int64(1<<20))
			}

			// The ids are those of the engine, asked plainly.
			m, err := engine.Open(t.Context(), small, engine.Options{Backend: backend, DType: "float32"})
			require.NoError(t, err)
			defer func() { require.NoError(t, m.Close()) }()
			g, err := m.Generate(t.Context(), engine.Request{IDs: Prompt(0, shortPrompt, m.Config().VocabSize), MaxTokens: 32, IgnoreEOS: true})
			require.NoError(t, err)
			require.Equal(t, g.Result().IDs, r.IDs)
			// The model is tied, and so is read whole: every parameter in four bytes.
			require.Equal(t, 4*m.Config().Parameters(), r.WeightsRead)
			require.Positive(t, r.PrefillFLOPs)

			var table strings.Builder
			require.NoError(t, r.Write(&table))
			for _, want := range []string{"decode, batch 1 ", "decode, batch 3 ", "prefill, 40 tokens ", "start to first token ", "steerage on "} {
				require.Contains(t, table.String(), want)
			}
			data, err := json.Marshal(r)
			require.NoError(t, err)
			var back Result
			require.NoError(t, json.Unmarshal(data, &back))
			require.Equal(t, *r, back)
		})
	}
}

func TestRunRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		dir  string
		opt  Options
		want string
	}{
		"batch 0":        {small, Options{Batch: []int{1, 0}}, "batch is 0, want 1 to 256"},
		"huge batch":     {small, Options{Batch: []int{257}}, "batch is 257, want 1 to 256"},
		"no batch":       {small, Options{Batch: []int{}}, "no batch"},
		"one token":      {small, Options{Tokens: 1}, "tokens is 1, want 2 to"},
		"negative":       {small, Options{Prompt: -1}, "prompt is -1 tokens"},
		"repeats":        {small, Options{Repeats: -1}, "repeats is -1"},
		"too long":       {small, Options{Backend: "go", Prompt: 5000}, "5001"},
		"no such folder": {"testdata/none", Options{Backend: "go"}, "testdata/none"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Run(t.Context(), c.dir, c.opt)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestDecodeRate(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds ...float64) (row []time.Time) {
		for _, s := range seconds {
			row = append(row, start.Add(time.Duration(s*float64(time.Second))))
		}
		return row
	}
	for name, c := range map[string]struct {
		rows [][]time.Time
		want float64 // 0 is an error
	}{
		"one row":                    {[][]time.Time{at(1, 1.5, 2, 2.5)}, 2},
		"entered together":           {[][]time.Time{at(1, 2, 3), at(1, 2, 3)}, 2},
		"one entered two steps late": {[][]time.Time{at(1, 1.25, 2, 3), at(2, 3, 4, 5)}, 2}, // its fast lonely step does not count
		"read late":                  {[][]time.Time{at(1, 2, 3), at(1, 2, 3.1)}, 2},
		"never together":             {[][]time.Time{at(1, 2), at(2, 3)}, 0},
		"one after the other":        {[][]time.Time{at(1, 2), at(5, 6)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rate, err := timed{rows: c.rows}.decodeRate()
			if c.want == 0 {
				require.ErrorIs(t, err, errApart)
				return
			}
			require.NoError(t, err)
			require.InDelta(t, c.want, rate, 1e-9)
		})
	}
}

func TestSummarize(t *testing.T) {
	require.Equal(t, Summary{}, Summarize(nil))
	runs := []float64{3, 1, 2}
	require.Equal(t, Summary{Min: 1, Median: 2, Max: 3, Runs: 3}, Summarize(runs))
	require.Equal(t, []float64{3, 1, 2}, runs, "the runs keep their order")
	require.Equal(t, Summary{Min: 1, Median: 2.5, Max: 9, Runs: 4}, Summarize([]float64{9, 1, 2, 3}))
}
