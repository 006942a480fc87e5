package steering

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxEntries bounds the entries of one spec, which an untrusted request may hold.
const maxEntries = 64

// DecodeSpec reads the value of the field "steering" of a request body: a list of
//
//	{"vector": "honesty", "method": "stmp", "coefficient": 4, "negative": false, "layers": [26], "positions": "response"}
//
// of which only vector must be given; the rest defaults as in [ParseArgument], and positions is text for [ParsePositions]. null is
// no steering. Unknown and repeated keys are errors. A vector is known by a name, which lookup resolves: a
// request never opens a file.
func DecodeSpec(data []byte, lookup func(name string) (*Vector, error)) (Spec, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	spec, err := decodeSpec(d, lookup)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more after the end")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("steering: %w", err)
	}
	return spec, nil
}

func decodeSpec(d *json.Decoder, lookup func(name string) (*Vector, error)) (Spec, error) {
	open, err := d.Token()
	if err != nil {
		return nil, err
	}
	if open == nil {
		return nil, nil
	}
	if open != json.Delim('[') {
		return nil, errors.New("want a list of entries, or null")
	}
	var spec Spec
	for d.More() {
		if len(spec) == maxEntries {
			return nil, fmt.Errorf("more than %d entries", maxEntries)
		}
		e, err := decodeEntry(d, lookup)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(spec), err)
		}
		spec = append(spec, e)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	return spec, nil
}

func decodeEntry(d *json.Decoder, lookup func(name string) (*Vector, error)) (Entry, error) {
	e := Entry{Method: SwFC, Coefficient: 1}
	open, err := d.Token()
	if err != nil {
		return e, err
	}
	if open != json.Delim('{') {
		return e, errors.New("want an object")
	}
	seen := make(map[string]bool)
	var name, method, positions string
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return e, err
		}
		key, _ := token.(string) // the decoder takes nothing else for a key
		if seen[key] {
			return e, fmt.Errorf("key %s is there twice", quote(key))
		}
		seen[key] = true
		var into any
		switch key {
		case "vector":
			into = &name
		case "method":
			into = &method
		case "coefficient":
			into = &e.Coefficient
		case "negative":
			into = &e.Negative
		case "layers":
			into = &e.Layers
		case "positions":
			into = &positions
		default:
			return e, fmt.Errorf("unknown key %s; there are vector, method, coefficient, negative, layers, positions", quote(key))
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return e, err
		}
		if string(raw) == "null" {
			return e, fmt.Errorf("%s is null; leave it out instead", key)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return e, fmt.Errorf("%s: %w", key, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return e, err
	}
	if !seen["vector"] {
		return e, errors.New("no vector")
	}
	if seen["method"] {
		if e.Method, err = ParseMethod(method); err != nil {
			return e, err
		}
	}
	if seen["positions"] {
		if e.Positions, err = ParsePositions(positions); err != nil {
			return e, err
		}
	}
	if e.Vector, err = lookup(name); err != nil {
		return e, fmt.Errorf("vector %s: %w", quote(name), err)
	}
	return e, e.validate()
}
