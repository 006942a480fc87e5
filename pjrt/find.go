package pjrt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kinds are the kinds of plugin that Find knows, the preferred one first.
var Kinds = []string{"cuda", "cpu"}

// Plugin is a PJRT plugin on this machine's disk.
type Plugin struct {
	Kind    string `json:"kind"`              // "cpu" or "cuda"
	Path    string `json:"path"`              // the shared library
	Source  string `json:"source"`            // FromPath, FromCache or FromPython
	Version string `json:"version,omitempty"` // the wheel's, e.g. "0.0.1"; "" where no wheel is known
	SHA256  string `json:"sha256,omitempty"`  // of the library, for FromCache
}

// Where a Plugin was found, in the order in which Find looks and Backend chooses.
const (
	FromPath   = "path"   // named by the user
	FromCache  = "cache"  // fetched by Setup
	FromPython = "python" // an installed wheel
)

// Found is the result of a search: the plugins, best first, and what was looked at, as sentences for a person.
type Found struct {
	Plugins []Plugin `json:"plugins"`
	Looked  []string `json:"looked"`
}

// Find returns the plugins of a kind ("cpu", "cuda", or "" for both) on this machine, best first: what Setup
// fetched, then a wheel in the active Python environment. It finds no plugin without an error.
func Find(kind string) ([]Plugin, error) {
	found, err := Search(context.Background(), kind, false)
	return found.Plugins, err
}

// Search is Find with its reasons. Python is asked only where the cache folder has nothing for a kind, or always if
// thorough is true; it gets five seconds.
func Search(ctx context.Context, kind string, thorough bool) (Found, error) {
	kinds := Kinds
	if kind != "" {
		if !slices.Contains(Kinds, kind) {
			return Found{}, fmt.Errorf("unknown kind of plugin %q: want one of %s", kind, strings.Join(Kinds, ", "))
		}
		kinds = []string{kind}
	}
	var (
		found Found
		sites []site
		asked bool
	)
	for _, kind := range kinds {
		cached := findCached(kind, &found)
		found.Plugins = append(found.Plugins, cached...)
		if len(cached) > 0 && !thorough {
			continue
		}
		if !asked {
			sites, asked = sitePackages(ctx, &found), true
		}
		for _, s := range sites {
			found.Plugins = append(found.Plugins, findInstalled(kind, s, &found)...)
		}
	}
	return found, nil
}

// At returns the plugin at a path that the user named. Its kind is read from its file name ("…cpu….so", "…cuda….so").
func At(path string) (Plugin, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Plugin{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Plugin{}, fmt.Errorf("plugin: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Plugin{}, fmt.Errorf("plugin %s is a %s, not a file", path, info.Mode().Type())
	}
	name := strings.ToLower(filepath.Base(path))
	for _, kind := range Kinds {
		if strings.Contains(name, kind) {
			p := Plugin{Kind: kind, Path: path, Source: FromPath}
			if m, _, err := manifestOf(path); err == nil {
				p.Version, p.SHA256 = m.Version, m.SHA256
			}
			return p, nil
		}
	}
	return Plugin{}, fmt.Errorf("plugin %s: its file name says neither cpu nor cuda; "+
		"give it (or a link to it) a name that does", path)
}

// identity says which library a compiled program was made by: its hash where that is known, else its size and time.
func (p Plugin) identity() string {
	if p.SHA256 != "" {
		return "plugin " + p.SHA256
	}
	info, err := os.Stat(p.Path)
	if err != nil {
		return "plugin " + p.Path
	}
	return fmt.Sprintf("plugin %s %s %d %d", p.Kind, p.Version, info.Size(), info.ModTime().UnixNano())
}

// remedySetup is what to do about a plugin that cannot be used.
func remedySetup(kind string) string {
	return fmt.Sprintf("run `steerage setup %s`, or name another plugin with --backend xla:/path/to/plugin.so", kind)
}

// manifest lies beside a plugin that Setup unpacked, as plugin.json.
type manifest struct {
	Kind    string    `json:"kind"`
	Wheel   string    `json:"wheel"`        // package name
	Version string    `json:"version"`      // of the package
	Hash    string    `json:"wheel_sha256"` // of the wheel
	File    string    `json:"file"`         // the plugin, relative to the manifest's folder
	SHA256  string    `json:"sha256"`       // of the plugin
	Size    int64     `json:"size"`         // of the plugin, in bytes
	ModTime time.Time `json:"mod_time"`     // of the plugin
}

const manifestName = "plugin.json"

// plugin is what the manifest in a folder describes.
func (m manifest) plugin(folder string) Plugin {
	return Plugin{Kind: m.Kind, Path: filepath.Join(folder, m.File), Source: FromCache,
		Version: m.Version, SHA256: m.SHA256}
}

func readManifest(dir string) (manifest, error) {
	f, err := os.Open(filepath.Join(dir, manifestName))
	if err != nil {
		return manifest{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return manifest{}, err
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return manifest{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if !filepath.IsLocal(m.File) {
		return manifest{}, fmt.Errorf("%s: bad file name %q", f.Name(), m.File)
	}
	return m, nil
}

// pluginDir is where Setup keeps the plugins of a kind.
func pluginDir(kind string) (string, error) {
	base, err := cacheBase()
	return filepath.Join(base, "pjrt", kind), err
}

// findCached looks at what Setup unpacked; the pinned version first, then newer before older by file time.
func findCached(kind string, found *Found) []Plugin {
	dir, err := pluginDir(kind)
	if err != nil {
		found.Looked = append(found.Looked, err.Error())
		return nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		found.Looked = append(found.Looked,
			fmt.Sprintf("%s: nothing there (`steerage setup %s` would put it there)", dir, kind))
		return nil
	}
	if err == nil {
		err = onlyOurs(dir)
	}
	if err != nil {
		found.Looked = append(found.Looked, err.Error())
		return nil
	}
	type dated struct {
		Plugin
		pinned bool
		time   time.Time
	}
	var all []dated
	for _, e := range entries {
		folder := filepath.Join(dir, e.Name())
		if !e.IsDir() || strings.HasPrefix(e.Name(), "tmp-") {
			continue
		}
		m, err := readManifest(folder)
		if err == nil && m.Kind != kind {
			err = fmt.Errorf("its manifest says kind %q", m.Kind)
		}
		if err == nil {
			err = m.check(folder)
		}
		if err != nil {
			found.Looked = append(found.Looked, fmt.Sprintf("%s: passed over: %v", folder, err))
			continue
		}
		all = append(all, dated{m.plugin(folder), e.Name() == folderOf(wheels[kind][0]), m.ModTime})
	}
	slices.SortStableFunc(all, func(a, b dated) int {
		if a.pinned != b.pinned {
			return map[bool]int{true: -1, false: 1}[a.pinned]
		}
		return b.time.Compare(a.time)
	})
	var plugins []Plugin
	for _, d := range all {
		plugins = append(plugins, d.Plugin)
	}
	found.Looked = append(found.Looked, fmt.Sprintf("%s: %s", dir, plural(len(plugins), "plugin")))
	return plugins
}

// manifestOf finds the manifest of a plugin, and the manifest's folder; fs.ErrNotExist if Setup did not unpack it.
func manifestOf(path string) (manifest, string, error) {
	dir := filepath.Dir(path)
	for range 3 { // the deepest plugin lies in jax_plugins/xla_cuda13
		m, err := readManifest(dir)
		if err == nil && filepath.Join(dir, m.File) == path {
			return m, dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return manifest{}, "", err
		}
		dir = filepath.Dir(dir)
	}
	return manifest{}, "", fs.ErrNotExist
}

// check compares the plugin's size with the manifest's, quickly; verify also reads it if its time has changed.
func (m manifest) check(folder string) error {
	info, err := os.Stat(filepath.Join(folder, m.File))
	if err != nil {
		return err
	}
	if info.Size() != m.Size {
		return fmt.Errorf("%s has %d bytes, not the %d it was unpacked with",
			filepath.Join(folder, m.File), info.Size(), m.Size)
	}
	return nil
}

// verify compares the plugin with the manifest by size and time and, where the time differs, by sha256.
func (m manifest) verify(folder string) error {
	if err := m.check(folder); err != nil {
		return err
	}
	path := filepath.Join(folder, m.File)
	if info, err := os.Stat(path); err == nil && info.ModTime().Equal(m.ModTime) {
		return nil
	}
	sum, err := fileSHA256(path)
	if err != nil {
		return err
	}
	if sum != m.SHA256 {
		return fmt.Errorf("%s was changed since it was unpacked: its sha256 is %s, not %s", path, sum, m.SHA256)
	}
	return nil
}

// verifyInstalled checks a plugin that Setup unpacked against its manifest. Other plugins have none and pass.
func verifyInstalled(path string) error {
	m, dir, err := manifestOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = m.verify(dir)
	}
	if err != nil {
		return fmt.Errorf("plugin: %w; %s", err, remedySetup(m.Kind))
	}
	return nil
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// site is a folder of installed Python packages.
type site struct{ dir, why string }

// sitePackages lists the site-packages of the active Python environment: a virtual environment, a Conda environment,
// then whatever `python3` on the PATH says. Python is run only if the first two hold no plugin at all.
func sitePackages(ctx context.Context, found *Found) []site {
	var sites []site
	for _, env := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		root := os.Getenv(env)
		if root == "" {
			continue
		}
		dirs, _ := filepath.Glob(filepath.Join(globQuote(root), "lib", "python3*", "site-packages"))
		if len(dirs) == 0 {
			found.Looked = append(found.Looked, fmt.Sprintf("$%s=%s: no lib/python3*/site-packages", env, root))
		}
		for _, dir := range dirs {
			sites = append(sites, site{dir, "$" + env})
		}
	}
	for _, s := range sites {
		for kind := range inWheel {
			if len(findInstalled(kind, s, &Found{})) > 0 {
				return sites
			}
		}
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		found.Looked = append(found.Looked, "python3: not on the PATH")
		return sites
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// -I: neither the working folder nor PYTHON* variables decide what is imported.
	cmd := exec.CommandContext(ctx, python, "-I", "-c",
		"import site\nfor d in site.getsitepackages() + [site.getusersitepackages()]: print(d)")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		found.Looked = append(found.Looked, fmt.Sprintf("%s: did not say where its packages are: %v", python, err))
		return sites
	}
	for dir := range strings.Lines(string(out)) {
		dir = strings.TrimSpace(dir)
		known := slices.ContainsFunc(sites, func(s site) bool { return s.dir == dir })
		if filepath.IsAbs(dir) && !known {
			sites = append(sites, site{dir, python})
		}
	}
	return sites
}

// globQuote escapes a path for use in a pattern.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// findInstalled looks for plugins in one site-packages folder.
func findInstalled(kind string, s site, found *Found) []Plugin {
	var plugins []Plugin
	for _, w := range inWheel[kind] {
		path := filepath.Join(s.dir, filepath.FromSlash(w.path))
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		p := Plugin{Kind: kind, Path: path, Source: FromPython}
		infos, _ := filepath.Glob(filepath.Join(globQuote(s.dir), w.name+"-*.dist-info"))
		if len(infos) == 1 {
			p.Version = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(infos[0]), w.name+"-"), ".dist-info")
		}
		plugins = append(plugins, p)
	}
	found.Looked = append(found.Looked, fmt.Sprintf("%s (%s): %s", s.dir, s.why, plural(len(plugins), kind+" plugin")))
	return plugins
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
