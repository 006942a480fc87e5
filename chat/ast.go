package chat

// This file holds the syntax tree. Names and fields follow jinja2's nodes.py, and children gives the children of a
// node in jinja2's order, which matters to scope.go.

type node interface{ line() int }

// pos is the line of a node.
type pos int

func (p pos) line() int { return int(p) }

// Expressions.
type (
	constExpr struct {
		pos
		value value
	}
	// nameExpr reads a variable, or names what is assigned. ref is set by scope.go.
	nameExpr struct {
		pos
		name string
		ctx  nameCtx
		ref  ref
	}
	// nsExpr is the target of {% set ns.attr = … %}.
	nsExpr struct {
		pos
		name, attr string
		ref        ref
	}
	tupleExpr struct {
		pos
		items []node
	}
	listExpr struct {
		pos
		items []node
	}
	dictExpr struct {
		pos
		keys, values []node
	}
	// condExpr is yes if test else no; no may be nil.
	condExpr struct {
		pos
		test, yes, no node
	}
	binaryExpr struct {
		pos
		op          string
		left, right node
	}
	// logicExpr is and, or: the right side is evaluated only if it decides.
	logicExpr struct {
		pos
		or          bool
		left, right node
	}
	unaryExpr struct {
		pos
		op string // + - not
		x  node
	}
	compareExpr struct {
		pos
		x    node
		ops  []string
		with []node
	}
	concatExpr struct {
		pos
		items []node
	}
	attrExpr struct {
		pos
		x    node
		name string
	}
	itemExpr struct {
		pos
		x, index node
	}
	// sliceExpr is the start:stop:step of an itemExpr; each may be nil.
	sliceExpr struct {
		pos
		start, stop, step node
	}
	callExpr struct {
		pos
		fn   node
		args callArgs
	}
	// filterExpr is x|name(args); x is nil in a filter block, where it is the text of the block.
	filterExpr struct {
		pos
		x    node
		name string
		args callArgs
	}
	testExpr struct {
		pos
		x    node
		name string
		args callArgs
	}
)

type nameCtx uint8

const (
	ctxLoad nameCtx = iota
	ctxStore
	ctxParam
)

type callArgs struct {
	positional []node
	keys       []string
	values     []node // of keys
	star       node   // *args
	starStar   node   // **kwargs
}

// Statements.
type (
	textStmt struct {
		pos
		text string
	}
	outputStmt struct {
		pos
		x node
	}
	ifStmt struct {
		pos
		test  node
		body  []node
		elifs []*ifStmt
		els   []node
	}
	forStmt struct {
		pos
		target, iter, test node
		body, els          []node
		recursive          bool
		scope              forScope
	}
	macroStmt struct {
		pos
		name   string
		params []*nameExpr
		// defaults belong to the last params
		defaults []node
		body     []node
		ref      ref // where the macro is stored
		scope    macroScope
	}
	// callStmt is {% call(params) f(…) %}body{% endcall %}, and with a nil call {% generation %}.
	callStmt struct {
		pos
		call     *callExpr
		params   []*nameExpr
		defaults []node
		body     []node
		scope    macroScope
	}
	filterStmt struct {
		pos
		filter node
		body   []node
		enter  []load
	}
	withStmt struct {
		pos
		targets, values []node
		body            []node
		enter           []load
	}
	setStmt struct {
		pos
		target, value node
	}
	setBlockStmt struct {
		pos
		target, filter node
		body           []node
		enter          []load
	}
	breakStmt    struct{ pos }
	continueStmt struct{ pos }
)

// each calls f for the children of n in the order of jinja2's fields.
func each(n node, f func(node)) {
	all := func(ns []node) {
		for _, n := range ns {
			f(n)
		}
	}
	opt := func(n node) {
		if n != nil {
			f(n)
		}
	}
	params := func(ps []*nameExpr) {
		for _, p := range ps {
			f(p)
		}
	}
	args := func(a callArgs) {
		all(a.positional)
		all(a.values)
		opt(a.star)
		opt(a.starStar)
	}
	switch n := n.(type) {
	case *tupleExpr:
		all(n.items)
	case *listExpr:
		all(n.items)
	case *dictExpr:
		for i := range n.keys {
			f(n.keys[i])
			f(n.values[i])
		}
	case *condExpr:
		f(n.test)
		f(n.yes)
		opt(n.no)
	case *binaryExpr:
		f(n.left)
		f(n.right)
	case *logicExpr:
		f(n.left)
		f(n.right)
	case *unaryExpr:
		f(n.x)
	case *compareExpr:
		f(n.x)
		all(n.with)
	case *concatExpr:
		all(n.items)
	case *attrExpr:
		f(n.x)
	case *itemExpr:
		f(n.x)
		f(n.index)
	case *sliceExpr:
		opt(n.start)
		opt(n.stop)
		opt(n.step)
	case *callExpr:
		f(n.fn)
		args(n.args)
	case *filterExpr:
		opt(n.x)
		args(n.args)
	case *testExpr:
		f(n.x)
		args(n.args)
	case *outputStmt:
		f(n.x)
	case *ifStmt:
		f(n.test)
		all(n.body)
		for _, e := range n.elifs {
			f(e)
		}
		all(n.els)
	case *forStmt:
		f(n.target)
		f(n.iter)
		all(n.body)
		all(n.els)
		opt(n.test)
	case *macroStmt:
		params(n.params)
		all(n.defaults)
		all(n.body)
	case *callStmt:
		if n.call != nil {
			f(n.call)
		}
		params(n.params)
		all(n.defaults)
		all(n.body)
	case *filterStmt:
		all(n.body)
		f(n.filter)
	case *withStmt:
		all(n.targets)
		all(n.values)
		all(n.body)
	case *setStmt:
		f(n.target)
		f(n.value)
	case *setBlockStmt:
		f(n.target)
		opt(n.filter)
		all(n.body)
	}
}
