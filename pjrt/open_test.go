//go:build cgo && linux && !noxla

package pjrt

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"
)

// cpuPlugin returns the CPU plugin. A machine without one skips, but CI fails.
func cpuPlugin(t testing.TB) Plugin {
	plugins, err := Find("cpu")
	require.NoError(t, err)
	if len(plugins) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("no CPU plugin on this machine, and CI=true: run `make setup`")
		}
		t.Skip("needs the CPU plugin: run `make setup`")
	}
	return plugins[0]
}

// openCPU opens the CPU plugin with a compile cache of the test's own.
func openCPU(t testing.TB, o Options) compute.Backend {
	p := cpuPlugin(t)
	if o.CacheDir == "" {
		o.CacheDir = filepath.Join(t.TempDir(), "xla")
	}
	b, err := Open(p, o)
	require.NoError(t, err)
	t.Cleanup(b.Finalize)
	return b
}

const width = 1 << 16

// addRow compiles (x[width], y[width]) -> (sum of x before, x + y), with x named as given.
func addRow(t testing.TB, b compute.Backend, name string) *graph.Graph {
	g := graph.NewGraph(b, "add")
	x := graph.Parameter(g, name, shapes.Make(dtypes.Float32, width))
	y := graph.Parameter(g, "y", shapes.Make(dtypes.Float32, width))
	require.NoError(t, g.Compile(graph.ReduceAllSum(y), graph.Add(x, y)))
	return g
}

func filled(v float32) *tensors.Tensor {
	flat := make([]float32, width)
	for i := range flat {
		flat[i] = v
	}
	return tensors.FromValue(flat)
}

// address is where a tensor's device buffer is: the CPU plugin's memory can be read in place.
func address(t testing.TB, x *tensors.Tensor, b compute.Backend) uintptr {
	buffer, err := x.Buffer(b, 0)
	require.NoError(t, err)
	flat, err := buffer.Data()
	require.NoError(t, err)
	return uintptr(unsafe.Pointer(&flat.([]float32)[0]))
}

// TestAliasing proves that a donated parameter named alias_K__… is updated where it is, over many steps, and that one
// that is not donated keeps its value.
func TestAliasing(t *testing.T) {
	const steps = 50
	var compiled []Compile
	b := openCPU(t, Options{OnCompile: func(c Compile) { compiled = append(compiled, c) }})
	run := func(name string) (moved int) {
		g := addRow(t, b, name)
		x := filled(1)
		require.NoError(t, x.MaterializeOnDevice(b, false, 0))
		at := address(t, x, b)
		one := filled(1)
		for step := range steps {
			donated, err := graph.DonateTensorBuffer(x, b, 0)
			require.NoError(t, err)
			out := g.Run(donated, one)
			require.Equal(t, float32(width), out[0].Value())
			x = out[1]
			if now := address(t, x, b); now != at {
				moved, at = moved+1, now
			}
			tensors.MustConstFlatData(x, func(flat []float32) {
				for i, v := range flat {
					if v != float32(step+2) {
						t.Fatalf("%s: after %d steps x[%d] is %g", name, step+1, i, v)
					}
				}
			})
		}
		return moved
	}
	require.Zero(t, run("alias_1__x"), "times the buffer moved, with an alias")
	require.Positive(t, run("x"), "times the buffer moved, without one")
	require.Zero(t, run("alias_1__x"), "times the buffer moved, with an alias, from the compile cache")
	require.Equal(t, []int{1, 0, 1}, []int{compiled[0].Aliases, compiled[1].Aliases, compiled[2].Aliases})
	require.True(t, compiled[2].Cached)
	require.Equal(t, "add", compiled[0].Module)

	g := addRow(t, b, "alias_1__x")
	x := filled(5)
	for range 3 { // not donated: XLA works on a copy
		require.Equal(t, float32(7), g.Run(x, filled(2))[1].Value().([]float32)[width-1])
		require.Equal(t, float32(5), x.Value().([]float32)[width-1])
	}
}

// TestAliasErrors: what cannot share memory is an error that says so, not a wrong program.
func TestAliasErrors(t *testing.T) {
	b := openCPU(t, Options{})
	compile := func(name string) error {
		g := graph.NewGraph(b, "wrong")
		x := graph.Parameter(g, name, shapes.Make(dtypes.Float32, 8))
		return g.Compile(graph.ReduceAllSum(x), graph.AddScalar(x, 1))
	}
	require.NoError(t, compile("alias_1__x"))
	require.ErrorContains(t, compile("alias_0__x"), "parameter alias_0__x is tensor<8xf32> and result 0 is tensor<f32>")
	require.ErrorContains(t, compile("alias_9__x"), "asks for the memory of result 9, but main has 2 results")
}

// TestCompileCache: a second client, and another process, load what the first compiled; a damaged entry is replaced.
func TestCompileCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "xla")
	compile := func(o Options, name string) Compile {
		var last Compile
		o.CacheDir, o.OnCompile = dir, func(c Compile) { last = c }
		b, err := Open(cpuPlugin(t), o)
		require.NoError(t, err)
		defer b.Finalize()
		g := graph.NewGraph(b, name)
		x := graph.Parameter(g, "alias_0__x", shapes.Make(dtypes.Float32, 4))
		require.NoError(t, g.Compile(graph.MulScalar(x, 3)))
		d, err := graph.DonateTensorBuffer(tensors.FromValue([]float32{1, 2, 3, 4}), b, 0)
		require.NoError(t, err)
		require.Equal(t, []float32{3, 6, 9, 12}, g.Run(d)[0].Value())
		return last
	}
	if name := os.Getenv("STEERAGE_TEST_CACHE"); name != "" { // the other process
		dir = name
		require.True(t, compile(Options{}, "other process").Cached)
		stats := ReadStats()
		require.Equal(t, Stats{CacheHits: 1, Aliases: 1, LoadTime: stats.LoadTime}, stats)
		return
	}

	first := compile(Options{}, "first")
	require.False(t, first.Cached)
	require.NoError(t, first.CacheError)
	require.Positive(t, first.Bytes)
	before := ReadStats()
	second := compile(Options{}, "second") // GoMLX's names of graphs do not count
	require.True(t, second.Cached)
	require.Equal(t, first.Bytes, second.Bytes)
	require.Equal(t, before.Compiles, ReadStats().Compiles)
	require.Equal(t, before.CacheHits+1, ReadStats().CacheHits)

	cmd := exec.Command(os.Args[0], "-test.run=^TestCompileCache$")
	cmd.Env = append(os.Environ(), "STEERAGE_TEST_CACHE="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	require.False(t, compile(Options{NoCompileCache: true}, "off").Cached)
	require.False(t, compile(Options{CPUDevices: 2}, "more devices").Cached, "another target is another program")

	entries, err := filepath.Glob(filepath.Join(dir, "*.xla"))
	require.NoError(t, err)
	require.Len(t, entries, 2)
	for _, damage := range []func(data []byte) []byte{
		func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		func(data []byte) []byte { return data[:len(data)-100] },
		func([]byte) []byte { return nil },
	} {
		for _, path := range entries {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, damage(data), 0o600))
		}
		rejected := ReadStats().CacheRejected
		c := compile(Options{}, "damaged")
		require.False(t, c.Cached)
		require.ErrorIs(t, c.CacheError, errDamaged)
		require.Equal(t, rejected+1, ReadStats().CacheRejected)
		require.True(t, compile(Options{}, "repaired").Cached)
	}
	// Whole, but not what the plugin wrote: the plugin refuses it, and the program is compiled.
	c := &cache{dir: dir, limit: CacheLimit, size: -1}
	for _, path := range entries {
		require.NoError(t, c.put(strings.TrimSuffix(filepath.Base(path), ".xla"), []byte("no program at all")))
	}
	foreign := compile(Options{}, "foreign")
	require.False(t, foreign.Cached)
	require.ErrorContains(t, foreign.CacheError, "loading the stored program")
	require.True(t, compile(Options{}, "repaired").Cached)
}

// TestUnsafeCacheFolder: a folder that others may write to is not used, and the program runs all the same.
func TestUnsafeCacheFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	b := openCPU(t, Options{CacheDir: dir})
	d, err := Describe(b)
	require.NoError(t, err)
	require.Empty(t, d.CacheDir)
	require.Contains(t, d.CacheOff, "chmod 700")
	require.Equal(t, float32(3), addRow(t, b, "x").Run(filled(1), filled(2))[1].Value().([]float32)[0])
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)
}

// TestOpenClose opens, uses and closes a backend 50 times: the process's memory stays as it is.
func TestOpenClose(t *testing.T) {
	p := cpuPlugin(t)
	dir := filepath.Join(t.TempDir(), "xla")
	cycle := func(release bool) {
		b, err := Open(p, Options{CacheDir: dir})
		require.NoError(t, err)
		g := addRow(t, b, "alias_1__x")
		x := tensors.FromShape(shapes.Make(dtypes.Float32, width))
		for range 4 {
			y := filled(1)
			out := g.Run(x, y)
			if release {
				y.MustFinalizeAll()
				x.MustFinalizeAll()
				out[0].MustFinalizeAll()
			}
			x = out[1]
		}
		require.Equal(t, float32(4), x.Value().([]float32)[0])
		if release {
			x.MustFinalizeAll()
			g.Finalize()
		}
		b.Finalize()
		_, err = Describe(b)
		require.Error(t, err)
		runtime.GC()
	}
	for range 10 {
		cycle(true)
	}
	start := residentBytes(t)
	for range 40 {
		cycle(true)
	}
	grown := residentBytes(t) - start
	t.Logf("40 further cycles: %+d KiB", grown>>10)
	require.Less(t, grown, int64(8<<20), "a single buffer per cycle would be 10 MiB")
	for range 5 { // what was not released is lost, but does no harm when Go's garbage collector finds it later
		cycle(false)
	}
	tablesMu.RLock()
	defer tablesMu.RUnlock()
	require.Empty(t, clients)
}

func residentBytes(t *testing.T) int64 {
	runtime.GC()
	data, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	require.NoError(t, err)
	return pages * int64(os.Getpagesize())
}

// TestTwoAtOnce: two backends of one plugin are apart, also when they compile at the same time.
func TestTwoAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "xla")
	var wg sync.WaitGroup
	for i := range 4 {
		b := openCPU(t, Options{CPUDevices: i + 1, CacheDir: dir})
		require.Equal(t, i+1, b.NumDevices())
		wg.Go(func() {
			for j := range 4 {
				g := graph.NewGraph(b, fmt.Sprint("g", j))
				x := graph.Parameter(g, "alias_0__x", shapes.Make(dtypes.Float32, 4))
				if err := g.Compile(graph.AddScalar(x, float64(j))); err != nil {
					t.Error(err)
					return
				}
				if got := g.Run([]float32{1, 2, 3, 4})[0].Value().([]float32)[3]; got != float32(4+j) {
					t.Errorf("device count %d, program %d: %g", i+1, j, got)
				}
			}
		})
	}
	wg.Wait()
}

// TestBrokenPlugins: a file that is no usable plugin is an error with a remedy, whatever is wrong with it.
func TestBrokenPlugins(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	elf, err := os.ReadFile(self)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	foreign := append([]byte(nil), elf...)
	foreign[18] = 0xF3 // RISC-V
	tests := map[string]struct{ path, want string }{
		"text":       {write("text_cpu.so", []byte("not a library\n")), "not a whole shared library (14 bytes)"},
		"empty":      {write("empty_cpu.so", nil), "not a whole shared library (0 bytes)"},
		"cut short":  {write("short_cpu.so", elf[:len(elf)/2]), "not a whole shared library"},
		"foreign":    {write("foreign_cpu.so", foreign), "EM_RISCV"},
		"missing":    {filepath.Join(dir, "missing_cpu.so"), "no such file"},
		"folder":     {dir, "not a file"},
		"other name": {write("plugin.so", elf), "neither cpu nor cuda"},
	}
	if gcc, err := exec.LookPath("gcc"); err == nil {
		build := func(name, source string) string {
			path := filepath.Join(dir, name)
			cmd := exec.Command(gcc, "-shared", "-fPIC", "-x", "c", "-", "-o", path)
			cmd.Stdin = strings.NewReader(source)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			return path
		}
		whole := build("whole_cpu.so", "static char filler[1 << 16] = {1}; char* f(void) { return filler; }")
		data, err := os.ReadFile(whole)
		require.NoError(t, err)
		for name, test := range map[string]struct{ path, want string }{
			"no GetPjrtApi":  {whole, "not a PJRT plugin"},
			"cut later":      {write("later_cpu.so", data[:len(data)/2]), "not a whole shared library"},
			"NULL":           {build("null_cpu.so", "void* GetPjrtApi(void) { return 0; }"), "GetPjrtApi returned NULL"},
			"missing symbol": {build("sym_cpu.so", "void nowhere(void); void* GetPjrtApi(void) { nowhere(); return 0; }"), "nowhere"},
			"old API": {build("old_cpu.so",
				"long table[200] = {320, 0, 24, 0, 3L << 32}; void* GetPjrtApi(void) { return table; }"), "PJRT API 0.3"},
			"future API": {build("future_cpu.so",
				"long table[200] = {1600, 0, 24, 0, 1}; void* GetPjrtApi(void) { return table; }"), "PJRT API 1.0"},
		} {
			tests[name] = test
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, _, err := Backend("xla:" + test.path)
			require.ErrorContains(t, err, test.want)
			require.Nil(t, b)
			require.Contains(t, err.Error(), test.path)
		})
	}
	_, err = Open(Plugin{Kind: "tpu", Path: "/x"}, Options{})
	require.ErrorContains(t, err, `unknown kind "tpu"`)
}

func TestSelectXLA(t *testing.T) {
	p := cpuPlugin(t)
	for _, test := range []struct {
		spec    string
		devices int
		why     string
	}{
		{"xla:cpu", 1, "asked for"},
		{"xla:cpu,devices=3", 3, "asked for"},
		{"xla:" + p.Path + ",devices=2", 2, "asked for"},
	} {
		b, choice, err := Backend(test.spec)
		require.NoError(t, err, test.spec)
		require.Equal(t, test.devices, b.NumDevices(), test.spec)
		require.Equal(t, XLACPU, choice.Kind)
		require.Contains(t, choice.Why, test.why)
		require.Len(t, choice.XLA.Devices, test.devices)
		require.Zero(t, choice.XLA.APIMajor)
		require.Regexp(t, `^backend xla-cpu: \d device`, choice.String())
		b.Finalize()
	}
	t.Setenv(backendEnv, "xla:cpu,devices=2")
	b, choice, err := Backend("")
	require.NoError(t, err)
	require.Contains(t, choice.Why, "$GOMLX_BACKEND=xla:cpu,devices=2")
	require.Equal(t, 2, b.NumDevices())
	b.Finalize()
}

func TestDoctor(t *testing.T) {
	p := cpuPlugin(t)
	r := Doctor(context.Background(), "xla:cpu")
	require.True(t, r.PJRT)
	require.Greater(t, r.HostMemory, int64(1<<28))
	require.Empty(t, r.BackendError)
	require.Equal(t, XLACPU, r.Backend.Kind)
	require.Equal(t, p.Path, r.Backend.XLA.Plugin.Path)
	require.NotEmpty(t, r.Looked)
	require.Len(t, r.Folders, 2)
	require.Equal(t, "no such backend at all", Doctor(context.Background(), "no such backend at all").Spec)
	require.Contains(t, Doctor(context.Background(), "tpu").BackendError, "unknown backend")
}
