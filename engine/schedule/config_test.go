package schedule

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDefaultConfig(t *testing.T) {
	for context := 2; context < 3000; context++ {
		require.NoError(t, DefaultConfig(context, 1+context%70).Validate(), context)
	}
	require.NoError(t, DefaultConfig(1<<20, 1).Validate())

	c := DefaultConfig(40960, 12)
	require.Equal(t, []int{1, 2, 4, 8, 12}, c.Batches)
	require.Equal(t, []int{32, 64, 128, 256, 512}, c.Tokens)
	require.Equal(t, []int{256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 40960}, c.Lengths)
	require.Equal(t, 4, c.PrefillRows)

	// A context that is no multiple of the chunk: the last chunk's padding needs room.
	require.Equal(t, []int{256, 512, 1024}, DefaultConfig(1000, 1).Lengths)

	for _, n := range []int{math.MinInt, -1, 0, 1, math.MaxInt} {
		require.Error(t, DefaultConfig(n, 4).Validate(), n)
	}
	for _, n := range []int{math.MinInt, -1, 0, math.MaxInt} {
		require.Error(t, DefaultConfig(512, n).Validate(), n)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		want   string
		change func(c *Config)
	}{
		{"Config.MaxBatch is 0, want 1 to 65536", func(c *Config) { c.MaxBatch = 0 }},
		{"Config.MaxContext is 1, want 2 to", func(c *Config) { c.MaxContext = 1 }},
		{"Config.MaxQueue is -1, want 1 to", func(c *Config) { c.MaxQueue = -1 }},
		{"Config.Chunk is 0, want 1 to", func(c *Config) { c.Chunk = 0 }},
		{"Config.PrefillRows is 17, want 1 to 16", func(c *Config) { c.PrefillRows = 17 }},
		{"Config.PrefillRows is 3, want 1 or a value of Batches [1 2 4 8 16]", func(c *Config) { c.PrefillRows = 3 }},
		{"Config.Horizon is -1, want 0 to 2048", func(c *Config) { c.Horizon = -1 }},
		{"Config.Horizon is 2049, want 0 to 2048", func(c *Config) { c.Horizon = 2049 }},
		{"Config.Batches is empty", func(c *Config) { c.Batches = nil }},
		{"Config.Batches[0] is 0, want 1 to 65536", func(c *Config) { c.Batches[0] = 0 }},
		{"Config.Batches[2] is 2, want 3 to 65536", func(c *Config) { c.Batches[2] = 2 }},
		{"Config.Batches ends at 8, below MaxBatch 16", func(c *Config) { c.Batches = c.Batches[:4] }},
		{"Config.Tokens[1] is 9, want 33 to", func(c *Config) { c.Tokens[1] = 9 }},
		{"Config.Tokens ends at 512, want Chunk 500", func(c *Config) { c.Chunk = 500 }},
		{"Config.Lengths is empty", func(c *Config) { c.Lengths = nil }},
		{"Config.Lengths ends at 2048, below MaxContext 2049", func(c *Config) { c.MaxContext = 2049 }},
		{"Config.Lengths ends at 1000, but a prompt of 999 tokens takes 1024 when padded", func(c *Config) {
			c.MaxContext, c.Lengths = 1000, []int{1000}
		}},
	} {
		c := DefaultConfig(2048, 16)
		test.change(&c)
		require.ErrorContains(t, c.Validate(), test.want)
		_, err := New(c)
		require.Error(t, err)
	}
}

// A fixed batch is a fixed program, which makes a row's bits independent of how many others there are.
func TestFixedBatch(t *testing.T) {
	c := DefaultConfig(64, 4)
	c.Batches, c.PrefillRows = []int{4}, 1
	core, err := New(c)
	require.NoError(t, err)
	require.NoError(t, core.Submit(Request{ID: 1, Prompt: []int32{5}, MaxTokens: 9}))
	p, _ := core.Next()
	require.Equal(t, 1, p.R)
	core.Done(p, Result{Tokens: []int32{6}})
	p, _ = core.Next()
	require.Equal(t, 4, p.Batch)
}
