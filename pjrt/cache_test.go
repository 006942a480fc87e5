package pjrt

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testCache(t *testing.T, limit int64) *cache {
	c, err := openCache(filepath.Join(t.TempDir(), "xla"), limit)
	require.NoError(t, err)
	return c
}

func TestCacheRoundTrip(t *testing.T) {
	c := testCache(t, 0)
	_, err := c.get("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, c.put("a", []byte("program")))
	require.NoError(t, c.put("a", []byte("another")))
	payload, err := c.get("a")
	require.NoError(t, err)
	require.Equal(t, "another", string(payload))

	info, err := os.Stat(c.dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	info, err = os.Stat(filepath.Join(c.dir, "a.xla"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

// TestCacheDamage flips each byte of an entry and cuts it at each length.
func TestCacheDamage(t *testing.T) {
	c := testCache(t, 0)
	require.NoError(t, c.put("a", []byte("program")))
	path := filepath.Join(c.dir, "a.xla")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	reject := func(data []byte) {
		t.Helper()
		require.NoError(t, os.WriteFile(path, data, 0o600))
		_, err := c.get("a")
		require.ErrorIs(t, err, errDamaged)
		require.NoFileExists(t, path)
	}
	for i := range whole {
		damaged := append([]byte(nil), whole...)
		damaged[i] ^= 0x40
		reject(damaged)
		reject(whole[:i])
	}
	reject(append(whole, 0))
	require.NoError(t, os.Mkdir(path, 0o700))
	_, err = c.get("a")
	require.ErrorIs(t, err, errDamaged)
}

// TestCacheEvicts: the least recently used entries go, and a program larger than half the cache is not kept.
func TestCacheEvicts(t *testing.T) {
	const limit, size = 10_000, 1000
	c := testCache(t, limit)
	old := time.Now().Add(-time.Hour)
	for i, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"} {
		require.NoError(t, c.put(key, make([]byte, size)))
		at := old.Add(time.Duration(i) * time.Minute)
		require.NoError(t, os.Chtimes(filepath.Join(c.dir, key+".xla"), at, at))
	}
	stale := filepath.Join(c.dir, "tmp-killed")
	require.NoError(t, os.WriteFile(stale, []byte("half"), 0o600))
	require.NoError(t, os.Chtimes(stale, old, old.Add(-time.Hour)))
	_, err := c.get("a") // used: it stays
	require.NoError(t, err)
	require.NoError(t, c.put("j", make([]byte, size)))

	files, total := c.list()
	require.LessOrEqual(t, total, int64(limit))
	require.NotEmpty(t, files)
	for key, want := range map[string]bool{"a": true, "b": false, "c": false, "d": false, "e": true, "j": true} {
		_, err := c.get(key)
		require.Equal(t, want, err == nil, "%s: %v", key, err)
	}
	require.NoFileExists(t, stale)
	require.ErrorContains(t, c.put("huge", make([]byte, limit/2)), "too large")
}

func TestCacheManyWriters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "xla")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := openCache(dir, 50_000) // each its own, as processes have
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 50 {
				key := string(rune('a' + i%20))
				if err := c.put(key, []byte(strings.Repeat(key, 4000))); err != nil {
					t.Error(err)
				}
				if payload, err := c.get(key); err == nil && string(payload) != strings.Repeat(key, 4000) {
					t.Errorf("%s: another's payload", key)
				}
			}
		})
	}
	wg.Wait()
	left, err := filepath.Glob(filepath.Join(dir, "tmp-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestCacheFolder(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []fs.FileMode{0o720, 0o702, 0o777} {
		require.NoError(t, os.Chmod(dir, mode))
		_, err := openCache(dir, 0)
		require.ErrorContains(t, err, "chmod 700 "+dir, mode)
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	_, err := openCache(dir, 0)
	require.NoError(t, err)
	if os.Geteuid() == 0 { // only root can give a folder away
		require.NoError(t, os.Chown(dir, 12345, -1))
		_, err = openCache(dir, 0)
		require.ErrorContains(t, err, "belongs to another user")
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = openCache(file, 0)
	require.Error(t, err)

	t.Setenv("XDG_CACHE_HOME", "/xdg")
	got, err := CacheDir()
	require.NoError(t, err)
	require.Equal(t, "/xdg/steerage/xla", got)
	t.Setenv("XDG_CACHE_HOME", "relative") // to be ignored, says XDG
	t.Setenv("HOME", "/home/ada")
	got, err = CacheDir()
	require.NoError(t, err)
	require.Equal(t, "/home/ada/.cache/steerage/xla", got)
}

// TestCacheKey: everything that a compiled program depends on changes its key, and the graph's name does not.
func TestCacheKey(t *testing.T) {
	const text = "module @step { body }"
	base := cacheKey(text, []byte("options"), []string{"plugin", "device"})
	require.Regexp(t, "^[0-9a-f]{64}$", base)
	require.Equal(t, base, cacheKey("module @step_17 { body }", []byte("options"), []string{"plugin", "device"}))
	seen := map[string]bool{base: true}
	different := func(key string) {
		t.Helper()
		require.False(t, seen[key])
		seen[key] = true
	}
	different(cacheKey("module @step { body2 }", []byte("options"), []string{"plugin", "device"}))
	different(cacheKey(text, []byte("options2"), []string{"plugin", "device"}))
	different(cacheKey(text, []byte("options"), []string{"plugin", "device2"}))
	different(cacheKey(text, []byte("options"), []string{"plugindevice"}))
	different(cacheKey(text, []byte("options"), []string{"plugin", "device", ""}))
	t.Setenv("XLA_FLAGS", "--xla_something=1")
	different(cacheKey(text, []byte("options"), []string{"plugin", "device"}))
	require.Contains(t, hostIdentity(), "processors")
}
