package pjrt

// Options are the settings of one open backend. The zero value is what most callers want.
type Options struct {
	// CPUDevices is how many devices the CPU plugin shows; 0 means 1. More are for tests of sharding.
	CPUDevices int
	// Preallocate lets a CUDA client take MemoryFraction of the device's memory at once.
	Preallocate bool
	// MemoryFraction of the device's memory that a CUDA client may take, 0 < f <= 1; 0 means the plugin's own default.
	MemoryFraction float64
	// Allocator of the CUDA client: "", "default", "bfc", "cuda_async", "platform" or "vmm".
	Allocator string
	// VisibleDevices are the ids of the CUDA devices to use; nil means all.
	VisibleDevices []int
	// NoTF32 makes float32 matrix products on CUDA exact float32, at the price of speed.
	NoTF32 bool

	// NoCompileCache compiles every program anew. The environment variable STEERAGE_COMPILE_CACHE=off does the same.
	NoCompileCache bool
	// CacheDir is the compile cache's folder; "" means CacheDir().
	CacheDir string
	// CacheLimit is the compile cache's size in bytes; 0 means CacheLimit.
	CacheLimit int64
	// OnCompile is told of each program that was compiled or loaded from the cache. It may be called from several
	// goroutines at once, and the program waits for it.
	OnCompile func(Compile)
}

// DeviceMemory is what a device says about its memory, in bytes; -1 where it does not say.
type DeviceMemory struct {
	InUse int64 `json:"in_use"`
	Peak  int64 `json:"peak"`
	Limit int64 `json:"limit"`
}

// Opened describes an open backend.
type Opened struct {
	Plugin          Plugin   `json:"plugin"`
	APIMajor        int      `json:"api_major"`
	APIMinor        int      `json:"api_minor"`
	PlatformVersion string   `json:"platform_version"` // the plugin's own words
	Devices         []string `json:"devices"`          // one kind per device, e.g. "NVIDIA H100 80GB HBM3"
	CacheDir        string   `json:"cache_dir"`        // "" when the compile cache is off
	CacheOff        string   `json:"cache_off"`        // why it is off, if it is
}
