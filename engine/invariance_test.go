package engine

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine/schedule"
	"github.com/steerage/steerage/pjrt/pjrttest"
	"github.com/steerage/steerage/steering"
)

// What must not change a result: how a prompt is cut and padded, who else is in the batch, who had the slot before.
// Logits of differently shaped programs differ by rounding (5e-5 is the tolerance of parity/README.md); tokens do not.

const (
	small     = "../parity/testdata/qwen3-yarn-f32" // grouped queries, QK-norm, float32
	tolerance = 5e-5
)

// prompt is n ids of the small model that depend on seed.
func prompt(seed, n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32((seed*31 + i*i*7 + i*seed*13) % 200)
	}
	return ids
}

// rungs is a schedule with few rungs, hence few programs.
func rungs(batch, context, length int, tokens ...int) *schedule.Config {
	batches := []int{batch}
	if batch > 1 {
		batches = []int{1, batch}
	}
	return &schedule.Config{
		MaxBatch: batch, MaxContext: context, MaxQueue: 64, PrefillRows: 1, Horizon: 0, Chunk: tokens[len(tokens)-1],
		Batches: batches, Tokens: tokens, Lengths: []int{length},
	}
}

// answer is the tokens of a request and their log-probabilities.
type answer struct {
	ids      []int32
	logprobs []float32
	effects  []steering.Effect
}

// collect reads a request to its end. It may be called outside the test's goroutine.
func collect(g *Generation) (a answer, err error) {
	for tok, err := range g.Tokens() {
		if err != nil {
			return a, err
		}
		if tok.ID >= 0 {
			a.ids, a.logprobs = append(a.ids, tok.ID), append(a.logprobs, tok.Logprob)
		}
	}
	return a, nil
}

func ask(m *Model, r Request) (answer, error) {
	g, err := m.Generate(context.Background(), r)
	if err != nil {
		return answer{}, err
	}
	return collect(g)
}

func greedy(ids []int32, n int) Request {
	return Request{IDs: ids, MaxTokens: n, IgnoreEOS: true, Logprobs: true}
}

func requireSame(t *testing.T, want, got answer, what string) {
	t.Helper()
	require.Equal(t, want.ids, got.ids, what)
	require.InDeltaSlice(t, want.logprobs, got.logprobs, tolerance, what)
}

// Chunked prefill is one-shot prefill, and no ladder changes a result.
func TestShapesChangeNothing(t *testing.T) {
	ids := prompt(1, 50)
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			var want answer
			var logits []float32
			for _, c := range []struct {
				name string
				s    *schedule.Config
			}{
				{"one shot, no padding", rungs(1, 64, 100, 50)},
				{"one shot, padded", rungs(1, 64, 128, 96)},
				{"chunks of 16, the last padded", rungs(1, 64, 64, 16)},
				{"chunks of 23, the last on another rung", rungs(1, 64, 96, 7, 23)},
			} {
				m := open(t, small, Options{Backend: b, MaxContext: 64, Schedule: c.s})
				got, err := ask(m, greedy(ids, 12))
				require.NoError(t, err, c.name)
				trace, err := m.Trace(context.Background(), Sequence{Prompt: ids})
				require.NoError(t, err, c.name)
				if want.ids == nil {
					require.Len(t, got.ids, 12)
					want, logits = got, trace.Logits
				}
				requireSame(t, want, got, c.name)
				require.InDeltaSlice(t, logits, trace.Logits, tolerance, c.name)
				require.NoError(t, m.Close())
			}
		})
	}
}

// Requests of different length, greedy and sampled, from many goroutines, more than there are slots, some cancelled
// half-way: each of the others gets what it gets alone.
func TestCompanyChangesNothing(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			s := rungs(4, 96, 96, 32)
			s.PrefillRows = 4
			s.Tokens = []int{8, 32}
			m := open(t, small, Options{Backend: b, MaxContext: 96, Schedule: s})
			var requests []Request
			for i := range 12 {
				r := greedy(prompt(i, 1+i*i%45), 4+i*5%17)
				if i%2 == 1 {
					r.Temperature, r.Seed = 0.9, uint64(i)
				}
				if i%4 == 3 {
					r.TopK, r.TopP = 20, 0.9
				}
				requests = append(requests, r)
			}
			alone := make([]answer, len(requests))
			for i, r := range requests {
				var err error
				alone[i], err = ask(m, r)
				require.NoError(t, err)
				require.Len(t, alone[i].ids, r.MaxTokens)
			}
			require.NotEqual(t, alone[1].ids[:3], alone[5].ids[:3], "sampled texts differ")

			together, errs := make([]answer, len(requests)), make([]error, len(requests))
			cancelled := make([]string, 4)
			var wait sync.WaitGroup
			for i, r := range requests {
				wait.Go(func() { together[i], errs[i] = ask(m, r) })
			}
			for i := range cancelled {
				wait.Go(func() {
					g, err := m.Generate(context.Background(), greedy(prompt(90+i, 20), 70))
					if err != nil {
						cancelled[i] = err.Error()
						return
					}
					n := 0
					for range g.Tokens() { //nolint:errcheck // the error comes with the last token and the result has it too
						if n++; n == 3 {
							g.Cancel()
							break
						}
					}
					cancelled[i] = g.Result().Finish
				})
			}
			wait.Wait()
			for i := range requests {
				require.NoError(t, errs[i])
				requireSame(t, alone[i], together[i], fmt.Sprintf("request %d", i))
			}
			for _, finish := range cancelled { // on a busy machine the end may come before the cancellation
				require.Contains(t, []string{"cancelled", "length"}, finish)
			}
		})
	}
}

// A slot keeps nothing of its last owner: not a bit of the next one's log-probabilities depends on it.
func TestSlotReuseLeavesNoTrace(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			s := rungs(2, 96, 96, 48)
			s.Batches = []int{2}
			run := func(before ...Request) answer {
				m := open(t, small, Options{Backend: b, MaxContext: 96, Schedule: s})
				defer func() { require.NoError(t, m.Close()) }()
				// The first slot is held all the time, so that the cache lives on and the other slot changes hands.
				holder, err := m.Generate(context.Background(), greedy(prompt(3, 4), 90))
				require.NoError(t, err)
				var waiting []*Generation
				for _, r := range append(before, greedy(prompt(8, 5), 20)) {
					g, err := m.Generate(context.Background(), r)
					require.NoError(t, err)
					waiting = append(waiting, g)
				}
				var last answer
				for _, g := range waiting {
					last, err = collect(g)
					require.NoError(t, err)
				}
				held, err := collect(holder)
				require.NoError(t, err)
				require.Len(t, held.ids, 90)
				return last
			}
			fresh := run()
			reused := run(greedy(prompt(5, 40), 30))
			require.Equal(t, fresh.ids, reused.ids)
			for i := range fresh.logprobs {
				require.Equal(t, math.Float32bits(fresh.logprobs[i]), math.Float32bits(reused.logprobs[i]), "token %d", i)
			}
		})
	}
}

func TestCancellation(t *testing.T) {
	const long = 600
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			// Long enough to be cut off, however late on a busy machine.
			m := open(t, small, Options{Backend: b, MaxContext: long + 10, Schedule: rungs(1, long+10, 640, 16)})
			want, err := ask(m, greedy(prompt(2, 10), 6))
			require.NoError(t, err)

			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			running, err := m.Generate(ctx, greedy(prompt(1, 10), long))
			require.NoError(t, err)
			queued, err := m.Generate(ctx, greedy(prompt(1, 10), long)) // there is one slot
			require.NoError(t, err)
			n := 0
			var last error
			for _, err := range running.Tokens() {
				if last = err; err != nil {
					break
				}
				if n++; n == 2 {
					cancel()
				}
			}
			require.ErrorIs(t, last, context.Canceled)
			for _, g := range []*Generation{running, queued} {
				r := g.Result()
				require.Equal(t, "cancelled", r.Finish)
				require.NoError(t, r.Err)
				require.Less(t, len(r.IDs), long)
			}
			require.Empty(t, queued.Result().IDs)

			got, err := ask(m, greedy(prompt(2, 10), 6))
			require.NoError(t, err)
			require.Equal(t, want, got, "the model goes on, bit by bit")

			closing, err := m.Generate(context.Background(), greedy(prompt(1, 10), long))
			require.NoError(t, err)
			require.NoError(t, m.Close())
			require.Equal(t, "cancelled", closing.Result().Finish)
		})
	}
}

func TestPromptTooLong(t *testing.T) {
	m := open(t, small, Options{Backend: "go", MaxContext: 40})
	for _, n := range []int{40, 41, 1000} {
		_, err := m.Generate(context.Background(), greedy(prompt(1, n), 1))
		var long *schedule.TooLongError
		require.ErrorAs(t, err, &long)
		require.Equal(t, [2]int{n, 40}, [2]int{long.Prompt, long.Context})
		require.ErrorContains(t, err, fmt.Sprintf("prompt has %d tokens", n))
		require.ErrorContains(t, err, "context of 40")
	}
	a, err := ask(m, greedy(prompt(1, 39), 5))
	require.NoError(t, err)
	require.Len(t, a.ids, 1, "the context ends it")
}

// Close gives everything back: weights of 1 MB, kept forty times, would show.
func TestOpenCloseFlatMemory(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("needs /proc/self/status, which Linux has")
	}
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			cycle := func(times int) int64 {
				for range times {
					m, err := Open(context.Background(), stories, Options{Backend: b, MaxContext: 64, Schedule: rungs(1, 64, 64, 16)})
					require.NoError(t, err)
					_, err = ask(m, Request{IDs: []int32{1}, MaxTokens: 3})
					require.NoError(t, err)
					require.NoError(t, m.Close())
				}
				debug.FreeOSMemory()
				return residentMemory(t)
			}
			before := cycle(25) // caches and arenas fill
			after := cycle(40)
			t.Logf("%.1f MB after 25 times, %.1f MB after 65", float64(before)/1e6, float64(after)/1e6)
			require.Less(t, after-before, int64(25e6), "40 models of 1 MB")
		})
	}
}

// residentMemory is this process's RSS in bytes.
func residentMemory(t *testing.T) int64 {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(status), "VmRSS:")
	require.True(t, found)
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(t, err)
	return kib << 10
}
