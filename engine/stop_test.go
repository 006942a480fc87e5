package engine

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRelease: of text that comes in pieces, all is given out but the longest end that a stop text could begin with; a
// stop text that is complete ends it, wherever the pieces were cut.
func TestRelease(t *testing.T) {
	for _, c := range []struct {
		name   string
		stop   []string
		pieces []string
		given  []string // by piece
		held   string   // at the end
	}{
		{"no stop", nil, []string{"a", "b"}, []string{"a", "b"}, ""},
		{"within a piece", []string{"bc"}, []string{"abcd"}, []string{"a"}, ""},
		{"across pieces", []string{"END"}, []string{"the E", "N", "D of"}, []string{"the ", "", ""}, ""},
		{"no stop after all", []string{"END"}, []string{"the E", "N", "T"}, []string{"the ", "", "ENT"}, ""},
		{"held at the end", []string{"END"}, []string{"the EN"}, []string{"the "}, "EN"},
		{"the longest end is held", []string{"bc", "abcd"}, []string{"xab"}, []string{"x"}, "ab"},
		{"the longer one first", []string{"aab"}, []string{"a", "a", "a", "b"}, []string{"", "", "a", ""}, ""},
		{"the earliest of two", []string{"d", "bc"}, []string{"abcd"}, []string{"a"}, ""},
		{"a stop text inside another's beginning", []string{"abcd", "bx"}, []string{"ab", "x"}, []string{"", "a"}, ""},
		{"runes", []string{"。終"}, []string{"天。", "地。", "終"}, []string{"天", "。地", ""}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &Generation{stop: c.stop}
			for i, piece := range c.pieces {
				g.held += piece
				text, stopped := g.release()
				require.Equal(t, c.given[i], text, "piece %d", i)
				require.Equal(t, c.held == "" && i == len(c.pieces)-1 && ends(c.stop, strings.Join(c.pieces, "")), stopped, "piece %d", i)
			}
			require.Equal(t, c.held, g.held)
		})
	}

	// Against the definition, on texts of two letters, where everything overlaps.
	random := rand.New(rand.NewPCG(1, 2))
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab"[random.IntN(2)]
		}
		return string(b)
	}
	for range 2000 {
		g := &Generation{}
		for range 1 + random.IntN(3) {
			g.stop = append(g.stop, letters(1+random.IntN(5)))
		}
		var all, given string
		for range 12 {
			piece := letters(1 + random.IntN(3))
			all, g.held = all+piece, g.held+piece
			text, stopped := g.release()
			given += text
			if ends(g.stop, all) {
				first := len(all)
				for _, s := range g.stop {
					if i := strings.Index(all, s); i >= 0 {
						first = min(first, i)
					}
				}
				require.True(t, stopped, "%q %q", g.stop, all)
				require.Equal(t, all[:first], given, "%q %q", g.stop, all)
				break
			}
			keep := 0
			for n := range len(all) + 1 {
				for _, s := range g.stop {
					if strings.HasPrefix(s, all[len(all)-n:]) {
						keep = n
					}
				}
			}
			require.False(t, stopped, "%q %q", g.stop, all)
			require.Equal(t, all[:len(all)-keep], given, "%q %q", g.stop, all)
		}
	}
}

func ends(stop []string, text string) bool {
	for _, s := range stop {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}
