package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/pjrt/pjrttest"
)

const small = "../parity/testdata/qwen3-tied-bf16"

// anySpread is beyond what a busy machine does to runs of a few microseconds.
const anySpread = 1e9

func TestMain(m *testing.M) {
	probeBytes = 4 << 20
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	for _, backend := range pjrttest.Specs(t) {
		t.Run(backend, func(t *testing.T) {
			var table bytes.Buffer
			r, err := Run(t.Context(), small, Options{Backend: backend, DType: "float32", Batch: []int{1, 3}, Context: []int{20, 40}, Tokens: 8,
				Prompt: []int{40}, Steering: []int{1, 4, 100}, Repeats: 2, Spread: anySpread}, &table)
			require.NoError(t, err)

			require.Positive(t, r.Machine.ReadBandwidth)
			require.Positive(t, r.Machine.MatmulRate)
			require.Positive(t, r.Machine.Cores)
			require.Positive(t, r.Start.Load)
			require.LessOrEqual(t, r.Start.Load, r.Start.Seconds)
			require.Equal(t, backend != "go", r.Start.Compiled+r.Start.Cached > 0)
			require.Equal(t, "float32", r.DType)
			require.NotContains(t, r.Backend, ":")
			if _, err := os.Stat("/proc/self/status"); err == nil {
				require.Greater(t, r.PeakRSS, int64(1<<20))
			}

			require.Len(t, r.Decode, 4)
			summaries := []Summary{r.Prefill[0].Rate, r.Prefill[0].FirstToken}
			for _, d := range r.Decode {
				summaries = append(summaries, d.Rate, d.FirstToken)
				require.Positive(t, d.Latency)
				require.LessOrEqual(t, d.Latency, d.LatencyP95)
				require.Positive(t, d.BandwidthUse)
			}
			for i, s := range summaries {
				require.Positive(t, s.Min, i)
				require.LessOrEqual(t, s.Min, s.Median, i)
				require.LessOrEqual(t, s.Median, s.Max, i)
				require.Equal(t, 2, s.Runs, i)
			}
			require.Equal(t, []int{1, 20}, []int{r.Decode[0].Batch, r.Decode[0].Context})
			require.Equal(t, []int{3, 40}, []int{r.Decode[3].Batch, r.Decode[3].Context})

			// The model is tied, and so is read whole: every parameter in four bytes, and the keys and values of each row.
			m, err := engine.Open(t.Context(), small, engine.Options{Backend: backend, DType: "float32"})
			require.NoError(t, err)
			defer func() { require.NoError(t, m.Close()) }()
			cfg := m.Config()
			require.InDelta(t, float64(4*cfg.Parameters()+4*cfg.KVElements()*3*44), r.Decode[3].Work.Bytes, 0.5)
			require.InDelta(t, float64(3*cfg.FLOPs(44)), r.Decode[3].Work.FLOPs, 0.5)

			// The ids are those of the engine, asked plainly.
			g, err := m.Generate(t.Context(), engine.Request{IDs: Prompt(0, 20, cfg.VocabSize), MaxTokens: 8, IgnoreEOS: true})
			require.NoError(t, err)
			require.Equal(t, g.Result().IDs, r.IDs)

			// Three layers: 1 row has 3 sites, 3 rows have 9. Plain and 1 are measured alone, and among all.
			var steered [][]int
			for _, s := range r.Steering {
				steered = append(steered, []int{s.Batch, s.Tokens, s.Configurations, s.Among})
				require.Equal(t, 2, s.Plain.Rounds)
				require.LessOrEqual(t, s.Plain.Low, s.Plain.Median)
				require.LessOrEqual(t, s.Plain.Median, s.Plain.High)
				if s.Configurations == 0 {
					require.Equal(t, Interval{1, 1, 1, 2}, s.Plain)
				}
				if s.Configurations == 1 {
					require.Equal(t, Interval{1, 1, 1, 2}, s.One)
				}
			}
			require.Equal(t, [][]int{
				{1, 20, 0, 1}, {1, 20, 1, 1}, {1, 20, 0, 3}, {1, 20, 1, 3}, {1, 20, 3, 3},
				{3, 20, 0, 1}, {3, 20, 1, 1}, {3, 20, 0, 9}, {3, 20, 1, 9}, {3, 20, 4, 9}, {3, 20, 9, 9},
				{1, 40, 0, 1}, {1, 40, 1, 1}, {1, 40, 0, 3}, {1, 40, 1, 3}, {1, 40, 3, 3},
			}, steered)

			for _, want := range []string{"machine ", "can ", "ceiling ", "start ", "decode, batch 1, context 20 ", "decode, batch 3, context 40 ", "prefill of 40 ",
				"steering, all layers"} {
				require.Contains(t, table.String(), want)
			}
			require.Less(t, bytes.Index(table.Bytes(), []byte("ceiling")), bytes.Index(table.Bytes(), []byte("MBU")), "the ceiling comes first")
			data, err := json.Marshal(r)
			require.NoError(t, err)
			var back Result
			require.NoError(t, json.Unmarshal(data, &back))
			require.Equal(t, *r, back)
		})
	}
}

// A shape is enough.
func TestRunConfig(t *testing.T) {
	for _, backend := range pjrttest.Specs(t) {
		r, err := Run(t.Context(), "", Options{Backend: backend, Config: filepath.Join(small, "config.json"), Batch: []int{1}, Tokens: 4, Prompt: []int{},
			Repeats: 1, Spread: anySpread}, io.Discard)
		require.NoError(t, err)
		require.Len(t, r.IDs, 4)
		require.Empty(t, r.Prefill)
		require.Equal(t, filepath.Join(small, "config.json"), r.Model)
	}
}

// The shapes are those of the published models: their numbers of parameters say so.
func TestConfigs(t *testing.T) {
	want := map[string]int64{
		"qwen3-0.6b": 596_049_920, "qwen3-8b": 8_190_735_360, "qwen3-14b": 14_768_307_200, "qwen3-32b": 32_762_123_264,
		"llama-3.2-1b": 1_235_814_400, "llama-3.1-8b": 8_030_261_248, "llama-3.3-70b": 70_553_706_496,
	}
	require.Len(t, Configs(), len(want))
	for _, name := range Configs() {
		dir := t.TempDir()
		require.NoError(t, writeConfig(dir, name))
		cfg, err := model.LoadConfig(dir)
		require.NoError(t, err, name)
		require.Equal(t, want[name], cfg.Parameters(), name)
		require.Equal(t, "bfloat16", cfg.DType, name)
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
		"no context":     {small, Options{Context: []int{}}, "no context"},
		"context":        {small, Options{Context: []int{-3}}, "context is -3"},
		"one token":      {small, Options{Tokens: 1}, "tokens is 1, want 2 to"},
		"negative":       {small, Options{Prompt: []int{-1}}, "prompt is -1"},
		"steering":       {small, Options{Steering: []int{0}}, "steering is 0"},
		"repeats":        {small, Options{Repeats: -1}, "repeats is -1"},
		"spread":         {small, Options{Spread: -0.1}, "spread is -0.1"},
		"too long":       {small, Options{Backend: "go", Prompt: []int{5000}}, "5001"},
		"no such folder": {"testdata/none", Options{Backend: "go"}, "testdata/none"},
		"no such config": {"", Options{Backend: "go", Config: "qwen3-9b"}, `config "qwen3-9b" is none of llama-3.1-8b, `},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Run(t.Context(), c.dir, c.opt, io.Discard)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// Two runs never take the same time to the nanosecond, so a spread of nothing is always exceeded; the figures are named and not reported.
func TestRunRefusesToReport(t *testing.T) {
	var table bytes.Buffer
	r, err := Run(t.Context(), small, Options{Backend: "go", Batch: []int{1}, Tokens: 4, Prompt: []int{8}, Repeats: 3, Spread: 1e-12}, &table)
	require.Nil(t, r)
	var apart *SpreadError
	require.ErrorAs(t, err, &apart)
	require.Len(t, apart.Figures, 2)
	require.ErrorContains(t, err, "decode, batch 1, context 16")
	require.ErrorContains(t, err, "prefill of 8")
	require.Contains(t, table.String(), "not reported")
	require.NotContains(t, table.String(), "MBU")
}

func TestBetween(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds ...float64) (row []time.Time) {
		for _, s := range seconds {
			row = append(row, start.Add(time.Duration(s*float64(time.Second))))
		}
		return row
	}
	for name, c := range map[string]struct {
		stamps []float64
		from   float64
		want   []float64
	}{
		"all together":      {[]float64{1, 1.5, 2}, 1, []float64{0.5, 0.5}},
		"another came late": {[]float64{1, 1.25, 2, 3}, 1.2, []float64{0.75, 1}}, // the step in which it came does not count
		"never together":    {[]float64{1, 2}, 2.5, nil},
		"one stamp":         {[]float64{1}, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, between(at(c.stamps...), at(c.from)[0]))
		})
	}
	require.InDelta(t, 8, decoded{steps: []float64{0.25, 0.75}}.rate(4), 1e-12)
}

func TestWork(t *testing.T) {
	m := Machine{ReadBandwidth: 10, MatmulRate: 100}
	require.InDelta(t, 3, Work{Bytes: 30, FLOPs: 100}.Seconds(m), 1e-12)
	require.InDelta(t, 5, Work{Bytes: 30, FLOPs: 500}.Seconds(m), 1e-12)
	cfg, err := model.LoadConfig(small)
	require.NoError(t, err)
	// Adding up what each token of a prompt costs alone, and the head once, is the prompt.
	head := 2 * cfg.VocabSize * cfg.HiddenSize
	sum := head
	for p := range 9 {
		sum += int(cfg.FLOPs(p+1)) - head
	}
	require.InDelta(t, sum, prefillWork(cfg, 1, 9).FLOPs, 0.5)
}

func TestSpecs(t *testing.T) {
	m, err := engine.Open(t.Context(), small, engine.Options{Backend: "go"})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	b := &bench{m: m}
	for k, want := range map[int]int{1: 1, 4: 4, 12: 12, 1000: 12} { // 4 rows of 3 layers
		specs, err := b.specs(4, k)
		require.NoError(t, err)
		require.Len(t, specs, 4)
		distinct := map[float32]bool{}
		for _, s := range specs {
			require.Len(t, s[0].Vector.Layers, m.Config().NumHiddenLayers)
			for _, l := range s[0].Vector.Layers {
				distinct[l.Direction[0]] = true
			}
		}
		require.Len(t, distinct, want, k)
	}
}

func TestSummarize(t *testing.T) {
	require.Equal(t, Summary{}, Summarize(nil))
	runs := []float64{3, 1, 2}
	require.Equal(t, Summary{Min: 1, Median: 2, Max: 3, Runs: 3}, Summarize(runs))
	require.Equal(t, []float64{3, 1, 2}, runs, "the runs keep their order")
	even := Summarize([]float64{9, 1, 2, 3})
	require.Equal(t, Summary{Min: 1, Median: 2.5, Max: 9, Runs: 4}, even)
	require.InDelta(t, 3.2, even.Spread(), 1e-12)
	require.Zero(t, Summary{}.Spread())
}

func TestRatios(t *testing.T) {
	require.Equal(t, Interval{2, 2, 2, 3}, ratios([]float64{2, 4, 6}, []float64{1, 2, 3}))
	i := ratios([]float64{1, 1.01, 0.99, 1.02, 0.98, 1, 1.5}, []float64{1, 1, 1, 1, 1, 1, 1})
	require.InDelta(t, 1, i.Median, 1e-12, "one bad round does not move a median")
	require.Less(t, i.Low, 1.0)
	require.Greater(t, i.High, 1.0)
	require.Less(t, i.High, 1.1)
	require.Equal(t, i, ratios([]float64{1, 1.01, 0.99, 1.02, 0.98, 1, 1.5}, []float64{1, 1, 1, 1, 1, 1, 1}), "it is a function of its arguments")
}

func TestBandwidth(t *testing.T) {
	for _, backend := range pjrttest.Specs(t) {
		m, err := engine.Open(t.Context(), small, engine.Options{Backend: backend})
		require.NoError(t, err)
		rate, err := deviceBandwidth(t.Context(), m)
		require.NoError(t, err)
		require.Positive(t, rate)
		require.NoError(t, m.Close())
	}
}
