package contrast

import (
	"maps"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
)

// loop repeats body while cond holds, on a state of named nodes. The closures must use nothing but their state: what they would
// capture from outside, XLA's builder cannot mix with their own nodes.
func loop(initial map[string]*Node, cond func(map[string]*Node) *Node, body func(map[string]*Node) map[string]*Node) map[string]*Node {
	names := slices.Sorted(maps.Keys(initial))
	values := make([]*Node, len(names))
	for i, name := range names {
		values[i] = initial[name]
	}
	g := values[0].Graph()
	parameters := func(g *Graph) map[string]*Node {
		state := map[string]*Node{}
		for _, name := range names {
			state[name] = Parameter(g, name, initial[name].Shape())
		}
		return state
	}
	condition := NewClosure(g, func(g *Graph) []*Node { return []*Node{cond(parameters(g))} })
	step := NewClosure(g, func(g *Graph) []*Node {
		next := body(parameters(g))
		out := make([]*Node, len(names))
		for i, name := range names {
			out[i] = next[name]
		}
		return out
	})
	final := map[string]*Node{}
	for i, node := range While(condition, step, values...) {
		final[names[i]] = node
	}
	return final
}
