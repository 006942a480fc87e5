package chat

import "slices"

// This file decides where each variable lives. It is jinja2's idtracking.py and the frames of its compiler.py: a
// template is compiled to Python functions (the root, each macro, call block, loop filter and recursive loop), a frame
// is a scope within a function, and a name means a local of its frame, of a frame around it, or a variable of the
// caller's that is looked up when the frame is entered. What a template sees where it shadows a name follows from
// these rules and not from the order in which it is run, so they are kept to the letter.

// ref is a variable seen from a function: the number of functions to go out, and the slot there.
type ref struct{ up, slot int }

// funcInfo is one function: its slots are the variables of all its frames.
type funcInfo struct {
	parent *funcInfo
	slots  map[slotKey]int
}

type slotKey struct {
	level int // of the frame
	name  string
}

func (f *funcInfo) slot(level int, name string) int {
	k := slotKey{level, name}
	s, ok := f.slots[k]
	if !ok {
		s = len(f.slots)
		f.slots[k] = s
	}
	return s
}

func newFunc(parent *funcInfo) *funcInfo { return &funcInfo{parent, map[slotKey]int{}} }

type variable struct {
	fn   *funcInfo
	slot int
}

// load says what a variable holds when its frame is entered.
type load struct {
	slot int
	kind loadKind
	from ref    // of loadAlias
	name string // of loadResolve
}

type loadKind uint8

const (
	loadParam     loadKind = iota // an argument or loop variable: set by whoever enters
	loadResolve                   // the caller's variable of this name
	loadAlias                     // a variable of a frame around
	loadUndefined                 // nothing yet
)

type loadSpec struct {
	kind loadKind
	from variable
	name string
}

type symbols struct {
	parent *symbols
	fn     *funcInfo
	level  int
	refs   map[string]variable
	loads  map[variable]loadSpec
	stores map[string]bool
}

func newSymbols(parent *symbols, fn *funcInfo) *symbols {
	s := &symbols{parent: parent, fn: fn, refs: map[string]variable{}, loads: map[variable]loadSpec{}, stores: map[string]bool{}}
	if parent != nil {
		s.level = parent.level + 1
	}
	return s
}

func (s *symbols) find(name string) (variable, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.refs[name]; ok {
			return v, true
		}
	}
	return variable{}, false
}

func (s *symbols) define(name string, l loadSpec) {
	v := variable{s.fn, s.fn.slot(s.level, name)}
	s.refs[name] = v
	s.loads[v] = l
}

func (s *symbols) declareParam(name string) {
	s.stores[name] = true
	s.define(name, loadSpec{kind: loadParam})
}

func (s *symbols) store(name string) {
	s.stores[name] = true
	if _, ok := s.refs[name]; ok {
		return
	}
	if s.parent != nil {
		if outer, ok := s.parent.find(name); ok {
			s.define(name, loadSpec{kind: loadAlias, from: outer})
			return
		}
	}
	s.define(name, loadSpec{kind: loadUndefined})
}

func (s *symbols) load(name string) {
	if _, ok := s.find(name); !ok {
		s.define(name, loadSpec{kind: loadResolve, name: name})
	}
}

func (s *symbols) branch() *symbols {
	b := newSymbols(s.parent, s.fn)
	b.level = s.level
	for k, v := range s.refs {
		b.refs[k] = v
	}
	for k, v := range s.loads {
		b.loads[k] = v
	}
	for k := range s.stores {
		b.stores[k] = true
	}
	return b
}

// merge takes over what the branches of an if found. A name that only a branch stores has its outer value before.
func (s *symbols) merge(branches ...*symbols) {
	stored := map[string]bool{}
	for _, b := range branches {
		for name := range b.stores {
			if !s.stores[name] {
				stored[name] = true
			}
		}
	}
	for _, b := range branches {
		for k, v := range b.refs {
			s.refs[k] = v
		}
		for k, v := range b.loads {
			s.loads[k] = v
		}
		for k := range b.stores {
			s.stores[k] = true
		}
	}
	for name := range stored {
		target, _ := s.find(name)
		if s.parent != nil {
			if outer, ok := s.parent.find(name); ok {
				s.loads[target] = loadSpec{kind: loadAlias, from: outer}
				continue
			}
		}
		s.loads[target] = loadSpec{kind: loadResolve, name: name}
	}
}

// visit finds the names that a node uses in this frame; it stops at nodes that open a frame of their own.
func (s *symbols) visit(n node, asParam bool) {
	switch n := n.(type) {
	case *nameExpr:
		switch {
		case asParam || n.ctx == ctxParam:
			s.declareParam(n.name)
		case n.ctx == ctxStore:
			s.store(n.name)
		default:
			s.load(n.name)
		}
	case *nsExpr:
		s.load(n.name)
	case *ifStmt:
		s.visit(n.test, asParam)
		branch := func(visit func(*symbols)) *symbols {
			b := s.branch()
			visit(b)
			return b
		}
		s.merge(
			branch(func(b *symbols) { b.visitAll(n.body) }),
			branch(func(b *symbols) {
				for _, e := range n.elifs {
					b.visit(e, false)
				}
			}),
			branch(func(b *symbols) { b.visitAll(n.els) }),
		)
	case *macroStmt:
		s.store(n.name)
	case *setStmt:
		s.visit(n.value, false)
		s.visit(n.target, false)
	case *forStmt:
		s.visit(n.iter, false)
	case *callStmt:
		if n.call != nil {
			s.visit(n.call, false)
		}
	case *filterStmt:
		s.visit(n.filter, false)
	case *withStmt:
		s.visitAll(n.values)
	case *setBlockStmt:
		s.visit(n.target, false)
	default:
		each(n, func(c node) { s.visit(c, asParam) })
	}
}

func (s *symbols) visitAll(ns []node) {
	for _, n := range ns {
		s.visit(n, false)
	}
}

// undeclared returns which of the names are read in the nodes before they are assigned there.
func undeclared(nodes []node, names ...string) map[string]bool {
	found := map[string]bool{}
	left := map[string]bool{}
	for _, n := range names {
		left[n] = true
	}
	var visit func(node)
	visit = func(n node) {
		name, ok := n.(*nameExpr)
		switch {
		case !ok:
			each(n, visit)
		case name.ctx == ctxLoad && left[name.name]:
			found[name.name] = true
		default:
			delete(left, name.name)
		}
	}
	for _, n := range nodes {
		visit(n)
	}
	return found
}

type forScope struct {
	extended   bool // the body uses loop
	loop       ref
	enter      []load
	elseEnter  []load
	testTarget node // the target as the filter's function sees it
	testEnter  []load
	testFn     *funcInfo
	loopFn     *funcInfo // of a recursive loop
}

type macroScope struct {
	fn                                *funcInfo
	params                            []int
	caller, kwargs, varargs           int // their slots, or -1
	accessCaller, accessKw, accessVar bool
	explicitCaller                    bool
	enter                             []load
}

// frame is the scope that statements are compiled in.
type frame struct {
	*symbols
	soft bool // inside an if: a filter that does not exist is an error only when it runs
	loop bool // break and continue are possible
}

// resolveScopes sets the refs of all names, checks filters, tests and loop controls, and returns the root function
// and what it loads. It panics with an *Error.
func resolveScopes(body []node) (*funcInfo, []load) {
	if undeclared(body, "self")["self"] {
		panic(errorAt(1, "self is not supported in a chat template"))
	}
	root := newFunc(nil)
	f := frame{symbols: newSymbols(nil, root)}
	f.visitAll(body)
	f.resolveAll(body)
	return root, f.enter()
}

// enter lists what must be loaded when the frame is entered.
func (f frame) enter() []load {
	var loads []load
	for v, spec := range f.loads {
		if spec.kind == loadParam {
			continue
		}
		l := load{slot: v.slot, kind: spec.kind, name: spec.name}
		if spec.kind == loadAlias {
			l.from = f.reach(spec.from)
		}
		loads = append(loads, l)
	}
	return loads
}

func (f frame) reach(v variable) ref {
	up := 0
	for fn := f.fn; fn != v.fn; fn = fn.parent {
		up++
	}
	return ref{up, v.slot}
}

func (f frame) ref(n node, name string) ref {
	v, ok := f.find(name)
	if !ok { // jinja2 fails here too: it does not look into the filter of a set block for names
		panic(errorAt(n.line(), "the name %q cannot be used here", name))
	}
	return f.reach(v)
}

func (f frame) resolveAll(ns []node) {
	for _, n := range ns {
		f.resolve(n)
	}
}

func (f frame) inner(fn *funcInfo) frame {
	return frame{symbols: newSymbols(f.symbols, fn), loop: f.loop && fn == f.fn}
}

func (f frame) resolve(n node) {
	switch n := n.(type) {
	case *nameExpr:
		n.ref = f.ref(n, n.name)
	case *nsExpr:
		n.ref = f.ref(n, n.name)
	case *condExpr:
		f.soft = true
		each(n, f.resolve)
	case *filterExpr:
		if _, ok := filters[n.name]; !ok && !f.soft {
			panic(errorAt(n.line(), "no filter named %q", n.name))
		}
		each(n, f.resolve)
	case *testExpr:
		if _, ok := tests[n.name]; !ok && !f.soft {
			panic(errorAt(n.line(), "no test named %q", n.name))
		}
		each(n, f.resolve)
	case *ifStmt:
		f.soft = true
		each(n, f.resolve)
	case *forStmt:
		f.resolveFor(n)
	case *macroStmt:
		n.ref = f.ref(n, n.name)
		f.resolveMacro(&n.scope, n, n.params, n.defaults, n.body)
	case *callStmt:
		f.resolveMacro(&n.scope, n, n.params, n.defaults, n.body)
		if n.call != nil {
			f.resolve(n.call)
		}
	case *filterStmt:
		in := f.inner(f.fn)
		in.visitAll(n.body)
		in.visit(n.filter, false)
		in.resolveAll(n.body)
		in.resolve(n.filter)
		n.enter = in.enter()
	case *withStmt:
		in := f.inner(f.fn)
		in.visitAll(n.targets)
		in.visitAll(n.body)
		in.resolveAll(n.targets)
		f.resolveAll(n.values)
		in.resolveAll(n.body)
		n.enter = in.enter()
	case *setBlockStmt:
		in := f.inner(f.fn)
		in.visitAll(n.body)
		in.resolveAll(n.body)
		f.resolve(n.target)
		if n.filter != nil {
			in.resolve(n.filter)
		}
		n.enter = in.enter()
	case *breakStmt, *continueStmt:
		if !f.loop {
			panic(errorAt(n.line(), "break or continue outside a loop"))
		}
	default:
		each(n, f.resolve)
	}
}

func (f frame) resolveFor(n *forStmt) {
	sc := &n.scope
	fn := f.fn
	if n.recursive {
		sc.loopFn = newFunc(f.fn)
		fn = sc.loopFn
	}
	body, els := f.inner(fn), f.inner(fn)
	body.loop = true
	sc.extended = n.recursive || undeclared(n.body, "loop")["loop"]
	if sc.extended {
		body.declareParam("loop")
	}
	body.visit(n.target, true)
	body.visitAll(n.body)
	els.visitAll(n.els)

	var check func(node)
	check = func(c node) {
		if name, ok := c.(*nameExpr); ok && name.ctx == ctxStore && name.name == "loop" {
			panic(errorAt(c.line(), "cannot assign to the special variable loop inside a loop"))
		}
		each(c, check)
	}
	check(n)

	f.resolve(n.iter)
	if n.test != nil {
		sc.testFn = newFunc(f.fn)
		test := f.inner(sc.testFn)
		test.visit(n.target, true)
		test.visit(n.test, false)
		sc.testTarget = copyTarget(n.target)
		test.resolve(sc.testTarget)
		test.resolve(n.test)
		sc.testEnter = test.enter()
	}
	body.resolve(n.target)
	body.resolveAll(n.body)
	els.resolveAll(n.els)
	if sc.extended {
		sc.loop = body.ref(n, "loop")
	}
	sc.enter, sc.elseEnter = body.enter(), els.enter()
}

func copyTarget(n node) node {
	switch n := n.(type) {
	case *nameExpr:
		c := *n
		return &c
	case *tupleExpr:
		c := &tupleExpr{pos: n.pos}
		for _, item := range n.items {
			c.items = append(c.items, copyTarget(item))
		}
		return c
	}
	return n
}

func (f frame) resolveMacro(sc *macroScope, n node, params []*nameExpr, defaults, body []node) {
	sc.fn = newFunc(f.fn)
	in := f.inner(sc.fn)
	analyze := func() {
		for _, p := range params {
			in.visit(p, false)
		}
		in.visitAll(defaults)
		in.visitAll(body)
	}
	analyze()
	special := undeclared(body, "caller", "kwargs", "varargs")
	isParam := func(name string) int {
		return slices.IndexFunc(params, func(p *nameExpr) bool { return p.name == name })
	}
	sc.caller, sc.kwargs, sc.varargs = -1, -1, -1
	declare := func(name string) int {
		in.declareParam(name)
		return in.refs[name].slot
	}
	i := isParam("caller")
	sc.explicitCaller = i >= 0
	if special["caller"] {
		sc.accessCaller = true
		switch {
		case i < 0:
			sc.caller = declare("caller")
		case i < len(params)-len(defaults):
			panic(errorAt(n.line(), "the special argument caller must be left out or have a default"))
		}
	}
	if special["kwargs"] && isParam("kwargs") < 0 {
		sc.accessKw = true
		sc.kwargs = declare("kwargs")
	}
	if special["varargs"] && isParam("varargs") < 0 {
		sc.accessVar = true
		sc.varargs = declare("varargs")
	}
	analyze()
	for _, p := range params {
		in.resolve(p)
		sc.params = append(sc.params, p.ref.slot)
	}
	in.resolveAll(defaults)
	in.resolveAll(body)
	sc.enter = in.enter()
}
