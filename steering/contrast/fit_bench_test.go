package contrast

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

// 28 layers of 50 + 50 texts, all estimators; without and with the halvings for the stability. The programs are compiled before.
func BenchmarkFit(b *testing.B) {
	for name, backend := range pjrttest.Backends(b) {
		for _, hidden := range []int{256, 1024} {
			e := synthetic(28, 50, 50, hidden, 1)
			for _, splits := range []int{-1, DefaultSplits} {
				b.Run(fmt.Sprintf("%s/hidden=%d/splits=%d", name, hidden, max(splits, 0)), func(b *testing.B) {
					f, err := NewFitter(backend)
					require.NoError(b, err)
					defer f.Finalize()
					_, err = f.Fit(context.Background(), e, Options{Splits: splits})
					require.NoError(b, err)
					for b.Loop() {
						_, err := f.Fit(context.Background(), e, Options{Splits: splits})
						require.NoError(b, err)
					}
				})
			}
		}
	}
}
