package safetensors

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Write writes a file that [OpenFile] and the reference implementation accept. The same tensors, in whatever order, and
// the same metadata give the same bytes, and they are the reference's: tensors by descending alignment of dtype, then by
// name, and the header padded with spaces so that the data begins at a multiple of 8. Metadata is left out if nil.
// Everything is checked before the first byte is written.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	order, header, err := plan(tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("safetensors: writing the header: %w", err)
	}
	for _, t := range order {
		if _, err := w.Write(t.Data); err != nil {
			return fmt.Errorf("safetensors: writing tensor %s: %w", quote(t.Name), err)
		}
	}
	return nil
}

// WriteFile is [Write] to a file, which appears complete or not at all: it is written beside its place, flushed to
// the disk and renamed. A file that was there before is replaced, and mappings of it stay intact; a symbolic link is
// replaced too, not followed.
func WriteFile(path string, tensors []Tensor, metadata map[string]string) (err error) {
	dir := filepath.Dir(path)
	// Not os.CreateTemp: its files are private, this one shall have the permissions of any new file.
	temp := filepath.Join(dir, ".safetensors-"+rand.Text()+".tmp")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp)
			if format := (*FormatError)(nil); errors.As(err, &format) {
				format.File = path
			}
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := Write(w, tensors, metadata); err != nil {
		return err
	}
	for _, step := range []func() error{
		w.Flush,
		f.Sync,
		f.Close,
		func() error { return os.Rename(temp, path) },
		func() error { return syncDir(dir) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("safetensors: %w", err)
		}
	}
	return nil
}

// plan checks the tensors, and returns them in the order of the file with the header, length and padding included.
func plan(tensors []Tensor, metadata map[string]string) ([]Tensor, []byte, error) {
	order := slices.Clone(tensors)
	slices.SortStableFunc(order, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(b.DType, a.DType), cmp.Compare(a.Name, b.Name))
	})

	if n := max(len(tensors)+1, len(metadata)); n > MaxKeys {
		return nil, nil, &FormatError{Reason: fmt.Sprintf("%d tensors and %d metadata keys are more than %d keys in one object",
			len(tensors), len(metadata), MaxKeys)}
	}
	out := append(make([]byte, lengthSize), '{')
	if metadata != nil {
		out = append(appendString(out, metadataKey), ":{"...)
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return nil, nil, &FormatError{Reason: fmt.Sprintf("metadata %s: %s is not UTF-8", quote(key), quote(metadata[key]))}
			}
			if i > 0 {
				out = append(out, ',')
			}
			out = append(appendString(out, key), ':')
			out = appendString(out, metadata[key])
		}
		out = append(out, '}')
	}
	seen := make(map[string]bool, len(order))
	offset := int64(0)
	for i, t := range order {
		if err := writable(t, seen); err != nil {
			return nil, nil, &FormatError{Tensor: t.Name, Reason: err.Error()}
		}
		seen[t.Name] = true
		if i > 0 || metadata != nil {
			out = append(out, ',')
		}
		end := offset + int64(len(t.Data))
		if end < offset {
			return nil, nil, &FormatError{Tensor: t.Name, Reason: fmt.Sprintf("data ends beyond %d bytes", int64(maxInt64))}
		}
		out = append(appendString(out, t.Name), `:{"dtype":"`...)
		out = append(append(out, t.DType.String()...), `","shape":[`...)
		for j, dim := range t.Shape {
			if j > 0 {
				out = append(out, ',')
			}
			out = strconv.AppendInt(out, int64(dim), 10)
		}
		out = append(out, `],"data_offsets":[`...)
		out = append(strconv.AppendInt(out, offset, 10), ',')
		out = append(strconv.AppendInt(out, end, 10), "]}"...)
		offset = end
	}
	out = append(out, '}')
	for len(out)%8 != 0 {
		out = append(out, ' ')
	}
	if n := len(out) - lengthSize; n > MaxHeaderSize {
		return nil, nil, &FormatError{Reason: fmt.Sprintf("header of %d bytes is larger than the limit of %d", n, MaxHeaderSize)}
	}
	binary.LittleEndian.PutUint64(out, uint64(len(out)-lengthSize))
	return order, out, nil
}

// writable checks a tensor by the rules of the reader.
func writable(t Tensor, seen map[string]bool) error {
	size, err := byteSize(t.DType, t.Shape)
	switch {
	case err != nil:
		return err
	case !utf8.ValidString(t.Name):
		return fmt.Errorf("name is not UTF-8")
	case t.Name == metadataKey:
		return fmt.Errorf("name is reserved for the metadata")
	case seen[t.Name]:
		return fmt.Errorf("duplicate name")
	case len(t.Shape) > MaxRank:
		return fmt.Errorf("shape has %d dimensions, more than %d", len(t.Shape), MaxRank)
	case size != uint64(len(t.Data)):
		return fmt.Errorf("shape %v of %v needs %d bytes, Data has %d", t.Shape, t.DType, size, len(t.Data))
	}
	return nil
}
