//go:build !cgo || !linux || noxla

package pjrt

import (
	"errors"
	"runtime"

	"github.com/gomlx/compute"
)

// Enabled reports whether this binary can open PJRT plugins: it was built without cgo, or not for Linux.
const Enabled = false

// errDisabled is what every PJRT call answers here.
var errDisabled = errors.New("this steerage was built without PJRT (for " + runtime.GOOS + "/" + runtime.GOARCH +
	"): use --backend go, or build on Linux with CGO_ENABLED=1 and gcc, without the tag noxla")

// Open opens a plugin as a GoMLX backend. In this build it is an error.
func Open(Plugin, Options) (compute.Backend, error) { return nil, errDisabled }

// Describe tells about a backend that Open returned. In this build it is an error.
func Describe(compute.Backend) (Opened, error) { return Opened{}, errDisabled }

// Memory asks each device of an open backend about its memory. In this build it is an error.
func Memory(compute.Backend) ([]DeviceMemory, error) { return nil, errDisabled }
