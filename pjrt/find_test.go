package pjrt

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// bare gives the test a machine without plugins: an empty cache, no environments, a python3 with nothing in it.
func bare(t *testing.T) (home string) {
	home = t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	t.Setenv("VIRTUAL_ENV", "")
	t.Setenv("CONDA_PREFIX", "")
	t.Setenv(backendEnv, "")
	t.Setenv("PATH", t.TempDir())
	return home
}

// put makes a file and its folders.
func put(t *testing.T, path, body string) string {
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(body), 0o600))
	return path
}

func TestFindInEnvironments(t *testing.T) {
	home := bare(t)
	found, err := Search(context.Background(), "", false)
	require.NoError(t, err)
	require.Empty(t, found.Plugins)
	require.Contains(t, found.Looked, "python3: not on the PATH")
	require.Contains(t, found.Looked[0], "`steerage setup cuda` would put it there")

	venv := filepath.Join(home, "my [venv]*") // characters of patterns
	site := filepath.Join(venv, "lib", "python3.12", "site-packages")
	cpu := put(t, filepath.Join(site, inWheel["cpu"][0].path), "x")
	require.NoError(t, os.MkdirAll(filepath.Join(site, "xla_cpu_pjrt-0.0.7.dist-info"), 0o700))
	cuda := put(t, filepath.Join(site, inWheel["cuda"][1].path), "x")
	t.Setenv("VIRTUAL_ENV", venv)
	t.Setenv("CONDA_PREFIX", filepath.Join(home, "nothing"))
	plugins, err := Find("")
	require.NoError(t, err)
	require.Equal(t, []Plugin{
		{Kind: "cuda", Path: cuda, Source: FromPython},
		{Kind: "cpu", Path: cpu, Source: FromPython, Version: "0.0.7"},
	}, plugins)
	plugins, err = Find("cpu")
	require.NoError(t, err)
	require.Len(t, plugins, 1)
	_, err = Find("tpu")
	require.ErrorContains(t, err, "want one of cuda, cpu")
}

// TestFindAsksPython: python3 names its folders, and may fail, hang or talk nonsense.
func TestFindAsksPython(t *testing.T) {
	home := bare(t)
	t.Setenv("PATH", "/usr/bin:/bin")
	site := filepath.Join(home, "site-packages")
	cpu := put(t, filepath.Join(site, inWheel["cpu"][0].path), "x")
	fakePython(t, "echo "+site+"; echo "+site+"; echo relative/dir; echo")
	plugins, err := Find("cpu")
	require.NoError(t, err)
	require.Equal(t, []Plugin{{Kind: "cpu", Path: cpu, Source: FromPython}}, plugins)

	fakePython(t, "echo broken >&2; exit 1")
	found, err := Search(context.Background(), "cpu", false)
	require.NoError(t, err)
	require.Empty(t, found.Plugins)
	require.Contains(t, strings.Join(found.Looked, "\n"), "did not say where its packages are")

	fakePython(t, "exec sleep 60")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	found, err = Search(ctx, "cpu", false)
	require.NoError(t, err)
	require.Empty(t, found.Plugins)
}

// TestFindOrder: the pinned version in the cache comes first, then others, then Python's; broken folders are passed over.
func TestFindOrder(t *testing.T) {
	home := bare(t)
	dir, err := pluginDir("cpu")
	require.NoError(t, err)
	add := func(folder, version string) string {
		path := put(t, filepath.Join(dir, folder, testPlugin), "body of "+version)
		require.NoError(t, writeManifest(filepath.Join(dir, folder), "cpu", wheel{name: "x", version: version, plugin: testPlugin}))
		return path
	}
	older := add("0.0.0-aaaaaaaaaaaa", "0.0.0")
	pinned := add(folderOf(wheels["cpu"][0]), "0.0.1")
	require.NoError(t, os.Chtimes(pinned, t0, t0)) // older by its time
	require.NoError(t, writeManifest(filepath.Join(dir, folderOf(wheels["cpu"][0])), "cpu", wheel{version: "0.0.1", plugin: testPlugin}))
	for folder, text := range map[string]string{
		"no-manifest": "", "not-json": "{", "outside": `{"kind": "cpu", "file": "../../../etc/passwd"}`,
		"other-kind": `{"kind": "cuda", "file": "x.so"}`, "no-file": `{"kind": "cpu", "file": "x.so"}`, "absolute": `{"kind": "cpu", "file": "/bin/sh"}`,
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o700))
		if text != "" {
			put(t, filepath.Join(dir, folder, manifestName), text)
		}
	}
	venv := filepath.Join(home, "venv")
	python := put(t, filepath.Join(venv, "lib", "python3.13", "site-packages", inWheel["cpu"][0].path), "x")
	t.Setenv("VIRTUAL_ENV", venv)

	found, err := Search(context.Background(), "cpu", true)
	require.NoError(t, err)
	var paths []string
	for _, p := range found.Plugins {
		paths = append(paths, p.Path)
	}
	require.Equal(t, []string{pinned, older, python}, paths)
	require.Equal(t, 6, strings.Count(strings.Join(found.Looked, "\n"), "passed over"))

	require.NoError(t, os.Chmod(dir, 0o777)) // others may have put a library there
	found, err = Search(context.Background(), "cpu", false)
	require.NoError(t, err)
	require.Len(t, found.Plugins, 1)
	require.Equal(t, FromPython, found.Plugins[0].Source)
	require.Contains(t, strings.Join(found.Looked, "\n"), "chmod 700")
}
