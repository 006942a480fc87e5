// Tokenizers measures one implementation of package tokenizer on one model folder, in a process of its own; bench/run_tokenizers
// runs it beside its peers. Times are CPU time of the process, which a busy machine disturbs less than the clock.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/steerage/steerage/tokenizer"
)

func main() {
	dir := flag.String("model", "", "folder with tokenizer.json")
	name := flag.String("implementation", "go", "one of those linked")
	corpora := flag.String("corpora", "", `JSON file: {"name": ["text", …], …}`)
	rounds := flag.Int("rounds", 3, "passes over each corpus after the first; the median counts")
	flag.Parse()
	if err := run(*dir, *name, *corpora, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "tokenizers:", err)
		os.Exit(1)
	}
}

// figures of one corpus.
type figures struct {
	MBPerS     float64 `json:"mb_s"`
	TextsPerS  float64 `json:"texts_s"`
	DecodeMBPS float64 `json:"decode_mb_s"`
	SHA256     string  `json:"sha256"` // of all ids, little-endian int32
}

func run(dir, name, corpora string, rounds int) error {
	at := slices.IndexFunc(tokenizer.Implementations(), func(i tokenizer.Implementation) bool { return i.Name == name })
	if at < 0 {
		return fmt.Errorf("%s is not linked", name)
	}
	impl := tokenizer.Implementations()[at]
	texts, err := read(corpora)
	if err != nil {
		return err
	}
	debug.FreeOSMemory()
	before := resident()
	began, clock := used(), time.Now()
	tok, err := impl.Open(dir)
	if err != nil {
		return err
	}
	load, wall := used()-began, time.Since(clock)
	debug.FreeOSMemory()
	memory := resident() - before

	result := map[string]figures{}
	for corpus, list := range texts {
		size, sum := 0, sha256.New()
		var ids [][]int32
		for _, text := range list { // the first pass warms the caches of all
			size += len(text)
			encoded, err := tok.Encode(text, false)
			if err != nil {
				return err
			}
			ids = append(ids, encoded)
			if err := binary.Write(sum, binary.LittleEndian, encoded); err != nil {
				return err
			}
		}
		encode, err := median(rounds, func() error {
			for _, text := range list {
				if _, err := tok.Encode(text, false); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		decode, err := median(rounds, func() error {
			for _, encoded := range ids {
				if _, err := tok.Decode(encoded, false); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		result[corpus] = figures{float64(size) / 1e6 / encode, float64(len(list)) / encode, float64(size) / 1e6 / decode,
			fmt.Sprintf("%x", sum.Sum(nil))}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"name": strings.TrimSpace(impl.Name + " " + impl.Version), "load_s": load.Seconds(), "load_wall_s": wall.Seconds(),
		"memory_mb": memory, "corpora": result,
	})
}

func read(corpora string) (texts map[string][]string, err error) {
	data, err := os.ReadFile(corpora)
	if err != nil {
		return nil, err
	}
	return texts, json.Unmarshal(data, &texts)
}

// median returns the CPU seconds of the middle one of some runs.
func median(rounds int, f func() error) (float64, error) {
	var list []float64
	for range max(1, rounds) {
		began := used()
		if err := f(); err != nil {
			return 0, err
		}
		list = append(list, (used() - began).Seconds())
	}
	slices.Sort(list)
	return list[len(list)/2], nil
}

// used is the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is the resident memory in MB, 0 where there is no /proc.
func resident() float64 {
	data, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	var kb float64
	_, _ = fmt.Sscan(rest, &kb)
	return kb / 1000
}
