// Package pjrttest says on which backends this machine can run tests. It is the one place that decides what a missing
// plugin means: under CI=true a failure, elsewhere a line in the log.
package pjrttest

import (
	"os"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt"
)

// Specs returns the backends to test on, as pjrt.Backend spells them: "go", and "xla" where there is a plugin.
func Specs(t testing.TB) []string {
	t.Helper()
	missing := "this binary was built without PJRT"
	if pjrt.Enabled {
		plugins, err := pjrt.Find("")
		require.NoError(t, err)
		if len(plugins) > 0 {
			return []string{"go", "xla"}
		}
		missing = "no PJRT plugin was found; `make setup` fetches one"
	}
	require.NotEqual(t, "true", os.Getenv("CI"), "under CI both backends must be tested: "+missing)
	t.Logf("only the Go backend is tested: %s", missing)
	return []string{"go"}
}

// opened holds the backends that Backends has opened, by spec.
var opened = struct {
	sync.Mutex
	bySpec map[string]compute.Backend
}{bySpec: map[string]compute.Backend{}}

// Backends returns the backends of Specs, opened once per process.
func Backends(t testing.TB) map[string]compute.Backend {
	t.Helper()
	opened.Lock()
	defer opened.Unlock()
	for _, spec := range Specs(t) {
		if opened.bySpec[spec] == nil {
			backend, _, err := pjrt.Backend(spec)
			require.NoError(t, err)
			opened.bySpec[spec] = backend
		}
	}
	return opened.bySpec
}
