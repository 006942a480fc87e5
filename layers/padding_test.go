package layers

import (
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"
)

func TestZeroPadding(t *testing.T) {
	x := []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12} // [2, 3, 1, 2]
	eachForm(t, func(t *testing.T, call caller, _ Platform) {
		for _, c := range []struct {
			count []int32
			want  []float32
		}{
			{[]int32{3, 3}, x},
			{[]int32{2, 0}, []float32{1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0}},
		} {
			got := call(one(func(in []*graph.Node) *graph.Node { return ZeroPadding(graph.Reshape(in[0], 2, 3, 1, 2), in[1]) }), x, c.count)[0]
			require.Equal(t, c.want, got, "count %v", c.count)
		}
	})
}
