package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/pjrt/pjrttest"
)

// A vector extracted from sad and happy story openings shifts what a real model writes on other openings, both ways, and a random direction
// of the same length does not.
func TestDemoMoods(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, writeDemo(dir))
			m, err := engine.Open(context.Background(), dir, engine.Options{Backend: b, MaxBatch: demoBatch, MaxContext: demoContext})
			require.NoError(t, err)
			defer func() { require.NoError(t, m.Close()) }()
			d, err := demoMoods(context.Background(), m)
			require.NoError(t, err)
			plain, happy, sad, random, opposite := d.Rows[0], d.Rows[1], d.Rows[2], d.Rows[3], d.Rows[4]
			for _, r := range d.Rows {
				require.Equal(t, demoSeeds*len(demoOpenings), r.Stories)
				t.Logf("%-17s %.2f %.2f, %d happy, %d sad", r.Steering, r.Score, r.Between, r.Happy, r.Sad)
			}
			for _, control := range []mood{plain, random, opposite} {
				require.Greater(t, happy.Between[0], control.Score, "%s", control.Steering)
				require.Less(t, sad.Between[1], control.Score, "%s", control.Steering)
			}
			require.InDelta(t, happy.Moved, random.Moved, 1e-3, "the same length")
		})
	}
}
