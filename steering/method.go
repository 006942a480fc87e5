package steering

import "fmt"

// Method is how an entry edits the hidden state; see the package comment for the equations.
type Method uint8

const (
	SwFC     Method = iota + 1 // steering with a fixed coefficient: add the vector
	StTP                       // steering to a target projection, where the projection is below the boundary
	StMP                       // steering to the mirrored projection, where the projection is below the boundary
	Ablation                   // remove the projection
)

var methodNames = [...]string{SwFC: "swfc", StTP: "sttp", StMP: "stmp", Ablation: "ablate"}

// ParseMethod returns the method of that name: "swfc", "sttp", "stmp" or "ablate".
func ParseMethod(name string) (Method, error) {
	for m := SwFC; m <= Ablation; m++ {
		if methodNames[m] == name {
			return m, nil
		}
	}
	return 0, fmt.Errorf("method %s is none of swfc, sttp, stmp, ablate", quote(name))
}

// String returns the name that ParseMethod reads.
func (m Method) String() string {
	if m < SwFC || m > Ablation {
		return fmt.Sprintf("Method(%d)", uint8(m))
	}
	return methodNames[m]
}

// gated reports whether the method asks on which side of the boundary a token is, which takes the vector's statistics.
func (m Method) gated() bool { return m == StTP || m == StMP }
