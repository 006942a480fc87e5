package chat

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// hostile templates: each must end in an error, whatever it tries.
var hostile = map[string]string{
	"a long string":         "{{ 'a' * 10**9 }}",
	"doubling":              "{% set ns = namespace(s='ab') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
	"doubling a list":       "{% set ns = namespace(l=[1]) %}{% for i in range(64) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
	"doubling by join":      "{% set ns = namespace(s='ab') %}{% for i in range(64) %}{% set ns.s = [ns.s, ns.s]|join %}{% endfor %}",
	"doubling by format":    "{% set ns = namespace(s='ab') %}{% for i in range(64) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
	"doubling by replace":   "{% set ns = namespace(s='ab') %}{% for i in range(64) %}{% set ns.s = ns.s|replace('a', ns.s) %}{% endfor %}",
	"doubling by set":       "{% set ns = namespace(s='ab') %}{% for i in range(64) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}",
	"a tree of lists":       "{% set ns = namespace(l=[1]) %}{% for i in range(64) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
	"comparing trees":       "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(64) %}{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
	"a key of trees":        "{% set ns = namespace(l=(1,)) %}{% for i in range(64) %}{% set ns.l = (ns.l, ns.l) %}{% endfor %}{{ {ns.l: 1} }}",
	"a deep list":           "{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
	"a deep list as JSON":   "{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l|tojson }}",
	"comparing deep lists":  "{% set ns = namespace(l=[], m=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% set ns.m = [ns.m] %}{% endfor %}{{ ns.l < ns.m }}",
	"a namespace of itself": "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}",
	"nested loops":          "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
	"nested filters":        "{% for a in range(100000) %}{% set x = range(100000)|map('string')|list %}{% endfor %}",
	"a large range":         "{% for a in range(10**9) %}{% endfor %}",
	"a range of ranges":     "{% for a in range(10**30) %}{% endfor %}",
	"endless recursion":     "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
	"wide recursion":        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(100) }}",
	"recursion of callers":  "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}",
	"a recursive loop":      "{% set ns = namespace() %}{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
	"a large power":         "{{ 10 ** (10 ** 9) }}",
	"powers of powers":      "{% set ns = namespace(n=3) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
	"padding":               "{{ 'a'.ljust(10**12) }}",
	"centering":             "{{ 'a'|center(10**12) }}",
	"zeros":                 "{{ '5'.zfill(10**12) }}",
	"tabs":                  "{{ '\\t'.expandtabs(10**12) }}",
	"a wide format":         "{{ '%1000000000000d' % 5 }}",
	"a wide format by star": "{{ '%*d' % (10**12, 5) }}",
	"a precise format":      "{{ '%.1000000000f' % 5 }}",
	"a wide field":          "{{ '{:1000000000000}'.format(5) }}",
	"a field in a field":    "{{ '{:{:{}}}'.format(1, 2, 3) }}",
	"rounding":              "{{ 1.5|round(10**9) }}",
	"an indent of JSON":     "{{ [[[1]]]|tojson(indent=10**10) }}",
	"an indent":             "{{ 'a\nb'|indent(10**10) }}",
	"batches":               "{{ [1]|batch(10**10, 1)|list }}",
	"slices":                "{{ [1]|slice(10**10, 1)|list }}",
	"replacing nothing":     "{{ ('a' * 10**7)|replace('', 'b' * 1000) }}",
	"many splits":           "{% for i in range(99) %}{% set x = ('a,' * 10**7).split(',') %}{% endfor %}",
	"many characters":       "{{ ('a' * 10**7)|list|length }}{{ ('a' * 5 * 10**7)|list|length }}",
	"searching":             "{% set s = 'a' * 10**7 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}{% endfor %}",
	"comparing strings":     "{% set s = 'a' * 10**7 %}{% set t = 'a' * 10**7 %}{% for i in range(100000) %}{% if s == t %}{% endif %}{% endfor %}",
	"stripping":             "{{ ('a' * 10**6).strip('b' * 10**6 + 'a') * 10**6 }}",
	"much text":             "{% for i in range(100000) %}{{ 'a' * 10000 }}{% endfor %}",
	"much text at once":     "{% for i in range(1000) %}{% set x = 'a' * 10**7 %}{% endfor %}",
	"a chain of filters":    "{% set ns = namespace(g=[1]) %}{% for i in range(100000) %}{% set ns.g = ns.g|map('string') %}{% endfor %}{{ ns.g|first }}",
	"lipsum":                "{{ lipsum(10**9) }}",
	"changing a list":       "{{ messages.append(messages) }}",
	"changing a dict":       "{{ messages[0].update({'role': 'x'}) }}",
	"classes":               "{{ ''.__class__.__mro__[1].__subclasses__() }}",
	"classes by item":       "{{ ''['__class__']['__mro__'] }}",
	"classes by attr":       "{{ (''|attr('__class__')).x }}",
	"classes by map":        "{{ ['']|map(attribute='__class__.__mro__')|list }}",
	"classes by format":     "{{ '{0.__class__.__mro__}'.format('') }}",
	"globals":               "{{ range.__globals__.x }}",
	"functions":             "{{ raise_exception.__code__.co_code }}",
	"loop":                  "{% for i in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
	"namespaces":            "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
	"macros":                "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
	"files":                 "{% include '/etc/passwd' %}",
	"imports":               "{% import 'os' as os %}",
	"unhashable keys":       "{{ {[]: 1} }}",
}

// TestHostile: hostile templates end in an error, and cost bounded memory and steps on the way. (The time follows from
// the steps; a test that never ends fails too.)
func TestHostile(t *testing.T) {
	for name, template := range hostile {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			text, err := renderOnce(template, nil)
			runtime.ReadMemStats(&after)
			require.Error(t, err, "rendered %.100q", text)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8*defaultLimits.alloc), "allocated in total")
			require.Less(t, len(err.Error()), 400)
		})
	}
}

// TestHostileSyntax: templates that are deep, or long and broken, are refused while they are read.
func TestHostileSyntax(t *testing.T) {
	const n = 100_000
	for name, template := range map[string]string{
		"parentheses":   "{{ " + strings.Repeat("(", n),
		"lists":         "{{ " + strings.Repeat("[", n),
		"dicts":         "{{ " + strings.Repeat("{1:", n),
		"calls":         "{{ a" + strings.Repeat("(a", n),
		"subscripts":    "{{ a" + strings.Repeat("[a", n),
		"nots":          "{{ " + strings.Repeat("not ", n) + "a }}",
		"minuses":       "{{ " + strings.Repeat("-", n) + "a }}",
		"ifs":           strings.Repeat("{% if a %}", n),
		"loops":         strings.Repeat("{% for a in b %}", n),
		"inline ifs":    "{{ " + strings.Repeat("a if b else ", n) + "c }}",
		"filters":       "{{ a" + strings.Repeat("|trim", n) + " }}",
		"attributes":    "{{ a" + strings.Repeat(".a", n) + " }}",
		"sums":          "{{ a" + strings.Repeat("+a", n) + " }}",
		"powers":        "{{ a" + strings.Repeat("**a", n) + " }}",
		"ors":           "{{ a" + strings.Repeat(" or a", n) + " }}",
		"tests":         "{{ a" + strings.Repeat(" is b", n) + " }}",
		"digits":        "{{ " + strings.Repeat("9", n) + " }}",
		"exponent":      "{{ 1e999999999 }}",
		"open string":   "{{ '" + strings.Repeat("a", n),
		"open comment":  "{# " + strings.Repeat("#", n),
		"open raw":      "{% raw %}" + strings.Repeat("{% endraw", n),
		"half pair":     `{{ '\ud800' }}`,
		"not UTF-8":     "{{ '\xff' }}",
		"binary":        "{{ \x00 }}",
		"targets":       "{% set " + strings.Repeat("(", n),
		"set filters":   "{% set a" + strings.Repeat("|trim", n) + " %}{% endset %}",
		"block filters": "{% filter trim" + strings.Repeat("|trim", n) + " %}{% endfilter %}",
		"too long":      strings.Repeat("a", maxTemplate+1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(template, nil)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Less(t, len(err.Error()), 400)
		})
	}
}

// TestLongButHonest: what real conversations can hold is far from the limits.
func TestLongButHonest(t *testing.T) {
	template := "{% for m in messages %}{% set content = m.content|trim %}{% if '<think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}" +
		"{{ '<' + m.role + '>' + content }}{% endfor %}"
	tmpl, err := New(template, nil)
	require.NoError(t, err)
	c := Conversation{}
	for i := range 2000 {
		c.Messages = append(c.Messages, Message{Role: "user", Content: fmt.Sprint(i) + strings.Repeat(" word", 2000)})
	}
	text, err := tmpl.Render(c)
	require.NoError(t, err)
	require.Greater(t, len(text), 20_000_000)
}

func FuzzRender(f *testing.F) {
	for _, template := range hostile {
		f.Add(template)
	}
	n := 0
	readLines(f, "testdata/expressions.jsonl.gz", func(data []byte) {
		if n++; n > 1 && n%20 == 0 {
			f.Add(strings.SplitN(string(data), `"`, 3)[1])
		}
	})
	for _, template := range goldenTemplates(f) {
		f.Add(template)
	}
	vars := map[string]any{"s": "a b", "l": []any{3, "x", nil}, "m": map[string]any{"a": 1.5, "b": []any{true}}, "i": 7, "missing_": nil}
	f.Fuzz(func(t *testing.T, template string) {
		if len(template) > 5000 {
			return
		}
		tmpl, err := New(template, nil)
		if err != nil {
			return
		}
		tmpl.max = limits{steps: 50_000, alloc: 4 << 20, text: 1 << 20} // small, so that more is tried
		c := Conversation{Messages: []Message{{Role: "user", Content: "Hi"}}, Kwargs: vars, Now: referenceTime}
		text, err := tmpl.Render(c)
		if err == nil {
			again, err := tmpl.Render(c)
			require.NoError(t, err)
			require.Equal(t, text, again)
		}
	})
}

func FuzzConversation(f *testing.F) {
	for _, s := range []string{
		`[{"role":"user","content":"Hi"}]`, `{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"tools":[{}],"add_generation_prompt":false}`,
		`{"messages":[],"chat_template_kwargs":{"enable_thinking":false}}`, `[]`, `null`, `{}`, `{"messages":null}`, `[null]`, `[[]]`, `[{"role":"\ud800"}]`, "[{\"role\":\"\xff\"}]",
		`{"messages":[{"a":1e999,"b":-0,"c":123456789012345678901234567890}],"documents":[]}`, `[` + strings.Repeat(`{"a":[`, 300), `{"messages":[{}],"chat_template_kwargs":{"messages":1}}`,
		`[{"role":"user","role":"system","content":null,"reasoning":"x"}]`,
	} {
		f.Add([]byte(s))
	}
	tmpl, err := New("{{ messages }}{{ messages|tojson(indent=1) }}{{ tools|tojson }}{{ documents }}{{ enable_thinking }}", nil)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Conversation
		if c.UnmarshalJSON(data) == nil {
			_, _ = tmpl.Render(c)
		}
	})
}
