package pjrt

import (
	"sync"
	"time"
)

// Stats counts what this process's plugins have compiled.
type Stats struct {
	Compiles      int64         `json:"compiles"`       // programs that XLA compiled
	CacheHits     int64         `json:"cache_hits"`     // programs loaded from the compile cache instead
	CacheRejected int64         `json:"cache_rejected"` // entries found damaged or unloadable, and replaced
	CacheErrors   int64         `json:"cache_errors"`   // programs that could not be stored (see Compile.CacheError)
	Aliases       int64         `json:"aliases"`        // parameters given a result's memory
	CompileTime   time.Duration `json:"compile_ns"`     // spent in XLA's compiler
	LoadTime      time.Duration `json:"load_ns"`        // spent in reading and loading cached programs
}

// Compile tells of one program made ready to run.
type Compile struct {
	Module   string        // the program's name, as GoMLX gave it to the graph
	Program  int           // bytes of StableHLO text
	Aliases  int           // parameters given a result's memory
	Cached   bool          // it came from the compile cache
	Duration time.Duration // compiling, or loading from the cache
	Bytes    int           // size of the serialised program; 0 if it was neither loaded nor stored
	// CacheError says why the program was not stored, or why the entry that was there was thrown away.
	CacheError error
}

var totals struct {
	sync.Mutex
	Stats
}

// ReadStats returns the process's counts since it started.
func ReadStats() Stats {
	totals.Lock()
	defer totals.Unlock()
	return totals.Stats
}

// count adds one program to the totals.
func count(c Compile, rejected bool) {
	totals.Lock()
	defer totals.Unlock()
	totals.Aliases += int64(c.Aliases)
	if c.Cached {
		totals.CacheHits++
		totals.LoadTime += c.Duration
	} else {
		totals.Compiles++
		totals.CompileTime += c.Duration
	}
	switch {
	case rejected:
		totals.CacheRejected++
	case c.CacheError != nil:
		totals.CacheErrors++
	}
}
