package contrast

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// Scenario is one occasion on which the two behaviours differ: a prompt, and either what brings them about (a system prompt
// for each) or the two texts themselves.
type Scenario struct {
	Prompt string
	// System prompts under which the model answers, of which the answer to scenario i takes number i modulo their number.
	PositiveSystem, NegativeSystem []string
	// Texts given, instead of answers generated.
	Positive, Negative string
}

// Given reports whether the scenario brings its texts with it.
func (s *Scenario) Given() bool { return s.Positive != "" || s.Negative != "" }

func (s *Scenario) validate() error {
	switch {
	case s.Given() && (s.Positive == "" || s.Negative == ""):
		return errors.New("one of positive and negative is empty: both texts are given, or none")
	case !s.Given() && s.Prompt == "":
		return errors.New("the prompt is empty")
	case !s.Given() && (len(s.PositiveSystem) == 0 || len(s.NegativeSystem) == 0):
		return errors.New("neither texts (positive, negative) nor system prompts for both classes (positive_system, negative_system)")
	}
	return nil
}

// Limits of a scenario file.
const (
	maxLine      = 1 << 20
	maxScenarios = 100_000
)

// texts is a string or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = texts{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return errors.New("a system prompt is a string or a list of strings")
	}
	*t = many
	return nil
}

// ReadScenarios reads a JSONL file. Each line is an object:
//
//	{"prompt": "…"}                                          answers are generated under the file's system prompts
//	{"prompt": "…", "positive_system": …, "negative_system": …}   under the line's own
//	{"prompt": "…", "positive": "…", "negative": "…"}             the two texts are given; the prompt may be empty
//
// A system prompt is a string or a list of paraphrases. A first line that has system prompts only is for the whole file. Empty lines are
// passed over; anything else is an error that names the line.
func ReadScenarios(r io.Reader) ([]Scenario, error) {
	var out []Scenario
	var common Scenario
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		s, header, err := readScenario(line, &common)
		if err == nil && header && len(out) > 0 {
			err = errors.New("system prompts without a prompt are for the whole file and come first")
		}
		if err != nil {
			return nil, fmt.Errorf("contrast: scenarios, line %d: %w", n, err)
		}
		if header {
			common = s
			continue
		}
		if out = append(out, s); len(out) > maxScenarios {
			return nil, fmt.Errorf("contrast: scenarios: more than %d", maxScenarios)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("contrast: scenarios, line %d: %w (a line has at most %d bytes)", n+1, err, maxLine)
	}
	if len(out) == 0 {
		return nil, errors.New("contrast: scenarios: none")
	}
	return out, nil
}

func readScenario(line []byte, common *Scenario) (s Scenario, header bool, err error) {
	if !utf8.Valid(line) {
		return s, false, errors.New("not UTF-8")
	}
	var fields struct {
		Prompt         *string `json:"prompt"`
		PositiveSystem texts   `json:"positive_system"`
		NegativeSystem texts   `json:"negative_system"`
		Positive       string  `json:"positive"`
		Negative       string  `json:"negative"`
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&fields); err != nil {
		return s, false, err
	}
	if rest, _ := io.ReadAll(io.MultiReader(decoder.Buffered())); strings.TrimSpace(string(rest)) != "" {
		return s, false, errors.New("more than one object")
	}
	s = Scenario{
		PositiveSystem: fields.PositiveSystem, NegativeSystem: fields.NegativeSystem,
		Positive: fields.Positive, Negative: fields.Negative,
	}
	if fields.Prompt == nil && !s.Given() {
		if len(s.PositiveSystem) == 0 || len(s.NegativeSystem) == 0 {
			return s, true, errors.New("no prompt")
		}
		return s, true, nil
	}
	if fields.Prompt != nil {
		s.Prompt = *fields.Prompt
	}
	if len(s.PositiveSystem) == 0 {
		s.PositiveSystem = common.PositiveSystem
	}
	if len(s.NegativeSystem) == 0 {
		s.NegativeSystem = common.NegativeSystem
	}
	if s.Given() {
		s.PositiveSystem, s.NegativeSystem = nil, nil
	}
	return s, false, s.validate()
}

// LoadScenarios is ReadScenarios of a file.
func LoadScenarios(path string) ([]Scenario, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("contrast: %w", err)
	}
	defer func() { _ = f.Close() }()
	out, err := ReadScenarios(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}
