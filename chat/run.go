package chat

import (
	"fmt"
	"strings"
	"time"
)

// This file runs a tree: statements, loops and macros, under limits.

// Limits of one rendering. A template is a program by whoever wrote the model folder, so it is run with a budget.
// What they allow is far above what conversations need, and small enough for a server.
type limits struct {
	steps int // operations; long scans of text count by their length
	alloc int // bytes of values made, whether or not they are still in use
	text  int // bytes of one string, and of the output
}

var defaultLimits = limits{steps: 5_000_000, alloc: 256 << 20, text: 64 << 20}

const (
	maxCalls = 150     // nested calls of macros and recursive loops; Python's own limit is not far from it
	maxRange = 100_000 // length of a range, as in jinja2's sandbox

	valueSize = 32 // bytes that a value in a list is counted as
	entrySize = 64 // and an entry of a dict
)

// Error is why a template could not be read or rendered.
type Error struct {
	File   string // the file the template comes from
	Line   int    // in the template, from 1; 0 where it is not the fault of a line
	Msg    string
	Raised bool // the template itself refused the conversation, with raise_exception
}

func (e *Error) Error() string {
	where := e.File
	if where == "" {
		where = "chat template"
	}
	if e.Line > 0 {
		where += fmt.Sprintf(", line %d", e.Line)
	}
	return where + ": " + e.Msg
}

func errorAt(line int, format string, args ...any) *Error {
	return &Error{Line: line, Msg: fmt.Sprintf(format, args...)}
}

// run is one rendering.
type run struct {
	max   limits
	vars  map[string]value // of the caller, and the globals
	now   time.Time
	line  int // of what is evaluated
	steps int
	bytes int
	calls int
}

func (r *run) fail(format string, args ...any) {
	line := 0
	if r != nil {
		line = r.line
	}
	panic(errorAt(line, format, args...))
}

// step counts n operations.
func (r *run) step(n int) {
	if r == nil {
		return
	}
	if r.steps += n; r.steps > r.max.steps {
		r.fail("the template takes too long: more than %d steps", r.max.steps)
	}
}

// scan counts the work of looking at n bytes.
func (r *run) scan(n int) { r.step(1 + n>>6) }

// alloc counts n bytes before they are allocated.
func (r *run) alloc(n int) {
	if r == nil {
		return
	}
	if n < 0 || n > r.max.alloc-r.bytes {
		r.fail("the template uses too much memory: more than %d MiB", r.max.alloc>>20)
	}
	r.bytes += n
}

// repeated returns a*b, or fails if that many bytes are out of the question.
func (r *run) repeated(a, b int) int {
	if a > 0 && b > r.max.alloc/a {
		r.fail("the template uses too much memory: more than %d MiB", r.max.alloc>>20)
	}
	return a * b
}

// builder builds a string whose bytes are counted.
type builder struct {
	r *run
	b strings.Builder
}

func (b *builder) write(s string) {
	b.r.alloc(len(s))
	if b.b.Len()+len(s) > b.r.max.text {
		b.r.fail("the text is longer than %d MiB", b.r.max.text>>20)
	}
	b.b.WriteString(s)
}

func (b *builder) writeByte(c byte) {
	b.r.alloc(1)
	b.b.WriteByte(c)
}

func (b *builder) String() string { return b.b.String() }

// activation is one call of a function: its variables, and those of the function around it.
type activation struct {
	parent *activation
	slots  []value
}

func newActivation(fn *funcInfo, parent *activation) *activation {
	a := &activation{parent, make([]value, len(fn.slots))}
	for i := range a.slots {
		a.slots[i] = missing
	}
	return a
}

func (a *activation) at(ref ref) *value {
	for range ref.up {
		a = a.parent
	}
	return &a.slots[ref.slot]
}

func (r *run) enter(a *activation, loads []load) {
	for _, l := range loads {
		v := missing
		switch l.kind {
		case loadResolve:
			if x, ok := r.vars[l.name]; ok {
				v = x
			}
		case loadAlias:
			v = *a.at(l.from)
		}
		a.slots[l.slot] = v
	}
}

// call runs f one level deeper.
func (r *run) call(f func()) {
	if r.calls++; r.calls > maxCalls {
		r.fail("macros call each other more than %d deep", maxCalls)
	}
	line := r.line
	f()
	r.line = line
	r.calls--
}

// control says how a list of statements ended.
type control uint8

const (
	flowNormal control = iota
	flowBreak
	flowContinue
)

func (r *run) exec(stmts []node, a *activation, out *builder) control {
	for _, n := range stmts {
		if c := r.execOne(n, a, out); c != flowNormal {
			return c
		}
	}
	return flowNormal
}

func (r *run) execOne(n node, a *activation, out *builder) control {
	r.line = n.line()
	r.step(1)
	switch n := n.(type) {
	case *textStmt:
		out.write(n.text)
	case *outputStmt:
		v := r.eval(n.x, a)
		out.write(r.str(v))
	case *ifStmt:
		if r.truth(r.eval(n.test, a)) {
			return r.exec(n.body, a, out)
		}
		for _, e := range n.elifs {
			if r.line = e.line(); r.truth(r.eval(e.test, a)) {
				return r.exec(e.body, a, out)
			}
		}
		return r.exec(n.els, a, out)
	case *forStmt:
		return r.execFor(n, a, out)
	case *setStmt:
		checkNamespaces(r, n.target, a)
		r.assign(n.target, r.eval(n.value, a), a)
	case *setBlockStmt:
		r.enter(a, n.enter)
		inner := &builder{r: r}
		if c := r.exec(n.body, a, inner); c != flowNormal {
			return c
		}
		var v value = inner.String()
		if n.filter != nil {
			v = r.evalFilter(n.filter.(*filterExpr), v, a)
		}
		r.assign(n.target, v, a)
	case *macroStmt:
		*a.at(n.ref) = &macro{name: n.name, scope: &n.scope, params: n.params, defaults: n.defaults, body: n.body, closure: a}
	case *callStmt:
		caller := &macro{scope: &n.scope, params: n.params, defaults: n.defaults, body: n.body, closure: a}
		if n.call == nil {
			out.write(caller.invoke(r, nil, nil))
			break
		}
		out.write(r.str(r.evalCall(n.call, a, caller)))
	case *filterStmt:
		r.enter(a, n.enter)
		inner := &builder{r: r}
		if c := r.exec(n.body, a, inner); c != flowNormal {
			return c
		}
		out.write(r.str(r.evalFilter(n.filter.(*filterExpr), inner.String(), a)))
	case *withStmt:
		r.enter(a, n.enter)
		for i := range n.targets {
			r.assign(n.targets[i], r.eval(n.values[i], a), a)
		}
		return r.exec(n.body, a, out)
	case *breakStmt:
		return flowBreak
	case *continueStmt:
		return flowContinue
	default:
		r.fail("internal: statement %T", n)
	}
	return flowNormal
}

// checkNamespaces fails if an attribute is assigned of what is no namespace. jinja2 checks before it evaluates.
func checkNamespaces(r *run, target node, a *activation) {
	switch t := target.(type) {
	case *nsExpr:
		if _, ok := (*a.at(t.ref)).(*namespace); !ok {
			r.fail("cannot assign attribute %q: %s is not a namespace", t.attr, t.name)
		}
	case *tupleExpr:
		for _, item := range t.items {
			checkNamespaces(r, item, a)
		}
	}
}

func (r *run) assign(target node, v value, a *activation) {
	switch t := target.(type) {
	case *nameExpr:
		*a.at(t.ref) = v
	case *nsExpr:
		ns, ok := (*a.at(t.ref)).(*namespace)
		if !ok {
			r.fail("cannot assign attribute %q: %s is not a namespace", t.attr, t.name)
		}
		ns.set(r, t.attr, v)
	case *tupleExpr:
		var items []value
		next := r.mustIterate(v)
		for range len(t.items) + 1 {
			item, ok := next()
			if !ok {
				break
			}
			items = append(items, item)
		}
		if len(items) < len(t.items) {
			r.fail("not enough values to unpack: %d, want %d", len(items), len(t.items))
		}
		if len(items) > len(t.items) {
			r.fail("too many values to unpack: want %d", len(t.items))
		}
		for i, item := range t.items {
			r.assign(item, items[i], a)
		}
	}
}

func (ns *namespace) set(r *run, name string, v value) {
	if strings.HasPrefix(name, "_") {
		r.fail("an attribute of a namespace cannot begin with an underscore: %q", name)
	}
	r.alloc(entrySize)
	ns.attrs.set(r, name, v)
}

func (r *run) execFor(n *forStmt, a *activation, out *builder) control {
	iterable := r.eval(n.iter, a)
	if !n.recursive {
		return r.loopOver(n, iterable, a, a, out, 0, nil)
	}
	var recurse func(iterable value, depth int) string
	recurse = func(iterable value, depth int) (text string) {
		r.call(func() {
			inner := &builder{r: r}
			r.loopOver(n, iterable, newActivation(n.scope.loopFn, a), a, inner, depth, recurse)
			text = inner.String()
		})
		return text
	}
	out.write(recurse(iterable, 0))
	return flowNormal
}

// loopOver runs a loop whose body has its variables in a; outer is the activation that the loop stands in.
func (r *run) loopOver(n *forStmt, iterable value, a, outer *activation, out *builder, depth int, recurse func(value, int) string) control {
	sc := &n.scope
	if n.test != nil {
		iterable = r.filtered(n, iterable, outer)
	}
	next := r.mustIterate(iterable)
	var loop *loopContext
	if sc.extended {
		loop = &loopContext{iterable: iterable, next: next, after: missing, index0: -1, depth0: depth, recurse: recurse}
		next = func() (value, bool) { return loop.advance(r) }
	}
	empty := true
	for {
		r.line = n.line()
		item, ok := next()
		if !ok {
			break
		}
		r.step(1)
		r.assign(n.target, item, a)
		if loop != nil {
			*a.at(sc.loop) = loop
		}
		r.enter(a, sc.enter)
		c := r.exec(n.body, a, out)
		if c == flowBreak {
			break
		}
		if c == flowNormal {
			empty = false // jinja2 notes it at the end of the body: a loop that only continues counts as empty
		}
	}
	if empty && n.els != nil {
		r.enter(a, sc.elseEnter)
		return r.exec(n.els, a, out)
	}
	return flowNormal
}

// filtered is the generator of {% for … if test %}.
func (r *run) filtered(n *forStmt, iterable value, outer *activation) *generator {
	var a *activation
	next := r.mustIterate(iterable)
	return r.generate(iterable, func() (value, bool) {
		if a == nil {
			a = newActivation(n.scope.testFn, outer)
			r.enter(a, n.scope.testEnter)
		}
		for {
			item, ok := next()
			if !ok {
				return nil, false
			}
			r.assign(n.scope.testTarget, item, a)
			if r.truth(r.eval(n.test, a)) {
				return r.targetValue(n.scope.testTarget, a), true
			}
		}
	})
}

// targetValue reads back what was assigned to a target: a tuple where the target is one.
func (r *run) targetValue(target node, a *activation) value {
	switch t := target.(type) {
	case *nameExpr:
		return *a.at(t.ref)
	case *tupleExpr:
		v := &tuple{}
		for _, item := range t.items {
			v.items = append(v.items, r.targetValue(item, a))
		}
		return v
	}
	return nil
}

// loopContext is the variable loop.
type loopContext struct {
	iterable      value
	next          func() (value, bool)
	size          int // +1; 0: not known
	before        value
	current       value
	after         value // looked ahead at; missing: not looked
	ended         bool
	index0        int
	depth0        int
	changedValues []value
	changedOnce   bool
	recurse       func(value, int) string
}

func (l *loopContext) advance(r *run) (value, bool) {
	v, ok := l.peek()
	if !ok {
		return nil, false
	}
	l.after = missing
	l.index0++
	l.before, l.current = l.current, v
	return v, true
}

func (l *loopContext) peek() (value, bool) {
	if l.after != missing {
		return l.after, true
	}
	if l.ended {
		return nil, false
	}
	v, ok := l.next()
	if !ok {
		l.ended = true
		return nil, false
	}
	l.after = v
	return v, true
}

func (l *loopContext) length(r *run) int {
	if l.size == 0 {
		n := r.length(l.iterable)
		if n < 0 { // a generator is read to its end
			var rest []value
			if l.after != missing {
				rest = append(rest, l.after)
			}
			for !l.ended {
				v, ok := l.next()
				if !ok {
					l.ended = true
					break
				}
				r.alloc(valueSize)
				rest = append(rest, v)
			}
			n = l.index0 + 1 + len(rest)
			l.after, l.ended = missing, false
			l.next = r.mustIterate(&list{rest})
		}
		l.size = n + 1
	}
	return l.size - 1
}

func (l *loopContext) attr(r *run, name string) value {
	switch name {
	case "index":
		return int64(l.index0 + 1)
	case "index0":
		return int64(l.index0)
	case "first":
		return l.index0 == 0
	case "last":
		_, ok := l.peek()
		return !ok
	case "length":
		return int64(l.length(r))
	case "revindex":
		return int64(l.length(r) - l.index0)
	case "revindex0":
		return int64(l.length(r) - l.index0 - 1)
	case "previtem":
		if l.index0 == 0 {
			return &undefined{"there is no previous item"}
		}
		return l.before
	case "nextitem":
		if v, ok := l.peek(); ok {
			return v
		}
		return &undefined{"there is no next item"}
	case "depth":
		return int64(l.depth0 + 1)
	case "depth0":
		return int64(l.depth0)
	case "cycle":
		return &builtin{"cycle", func(r *run, args []value, kw []keyword) value {
			if len(args) == 0 || len(kw) > 0 {
				r.fail("loop.cycle needs items")
			}
			return args[l.index0%len(args)]
		}}
	case "changed":
		return &builtin{"changed", func(r *run, args []value, kw []keyword) value {
			if len(kw) > 0 {
				r.fail("loop.changed takes no keyword arguments")
			}
			if l.changedOnce && r.equal(&tuple{items: l.changedValues}, &tuple{items: args}) {
				return false
			}
			l.changedOnce, l.changedValues = true, args
			return true
		}}
	}
	return nil
}

// macro is a macro, or the caller of a call block.
type macro struct {
	name     string
	scope    *macroScope
	params   []*nameExpr
	defaults []node
	body     []node
	closure  *activation
}

// invoke calls a macro with jinja2's rules for arguments, and returns its text.
func (m *macro) invoke(r *run, args []value, kw []keyword) (text string) {
	sc := m.scope
	values := make([]value, len(m.params))
	used := make([]bool, len(kw))
	pop := func(name string) (value, bool) {
		for i := range kw {
			if !used[i] && kw[i].name == name {
				used[i] = true
				return kw[i].value, true
			}
		}
		return nil, false
	}
	foundCaller := false
	n := min(len(args), len(m.params))
	for i, p := range m.params {
		switch {
		case i < n:
			values[i] = args[i]
		default:
			values[i] = missing
			if v, ok := pop(p.name); ok {
				values[i] = v
			}
			if p.name == "caller" {
				foundCaller = true
			}
		}
	}
	if n == len(m.params) {
		foundCaller = sc.explicitCaller
	}
	a := newActivation(sc.fn, m.closure)
	if sc.accessCaller && !foundCaller {
		v, ok := pop("caller")
		if !ok || v == nil {
			v = &undefined{"no caller defined"}
		}
		if sc.caller >= 0 {
			a.slots[sc.caller] = v
		}
	}
	if sc.accessKw {
		d := &dict{}
		for i, k := range kw {
			if !used[i] {
				r.alloc(entrySize)
				d.setString(k.name, k.value)
			}
		}
		a.slots[sc.kwargs] = d
	} else {
		for i, k := range kw {
			if !used[i] {
				r.fail("macro %q takes no keyword argument %q", m.name, k.name)
			}
		}
	}
	if sc.accessVar {
		a.slots[sc.varargs] = &tuple{items: args[n:]}
	} else if len(args) > len(m.params) {
		r.fail("macro %q takes not more than %d argument(s)", m.name, len(m.params))
	}
	r.call(func() {
		for i, slot := range sc.params {
			a.slots[slot] = values[i]
		}
		r.enter(a, sc.enter)
		for i, slot := range sc.params {
			if a.slots[slot] != missing {
				continue
			}
			if d := i - (len(m.params) - len(m.defaults)); d >= 0 {
				a.slots[slot] = r.eval(m.defaults[d], a)
			} else {
				a.slots[slot] = &undefined{fmt.Sprintf("parameter %q was not provided", m.params[i].name)}
			}
		}
		out := &builder{r: r}
		r.exec(m.body, a, out)
		text = out.String()
	})
	return text
}
