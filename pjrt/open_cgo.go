//go:build cgo && linux && !noxla

package pjrt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
	goxla "github.com/gomlx/go-xla/pjrt"
)

// Enabled reports whether this binary can open PJRT plugins: it was built with cgo, for Linux.
const Enabled = true

// Open opens a plugin as a GoMLX backend. A plugin may be opened several times in one process, one after the other or
// at once; each backend has its own client and is closed with its Finalize. Tensors and graphs must be finalized before
// their backend: afterwards go-xla no longer gives their memory back.
func Open(p Plugin, o Options) (compute.Backend, error) {
	openMu.Lock()
	defer openMu.Unlock()
	config, named, err := o.plugin(p)
	if err != nil {
		return nil, err
	}
	if p.Kind == "cuda" {
		findCUDA(p.Path)
	} else {
		leaveXNNPACK()
	}
	t, err := load(p)
	if err != nil {
		return nil, err
	}
	c := &client{onCompile: o.OnCompile}
	c.cache, c.cacheOff = o.cache()
	opening = c
	defer func() { opening = nil }()
	backend, err := newBackend(t.name+config, named)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: opening its devices: %w; `steerage doctor` shows what was found",
			t.plugin.Path, err)
	}
	tablesMu.Lock()
	c.backend = backend
	tablesMu.Unlock()
	return backend, nil
}

// leaveXNNPACK keeps XLA's CPU compiler from handing matrix products to XNNPACK, unless XLA_FLAGS speaks of it: each compiled program
// would keep a packed copy of every weight it multiplies by (a 2.4 GB model came to 8.1 GB after a few programs), and
// no decode step gets faster by it (docs/log.md, 2026-11-24). XLA reads its flags when the first client opens.
func leaveXNNPACK() {
	if flags := os.Getenv("XLA_FLAGS"); !strings.Contains(flags, "xnnpack") {
		_ = os.Setenv("XLA_FLAGS", strings.TrimSpace(flags+" --xla_cpu_use_xnnpack=false"))
	}
}

// newBackend turns go-xla's panics into errors: what a plugin does at this point depends on the machine.
func newBackend(config string, named goxla.NamedValuesMap) (b compute.Backend, err error) {
	defer func() {
		if r := recover(); r != nil {
			b, err = nil, fmt.Errorf("%v", r)
		}
	}()
	backend, err := xla.NewWithOptions(config, named)
	if err != nil {
		return nil, err
	}
	return backend, nil
}

// register gives go-xla a function table under a name. It decides by the name whether a plugin is cpu or cuda.
func register(name string, api uintptr) error { return goxla.RegisterPreloadedPlugin(name, api) }

// plugin turns options into what go-xla takes: a suffix of its configuration string and values for the plugin.
func (o Options) plugin(p Plugin) (string, goxla.NamedValuesMap, error) {
	named := goxla.NamedValuesMap{}
	switch p.Kind {
	case "cpu":
		if o.CPUDevices < 0 || o.CPUDevices > 1024 {
			return "", nil, fmt.Errorf("%d CPU devices: want 1 to 1024", o.CPUDevices)
		}
		named["cpu_device_count"] = int64(max(1, o.CPUDevices))
		return "", named, nil
	case "cuda":
	default:
		return "", nil, fmt.Errorf("plugin %s is of unknown kind %q: want one of %s",
			p.Path, p.Kind, strings.Join(Kinds, ", "))
	}
	config := fmt.Sprintf(",preallocate=%t,tf32=%t", o.Preallocate, !o.NoTF32)
	if f := o.MemoryFraction; f != 0 {
		if !(f > 0 && f <= 1) {
			return "", nil, fmt.Errorf("memory fraction %g: want more than 0 and at most 1", f)
		}
		config += fmt.Sprintf(",memory_fraction=%g", f)
	}
	switch o.Allocator {
	case "":
	case "default", "bfc", "cuda_async", "platform", "vmm":
		config += ",allocator=" + o.Allocator
	default:
		return "", nil, fmt.Errorf("unknown allocator %q: want default, bfc, cuda_async, platform or vmm", o.Allocator)
	}
	if len(o.VisibleDevices) > 0 {
		ids := make([]string, len(o.VisibleDevices))
		for i, id := range o.VisibleDevices {
			ids[i] = fmt.Sprint(id)
		}
		config += ",visible_devices=" + strings.Join(ids, ";")
	}
	return config, named, nil
}

// cache opens the compile cache, or says why it is off. A cache that cannot be used costs time, not results.
func (o Options) cache() (*cache, string) {
	if o.NoCompileCache {
		return nil, "switched off by the program"
	}
	if v := os.Getenv(cacheEnv); v == "off" || v == "0" {
		return nil, "switched off by $" + cacheEnv
	}
	dir := o.CacheDir
	if dir == "" {
		var err error
		if dir, err = CacheDir(); err != nil {
			return nil, err.Error()
		}
	}
	c, err := openCache(dir, o.CacheLimit)
	if err != nil {
		return nil, err.Error()
	}
	return c, ""
}

// findCUDA prepares what a CUDA plugin expects of the pip packages beside it, as JAX does: it opens NVIDIA's libraries,
// so that they find each other by name, and tells XLA where libdevice and ptxas are, unless XLA_FLAGS says so already.
// Where there are no such packages the system's own libraries are used.
func findCUDA(plugin string) {
	nvidia := filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(plugin))), "nvidia") // beside jax_plugins
	cu := filepath.Join(nvidia, "cu13")
	if info, err := os.Stat(cu); err != nil || !info.IsDir() {
		return
	}
	for _, lib := range []string{"cu13/lib/libcudart.so.13", "cu13/lib/libnvrtc.so.13", "cu13/lib/libnvJitLink.so.13",
		"cu13/lib/libcublasLt.so.13", "cu13/lib/libcublas.so.13", "nccl/lib/libnccl.so.2", "cu13/lib/libcupti.so.13",
		"cu13/lib/libcusparse.so.12", "cu13/lib/libcusolver.so.12", "cu13/lib/libcufft.so.12",
		"nvshmem/lib/libnvshmem_host.so.3", "cudnn/lib/libcudnn.so.9"} {
		preload(filepath.Join(nvidia, lib)) // what fails here is reported by the plugin when it needs it
	}
	if flags := os.Getenv("XLA_FLAGS"); !strings.Contains(flags, "xla_gpu_cuda_data_dir") {
		os.Setenv("XLA_FLAGS", strings.TrimSpace(flags+" --xla_gpu_cuda_data_dir="+cu))
	}
}

// Describe tells about a backend that Open returned and that is not yet finalized.
func Describe(b compute.Backend) (Opened, error) {
	c, t, err := clientOf(b)
	if err != nil {
		return Opened{}, err
	}
	kinds, err := c.deviceKinds()
	if err != nil {
		return Opened{}, err
	}
	o := Opened{Plugin: t.plugin, APIMajor: t.major, APIMinor: t.minor, PlatformVersion: c.platformVersion,
		Devices: kinds, CacheOff: c.cacheOff}
	if c.cache != nil {
		o.CacheDir = c.cache.dir
	}
	return o, nil
}

// Memory asks each device of an open backend about its memory. Not every plugin answers: the CPU plugin does not.
func Memory(b compute.Backend) ([]DeviceMemory, error) {
	c, _, err := clientOf(b)
	if err != nil {
		return nil, err
	}
	return c.memory()
}

func clientOf(b compute.Backend) (*client, *table, error) {
	tablesMu.RLock()
	defer tablesMu.RUnlock()
	for _, c := range clients {
		if c.backend != nil && c.backend == b {
			return c, c.table, nil
		}
	}
	return nil, nil, fmt.Errorf("backend %T was not opened by this package, or is finalized", b)
}
