package steering_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/steerage/steerage/pjrt"
	"github.com/steerage/steerage/steering"
)

// A vector of hidden size 2 at layer 1: the classes lie at 3 and −1 on the first axis, the boundary between them at 1.
func honesty() *steering.Vector {
	return &steering.Vector{
		Hidden: 2,
		Layers: []steering.Layer{{
			Index: 1, Direction: []float32{1, 0}, DeltaMu: 4,
			Statistics: &steering.Statistics{M: 1, MuPos: 3, MuNeg: -1, SigmaPos: 0.5, SigmaNeg: 0.5, CohensD: 8},
		}},
		Provenance: steering.Provenance{Model: "an/example"},
	}
}

// From a command-line argument to a steered hidden state.
func Example() {
	dir, err := os.MkdirTemp("", "steering")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "honesty.safetensors")
	if err := honesty().Save(file); err != nil {
		fmt.Println(err)
		return
	}

	spec, err := steering.LoadSpec(file + ":stmp:1@1")
	if err != nil {
		fmt.Println(err)
		return
	}
	const layers, hidden = 2, 2
	plan, err := steering.NewPlan(spec, layers, hidden)
	if err != nil {
		fmt.Println(err)
		return
	}
	table := steering.NewTable(layers, hidden)
	table.Set([]*steering.Plan{plan}) // one row
	in := table.Inputs()
	mask := make([]bool, in.S*in.Rows*3)
	table.Mask(mask, 0, 0, 3, []int32{10, 11, 12})

	backend, _, err := pjrt.Backend("go")
	if err != nil {
		fmt.Println(err)
		return
	}
	exec := graph.MustNewExec(backend, func(h, directions, site, gate, mask *graph.Node) *graph.Node {
		h, _ = steering.Apply(h, graph.Reshape(directions, in.P, hidden),
			graph.Slice(graph.Reshape(site, layers, in.S), graph.AxisRange(1, 2)), // at the output of block 1; S is 1
			graph.Reshape(graph.Slice(graph.Reshape(gate, layers, 4), graph.AxisRange(1, 2)), 1, 1, 4),
			graph.Reshape(mask, in.S, in.Rows, 3))
		return h
	})
	h := [][][]float32{{{0, 7}, {2, 7}, {-1, 7}}} // the second token is beyond the boundary already
	fmt.Println(exec.MustCall1(h, in.Directions, in.Site, in.Gate, mask).Value())
	// Output:
	// [[[2 7] [2 7] [3 7]]]
}

func ExampleParseArgument() {
	a, err := steering.ParseArgument("honesty.safetensors:stmp:4@20-24,26:response")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(a.File, a.Entry.Method, a.Entry.Coefficient, a.Entry.Layers, a.Entry.Positions)
	_, err = steering.ParseArgument("honesty.safetensors:stmp:4@24-20")
	fmt.Println(err)
	// Output:
	// honesty.safetensors stmp 4 [20 21 22 23 24 26] response
	// steering "honesty.safetensors:stmp:4@24-20": layers "24-20": 24-20 is empty (want FILE[:method[:coefficient]][@layers][:positions])
}

func ExampleParsePositions() {
	// The last two tokens of the prompt and the response, but never token 9.
	p, err := steering.ParsePositions("prompt/-2..+response-all=9")
	if err != nil {
		fmt.Println(err)
		return
	}
	const promptLen = 4
	for i, token := range []int32{1, 2, 9, 4, 5, 9, 7} {
		fmt.Print(p.Mask(i, promptLen, token), " ")
	}
	// Output:
	// false false false true true false true
}

func ExampleDecodeSpec() {
	vectors := map[string]*steering.Vector{"honesty": honesty()}
	lookup := func(name string) (*steering.Vector, error) {
		if v := vectors[name]; v != nil {
			return v, nil
		}
		return nil, fmt.Errorf("there is no such vector")
	}
	spec, err := steering.DecodeSpec([]byte(`[{"vector": "honesty", "method": "sttp", "coefficient": 12}]`), lookup)
	fmt.Println(len(spec), spec[0].Method, err)
	_, err = steering.DecodeSpec([]byte(`[{"vector": "honesty", "strength": 12}]`), lookup)
	fmt.Println(err)
	// Output:
	// 1 sttp <nil>
	// steering: entry 0: unknown key "strength"; there are vector, method, coefficient, negative, layers, positions
}

func ExampleSum() {
	both, err := steering.Sum(honesty(), &steering.Vector{
		Hidden: 2, Layers: []steering.Layer{{Index: 1, Direction: []float32{0, 1}, DeltaMu: 3}},
	})
	fmt.Println(both.Layers[0].Direction, both.Layers[0].DeltaMu, err)
	// Output:
	// [0.8 0.6] 5 <nil>
}
