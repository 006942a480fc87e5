package safetensors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The names of Hugging Face transformers.
const (
	SingleName = "model.safetensors"
	IndexName  = "model.safetensors.index.json"
)

// Checkpoint is the weights of a model folder, in one file or in shards. Its methods may be called from many goroutines.
type Checkpoint struct {
	shards []shard        // in the order of their names
	index  map[string]int // tensor name to shard
}

// shard is a *File, or a *Header where no data is wanted.
type shard interface {
	Path() string
	Names() []string
	Tensor(name string) (Tensor, bool)
	Metadata() map[string]string
	DataSize() int64
}

// Open opens the weights in a model folder: model.safetensors if it is there, else the shards that
// model.safetensors.index.json lists (the order of transformers). See the package comment for what is checked.
func Open(dir string) (*Checkpoint, error) {
	return open(dir, func(path string) (shard, error) { return OpenFile(path) })
}

// OpenHeaders is Open without the data: only headers are read, nothing is mapped, every Tensor.Data is nil.
func OpenHeaders(dir string) (*Checkpoint, error) {
	return open(dir, func(path string) (shard, error) { return OpenHeader(path) })
}

func open(dir string, openShard func(path string) (shard, error)) (*Checkpoint, error) {
	single, index := filepath.Join(dir, SingleName), filepath.Join(dir, IndexName)
	// Lstat: a link that leads nowhere is a broken model, not a missing file.
	if _, err := os.Lstat(single); err == nil {
		s, err := openShard(single)
		if err != nil {
			return nil, err
		}
		c := &Checkpoint{index: make(map[string]int)}
		c.add(s)
		return c, nil
	}
	if _, err := os.Lstat(index); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("safetensors: %s has neither %s nor %s: %w", dir, SingleName, IndexName, fs.ErrNotExist)
	} else if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	weightMap, err := readIndex(index)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{index: make(map[string]int, len(weightMap))}
	if err := c.openShards(dir, index, weightMap, openShard); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// openShards opens every shard of the index and checks that index and shards tell the same.
func (c *Checkpoint) openShards(dir, index string, weightMap map[string]string, openShard func(string) (shard, error)) error {
	complain := func(file, tensor, format string, args ...any) error {
		return &FormatError{file, tensor, fmt.Sprintf(format, args...)}
	}
	tensors := slices.Sorted(maps.Keys(weightMap))
	first := make(map[string]string) // shard to the first tensor that names it
	for _, tensor := range tensors {
		name := weightMap[tensor]
		if _, ok := first[name]; ok {
			continue
		}
		if !plainFileName(name) {
			return complain(index, tensor, "shard %s is not a plain file name: it may lead out of the folder", quote(name))
		}
		first[name] = tensor
	}
	for _, name := range slices.Sorted(maps.Keys(first)) {
		path := filepath.Join(dir, name)
		s, err := openShard(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("safetensors: %s: shard %s of tensor %s is missing: %w", index, quote(name), quote(first[name]), err)
		} else if err != nil {
			return err
		}
		for _, tensor := range s.Names() {
			want, ok := weightMap[tensor]
			if other, twice := c.index[tensor]; twice {
				err = complain(path, tensor, "also in %s", c.shards[other].Path())
			} else if !ok {
				err = complain(path, tensor, "not in the index %s", index)
			} else if want != name {
				err = complain(path, tensor, "the index %s says it is in shard %s", index, quote(want))
			}
			if err != nil {
				break
			}
			c.index[tensor] = len(c.shards)
		}
		c.shards = append(c.shards, s)
		if err != nil {
			return err
		}
	}
	for _, tensor := range tensors {
		if _, ok := c.index[tensor]; !ok {
			name := weightMap[tensor]
			return complain(filepath.Join(dir, name), tensor, "missing, though the index %s says it is here", index)
		}
	}
	return nil
}

// readIndex returns the weight_map of an index: tensor name to shard name. Other keys, like metadata.total_size (which is
// wrong in many a model), are skipped.
func readIndex(path string) (map[string]string, error) {
	complain := func(format string, args ...any) error {
		return &FormatError{File: path, Reason: fmt.Sprintf(format, args...)}
	}
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > MaxHeaderSize {
		return nil, complain("index of %d bytes is larger than the limit of %d", size, MaxHeaderSize)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(f, text); err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	weightMap, err := parseIndex(text)
	if err != nil {
		return nil, complain("%v", err)
	}
	return weightMap, nil
}

func parseIndex(text []byte) (weightMap map[string]string, err error) {
	s, err := newScanner(text)
	if err != nil {
		return nil, err
	}
	var seen keySet
	err = s.object(func(key []byte) error {
		if !seen.add(key) {
			return s.errorf("duplicate key %s", quote(string(key)))
		}
		if string(key) != "weight_map" {
			return s.skip(1)
		}
		if weightMap, err = s.stringMap(); err != nil {
			return fmt.Errorf("weight_map: %w", err)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case weightMap == nil:
		return nil, errors.New("weight_map is missing")
	case len(weightMap) == 0:
		return nil, errors.New("weight_map is empty")
	}
	return weightMap, s.end()
}

// plainFileName reports whether name is a file name and nothing more, on every system.
func plainFileName(name string) bool {
	return filepath.IsLocal(name) && name != "." && !strings.ContainsAny(name, "/\\:\x00")
}

func (c *Checkpoint) add(s shard) {
	for _, name := range s.Names() {
		c.index[name] = len(c.shards)
	}
	c.shards = append(c.shards, s)
}

// Names returns the names of all tensors in the order of their data, shard by shard.
func (c *Checkpoint) Names() []string {
	names := make([]string, 0, len(c.index))
	for _, s := range c.shards {
		names = append(names, s.Names()...)
	}
	return names
}

// Tensor returns the tensor of that name. Its Data is valid until Close; after Close, Tensor reports false.
func (c *Checkpoint) Tensor(name string) (Tensor, bool) {
	i, ok := c.index[name]
	if !ok {
		return Tensor{}, false
	}
	return c.shards[i].Tensor(name)
}

// Metadata returns the __metadata__ of all shards; where they disagree on a key, the first shard's value.
// It is nil if none has any.
func (c *Checkpoint) Metadata() map[string]string {
	var all map[string]string
	for _, s := range slices.Backward(c.shards) {
		m := s.Metadata()
		if all == nil {
			all = m
		} else {
			maps.Copy(all, m)
		}
	}
	return all
}

// Files returns the paths of the files that hold the tensors.
func (c *Checkpoint) Files() []string {
	paths := make([]string, len(c.shards))
	for i, s := range c.shards {
		paths[i] = s.Path()
	}
	return paths
}

// DataSize returns the length of all tensors together, in bytes.
func (c *Checkpoint) DataSize() int64 {
	var n int64
	for _, s := range c.shards {
		n += s.DataSize()
	}
	return n
}

// Release gives the memory of a tensor's pages back; see [File.Release].
func (c *Checkpoint) Release(name string) {
	if i, ok := c.index[name]; ok {
		if f, ok := c.shards[i].(*File); ok {
			f.Release(name)
		}
	}
}

// Close closes all files, which ends the life of every Tensor.Data they gave out. A second Close does nothing.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, s := range c.shards {
		if f, ok := s.(*File); ok {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
