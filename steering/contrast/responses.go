package contrast

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Response is one text of one class: what an embedding is made from.
type Response struct {
	Scenario int     `json:"scenario"` // its index
	Class    string  `json:"class"`    // "positive" or "negative"
	System   string  `json:"system,omitempty"`
	Prompt   string  `json:"prompt"`
	Text     string  `json:"response"`
	Finish   string  `json:"finish"` // "stop", "length", or "given"
	Before   []int32 `json:"prompt_ids"`
	IDs      []int32 `json:"response_ids"`
}

const (
	positive = "positive"
	negative = "negative"
)

func (r *Response) compare(other *Response) int {
	return cmp.Or(cmp.Compare(r.Scenario, other.Scenario), -cmp.Compare(r.Class, other.Class)) // positive first
}

// responsesFormat heads a file of responses. Key is of all that decides what the responses are.
type responsesFormat struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Key     string `json:"key"`
}

// ledger keeps responses in a file as they come, so that a run that was cut off goes on from there.
type ledger struct {
	path string

	mu   sync.Mutex
	file *os.File // nil: nothing is kept
	all  []Response
	have map[place]bool
}

// place is whose a response is.
type place struct {
	scenario int
	class    string
}

// openLedger opens or makes the file, and reads the responses that are there. A last line that was cut off is dropped. An empty path keeps
// nothing.
func openLedger(path, key string, scenarios int) (*ledger, error) {
	l := &ledger{path: path, have: make(map[place]bool)}
	if path == "" {
		return l, nil
	}
	head, err := json.Marshal(responsesFormat{"steerage.responses", 1, key})
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("contrast: responses: %w", err)
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	if len(whole) > 0 {
		if err := l.read(whole, key, scenarios); err != nil {
			return nil, fmt.Errorf("contrast: responses: %s: %w", path, err)
		}
	}
	if l.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("contrast: responses: %w", err)
	}
	if err = l.file.Truncate(int64(len(whole))); err == nil {
		_, err = l.file.Seek(0, io.SeekEnd)
	}
	if err == nil && len(whole) == 0 {
		_, err = l.file.Write(append(head, '\n'))
	}
	if err != nil {
		_ = l.file.Close()
		return nil, fmt.Errorf("contrast: responses: %w", err)
	}
	return l, nil
}

func (l *ledger) read(data []byte, key string, scenarios int) error {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if n == 1 {
			var head responsesFormat
			if err := json.Unmarshal(line, &head); err != nil || head.Format != "steerage.responses" || head.Version != 1 {
				return errors.New("it is not a file of responses; another name, please")
			}
			if head.Key != key {
				return errors.New("it holds responses of another model, other scenarios or other settings: another name, or delete it")
			}
			continue
		}
		var r Response
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if r.Class != positive && r.Class != negative {
			return fmt.Errorf("line %d: class %.20q", n, r.Class)
		}
		if r.Scenario < 0 || r.Scenario >= scenarios {
			return fmt.Errorf("line %d: scenario %d, there are 0 to %d", n, r.Scenario, scenarios-1)
		}
		at := place{r.Scenario, r.Class}
		if l.have[at] {
			return fmt.Errorf("line %d: a second %s response of scenario %d", n, r.Class, r.Scenario)
		}
		l.have[at] = true
		l.all = append(l.all, r)
	}
	return nil
}

// add keeps a response.
func (l *ledger) add(r Response) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, r)
	if l.file == nil {
		return nil
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("contrast: responses: %w", err)
	}
	return nil
}

// finish returns all responses in order; the file is left in that order too.
func (l *ledger) finish() ([]Response, error) {
	slices.SortFunc(l.all, func(a, b Response) int { return a.compare(&b) })
	if l.file == nil {
		return l.all, nil
	}
	if err := l.sort(); err != nil {
		return nil, fmt.Errorf("contrast: responses: %w", err)
	}
	return l.all, nil
}

// sort replaces the file by one in order.
func (l *ledger) sort() (err error) {
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	head, err := bufio.NewReader(l.file).ReadBytes('\n')
	if err != nil {
		return err
	}
	fresh, err := os.CreateTemp(filepath.Dir(l.path), ".responses-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = fresh.Close()
			_ = os.Remove(fresh.Name())
		}
	}()
	w := bufio.NewWriter(fresh)
	if _, err := w.Write(head); err != nil {
		return err
	}
	e := json.NewEncoder(w)
	for i := range l.all {
		if err := e.Encode(&l.all[i]); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := fresh.Chmod(0o644); err != nil {
		return err
	}
	if err := fresh.Close(); err != nil {
		return err
	}
	return os.Rename(fresh.Name(), l.path)
}

func (l *ledger) close() {
	if l.file != nil {
		_ = l.file.Close()
	}
}

// keyOf hashes what decides a result.
func keyOf(parts ...any) (string, error) {
	data, err := json.Marshal(parts)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16]), nil
}
