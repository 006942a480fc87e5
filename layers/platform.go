package layers

// Platform names the compiler a graph is built for. The maths is the same on all; the fastest form of it is not.
type Platform int

const (
	// XLACPU is XLA through a CPU PJRT plugin.
	XLACPU Platform = iota
	// XLAGPU is XLA through a CUDA PJRT plugin.
	XLAGPU
	// Go is GoMLX's pure Go backend.
	Go
)

// String returns "xla:cpu", "xla:cuda" or "go", the spelling of the command line's --backend.
func (p Platform) String() string {
	switch p {
	case XLACPU:
		return "xla:cpu"
	case XLAGPU:
		return "xla:cuda"
	default:
		return "go"
	}
}
