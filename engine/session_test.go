package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
	"github.com/steerage/steerage/steering"
)

// A conversation with a session gives what it gives without, and runs only what is new.
func TestSession(t *testing.T) {
	for _, b := range pjrttest.Specs(t) {
		t.Run(b, func(t *testing.T) {
			s := rungs(3, 160, 176, 4, 16)
			m := open(t, small, Options{Backend: b, MaxContext: 160, Schedule: s})
			v := vector(t, m, 7)
			all := steering.Spec{{Vector: v, Method: steering.SwFC, Coefficient: 1}}
			response := steering.Spec{{Vector: v, Method: steering.StTP, Coefficient: 2, Positions: steering.Response}}

			// Others come and go meanwhile.
			ctx, stop := context.WithCancel(context.Background())
			var company sync.WaitGroup
			company.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					if g, err := m.Generate(ctx, greedy(prompt(i, 1+i*7%50), 1+i*5%20)); err == nil {
						g.Result()
					}
				}
			})
			defer company.Wait()
			defer stop()

			session := m.NewSession()
			history := prompt(1, 9)
			for turn, c := range []struct {
				spec   steering.Spec
				cached int // -1: all but the last token of the last turn's text
				tokens int
			}{
				{nil, 0, 7}, {nil, -1, 1}, {nil, -1, 12},
				{all, 0, 6}, {all, -1, 5},
				{response, 0, 9}, {response, -2, 6}, // what was response is prompt now, and not steered
				{nil, 0, 3}, {nil, -1, 4},
			} {
				what := fmt.Sprintf("turn %d", turn)
				r := greedy(history, c.tokens)
				r.Steering = c.spec
				want, err := ask(m, r)
				require.NoError(t, err, what)
				r.Session = session
				g, err := m.Generate(context.Background(), r)
				require.NoError(t, err, what)
				_, err = m.Generate(context.Background(), r)
				require.ErrorContains(t, err, "under way", what)
				got, err := collect(g)
				require.NoError(t, err, what)
				requireSame(t, want, got, what)

				cached := c.cached
				switch cached {
				case -1:
					cached = len(history) - 4 // three new tokens, and the answer's last
				case -2:
					cached = len(history) - 3 - 9
				}
				require.Equal(t, cached, g.Result().CachedTokens, what)
				history = slices.Concat(history, got.ids, prompt(turn, 3))
			}

			// Cut off in the middle, the text so far is kept.
			r := greedy(history, 60)
			r.Session = session
			g, err := m.Generate(context.Background(), r)
			require.NoError(t, err)
			n := 0
			for range g.Tokens() { //nolint:errcheck // the end is a cancellation
				if n++; n == 5 {
					g.Cancel()
				}
			}
			require.Equal(t, "cancelled", g.Result().Finish)
			ids := g.Result().IDs
			history = slices.Concat(history, ids, []int32{5})
			want, err := ask(m, greedy(history, 8))
			require.NoError(t, err)
			r = greedy(history, 8)
			r.Session = session
			g, err = m.Generate(context.Background(), r)
			require.NoError(t, err)
			got, err := collect(g)
			require.NoError(t, err)
			requireSame(t, want, got, "after a cancellation")
			require.GreaterOrEqual(t, g.Result().CachedTokens, len(history)-2)

			// Another text shares a part.
			fork := slices.Concat(history[:20], prompt(77, 11))
			want, err = ask(m, greedy(fork, 8))
			require.NoError(t, err)
			r = greedy(fork, 8)
			r.Session = session
			g, err = m.Generate(context.Background(), r)
			require.NoError(t, err)
			got, err = collect(g)
			require.NoError(t, err)
			requireSame(t, want, got, "a fork")
			require.GreaterOrEqual(t, g.Result().CachedTokens, 20)

			other := open(t, small, Options{Backend: b, MaxContext: 32})
			r.IDs = r.IDs[:9]
			_, err = other.Generate(context.Background(), r)
			require.ErrorContains(t, err, "of another model")
			require.NoError(t, session.Close())
			_, err = m.Generate(context.Background(), r)
			require.ErrorContains(t, err, "closed")
			stop()
			company.Wait()
			require.NoError(t, m.Use(context.Background(), func(d *Device) error { // after the chores
				require.Empty(t, d.d.kept)
				return nil
			}))
		})
	}
}
