package pjrt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// CacheLimit is how large the compile cache grows before its least recently used programs are removed, in bytes.
const CacheLimit = 4 << 30

// cacheEnv switches the compile cache off when it is "off" or "0".
const cacheEnv = "STEERAGE_COMPILE_CACHE"

// An entry is magic, the payload's sha256, its length (8 bytes, little endian) and the payload. The magic changes
// whenever the meaning of an entry does; it is part of the key too.
const (
	entryMagic  = "steerage compiled program 1\n"
	entryHeader = len(entryMagic) + sha256.Size + 8
	entrySuffix = ".xla"
)

// errDamaged says that an entry is not what was written.
var errDamaged = errors.New("damaged entry")

// cache is a folder of compiled programs. Executables from it are run, so nobody else may write to it: the folder is
// the user's and has mode 0700, and each entry is checked against its hash. Many processes may share it: entries
// appear by rename, and one that vanishes is just a miss.
type cache struct {
	dir   string
	limit int64

	mu   sync.Mutex
	size int64 // an estimate of the folder's size; -1 until the first put
}

// openCache opens or makes the folder. An error says why it cannot be used.
func openCache(dir string, limit int64) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("compile cache: %w", err)
	}
	if err := onlyOurs(dir); err != nil {
		return nil, fmt.Errorf("compile cache: %w", err)
	}
	if limit <= 0 {
		limit = CacheLimit
	}
	return &cache{dir: dir, limit: limit, size: -1}, nil
}

// CacheDir is the compile cache's folder: steerage/xla in $XDG_CACHE_HOME, or in ~/.cache.
func CacheDir() (string, error) {
	base, err := cacheBase()
	return filepath.Join(base, "xla"), err
}

// cacheBase is the project's folder in the user's cache. XDG says that a relative $XDG_CACHE_HOME is to be ignored.
func cacheBase() (string, error) {
	if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "steerage"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(home, ".cache", "steerage"), nil
}

// cacheKey names a program by everything that its compiled form depends on. The module's name is left out: GoMLX
// numbers graphs as they come, and the same program would have another name in the next run.
func cacheKey(program string, options []byte, target []string) string {
	h := sha256.New()
	part := func(b []byte) { // with its length, so that parts cannot run into each other
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	part([]byte(entryMagic))
	if name := moduleName(program); name != "" {
		program = strings.Replace(program, "@"+name, "@", 1)
	}
	part([]byte(program))
	part(options)
	for _, t := range target {
		part([]byte(t))
	}
	// XLA reads these itself, when it compiles.
	for _, name := range []string{"XLA_FLAGS", "NPROC", "PJRT_NPROC"} {
		part([]byte(os.Getenv(name)))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// moduleName reads X of a program that begins "module @X".
func moduleName(program string) string {
	rest, ok := strings.CutPrefix(program, "module @")
	if !ok {
		return ""
	}
	end := strings.IndexAny(rest, " \t\r\n{")
	return rest[:max(0, end)]
}

// hostIdentity is what XLA's CPU compiler sees of the machine: instruction sets, and processors to divide work among.
var hostIdentity = sync.OnceValue(func() string {
	h := sha256.New()
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		info, _ := io.ReadAll(io.LimitReader(f, 1<<20))
		for line := range bytes.Lines(info) {
			name, _, _ := bytes.Cut(line, []byte(":"))
			switch strings.TrimSpace(string(name)) {
			case "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features":
				h.Write(line)
			case "": // the first processor stands for all
				return fmt.Sprintf("host %s %d processors %x", runtime.GOARCH, runtime.NumCPU(), h.Sum(nil))
			}
		}
	}
	return fmt.Sprintf("host %s %d processors %x", runtime.GOARCH, runtime.NumCPU(), h.Sum(nil))
})

// get returns a stored program. A missing one is fs.ErrNotExist; a damaged one is removed and is errDamaged.
func (c *cache) get(key string) ([]byte, error) {
	path := filepath.Join(c.dir, key+entrySuffix)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	payload, err := c.readEntry(f)
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // for eviction: used just now
	return payload, nil
}

func (c *cache) readEntry(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() < int64(entryHeader) || info.Size() > c.limit {
		return nil, fmt.Errorf("%w: %s of %d bytes", errDamaged, info.Mode().Type(), info.Size())
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	payload := data[entryHeader:]
	sum := sha256.Sum256(payload)
	length := binary.LittleEndian.Uint64(data[entryHeader-8:])
	switch {
	case string(data[:len(entryMagic)]) != entryMagic:
		return nil, fmt.Errorf("%w: not a compiled program of this format", errDamaged)
	case length != uint64(len(payload)):
		return nil, fmt.Errorf("%w: %d bytes, of %d", errDamaged, len(payload), length)
	case !bytes.Equal(data[len(entryMagic):entryHeader-8], sum[:]):
		return nil, fmt.Errorf("%w: its sha256 is not the one it was stored with", errDamaged)
	}
	return payload, nil
}

// put stores a program, then makes room.
func (c *cache) put(key string, payload []byte) error {
	if int64(entryHeader+len(payload)) > c.limit/2 {
		return fmt.Errorf("compile cache: a program of %d bytes is too large for a cache of %d", len(payload), c.limit)
	}
	f, err := os.CreateTemp(c.dir, "tmp-*") // mode 0600
	if err != nil {
		return fmt.Errorf("compile cache: %w", err)
	}
	defer os.Remove(f.Name()) // gone by then, if all goes well
	sum := sha256.Sum256(payload)
	header := append([]byte(entryMagic), sum[:]...)
	header = binary.LittleEndian.AppendUint64(header, uint64(len(payload)))
	_, err = f.Write(header)
	if err == nil {
		_, err = f.Write(payload)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.dir, key+entrySuffix))
	}
	if err != nil {
		return fmt.Errorf("compile cache: %w", err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size >= 0 {
		c.size += int64(entryHeader + len(payload))
	}
	if c.size < 0 || c.size > c.limit {
		c.size = c.evict()
	}
	return nil
}

// evict removes the least recently used entries until the folder is three quarters of its limit, if it is above the
// limit, and temporary files that a killed process left. It returns the folder's size.
func (c *cache) evict() int64 {
	files, total := c.list()
	if total <= c.limit {
		return total
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		if total <= c.limit/4*3 {
			break
		}
		if os.Remove(filepath.Join(c.dir, f.Name())) == nil {
			total -= f.Size()
		}
	}
	return total
}

// list returns the entries and their size together, and removes temporary files older than an hour.
func (c *cache) list() (files []fs.FileInfo, total int64) {
	names, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, 0
	}
	for _, name := range names {
		info, err := name.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		switch {
		case strings.HasSuffix(info.Name(), entrySuffix):
			files = append(files, info)
			total += info.Size()
		case strings.HasPrefix(info.Name(), "tmp-") && time.Since(info.ModTime()) > time.Hour:
			os.Remove(filepath.Join(c.dir, info.Name()))
		}
	}
	return files, total
}
