//go:build cgo && linux && !noxla

package pjrt

// #cgo CFLAGS: -std=gnu11 -Wall
// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "table.h"
import "C"

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/gomlx/compute"
)

// table is one opened plugin: its own functions, and the copy with ours in it that go-xla is given.
type table struct {
	plugin       Plugin
	name         string // under which go-xla knows it
	original     *C.PJRT_Api
	wrapped      *C.PJRT_Api
	major, minor int
}

// client is one open PJRT client: what the compile function has to know about it.
type client struct {
	cache           *cache // nil: off
	onCompile       func(Compile)
	target          []string // everything about plugin, device and machine that a compiled program depends on
	platformVersion string
	cacheOff        string // why there is no cache
	handle          *C.PJRT_Client
	api             *C.PJRT_Api // the plugin's own
	table           *table
	backend         compute.Backend // nil until Open is done
}

var (
	openMu sync.Mutex // one Open at a time
	// opening is what the client that go-xla creates next belongs to; openMu is held while it is set.
	opening *client

	tablesMu sync.RWMutex
	tables   []*table                // by slot
	clients  = map[uintptr]*client{} // by PJRT_Client*
)

// load opens a plugin and wraps its table, once per file. openMu is held.
func load(p Plugin) (*table, error) {
	path, err := filepath.EvalSymlinks(p.Path)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w; %s", p.Path, err, remedySetup(p.Kind))
	}
	tablesMu.RLock()
	for _, t := range tables {
		if t.plugin.Path == path {
			tablesMu.RUnlock()
			return t, nil
		}
	}
	slot := len(tables)
	tablesMu.RUnlock()
	if slot == C.STEERAGE_MAX_PLUGINS {
		return nil, fmt.Errorf("plugin %s: %d plugins are open in this process already", path, slot)
	}
	if err := checkLibrary(path); err != nil {
		return nil, fmt.Errorf("plugin %s: %w; %s", path, err, remedySetup(p.Kind))
	}
	if err := verifyInstalled(path); err != nil {
		return nil, err
	}

	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	var cerr *C.char
	api := C.steerage_dlopen(cpath, &cerr)
	if api == nil {
		return nil, fmt.Errorf("plugin %s: %w; %s", path, takeError(cerr), remedySetup(p.Kind))
	}
	t := &table{plugin: p, original: api,
		major: int(api.pjrt_api_version.major_version), minor: int(api.pjrt_api_version.minor_version)}
	t.plugin.Path = path
	if t.major != 0 || api.struct_size < C.STEERAGE_MIN_TABLE {
		return nil, fmt.Errorf("plugin %s speaks PJRT API %d.%d (a table of %d bytes), this program 0.%d (at least %d "+
			"bytes); %s", path, t.major, t.minor, int(api.struct_size), C.PJRT_API_MINOR, int(C.STEERAGE_MIN_TABLE),
			remedySetup(p.Kind))
	}
	t.wrapped = C.steerage_wrap(C.int(slot), api)
	if t.wrapped == nil {
		return nil, fmt.Errorf("plugin %s: no memory for its function table", path)
	}
	t.name = fmt.Sprintf("/steerage/%s/%d", p.Kind, slot)

	// Before registering: go-xla initialises the plugin through the table.
	tablesMu.Lock()
	tables = append(tables, t)
	tablesMu.Unlock()
	if err := register(t.name, uintptr(unsafe.Pointer(t.wrapped))); err != nil {
		// The slot stays taken, but the next Open of this path must not find a half-opened table.
		tablesMu.Lock()
		t.plugin.Path = ""
		tablesMu.Unlock()
		return nil, fmt.Errorf("plugin %s: initialising it: %w", path, err)
	}
	return t, nil
}

// preload opens a library if it can, so that others find it by its name.
func preload(path string) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	C.steerage_preload(cpath)
}

// checkLibrary refuses files that would make dlopen crash or fail with a riddle: not ELF, another machine's, cut short.
func checkLibrary(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is not a file but %s", info.Mode().Type())
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("it is not a whole shared library (%d bytes): %w", info.Size(), err)
	}
	defer f.Close()
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if f.Type != elf.ET_DYN || f.Machine != want {
		return fmt.Errorf("it is %s for %s; this machine needs %s for %s", f.Type, f.Machine, elf.ET_DYN, want)
	}
	for _, p := range f.Progs {
		if end := p.Off + p.Filesz; end < p.Off || end > uint64(info.Size()) {
			return fmt.Errorf("it is cut short: a segment ends at byte %d, the file at %d", end, info.Size())
		}
	}
	return nil
}

//export steerageClientCreate
func steerageClientCreate(slot C.int, args *C.PJRT_Client_Create_Args) *C.PJRT_Error {
	t := tableOf(slot)
	if err := C.steerage_create(t.original, args); err != nil {
		return err
	}
	c := opening
	if c == nil { // someone asked go-xla for our plugin by name, without Open
		c = &client{}
	}
	c.table, c.api, c.handle = t, t.original, args.client
	c.describe(t)
	tablesMu.Lock()
	clients[uintptr(unsafe.Pointer(args.client))] = c
	tablesMu.Unlock()
	return nil
}

//export steerageClientDestroy
func steerageClientDestroy(slot C.int, args *C.PJRT_Client_Destroy_Args) *C.PJRT_Error {
	tablesMu.Lock()
	delete(clients, uintptr(unsafe.Pointer(args.client)))
	tablesMu.Unlock()
	return C.steerage_destroy(tableOf(slot).original, args)
}

// steerageClientCompile stands for the plugin's PJRT_Client_Compile. It may be called from many threads at once.
//
//export steerageClientCompile
func steerageClientCompile(slot C.int, args *C.PJRT_Client_Compile_Args) *C.PJRT_Error {
	t := tableOf(slot)
	tablesMu.RLock()
	c := clients[uintptr(unsafe.Pointer(args.client))]
	tablesMu.RUnlock()
	if c == nil || C.GoStringN(args.program.format, C.int(args.program.format_size)) != "mlir" {
		return C.steerage_compile(t.original, args)
	}
	program := string(unsafe.Slice((*byte)(unsafe.Pointer(args.program.code)), args.program.code_size))
	options := unsafe.Slice((*byte)(unsafe.Pointer(args.compile_options)), args.compile_options_size)

	program, aliases, err := rewriteAliases(program)
	if err != nil {
		// Only the plugin can make a PJRT_Error. It names a program format that it does not know, so our message
		// travels as the name of one.
		message := "StableHLO, but " + err.Error()
		return compileAs(t, args, message, program)
	}

	done := Compile{Module: moduleName(program), Program: len(program), Aliases: aliases}
	rejected := false
	defer func() {
		if args.executable == nil {
			return // it did not compile
		}
		count(done, rejected)
		if c.onCompile != nil {
			c.onCompile(done)
		}
	}()

	start := time.Now()
	var key string
	if c.cache != nil {
		key = cacheKey(program, options, c.target)
		payload, err := c.cache.get(key)
		if err == nil {
			err = c.deserialize(payload, args)
		}
		if err == nil {
			done.Cached, done.Duration, done.Bytes = true, time.Since(start), len(payload)
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			rejected, done.CacheError = true, err
		}
	}

	start = time.Now()
	perr := compileAs(t, args, "mlir", program)
	done.Duration = time.Since(start)
	if perr != nil {
		args.executable = nil
		return perr
	}
	if c.cache != nil {
		payload, err := c.serialize(args.executable)
		if err == nil {
			err = c.cache.put(key, payload)
		}
		if err != nil {
			done.CacheError = err
		} else {
			done.Bytes = len(payload)
		}
	}
	return nil
}

func tableOf(slot C.int) *table {
	tablesMu.RLock()
	defer tablesMu.RUnlock()
	return tables[slot]
}

func compileAs(t *table, args *C.PJRT_Client_Compile_Args, format, program string) *C.PJRT_Error {
	cformat, code := C.CString(format), C.CString(program)
	defer C.free(unsafe.Pointer(cformat))
	defer C.free(unsafe.Pointer(code))
	return C.steerage_compile_as(t.original, args, cformat, C.size_t(len(format)), code, C.size_t(len(program)))
}

func (c *client) serialize(loaded *C.PJRT_LoadedExecutable) ([]byte, error) {
	var bytes *C.char
	var size C.size_t
	if cerr := C.steerage_serialize(c.api, loaded, &bytes, &size); cerr != nil {
		return nil, fmt.Errorf("serialising the program: %w", takeError(cerr))
	}
	defer C.free(unsafe.Pointer(bytes))
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(bytes)), size)...), nil
}

func (c *client) deserialize(payload []byte, args *C.PJRT_Client_Compile_Args) error {
	if len(payload) == 0 {
		return errors.New("an empty program")
	}
	var loaded *C.PJRT_LoadedExecutable
	cerr := C.steerage_deserialize(c.api, c.handle, (*C.char)(unsafe.Pointer(&payload[0])), C.size_t(len(payload)),
		&loaded)
	if cerr != nil {
		return fmt.Errorf("loading the stored program: %w", takeError(cerr))
	}
	args.executable = loaded
	return nil
}

// describe fills in c.target. A plugin that does not answer one of the questions gets no compile cache: without the
// answer a stored program might be run on the wrong device.
func (c *client) describe(t *table) {
	var name, version *C.char
	cerr := C.steerage_platform(c.api, c.handle, &name, &version)
	if cerr != nil {
		c.cache, c.cacheOff = nil, takeError(cerr).Error()
		return
	}
	c.platformVersion = takeString(version)
	c.target = append(c.target, t.plugin.identity(), fmt.Sprintf("api %d.%d", t.major, t.minor),
		"platform "+takeString(name), "version "+c.platformVersion)
	kinds, err := c.deviceKinds()
	if err != nil {
		c.cache, c.cacheOff = nil, err.Error()
		return
	}
	c.target = append(c.target, "devices "+strings.Join(kinds, ";"))
	if t.plugin.Kind != "cuda" {
		c.target = append(c.target, hostIdentity())
	}
}

func (c *client) devices() ([]*C.PJRT_Device, error) {
	var first **C.PJRT_Device
	var n C.size_t
	if cerr := C.steerage_devices(c.api, c.handle, &first, &n); cerr != nil {
		return nil, takeError(cerr)
	}
	return unsafe.Slice(first, n), nil
}

func (c *client) deviceKinds() ([]string, error) {
	devices, err := c.devices()
	if err != nil {
		return nil, err
	}
	kinds := make([]string, len(devices))
	for i, d := range devices {
		var kind *C.char
		if cerr := C.steerage_device_kind(c.api, d, &kind); cerr != nil {
			return nil, takeError(cerr)
		}
		kinds[i] = takeString(kind)
	}
	return kinds, nil
}

func (c *client) memory() ([]DeviceMemory, error) {
	devices, err := c.devices()
	if err != nil {
		return nil, err
	}
	memory := make([]DeviceMemory, len(devices))
	for i, d := range devices {
		var inUse, peak, limit C.int64_t
		if cerr := C.steerage_device_memory(c.api, d, &inUse, &peak, &limit); cerr != nil {
			return nil, takeError(cerr)
		}
		memory[i] = DeviceMemory{InUse: int64(inUse), Peak: int64(peak), Limit: int64(limit)}
	}
	return memory, nil
}

// takeString copies and frees a malloc'd string.
func takeString(s *C.char) string {
	defer C.free(unsafe.Pointer(s))
	return C.GoString(s)
}

// takeError makes an error of a malloc'd message and frees it.
func takeError(s *C.char) error { return errors.New(takeString(s)) }
