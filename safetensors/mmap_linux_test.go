package safetensors

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// residentFile returns how many bytes of mapped files are in this process's memory.
func residentFile(t *testing.T) int64 {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, after, ok := strings.Cut(string(status), "RssFile:")
	require.True(t, ok)
	var kib int64
	_, err = fmt.Sscanf(after, "%d kB", &kib)
	require.NoError(t, err)
	return kib << 10
}

// Opening costs no memory for data, reading does, Release gives it back, and the data is still there.
func TestReleaseFreesMemory(t *testing.T) {
	f, err := OpenFile(big(t))
	require.NoError(t, err)
	defer f.Close()
	v, _ := f.Tensor("big")
	sum := func() (sum int) {
		for i := 0; i < len(v.Data); i += 512 {
			sum += int(v.Data[i])
		}
		return sum
	}
	const most = 4 << 20 // what code pages of the test itself may add
	start := residentFile(t)
	first := sum()
	read := residentFile(t) - start
	f.Release("big")
	released := residentFile(t) - start
	t.Logf("mapped pages: +%d after reading, +%d after Release", read, released)
	require.Greater(t, read, int64(len(v.Data)-most))
	require.Less(t, released, int64(most))
	require.Equal(t, first, sum())
}
