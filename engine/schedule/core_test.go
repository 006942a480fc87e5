package schedule

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Next and Done in the wrong order are mistakes of the driver, not of a user; going on would mix up requests.
func TestMisuse(t *testing.T) {
	core, err := New(DefaultConfig(64, 2))
	require.NoError(t, err)
	require.PanicsWithValue(t, "schedule: Done of plan 0, which is not outstanding (the last was 0)",
		func() { core.Done(Plan{}, Result{}) })

	require.NoError(t, core.Submit(Request{ID: 1, Prompt: []int32{5}, MaxTokens: 2}))
	p, ok := core.Next()
	require.True(t, ok)
	require.PanicsWithValue(t, "schedule: Next before Done of plan 1", func() { core.Next() })
	require.Panics(t, func() { core.Done(Plan{Number: 7}, Result{}) })

	require.Len(t, core.Done(p, Result{Tokens: []int32{6}}), 1)
	require.Panics(t, func() { core.Done(p, Result{Tokens: []int32{6}}) }, "twice")
}

// A result of the wrong size is a failed plan: nobody gets a token that may be another's.
func TestWrongResult(t *testing.T) {
	for want, result := range map[string]Result{
		"prefill plan 1 returned 0 tokens, want 2":     {},
		"prefill plan 1 returned 3 tokens, want 2":     {Tokens: []int32{1, 2, 3}},
		"prefill plan 1 returned 1 row errors, want 2": {Tokens: []int32{1, 2}, Errs: make([]error, 1)},
	} {
		core, err := New(DefaultConfig(64, 2))
		require.NoError(t, err)
		require.NoError(t, core.Submit(Request{ID: 1, Prompt: []int32{5}, MaxTokens: 2}))
		require.NoError(t, core.Submit(Request{ID: 2, Prompt: []int32{5}, MaxTokens: 2}))
		p, _ := core.Next()
		events := core.Done(p, result)
		require.Len(t, events, 2)
		for i, e := range events {
			require.Equal(t, Event{ID: ID(i + 1), Finish: Error, Err: e.Err}, e)
			require.EqualError(t, e.Err, want)
		}
		_, ok := core.Next()
		require.False(t, ok)
	}
}
