package pjrt

import (
	"context"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"
)

var t0 = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func TestSelectGo(t *testing.T) {
	bare(t)
	for spec, why := range map[string]string{"go": "asked for", "go:ops_sequential": "asked for", "": ""} {
		b, choice, err := Backend(spec)
		require.NoError(t, err, spec)
		require.Equal(t, Go, choice.Kind)
		require.Nil(t, choice.XLA)
		require.Contains(t, choice.Why, why)
		if spec == "" && Enabled {
			require.Contains(t, choice.Why, "`steerage setup` fetches one")
		}
		require.Equal(t, "backend go: "+choice.Why, choice.String())
		g := graph.NewGraph(b, "g")
		require.NoError(t, g.Compile(graph.AddScalar(graph.Parameter(g, "alias_0__x", shapes.Make(dtypes.Float32, 2)), 1)))
		require.Equal(t, []float32{2, 3}, g.Run([]float32{1, 2})[0].Value())
		b.Finalize()
	}
	t.Setenv(backendEnv, "go")
	_, choice, err := Backend("")
	require.NoError(t, err)
	require.Equal(t, "$GOMLX_BACKEND=go", choice.Why)
}

// TestSelectErrors: a spec that cannot be met says what is wrong and what would do.
func TestSelectErrors(t *testing.T) {
	bare(t)
	for spec, want := range map[string]string{
		"tpu":                         "want xla, xla:cpu, xla:cuda, xla:/path/to/plugin.so or go",
		"XLA":                         "unknown backend",
		"go:ops_parallel":             "takes no options",
		"xla:cpu,colour=red":          `unknown option "colour"`,
		"xla:cpu,devices=many":        `option devices="many"`,
		"xla:cpu,devices=0":           "want at least 1",
		"xla:cuda,visible_devices=1;": `option visible_devices="1;"`,
		"xla:cuda,tf32=perhaps":       `option tf32="perhaps"`,
	} {
		b, _, err := Backend(spec)
		require.ErrorContains(t, err, want, spec)
		require.Nil(t, b)
	}
	for spec, want := range map[string]string{
		"xla": "steerage setup cpu", "xla:cpu": "steerage setup cpu", "xla:cuda": "steerage setup cuda",
		"xla:plugin.so": "an absolute path", "xla:/no/such/cpu.so": "no such file",
	} {
		_, _, err := Backend(spec)
		if !Enabled {
			want = "built without PJRT"
		}
		require.ErrorContains(t, err, want, spec)
	}
}

func TestOptionsSet(t *testing.T) {
	var o Options
	require.NoError(t, o.set("devices=4,preallocate=true,memory_fraction=0.5,,allocator=bfc,visible_devices=0;2,tf32=false"))
	require.Equal(t, Options{CPUDevices: 4, Preallocate: true, MemoryFraction: 0.5, Allocator: "bfc",
		VisibleDevices: []int{0, 2}, NoTF32: true}, o)
}

func TestDoctorOnABareMachine(t *testing.T) {
	bare(t)
	r := Doctor(context.Background(), "")
	require.Equal(t, Go, r.Backend.Kind)
	require.Empty(t, r.Plugins)
	require.NotEmpty(t, r.GoVersion)
	require.Equal(t, Enabled, r.PJRT)
	require.Len(t, r.Folders, 2)
	require.Zero(t, r.Folders[0].Files)
}
