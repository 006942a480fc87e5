package pjrt

import (
	"fmt"
	"strconv"
	"strings"
)

// aliasAttribute is the StableHLO parameter attribute by which XLA takes a donated argument's memory for a result.
const aliasAttribute = "tf.aliasing_output"

// rewriteAliases gives each parameter of @main that is named alias_K__… the attribute tf.aliasing_output = K, so that
// XLA writes result K into that parameter's memory when the caller donates it. It returns the program and how many
// parameters it marked; a program without such a parameter comes back unchanged.
//
// K counts @main's results from 0. Errors name the parameter: K beyond the results, another type than the result's,
// or two parameters for one result. Text that is not the textual form of StableHLO is returned as it is, for the
// compiler to judge.
func rewriteAliases(program string) (string, int, error) {
	main, ok := findMain(program)
	if !ok {
		return program, 0, nil
	}
	var (
		out    strings.Builder
		copied int // program[:copied] is in out
		owner  = map[int]string{}
	)
	for _, p := range main.params {
		k, ok := aliasIndex(p.name)
		if !ok || strings.Contains(p.attributes, aliasAttribute) || strings.Contains(p.attributes, "jax.buffer_donor") {
			continue
		}
		if k >= len(main.results) {
			return "", 0, fmt.Errorf("parameter %s asks for the memory of result %d, but main has %d results",
				p.name, k, len(main.results))
		}
		if p.typ != main.results[k] {
			return "", 0, fmt.Errorf("parameter %s is %s and result %d is %s: they cannot share memory",
				p.name, p.typ, k, main.results[k])
		}
		if other, taken := owner[k]; taken {
			return "", 0, fmt.Errorf("parameters %s and %s both ask for the memory of result %d", other, p.name, k)
		}
		owner[k] = p.name
		attribute := aliasAttribute + " = " + strconv.Itoa(k) + " : i32"
		switch {
		case p.attributes == "":
			attribute = " {" + attribute + "}"
		case strings.TrimSpace(p.attributes[1:len(p.attributes)-1]) != "":
			attribute += ", "
		}
		out.WriteString(program[copied:p.insert])
		out.WriteString(attribute)
		copied = p.insert
	}
	if len(owner) == 0 {
		return program, 0, nil
	}
	out.WriteString(program[copied:])
	return out.String(), len(owner), nil
}

// aliasIndex reads K from "alias_K__anything".
func aliasIndex(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, "alias_")
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, "__")
	if !ok || digits == "" || len(digits) > 6 || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	k, err := strconv.Atoi(digits)
	return k, err == nil
}

// signature is what rewriteAliases needs to know of @main.
type signature struct {
	params  []parameter
	results []string // types, without attributes
}

type parameter struct {
	name       string // without the %
	typ        string
	attributes string // "{…}", or "" where there are none
	insert     int    // offset in the program: just inside the "{", or after the type
}

// findMain parses the line `func.func [public] @main(%a: type {attributes}, …) -> (type {attributes}, …) {`.
func findMain(program string) (signature, bool) {
	start := -1
	for _, head := range []string{"func.func @main(", "func.func public @main("} {
		// Only at the start of a line: the words may also stand in a string.
		for from := 0; start < 0; {
			i := strings.Index(program[from:], head)
			if i < 0 {
				break
			}
			i += from
			line := strings.LastIndexByte(program[:i], '\n') + 1
			if strings.TrimLeft(program[line:i], " \t") == "" {
				start = i + len(head)
			}
			from = i + len(head)
		}
	}
	if start < 0 {
		return signature{}, false
	}
	pieces, end, ok := splitList(program, start)
	if !ok {
		return signature{}, false
	}
	var sig signature
	for _, piece := range pieces {
		text := program[piece[0]:piece[1]]
		colon := strings.IndexByte(text, ':')
		if colon < 0 || !strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "%") {
			return signature{}, false
		}
		typ, attributes, offset := splitType(text[colon+1:])
		p := parameter{
			name:       strings.TrimPrefix(strings.TrimSpace(text[:colon]), "%"),
			typ:        typ,
			attributes: attributes,
			insert:     piece[0] + colon + 1 + offset,
		}
		sig.params = append(sig.params, p)
	}

	rest := program[end:]
	trimmed := strings.TrimLeft(rest, " \t\r\n")
	arrow, ok := strings.CutPrefix(trimmed, "->")
	if !ok {
		return sig, true // main returns nothing
	}
	arrow = strings.TrimLeft(arrow, " \t\r\n")
	if !strings.HasPrefix(arrow, "(") {
		typ, _, _ := splitType(arrow[:max(0, strings.Index(arrow, " {"))])
		sig.results = []string{typ}
		return sig, true
	}
	results, _, ok := splitList(arrow, 1)
	if !ok {
		return signature{}, false
	}
	for _, piece := range results {
		typ, _, _ := splitType(arrow[piece[0]:piece[1]])
		sig.results = append(sig.results, typ)
	}
	return sig, true
}

// splitType cuts " tensor<4xf32> {a = 1}" into its type and its attributes, and gives the offset where a further
// attribute goes: just inside the brace, or after the type.
func splitType(text string) (typ, attributes string, insert int) {
	brace := strings.IndexByte(text, '{')
	if brace < 0 {
		typ = strings.TrimRight(text, " \t\r\n")
		return strings.TrimSpace(typ), "", len(typ)
	}
	return strings.TrimSpace(text[:brace]), strings.TrimRight(text[brace:], " \t\r\n"), brace + 1
}

// splitList reads a list that began before start, up to its closing parenthesis. It returns each item's offsets and
// the offset after the parenthesis; commas and brackets inside strings and inner brackets do not count.
func splitList(s string, start int) (items [][2]int, end int, ok bool) {
	depth, from := 0, start
	item := func(to int) {
		if strings.TrimSpace(s[from:to]) != "" {
			items = append(items, [2]int{from, to})
		}
		from = to + 1
	}
	for i := start; i < len(s); i++ {
		switch s[i] {
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
		case '(', '[', '{', '<':
			depth++
		case ')', ']', '}', '>':
			if s[i] == '>' && i > 0 && s[i-1] == '-' { // an arrow
				continue
			}
			if depth == 0 {
				if s[i] != ')' {
					return nil, 0, false
				}
				item(i)
				return items, i + 1, true
			}
			depth--
		case ',':
			if depth == 0 {
				item(i)
			}
		}
	}
	return nil, 0, false
}
