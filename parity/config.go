package parity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/steerage/steerage/model"
)

// config compares config.json with dump.json and with its twin in the other key style.
func (r *comparison) config() {
	var problems []string
	for _, c := range []struct {
		key         string
		dump, model int
	}{
		{"num_layers", r.info.NumLayers, r.cfg.NumHiddenLayers},
		{"hidden_size", r.info.HiddenSize, r.cfg.HiddenSize},
		{"vocab_size", r.info.VocabSize, r.cfg.VocabSize},
	} {
		if c.dump != c.model {
			problems = append(problems, fmt.Sprintf("%s is %d in %s, %d in config.json", c.key, c.dump, dumpJSON, c.model))
		}
	}
	const twinName = "config.transformers5.json"
	twin, err := os.ReadFile(filepath.Join(r.dir, twinName))
	if err == nil {
		problems = append(problems, twinProblems(r.dir, twin, twinName)...)
	} else if !errors.Is(err, os.ErrNotExist) {
		problems = append(problems, err.Error())
	}
	r.judge("config", tally{}, nil, problems)
}

func twinProblems(dir string, twin []byte, twinName string) []string {
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return []string{err.Error()}
	}
	// Both without generation_config.json, which LoadConfig would mix in.
	a, err := model.ParseConfig(text)
	if err != nil {
		return []string{"config.json: " + err.Error()}
	}
	b, err := model.ParseConfig(twin)
	if err != nil {
		return []string{twinName + ": " + err.Error()}
	}
	var problems []string
	va, vb := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range va.NumField() {
		if x, y := va.Field(i).Interface(), vb.Field(i).Interface(); !reflect.DeepEqual(x, y) {
			problems = append(problems, fmt.Sprintf("%s is %v, in %s %v", va.Type().Field(i).Name, x, twinName, y))
		}
	}
	return problems
}
