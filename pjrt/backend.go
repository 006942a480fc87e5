package pjrt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
)

// Kinds of backend, as Choice.Kind has them.
const (
	Go      = "go"
	XLACPU  = "xla-cpu"
	XLACUDA = "xla-cuda"
)

// backendEnv is GoMLX's variable; it counts where no backend is asked for.
const backendEnv = "GOMLX_BACKEND"

// Choice says which backend was opened and why.
type Choice struct {
	Kind string  `json:"kind"`          // Go, XLACPU or XLACUDA
	Why  string  `json:"why"`           // one sentence for a person
	XLA  *Opened `json:"xla,omitempty"` // plugin, versions, devices; nil for the Go backend
}

// String is one line for the beginning of a program's output.
func (c Choice) String() string {
	if c.XLA == nil {
		return fmt.Sprintf("backend %s: %s", c.Kind, c.Why)
	}
	version := c.XLA.Plugin.Version
	if version == "" {
		version = "of unknown version"
	}
	return fmt.Sprintf("backend %s: %s (%s), plugin %s, PJRT API %d.%d: %s",
		c.Kind, plural(len(c.XLA.Devices), "device"), strings.Join(slices.Compact(slices.Clone(c.XLA.Devices)), ", "),
		version, c.XLA.APIMajor, c.XLA.APIMinor, c.Why)
}

// Backend opens the backend that spec asks for, with default options; see Select.
func Backend(spec string) (compute.Backend, Choice, error) { return Select(spec, Options{}) }

// Select opens the backend that spec asks for:
//
//	""                the value of $GOMLX_BACKEND; without it, the best plugin found, or the Go backend if there is none
//	xla               the best plugin found: CUDA where there is an NVIDIA device, else CPU
//	xla:cpu, xla:cuda the best plugin of that kind
//	xla:/path.so      that file
//	go                GoMLX's Go backend, always as go:ops_sequential
//
// After an xla spec may come ",name=value…": devices (of the CPU plugin), preallocate, memory_fraction, allocator,
// visible_devices (0;1;…) and tf32. They override options. Nothing is ever downloaded.
func Select(spec string, options Options) (compute.Backend, Choice, error) {
	why := "it was asked for"
	automatic := false
	if spec == "" {
		if spec = os.Getenv(backendEnv); spec != "" {
			why = fmt.Sprintf("$%s=%s", backendEnv, spec)
		} else {
			spec, automatic = "xla", true
		}
	}
	name, rest, _ := strings.Cut(spec, ":")
	if settings, ok := strings.CutPrefix(spec, "xla,"); ok {
		name, rest = "xla", ","+settings
	}
	switch name {
	case "go":
		if rest != "" && rest != "ops_sequential" {
			return nil, Choice{}, fmt.Errorf("backend %q: the Go backend runs as go:ops_sequential and takes no options", spec)
		}
		return openGo(why)
	case "xla":
	default:
		return nil, Choice{}, fmt.Errorf("unknown backend %q: want xla, xla:cpu, xla:cuda, xla:/path/to/plugin.so or go",
			spec)
	}
	target, settings, _ := strings.Cut(rest, ",")
	if err := options.set(settings); err != nil {
		return nil, Choice{}, fmt.Errorf("backend %q: %w", spec, err)
	}
	if !Enabled {
		_, err := Open(Plugin{}, options)
		if automatic {
			return openGo(err.Error())
		}
		return nil, Choice{}, fmt.Errorf("backend %q: %w", spec, err)
	}

	plugins, reasons, err := candidates(target)
	if err != nil {
		return nil, Choice{}, fmt.Errorf("backend %q: %w", spec, err)
	}
	if len(plugins) == 0 {
		if automatic {
			return openGo("no PJRT plugin was found; `steerage setup` fetches one, which is many times faster")
		}
		return nil, Choice{}, fmt.Errorf("backend %q: no PJRT plugin was found (%s); %s", spec, strings.Join(reasons, "; "),
			remedySetup(max(target, "cpu")))
	}
	var failed []error
	for _, p := range plugins {
		backend, err := Open(p, options)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		opened, err := Describe(backend)
		if err != nil {
			backend.Finalize()
			failed = append(failed, err)
			continue
		}
		if automatic || target == "" {
			reasons = append(reasons, "the best plugin found ("+p.Source+")")
			why = strings.Join(append(errorStrings(failed), reasons...), "; ")
		}
		return backend, Choice{Kind: "xla-" + p.Kind, Why: why, XLA: &opened}, nil
	}
	return nil, Choice{}, fmt.Errorf("backend %q: %w; --backend go works without a plugin", spec, errors.Join(failed...))
}

// candidates are the plugins to try in turn, and what there is to say about the choice so far.
func candidates(target string) (plugins []Plugin, reasons []string, err error) {
	switch {
	case filepath.IsAbs(target):
		p, err := At(target)
		return []Plugin{p}, nil, err
	case target == "":
		kind := ""
		if !hasNVIDIA() {
			kind = "cpu"
			reasons = append(reasons, "no NVIDIA device")
		}
		found, err := Search(context.Background(), kind, false)
		if len(found.Plugins) == 0 {
			reasons = append(reasons, found.Looked...)
		}
		return found.Plugins, reasons, err
	case target == "cpu" || target == "cuda":
		found, err := Search(context.Background(), target, false)
		return found.Plugins, found.Looked, err
	default:
		return nil, nil, fmt.Errorf("unknown plugin %q: want cpu, cuda or an absolute path", target)
	}
}

// hasNVIDIA reports whether the machine shows an NVIDIA device: its driver's files, or WSL's.
func hasNVIDIA() bool {
	for _, path := range []string{"/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

func openGo(why string) (compute.Backend, Choice, error) {
	// Sequential: GoMLX v0.28's parallel mode can deadlock when several programs run at once.
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		return nil, Choice{}, fmt.Errorf("backend go: %w", err)
	}
	return backend, Choice{Kind: Go, Why: why}, nil
}

// set reads "name=value,…" into the options.
func (o *Options) set(settings string) error {
	for _, setting := range strings.Split(settings, ",") {
		if setting == "" {
			continue
		}
		name, value, _ := strings.Cut(setting, "=")
		var err error
		switch name {
		case "devices":
			o.CPUDevices, err = strconv.Atoi(value)
			if err == nil && o.CPUDevices < 1 {
				err = errors.New("want at least 1")
			}
		case "preallocate":
			o.Preallocate, err = strconv.ParseBool(value)
		case "memory_fraction":
			o.MemoryFraction, err = strconv.ParseFloat(value, 64)
		case "allocator":
			o.Allocator = value
		case "visible_devices":
			o.VisibleDevices = nil
			for _, id := range strings.Split(value, ";") {
				var n int
				if n, err = strconv.Atoi(id); err != nil {
					break
				}
				o.VisibleDevices = append(o.VisibleDevices, n)
			}
		case "tf32":
			var on bool
			on, err = strconv.ParseBool(value)
			o.NoTF32 = !on
		default:
			return fmt.Errorf("unknown option %q: want devices, preallocate, memory_fraction, allocator, "+
				"visible_devices or tf32", name)
		}
		if err != nil {
			return fmt.Errorf("option %s=%q: %w", name, value, err)
		}
	}
	return nil
}

func errorStrings(errs []error) []string {
	out := make([]string, len(errs))
	for i, err := range errs {
		out[i] = err.Error()
	}
	return out
}
