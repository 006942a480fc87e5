package pjrt

import (
	"archive/zip"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// entry is a file of a wheel made for a test.
type entry struct {
	name, body string
	mode       fs.FileMode
}

// makeWheel writes a wheel and returns its pin.
func makeWheel(t *testing.T, path string, w wheel, entries ...entry) wheel {
	f, err := os.Create(path)
	require.NoError(t, err)
	z := zip.NewWriter(f)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode | 0o644)
		out, err := z.CreateHeader(h)
		require.NoError(t, err)
		_, err = out.Write([]byte(e.body))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	require.NoError(t, f.Close())
	w.sha256, err = fileSHA256(path)
	require.NoError(t, err)
	return w
}

// from serves a wheel from a file, and counts.
func from(path string, fetched *int) download {
	return func(_ context.Context, _ wheel, dir string) (string, error) {
		*fetched++
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		out := filepath.Join(dir, "fetched.whl")
		return out, os.WriteFile(out, data, 0o600)
	}
}

const testPlugin = "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so"

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	cache := filepath.Join(dir, "cache", "steerage", "pjrt", "cpu")
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	file := filepath.Join(dir, "a.whl")
	pin := makeWheel(t, file, wheel{name: "a", version: "1.0", plugin: testPlugin},
		entry{name: "xla_plugins/__init__.py", body: "evil()"}, entry{name: testPlugin, body: "the plugin"})

	fetched := 0
	var said []string
	setup := func() (Plugin, error) {
		return install(context.Background(), cache, "cpu", []wheel{pin}, from(file, &fetched), func(s string) { said = append(said, s) })
	}
	p, err := setup()
	require.NoError(t, err)
	require.Equal(t, Plugin{Kind: "cpu", Path: filepath.Join(cache, folderOf(pin), testPlugin), Source: FromCache,
		Version: "1.0", SHA256: p.SHA256}, p)
	require.Len(t, said, 2)
	require.NoFileExists(t, filepath.Join(cache, folderOf(pin), "xla_plugins/__init__.py"))
	for _, path := range []string{cache, filepath.Dir(p.Path), p.Path} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, path)
	}
	left, err := filepath.Glob(filepath.Join(cache, "tmp-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	again, err := setup()
	require.NoError(t, err)
	require.Equal(t, p, again)
	require.Equal(t, 1, fetched, "what is there is not fetched again")

	plugins, err := Find("cpu")
	require.NoError(t, err)
	require.Equal(t, []Plugin{p}, plugins)
	at, err := At(p.Path)
	require.NoError(t, err)
	require.Equal(t, "1.0", at.Version)

	// Touched, it is read and still good; changed, it is refused, and unpacked again.
	require.NoError(t, os.Chtimes(p.Path, time.Now(), time.Now()))
	require.NoError(t, verifyInstalled(p.Path))
	require.NoError(t, os.WriteFile(p.Path, []byte("the PLUGIN"), 0o600))
	require.ErrorContains(t, verifyInstalled(p.Path), "was changed since it was unpacked")
	_, err = setup()
	require.NoError(t, err)
	require.NoError(t, verifyInstalled(p.Path))
	require.Equal(t, 2, fetched)

	// Cut short, it is not even found.
	require.NoError(t, os.Truncate(p.Path, 3))
	found, err := Search(context.Background(), "cpu", false)
	require.NoError(t, err)
	require.Empty(t, found.Plugins)
	require.Contains(t, strings.Join(found.Looked, "\n"), "has 3 bytes, not the 10 it was unpacked with")
}

func TestInstallRefuses(t *testing.T) {
	const plugin = testPlugin
	libs := wheel{name: "libs", version: "1"}
	one := wheel{name: "one", version: "1", plugin: plugin}
	tests := map[string]struct {
		pin     wheel
		entries []entry
		want    string
	}{
		"no plugin inside":   {one, []entry{{name: "other.so", body: "x"}}, "not the wheel that was expected"},
		"the plugin twice":   {one, []entry{{name: plugin, body: "x"}, {name: plugin, body: "y"}}, "file exists"},
		"a link":             {one, []entry{{name: plugin, body: "/etc/passwd", mode: fs.ModeSymlink}}, "may not be unpacked"},
		"outside":            {libs, []entry{{name: "nvidia/../../../lib/evil.so", body: "x"}}, "may not be unpacked"},
		"outside, backwards": {libs, []entry{{name: "nvidia/lib/../../../evil.so", body: "x"}}, "may not be unpacked"},
		"empty":              {libs, nil, "not the wheel that was expected"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "w.whl")
			pin := makeWheel(t, file, test.pin, test.entries...)
			cache := filepath.Join(dir, "x", "y", "z", "cpu")
			n := 0
			_, err := install(context.Background(), cache, "cpu", []wheel{pin}, from(file, &n), nil)
			require.ErrorContains(t, err, test.want)
			files, err := os.ReadDir(cache)
			require.NoError(t, err)
			require.Empty(t, files, "nothing is left behind")
			require.NoFileExists(t, filepath.Join(dir, "evil.so"))
		})
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "w.whl")
	pin := makeWheel(t, file, one, entry{name: plugin, body: "x"})
	pin.sha256 = strings.Repeat("0", 64)
	n := 0
	_, err := install(context.Background(), filepath.Join(dir, "cpu"), "cpu", []wheel{pin}, from(file, &n), nil)
	require.ErrorContains(t, err, "pinned is 0000")

	require.NoError(t, os.WriteFile(file, []byte("not a zip"), 0o600))
	pin.sha256, err = fileSHA256(file)
	require.NoError(t, err)
	_, err = install(context.Background(), filepath.Join(dir, "cpu"), "cpu", []wheel{pin}, from(file, &n), nil)
	require.ErrorContains(t, err, "not a valid zip file")

	_, err = Setup(context.Background(), "tpu", nil)
	require.ErrorContains(t, err, `unknown kind of plugin "tpu"`)
}

func TestWheelWants(t *testing.T) {
	libs := wheel{name: "nvidia"}
	for name, want := range map[string]bool{
		"nvidia/cu13/lib/libcublas.so.13":           true,
		"nvidia/cudnn/lib/libcudnn.so.9":            true,
		"nvidia/cu13/bin/ptxas":                     true,
		"nvidia/cu13/nvvm/libdevice/libdevice.bc":   true,
		"nvidia/cu13/nvvm/lib64/libnvvm.so.4":       true,
		"nvidia/cu13/include/cuda.h":                false,
		"nvidia/cu13/lib/libcudart_static.a":        false,
		"nvidia/cu13/lib/":                          false,
		"nvidia_cublas-13.dist-info/RECORD":         false,
		"../nvidia/cu13/lib/libcublas.so.13":        false,
		"nvidia/cu13/lib/../../../../etc/passwd.so": true, // wanted, and refused by unpack
	} {
		require.Equal(t, want, libs.wants(name), name)
	}
	for kind, pins := range wheels {
		require.NotEmpty(t, pins[0].plugin, kind)
		require.Equal(t, inWheel[kind][0].path, pins[0].plugin)
		for i, w := range pins {
			require.Regexp(t, "^[0-9a-f]{64}$", w.sha256, w.name)
			require.Equal(t, i == 0, w.plugin != "", w.name)
		}
	}
}

// fakePython puts a python3 in front of the PATH.
func fakePython(t *testing.T, script string) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "python3"), []byte("#!/bin/sh\n"+script), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestPipErrors: each way in which pip fails has its own remedy. The outputs are pip 23's.
func TestPipErrors(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /bin/sh")
	}
	w := wheel{name: "a", version: "1", sha256: strings.Repeat("1", 64), plugin: testPlugin}
	const pipWorks = "case \"$*\" in *--version) exit 0;; esac\n"
	for name, test := range map[string]struct{ script, want string }{
		"no pip":  {"echo '/usr/bin/python3: No module named pip' >&2; exit 1", "has no pip (/usr/bin/python3: No module named pip)"},
		"hash":    {pipWorks + "echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.'; exit 1", "is not the one that was tested"},
		"network": {pipWorks + "echo 'WARNING: Retrying after connection broken by NewConnectionError: Temporary failure in name resolution'; echo 'ERROR: No matching distribution found for a==1'; exit 1", "could not be reached"},
		"disk":    {pipWorks + "echo 'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device'; exit 1", "disk is full"},
		"version": {pipWorks + "echo 'ERROR: No matching distribution found for a==1'; exit 1", "offers no such wheel"},
		"other":   {pipWorks + "echo 'strange things'; exit 3", "strange things"},
		"no file": {pipWorks + "exit 0", "left 0 wheels"},
	} {
		t.Run(name, func(t *testing.T) {
			fakePython(t, test.script)
			_, err := pipDownload(context.Background(), w, t.TempDir())
			require.ErrorContains(t, err, test.want)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		fakePython(t, pipWorks+"exec sleep 60")
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_, err := pipDownload(ctx, w, t.TempDir())
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	t.Run("the command", func(t *testing.T) {
		dir := t.TempDir()
		fakePython(t, pipWorks+"echo \"$@\" >"+filepath.Join(dir, "args")+"; mkdir "+dir+"/wheel; touch "+dir+"/wheel/a.whl")
		file, err := pipDownload(context.Background(), w, dir)
		require.NoError(t, err)
		require.Equal(t, filepath.Join(dir, "wheel", "a.whl"), file)
		args, err := os.ReadFile(filepath.Join(dir, "args"))
		require.NoError(t, err)
		for _, want := range []string{"-m pip download", "--no-deps", "--only-binary=:all:", "--require-hashes"} {
			require.Contains(t, string(args), want)
		}
		line, err := os.ReadFile(filepath.Join(dir, "requirements.txt"))
		require.NoError(t, err)
		require.Equal(t, "a==1 --hash=sha256:"+w.sha256+"\n", string(line))
	})
	t.Run("no python", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := pipDownload(context.Background(), w, t.TempDir())
		require.ErrorContains(t, err, "python3 is not on the PATH")
	})
}

func TestWithRemedy(t *testing.T) {
	require.ErrorContains(t, withRemedy(&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}), "XDG_CACHE_HOME")
	require.ErrorContains(t, withRemedy(&fs.PathError{Op: "mkdir", Path: "x", Err: syscall.EACCES}), "may write to")
	plain := errors.New("plain")
	require.Equal(t, plain, withRemedy(plain))
}

// TestSetupWithPip runs the real pip against a folder of wheels: a right hash is taken, a wrong one refused.
func TestSetupWithPip(t *testing.T) {
	if exec.Command("python3", "-m", "pip", "--version").Run() != nil {
		t.Skip("needs python3 with pip")
	}
	index := t.TempDir()
	pin := makeWheel(t, filepath.Join(index, "steerage_test_plugin-1.0-py3-none-any.whl"),
		wheel{name: "steerage-test-plugin", version: "1.0", plugin: testPlugin},
		entry{name: testPlugin, body: "the plugin"},
		entry{name: "steerage_test_plugin-1.0.dist-info/METADATA", body: "Metadata-Version: 2.1\nName: steerage-test-plugin\nVersion: 1.0\n"},
		entry{name: "steerage_test_plugin-1.0.dist-info/WHEEL", body: "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n"},
		entry{name: "steerage_test_plugin-1.0.dist-info/RECORD"})
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", index)
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	cache := filepath.Join(t.TempDir(), "cpu")
	p, err := install(context.Background(), cache, "cpu", []wheel{pin}, pipDownload, nil)
	require.NoError(t, err)
	body, err := os.ReadFile(p.Path)
	require.NoError(t, err)
	require.Equal(t, "the plugin", string(body))

	pin.sha256 = strings.Repeat("0", 64)
	_, err = install(context.Background(), cache, "cpu", []wheel{pin}, pipDownload, nil)
	require.ErrorContains(t, err, "is not the one that was tested")
}
