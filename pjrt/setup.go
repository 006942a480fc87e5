package pjrt

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Setup fetches the pinned plugin of a kind ("cpu" or "cuda"; "" means "cpu") and unpacks it where Find looks first:
// steerage/pjrt/<kind>/<version>-<hash> in the user's cache folder. pip does the fetching, so that its configuration
// (index, proxy, certificates) holds, and checks the wheel against the hash that is pinned in this program.
//
// What is there already is kept and returned at once. The folder appears complete or not at all. progress is told,
// in sentences, what takes time; it may be nil.
func Setup(ctx context.Context, kind string, progress func(string)) (Plugin, error) {
	if kind == "" {
		kind = "cpu"
	}
	pins, ok := wheels[kind]
	if !ok {
		return Plugin{}, fmt.Errorf("unknown kind of plugin %q: want one of %s", kind, strings.Join(Kinds, ", "))
	}
	if platform := runtime.GOOS + "/" + runtime.GOARCH; platform != "linux/amd64" {
		return Plugin{}, fmt.Errorf("there is no %s plugin for %s, only for linux/amd64: use --backend go, "+
			"or name a plugin of your own with --backend xla:/path/to/plugin.so", kind, platform)
	}
	dir, err := pluginDir(kind)
	if err != nil {
		return Plugin{}, err
	}
	return install(ctx, dir, kind, pins, pipDownload, progress)
}

// download puts one wheel into a folder and returns its path.
type download func(ctx context.Context, w wheel, dir string) (string, error)

// install makes dir/<folder of the first wheel> hold the unpacked wheels and a manifest.
func install(
	ctx context.Context, dir, kind string, pins []wheel, get download, progress func(string),
) (p Plugin, err error) {
	if progress == nil {
		progress = func(string) {}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Plugin{}, fmt.Errorf("setup: %w", withRemedy(err))
	}
	if err := onlyOurs(dir); err != nil {
		return Plugin{}, fmt.Errorf("setup: %w", err)
	}
	folder := filepath.Join(dir, folderOf(pins[0]))
	if p, err := installed(folder, kind); err == nil {
		return p, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		progress(fmt.Sprintf("%v: unpacking it again", err))
	}

	tmp, err := os.MkdirTemp(dir, "tmp-*") // mode 0700
	if err != nil {
		return Plugin{}, fmt.Errorf("setup: %w", withRemedy(err))
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	out := filepath.Join(tmp, "plugin")
	if err := os.Mkdir(out, 0o700); err != nil {
		return Plugin{}, fmt.Errorf("setup: %w", withRemedy(err))
	}
	for i, w := range pins {
		progress(fmt.Sprintf("fetching %s %s (%d of %d) with pip", w.name, w.version, i+1, len(pins)))
		file, err := get(ctx, w, tmp)
		if err != nil {
			return Plugin{}, fmt.Errorf("setup: %s %s: %w", w.name, w.version, err)
		}
		sum, err := fileSHA256(file)
		if err != nil {
			return Plugin{}, fmt.Errorf("setup: %w", err)
		}
		if sum != w.sha256 {
			return Plugin{}, fmt.Errorf("setup: %s %s: the fetched file has sha256 %s, pinned is %s: do not use it; "+
				"check the package index that pip is configured for", w.name, w.version, sum, w.sha256)
		}
		if err := unpack(file, out, w); err != nil {
			return Plugin{}, fmt.Errorf("setup: unpacking %s: %w", filepath.Base(file), withRemedy(err))
		}
		if err := os.Remove(file); err != nil {
			return Plugin{}, fmt.Errorf("setup: %w", err)
		}
	}
	if err := writeManifest(out, kind, pins[0]); err != nil {
		return Plugin{}, fmt.Errorf("setup: %w", withRemedy(err))
	}
	if err := os.Rename(out, folder); err != nil {
		// Another setup may have been quicker; else something broken is in the way.
		if p, e := installed(folder, kind); e == nil {
			return p, nil
		}
		if err := os.RemoveAll(folder); err != nil {
			return Plugin{}, fmt.Errorf("setup: %w", err)
		}
		if err := os.Rename(out, folder); err != nil {
			return Plugin{}, fmt.Errorf("setup: %w", err)
		}
	}
	p, err = installed(folder, kind)
	if err != nil {
		return Plugin{}, fmt.Errorf("setup: %w", err)
	}
	progress("unpacked " + p.Path)
	return p, nil
}

// installed returns the plugin in a folder that install made. A plugin whose time changed is read and checked.
func installed(folder, kind string) (Plugin, error) {
	m, err := readManifest(folder)
	if err != nil {
		return Plugin{}, err
	}
	if m.Kind != kind {
		return Plugin{}, fmt.Errorf("%s holds a plugin of kind %q", folder, m.Kind)
	}
	return m.plugin(folder), m.verify(folder)
}

func writeManifest(dir, kind string, w wheel) error {
	file := filepath.FromSlash(w.plugin)
	path := filepath.Join(dir, file)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	sum, err := fileSHA256(path)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(manifest{Kind: kind, Wheel: w.name, Version: w.version, Hash: w.sha256,
		File: file, SHA256: sum, Size: info.Size(), ModTime: info.ModTime()}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestName), append(data, '\n'), 0o600)
}

// pipDownload fetches one wheel with pip, which checks its hash.
func pipDownload(ctx context.Context, w wheel, dir string) (string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", errors.New("python3 is not on the PATH: install Python with pip, or fetch the wheel on another " +
			"machine, unpack it and use --backend xla:/path/to/plugin.so")
	}
	if out, err := exec.CommandContext(ctx, python, "-m", "pip", "--version").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s has no pip (%s): install it (`apt install python3-pip`, or `python3 -m ensurepip`)",
			python, lastLine(out))
	}
	requirements := filepath.Join(dir, "requirements.txt")
	line := fmt.Sprintf("%s==%s --hash=sha256:%s\n", w.name, w.version, w.sha256)
	if err := os.WriteFile(requirements, []byte(line), 0o600); err != nil {
		return "", withRemedy(err)
	}
	dest := filepath.Join(dir, "wheel")
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download", "--disable-pip-version-check", "--no-input",
		"--no-cache-dir", "--progress-bar=off", "--retries=2", "--no-deps", "--only-binary=:all:", "--require-hashes",
		"--requirement", requirements, "--dest", dest)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", pipError(string(out), err)
	}
	files, err := filepath.Glob(filepath.Join(globQuote(dest), "*.whl"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("pip left %d wheels in %s, not one", len(files), dest)
	}
	return files[0], nil
}

// pipError turns what pip printed into an error with a remedy.
func pipError(out string, err error) error {
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(strings.ToLower(out), w) {
				return true
			}
		}
		return false
	}
	var remedy string
	switch {
	case has("do not match the hashes", "hashmismatch"):
		remedy = "the file on the package index is not the one that was tested: do not use it, " +
			"and check which index pip is configured for (`python3 -m pip config list`)"
	case has("no space left"):
		return withRemedy(fmt.Errorf("pip: %w", syscall.ENOSPC))
	case has("newconnectionerror", "name resolution", "failed to establish", "connection refused", "connection broken",
		"max retries", "timed out", "timeout", "proxyerror", "certificate", "network is unreachable"):
		remedy = "the package index could not be reached: check the network, or the proxy and index that pip is " +
			"configured for (`python3 -m pip config list`); --backend go needs no plugin"
	case has("no matching distribution", "not a supported wheel"):
		remedy = "the package index offers no such wheel for this Python: it needs Linux on x86-64 with glibc 2.27 " +
			"or newer, and pip 20.3 or newer (`python3 -m pip install --upgrade pip`)"
	default:
		remedy = "try the same by hand: python3 -m pip download --no-deps"
	}
	return fmt.Errorf("pip failed (%w): %s; %s", err, lastLine([]byte(out)), remedy)
}

// withRemedy adds what to do to the errors of a full or read-only disk.
func withRemedy(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: the cache folder's disk is full; make room, or set XDG_CACHE_HOME to a folder on another", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: set XDG_CACHE_HOME to a folder that you may write to", err)
	}
	return err
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// unpackLimit bounds what one wheel may unpack to, whatever its directory says.
const unpackLimit = 4 << 30

// unpack writes the wheel's plugin, or what it keeps of a library wheel, below dir. Names that lead outside dir and
// entries that are not plain files are errors; nothing else of the wheel is written.
func unpack(file, dir string, w wheel) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	left := int64(unpackLimit)
	written := 0
	for _, f := range z.File {
		if !w.wants(f.Name) {
			continue
		}
		name := filepath.FromSlash(f.Name)
		if !filepath.IsLocal(name) || !f.Mode().IsRegular() {
			return fmt.Errorf("entry %q is a %s that may not be unpacked", f.Name, f.Mode().Type())
		}
		n, err := unpackFile(root, name, f, left)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		left -= n
		written++
	}
	if written == 0 || (w.plugin != "" && written != 1) {
		return fmt.Errorf("%d files of it are wanted ones: not the wheel that was expected", written)
	}
	return nil
}

func unpackFile(root *os.Root, name string, f *zip.File, limit int64) (int64, error) {
	in, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return 0, err
	}
	mode := fs.FileMode(0o600)
	if f.Mode()&0o100 != 0 || strings.Contains(filepath.ToSlash(name), "/bin/") { // ptxas is run by XLA
		mode = 0o700
	}
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, limit+1))
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err == nil && n > limit {
		err = fmt.Errorf("the wheel unpacks to more than %d bytes", int64(unpackLimit))
	}
	return n, err
}
