package steering

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Argument is an entry as a command line gives it: the vector is still the name of a file.
type Argument struct {
	File  string
	Entry Entry // without Vector
}

// ParseArgument reads
//
//	FILE [ ":" ["-"] method [ ":" coefficient ] ] [ "@" layers ] [ ":" positions ]
//	layers = layer [ "-" layer ] { "," layer [ "-" layer ] }      ranges include both ends
//
// with the methods of [ParseMethod] and the positions of [ParsePositions]. A minus before the method is the negative sense. What is
// left out is swfc, coefficient 1, all layers of the vector, and all positions. FILE holds no colon; an @ may be part of it.
//
//	honesty.safetensors
//	honesty.safetensors:stmp:4@26
//	honesty.gguf:swfc:-2.5@10,20-24:response
func ParseArgument(text string) (Argument, error) {
	a, err := parseArgument(text)
	if err != nil {
		return Argument{}, fmt.Errorf("steering %s: %w (want FILE[:method[:coefficient]][@layers][:positions])", quote(text), err)
	}
	return a, nil
}

func parseArgument(text string) (a Argument, err error) {
	a.Entry = Entry{Method: SwFC, Coefficient: 1}
	e := &a.Entry
	head, tail := text, "" // what stands before and behind the layers
	hasLayers, hasTail := false, false
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		layers, behind, more := strings.Cut(text[at+1:], ":")
		// The @ of a path stands before a name: "./run@3/v.safetensors".
		if !strings.ContainsAny(layers, "./\\") {
			if e.Layers, err = ParseLayers(layers); err != nil {
				return a, err
			}
			head, tail, hasLayers, hasTail = text[:at], behind, true, more
		}
	}
	parts := strings.Split(head, ":")
	a.File, parts = parts[0], parts[1:]
	if a.File == "" {
		return a, errors.New("no file")
	}
	if len(parts) > 0 && (hasLayers || isMethod(parts[0])) {
		name, negative := strings.CutPrefix(parts[0], "-")
		if e.Method, err = ParseMethod(name); err != nil {
			return a, err
		}
		e.Negative = negative
		parts = parts[1:]
		if len(parts) > 0 && (hasLayers || isNumber(parts[0])) {
			if e.Coefficient, err = parseCoefficient(parts[0]); err != nil {
				return a, err
			}
			parts = parts[1:]
		}
	}
	switch {
	case hasLayers && len(parts) > 0:
		return a, fmt.Errorf("%s before the @ is too much", quote(parts[0]))
	case len(parts) > 1:
		return a, fmt.Errorf("%s is too much", quote(parts[1]))
	case len(parts) == 1:
		tail, hasTail = parts[0], true
	}
	if hasTail {
		if e.Positions, err = ParsePositions(tail); err != nil {
			if !hasLayers && e.Method == SwFC && !e.Negative {
				return a, fmt.Errorf("%s is neither a method (swfc, sttp, stmp, ablate) nor positions: %w", quote(tail), err)
			}
			return a, err
		}
	}
	return a, e.validateUse()
}

func isMethod(text string) bool {
	_, err := ParseMethod(strings.TrimPrefix(text, "-"))
	return err == nil
}

// isNumber tells a coefficient from positions, which begin with a letter.
func isNumber(text string) bool {
	return text == "" || strings.IndexByte("+-.0123456789", text[0]) >= 0 || strings.EqualFold(text, "nan") || strings.EqualFold(text, "inf")
}

func parseCoefficient(text string) (float64, error) {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("coefficient %s is not a number", quote(text))
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, fmt.Errorf("coefficient %s is not a finite number", quote(text))
	}
	return x, nil
}

// ParseLayers reads "26", "20-24" or "3,20-24", ranges with both ends, and returns them ascending.
func ParseLayers(text string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		first, err := parseLayer(lo)
		if err != nil {
			return nil, fmt.Errorf("layers %s: %w", quote(text), err)
		}
		last, err := parseLayer(hi)
		if err != nil {
			return nil, fmt.Errorf("layers %s: %w", quote(text), err)
		}
		if first > last {
			return nil, fmt.Errorf("layers %s: %d-%d is empty", quote(text), first, last)
		}
		for l := first; l <= last; l++ {
			if slices.Contains(out, l) {
				return nil, fmt.Errorf("layers %s: layer %d is given twice", quote(text), l)
			}
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out, nil
}

func parseLayer(text string) (int, error) {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return 0, fmt.Errorf("%s is not a layer", quote(text))
		}
	}
	l, err := strconv.Atoi(text)
	if err != nil || l >= maxLayers {
		return 0, fmt.Errorf("%s is not a layer between 0 and %d", quote(text), maxLayers-1)
	}
	return l, nil
}

// String returns the text that ParseArgument reads.
func (a Argument) String() string {
	var b strings.Builder
	sign := ""
	if a.Entry.Negative {
		sign = "-"
	}
	fmt.Fprintf(&b, "%s:%s%v:%s", a.File, sign, a.Entry.Method, strconv.FormatFloat(a.Entry.Coefficient, 'g', -1, 64))
	if a.Entry.Layers != nil {
		b.WriteString("@" + formatLayers(slices.Sorted(slices.Values(a.Entry.Layers))))
	}
	if len(a.Entry.Positions) > 0 {
		b.WriteString(":" + a.Entry.Positions.String())
	}
	return b.String()
}

// LoadSpec reads the arguments of a command line, in their order, and each vector once.
func LoadSpec(arguments ...string) (Spec, error) {
	var spec Spec
	loaded := make(map[string]*Vector)
	for _, text := range arguments {
		a, err := ParseArgument(text)
		if err != nil {
			return nil, err
		}
		if loaded[a.File] == nil {
			if loaded[a.File], err = Load(a.File); err != nil {
				return nil, err
			}
		}
		a.Entry.Vector = loaded[a.File]
		if err := a.Entry.validate(); err != nil {
			return nil, fmt.Errorf("steering %s: %w", quote(text), err)
		}
		spec = append(spec, a.Entry)
	}
	return spec, nil
}
