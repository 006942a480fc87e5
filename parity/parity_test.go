package parity_test

import (
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"github.com/steerage/steerage/parity"
	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

var models = flag.String("models", "", "folders with dumps to compare besides testdata, separated by commas")

// folders returns what is to be compared: testdata, the folders of -models, and a reference set beside the repository.
func folders(t *testing.T) []string {
	within := func(folder ...string) (dirs []string) {
		for _, name := range []string{parity.DumpName, parity.LogisticName} {
			dumps, err := filepath.Glob(filepath.Join(append(folder, "*", name)...))
			require.NoError(t, err)
			for _, dump := range dumps {
				dirs = append(dirs, filepath.Dir(dump))
			}
		}
		return dirs
	}
	dirs := within("testdata")
	require.NotEmpty(t, dirs)
	beside := filepath.Join("..", "..", "shared", "reference")
	more := append(within(beside, "models"), within(beside)...)
	if len(more) == 0 {
		t.Logf("no reference set in %s", beside)
	}
	dirs = append(dirs, more...)
	for _, dir := range strings.Split(*models, ",") {
		if dir != "" {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func TestParity(t *testing.T) {
	dirs := folders(t)
	for _, backend := range pjrttest.Specs(t) {
		t.Run(backend, func(t *testing.T) {
			for _, dir := range dirs {
				t.Run(filepath.Base(dir), func(t *testing.T) {
					t.Parallel() // most of the time is compiling, on one core each
					report, err := parity.Run(t.Context(), dir, parity.Options{Backend: backend})
					var table strings.Builder
					require.NoError(t, report.Write(&table))
					t.Log("\n" + table.String())
					require.NoError(t, err)
					require.True(t, report.OK(), "see the table above")
				})
			}
		})
	}
}
