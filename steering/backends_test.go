package steering

import (
	"os"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	"github.com/steerage/steerage/pjrt"
	"github.com/stretchr/testify/require"
)

// opened holds the backends of this machine by name; they are opened once per process.
var opened struct {
	sync.Once
	backends map[string]compute.Backend
	missing  string // why "xla" is not among them
	err      error
}

// backends returns the backends to test on: "go", and "xla" where there is a plugin. Where there is none, the test goes on
// with what there is and says so, but under CI=true it fails.
func backends(t testing.TB) map[string]compute.Backend {
	t.Helper()
	opened.Do(func() { opened.backends, opened.missing, opened.err = open() })
	require.NoError(t, opened.err)
	if opened.missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("under CI both backends must be tested: %s", opened.missing)
		}
		t.Logf("only the Go backend is tested: %s", opened.missing)
	}
	return opened.backends
}

func open() (found map[string]compute.Backend, missing string, err error) {
	found = make(map[string]compute.Backend)
	if found["go"], _, err = pjrt.Backend("go"); err != nil {
		return nil, "", err
	}
	if !pjrt.Enabled {
		return found, "built without PJRT", nil
	}
	plugins, err := pjrt.Find("")
	if err != nil {
		return nil, "", err
	}
	if len(plugins) == 0 {
		return found, "no PJRT plugin was found; `make setup` fetches one", nil
	}
	if found["xla"], _, err = pjrt.Backend("xla"); err != nil {
		return nil, "", err
	}
	return found, "", nil
}
