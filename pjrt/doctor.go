package pjrt

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Report is what works on this machine, for `steerage doctor`.
type Report struct {
	Platform   string       `json:"platform"`   // e.g. "linux/amd64"
	GoVersion  string       `json:"go_version"` // that built this binary
	Processors int          `json:"processors"`
	HostMemory int64        `json:"host_memory"` // bytes of RAM; -1 where unknown
	PJRT       bool         `json:"pjrt"`        // this binary can open plugins: built with cgo, for Linux
	NVIDIA     bool         `json:"nvidia"`      // the machine shows an NVIDIA device
	Looked     []string     `json:"looked"`      // where plugins were looked for, and what was there
	Plugins    []PluginTest `json:"plugins"`     // best first
	// Backend is what the spec leads to, and BackendError why it leads nowhere.
	Spec         string         `json:"spec"`
	Backend      Choice         `json:"backend"`
	BackendError string         `json:"backend_error,omitempty"`
	Memory       []DeviceMemory `json:"device_memory,omitempty"` // of the backend's devices, where the plugin says
	Folders      []Folder       `json:"folders"`
}

// PluginTest is a plugin and what came of opening it.
type PluginTest struct {
	Plugin
	Opened *Opened `json:"opened,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// Folder is a folder that this package fills.
type Folder struct {
	What  string `json:"what"`
	Path  string `json:"path"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
	Error string `json:"error,omitempty"` // why it cannot be used
}

// Doctor looks at everything and opens every plugin it finds, then the backend that spec asks for (see Select).
// What fails is in the report.
func Doctor(ctx context.Context, spec string) Report {
	r := Report{
		Platform: runtime.GOOS + "/" + runtime.GOARCH, GoVersion: runtime.Version(), Processors: runtime.NumCPU(),
		HostMemory: hostMemory(), PJRT: Enabled, NVIDIA: hasNVIDIA(), Spec: spec,
		Plugins: []PluginTest{},
	}
	found, err := Search(ctx, "", true)
	r.Looked = found.Looked
	if err != nil {
		r.Looked = append(r.Looked, err.Error())
	}
	for _, p := range found.Plugins {
		test := PluginTest{Plugin: p}
		if backend, err := Open(p, Options{}); err != nil {
			test.Error = err.Error()
		} else {
			if opened, err := Describe(backend); err != nil {
				test.Error = err.Error()
			} else {
				test.Opened = &opened
			}
			backend.Finalize()
		}
		r.Plugins = append(r.Plugins, test)
	}
	backend, choice, err := Select(spec, Options{})
	if err != nil {
		r.BackendError = err.Error()
	} else {
		r.Backend = choice
		if memory, err := Memory(backend); err == nil {
			r.Memory = memory
		}
		backend.Finalize()
	}
	base, err := cacheBase()
	if err != nil {
		r.Folders = []Folder{{What: "cache", Error: err.Error()}}
		return r
	}
	r.Folders = []Folder{
		folder("plugins", filepath.Join(base, "pjrt")),
		folder("compiled programs", filepath.Join(base, "xla")),
	}
	return r
}

// folder counts a folder's files. One that is not there yet is empty.
func folder(what, path string) Folder {
	f := Folder{What: what, Path: path}
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return f
	}
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err == nil { // it may have gone meanwhile
			f.Files++
			f.Bytes += info.Size()
		}
		return nil
	})
	if err == nil {
		err = onlyOurs(path)
	}
	if err != nil {
		f.Error = err.Error()
	}
	return f
}

// hostMemory reads the machine's RAM in bytes from /proc/meminfo.
func hostMemory() int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return -1
}
