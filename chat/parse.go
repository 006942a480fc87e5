package chat

import "slices"

// This file turns tokens into the tree of ast.go. It is jinja2's parser, function by function, with the statements
// that a chat template cannot use (block, extends, include, import, from, autoescape) refused.

// maxNesting bounds the depth of the tree, and with it the recursion of everything that walks it.
const maxNesting = 400

type parser struct {
	tokens []token
	i      int
	depth  int
}

// parse returns the statements of a template. It panics with an *Error.
func parse(src string) []node {
	p := &parser{tokens: lex(src)}
	return p.statements()
}

func (p *parser) fail(line int, format string, args ...any) { panic(errorAt(line, format, args...)) }

func (p *parser) cur() token { return p.tokens[p.i] }

func (p *parser) next() token {
	t := p.tokens[p.i]
	if t.kind != tokEOF {
		p.i++
	}
	return t
}

func (p *parser) look() token { return p.tokens[min(p.i+1, len(p.tokens)-1)] }

func (p *parser) isOp(op string) bool { return p.cur().kind == tokOperator && p.cur().text == op }

func (p *parser) isName(names ...string) bool {
	return p.cur().kind == tokName && slices.Contains(names, p.cur().text)
}

func (p *parser) skipOp(op string) bool {
	if p.isOp(op) {
		p.i++
		return true
	}
	return false
}

func (p *parser) skipName(name string) bool {
	if p.isName(name) {
		p.i++
		return true
	}
	return false
}

func (p *parser) expectOp(op string) token {
	if !p.isOp(op) {
		p.unexpected("'" + op + "'")
	}
	return p.next()
}

func (p *parser) expectName() token {
	if p.cur().kind != tokName {
		p.unexpected("a name")
	}
	return p.next()
}

func (p *parser) expectKind(kind tokenKind) {
	if p.cur().kind != kind {
		p.unexpected(token{kind: kind}.String())
	}
	p.next()
}

func (p *parser) unexpected(want string) {
	p.fail(p.cur().line, "expected %s, got %q", want, p.cur().String())
}

// enter counts one level of nesting; the result undoes it.
func (p *parser) enter() func() {
	if p.depth++; p.depth > maxNesting {
		p.fail(p.cur().line, "nested too deeply: more than %d levels", maxNesting)
	}
	return func() { p.depth-- }
}

// chain counts a link of a chain such as a+b+c or a.b.c, which is deep though it does not look so.
func (p *parser) chain(links *int) {
	if *links++; *links > maxNesting {
		p.fail(p.cur().line, "an expression with more than %d operators in a row", maxNesting)
	}
}

// statements parses up to one of the end tags, which it leaves as the current token, or to the end of the template.
func (p *parser) statements(ends ...string) []node {
	defer p.enter()()
	var body []node
	for {
		switch t := p.cur(); t.kind {
		case tokEOF:
			if len(ends) > 0 {
				p.fail(t.line, "unexpected end of template, looking for %q", ends)
			}
			return body
		case tokData:
			p.next()
			body = append(body, &textStmt{pos(t.line), t.text})
		case tokVariableBegin:
			p.next()
			x := p.tuple(tupleOpts{cond: true})
			p.expectKind(tokVariableEnd)
			body = append(body, &outputStmt{pos(t.line), x})
		case tokBlockBegin:
			p.next()
			if p.isName(ends...) {
				return body
			}
			body = append(body, p.statement()...)
			p.expectKind(tokBlockEnd)
		default:
			p.unexpected("text or a tag")
		}
	}
}

// body parses the rest of a tag, and statements up to and including one of the end tags, whose name it returns.
func (p *parser) body(ends ...string) ([]node, string) {
	p.skipOp(":")
	p.expectKind(tokBlockEnd)
	body := p.statements(ends...)
	return body, p.next().text
}

func (p *parser) statement() []node {
	t := p.cur()
	if t.kind != tokName {
		p.fail(t.line, "expected the name of a tag, got %q", t.String())
	}
	line := pos(t.line)
	switch t.text {
	case "if":
		return []node{p.ifStatement()}
	case "for":
		return []node{p.forStatement()}
	case "set":
		p.next()
		target := p.assignTarget(true, "")
		if p.skipOp("=") {
			return []node{&setStmt{line, target, p.tuple(tupleOpts{cond: true})}}
		}
		filter := p.filters(nil)
		body, _ := p.body("endset")
		return []node{&setBlockStmt{pos: line, target: target, filter: filter, body: body}}
	case "macro":
		p.next()
		m := &macroStmt{pos: line, name: p.nameTarget(ctxStore).name}
		m.params, m.defaults = p.signature()
		m.body, _ = p.body("endmacro")
		return []node{m}
	case "call":
		p.next()
		c := &callStmt{pos: line}
		if p.isOp("(") {
			c.params, c.defaults = p.signature()
		}
		var ok bool
		if c.call, ok = p.expression(true).(*callExpr); !ok {
			p.fail(t.line, "expected a call")
		}
		c.body, _ = p.body("endcall")
		return []node{c}
	case "generation":
		p.next()
		c := &callStmt{pos: line}
		c.body, _ = p.body("endgeneration")
		return []node{c}
	case "filter":
		p.next()
		filter := p.filters(p.filter(nil))
		body, _ := p.body("endfilter")
		return []node{&filterStmt{pos: line, filter: filter, body: body}}
	case "with":
		p.next()
		w := &withStmt{pos: line}
		for p.cur().kind != tokBlockEnd {
			if len(w.targets) > 0 {
				p.expectOp(",")
			}
			target := p.assignTarget(false, "")
			setCtx(target, ctxParam)
			w.targets = append(w.targets, target)
			p.expectOp("=")
			w.values = append(w.values, p.expression(true))
		}
		w.body, _ = p.body("endwith")
		return []node{w}
	case "print":
		p.next()
		var out []node
		for p.cur().kind != tokBlockEnd {
			if len(out) > 0 {
				p.expectOp(",")
			}
			out = append(out, &outputStmt{line, p.expression(true)})
		}
		return out
	case "break":
		p.next()
		return []node{&breakStmt{line}}
	case "continue":
		p.next()
		return []node{&continueStmt{line}}
	case "block", "extends", "include", "import", "from", "autoescape":
		p.fail(t.line, "{%% %s %%} is not supported in a chat template", t.text)
	}
	p.fail(t.line, "unknown or misplaced tag %q", t.text)
	return nil
}

func (p *parser) ifStatement() node {
	first := &ifStmt{pos: pos(p.next().line)}
	for s := first; ; {
		s.test = p.tuple(tupleOpts{})
		var end string
		s.body, end = p.body("elif", "else", "endif")
		if end == "elif" {
			s = &ifStmt{pos: pos(p.cur().line)}
			first.elifs = append(first.elifs, s)
			continue
		}
		if end == "else" {
			first.els, _ = p.body("endif")
		}
		return first
	}
}

func (p *parser) forStatement() node {
	s := &forStmt{pos: pos(p.next().line)}
	s.target = p.assignTarget(false, "in")
	if !p.skipName("in") {
		p.unexpected("'in'")
	}
	s.iter = p.tuple(tupleOpts{end: "recursive"})
	if p.skipName("if") {
		s.test = p.expression(true)
	}
	s.recursive = p.skipName("recursive")
	var end string
	if s.body, end = p.body("endfor", "else"); end == "else" {
		s.els, _ = p.body("endfor")
	}
	return s
}

func (p *parser) signature() (params []*nameExpr, defaults []node) {
	p.expectOp("(")
	for !p.isOp(")") {
		if len(params) > 0 {
			p.expectOp(",")
		}
		param := p.nameTarget(ctxParam)
		if p.skipOp("=") {
			defaults = append(defaults, p.expression(true))
		} else if len(defaults) > 0 {
			p.fail(p.cur().line, "non-default argument follows default argument")
		}
		for _, other := range params {
			if other.name == param.name {
				p.fail(param.line(), "duplicate argument %q", param.name)
			}
		}
		params = append(params, param)
	}
	p.expectOp(")")
	return params, defaults
}

// nameTarget parses a name that is assigned.
func (p *parser) nameTarget(ctx nameCtx) *nameExpr {
	t := p.expectName()
	n := &nameExpr{pos: pos(t.line), name: t.text, ctx: ctx}
	p.checkTarget(n)
	return n
}

// assignTarget parses a name, a tuple of targets or, where allowed, an attribute of a namespace. end is the name that
// ends a tuple.
func (p *parser) assignTarget(namespace bool, end string) node {
	target := p.tuple(tupleOpts{simple: true, namespace: namespace, end: end})
	setCtx(target, ctxStore)
	p.checkTarget(target)
	return target
}

func setCtx(n node, ctx nameCtx) {
	if name, ok := n.(*nameExpr); ok {
		name.ctx = ctx
	}
	if t, ok := n.(*tupleExpr); ok {
		for _, item := range t.items {
			setCtx(item, ctx)
		}
	}
}

func (p *parser) checkTarget(n node) {
	switch n := n.(type) {
	case *nameExpr:
		switch n.name {
		case "true", "false", "none", "True", "False", "None":
			p.fail(n.line(), "cannot assign to %q", n.name)
		}
	case *nsExpr:
	case *tupleExpr:
		for _, item := range n.items {
			p.checkTarget(item)
		}
	default:
		p.fail(n.line(), "cannot assign to an expression")
	}
}

type tupleOpts struct {
	simple    bool   // names and literals only
	namespace bool   // and attributes of namespaces
	cond      bool   // inline if is allowed
	parens    bool   // it stands in parentheses, so that it may be empty
	end       string // a name that ends it, besides the end of the tag
}

// tuple parses one expression, or several with commas.
func (p *parser) tuple(o tupleOpts) node {
	line := pos(p.cur().line)
	var items []node
	isTuple := false
	for {
		if len(items) > 0 {
			p.expectOp(",")
		}
		if k := p.cur().kind; k == tokVariableEnd || k == tokBlockEnd || p.isOp(")") || o.end != "" && p.isName(o.end) {
			break
		}
		if o.simple {
			items = append(items, p.primary(o.namespace))
		} else {
			items = append(items, p.expression(o.cond))
		}
		if !p.isOp(",") {
			break
		}
		isTuple = true
		line = pos(p.cur().line)
	}
	if !isTuple {
		if len(items) > 0 {
			return items[0]
		}
		if !o.parens {
			p.unexpected("an expression")
		}
	}
	return &tupleExpr{line, items}
}

func (p *parser) expression(cond bool) node {
	defer p.enter()()
	if !cond {
		return p.or()
	}
	line := pos(p.cur().line)
	x := p.or()
	for links := 0; p.skipName("if"); p.chain(&links) {
		c := &condExpr{pos: line, test: p.or(), yes: x}
		if p.skipName("else") {
			c.no = p.expression(true)
		}
		x = c
		line = pos(p.cur().line)
	}
	return x
}

func (p *parser) or() node {
	line := pos(p.cur().line)
	left := p.and()
	for links := 0; p.skipName("or"); p.chain(&links) {
		left = &logicExpr{line, true, left, p.and()}
		line = pos(p.cur().line)
	}
	return left
}

func (p *parser) and() node {
	line := pos(p.cur().line)
	left := p.not()
	for links := 0; p.skipName("and"); p.chain(&links) {
		left = &logicExpr{line, false, left, p.not()}
		line = pos(p.cur().line)
	}
	return left
}

func (p *parser) not() node {
	if p.isName("not") {
		defer p.enter()()
		line := pos(p.next().line)
		return &unaryExpr{line, "not", p.not()}
	}
	return p.compare()
}

func (p *parser) compare() node {
	c := &compareExpr{pos: pos(p.cur().line), x: p.sum()}
	for {
		op := ""
		switch t := p.cur(); {
		case t.kind == tokOperator && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, t.text):
			op = t.text
			p.next()
		case p.skipName("in"):
			op = "in"
		case p.isName("not") && p.look().kind == tokName && p.look().text == "in":
			p.i += 2
			op = "not in"
		default:
			if len(c.ops) == 0 {
				return c.x
			}
			return c
		}
		c.ops = append(c.ops, op)
		c.with = append(c.with, p.sum())
	}
}

func (p *parser) sum() node {
	line := pos(p.cur().line)
	left := p.concat()
	for links := 0; p.isOp("+") || p.isOp("-"); p.chain(&links) {
		left = &binaryExpr{line, p.next().text, left, p.concat()}
		line = pos(p.cur().line)
	}
	return left
}

func (p *parser) concat() node {
	line := pos(p.cur().line)
	items := []node{p.product()}
	for p.skipOp("~") {
		items = append(items, p.product())
	}
	if len(items) == 1 {
		return items[0]
	}
	return &concatExpr{line, items}
}

func (p *parser) product() node {
	line := pos(p.cur().line)
	left := p.pow()
	for links := 0; p.isOp("*") || p.isOp("/") || p.isOp("//") || p.isOp("%"); p.chain(&links) {
		left = &binaryExpr{line, p.next().text, left, p.pow()}
		line = pos(p.cur().line)
	}
	return left
}

// pow is left-associative, as jinja2's own parser has it.
func (p *parser) pow() node {
	line := pos(p.cur().line)
	left := p.unary(true)
	for links := 0; p.isOp("**"); p.chain(&links) {
		p.next()
		left = &binaryExpr{line, "**", left, p.unary(true)}
		line = pos(p.cur().line)
	}
	return left
}

func (p *parser) unary(filters bool) node {
	var x node
	if p.isOp("-") || p.isOp("+") {
		leave := p.enter()
		t := p.next()
		x = &unaryExpr{pos(t.line), t.text, p.unary(false)}
		leave()
	} else {
		x = p.primary(false)
	}
	links := 0
	x = p.postfix(x, &links)
	for filters {
		switch {
		case p.isOp("|"):
			p.next()
			x = p.filter(x)
		case p.isName("is"):
			x = p.test(x)
		case p.isOp("("):
			x = p.call(x)
		default:
			return x
		}
		p.chain(&links)
	}
	return x
}

func (p *parser) primary(namespace bool) node {
	t := p.cur()
	line := pos(t.line)
	switch {
	case t.kind == tokName:
		p.next()
		switch t.text {
		case "true", "True":
			return &constExpr{line, true}
		case "false", "False":
			return &constExpr{line, false}
		case "none", "None":
			return &constExpr{line, nil}
		}
		if namespace && p.skipOp(".") {
			return &nsExpr{pos: line, name: t.text, attr: p.expectName().text}
		}
		return &nameExpr{pos: line, name: t.text}
	case t.kind == tokString:
		text := ""
		for p.cur().kind == tokString {
			text += p.next().text
		}
		return &constExpr{line, text}
	case t.kind == tokInteger, t.kind == tokFloat:
		p.next()
		return &constExpr{line, t.num}
	case p.isOp("("):
		defer p.enter()()
		p.next()
		x := p.tuple(tupleOpts{cond: true, parens: true})
		p.expectOp(")")
		return x
	case p.isOp("["):
		p.next()
		return &listExpr{line, p.list("]", p.expressionNode)}
	case p.isOp("{"):
		p.next()
		d := &dictExpr{pos: line}
		p.list("}", func() node {
			d.keys = append(d.keys, p.expression(true))
			p.expectOp(":")
			d.values = append(d.values, p.expression(true))
			return nil
		})
		return d
	}
	p.fail(t.line, "unexpected %q", t.String())
	return nil
}

func (p *parser) expressionNode() node { return p.expression(true) }

// list parses items with commas between them, and the closing bracket.
func (p *parser) list(end string, item func() node) []node {
	var items []node
	for first := true; !p.isOp(end); first = false {
		if !first {
			p.expectOp(",")
			if p.isOp(end) {
				break
			}
		}
		items = append(items, item())
	}
	p.expectOp(end)
	return items
}

func (p *parser) postfix(x node, links *int) node {
	for {
		switch {
		case p.isOp("."):
			line := pos(p.next().line)
			switch t := p.next(); t.kind {
			case tokName:
				x = &attrExpr{line, x, t.text}
			case tokInteger:
				x = &itemExpr{line, x, &constExpr{pos(t.line), t.num}}
			default:
				p.fail(t.line, "expected a name or number, got %q", t.String())
			}
		case p.isOp("["):
			x = p.subscript(x)
		case p.isOp("("):
			x = p.call(x)
		default:
			return x
		}
		p.chain(links)
	}
}

func (p *parser) subscript(x node) node {
	line := pos(p.next().line)
	var items []node
	for !p.isOp("]") {
		if len(items) > 0 {
			p.expectOp(",")
		}
		items = append(items, p.subscripted())
	}
	p.expectOp("]")
	if len(items) == 1 {
		return &itemExpr{line, x, items[0]}
	}
	for _, item := range items {
		if _, ok := item.(*sliceExpr); ok {
			p.fail(int(line), "several slices in one subscript are not supported")
		}
	}
	return &itemExpr{line, x, &tupleExpr{line, items}}
}

func (p *parser) subscripted() node {
	s := &sliceExpr{pos: pos(p.cur().line)}
	if !p.isOp(":") {
		x := p.expression(true)
		if !p.isOp(":") {
			return x
		}
		s.start = x
	}
	p.next()
	if !p.isOp(":") && !p.isOp("]") && !p.isOp(",") {
		s.stop = p.expression(true)
	}
	if p.skipOp(":") && !p.isOp("]") && !p.isOp(",") {
		s.step = p.expression(true)
	}
	return s
}

func (p *parser) call(fn node) *callExpr {
	return &callExpr{pos(p.cur().line), fn, p.args()}
}

func (p *parser) args() callArgs {
	defer p.enter()()
	line := p.expectOp("(").line
	var a callArgs
	for first := true; !p.isOp(")"); first = false {
		if !first {
			p.expectOp(",")
			if p.isOp(")") {
				break
			}
		}
		var ok bool
		switch {
		case p.isOp("*"):
			ok = a.star == nil && a.starStar == nil
			p.next()
			a.star = p.expression(true)
		case p.isOp("**"):
			ok = a.starStar == nil
			p.next()
			a.starStar = p.expression(true)
		case p.cur().kind == tokName && p.look().kind == tokOperator && p.look().text == "=":
			key := p.next().text
			p.next()
			ok = a.starStar == nil && !slices.Contains(a.keys, key)
			a.keys = append(a.keys, key)
			a.values = append(a.values, p.expression(true))
		default:
			ok = a.star == nil && a.starStar == nil && len(a.keys) == 0
			a.positional = append(a.positional, p.expression(true))
		}
		if !ok {
			p.fail(line, "invalid arguments of a call")
		}
	}
	p.expectOp(")")
	return a
}

// filters parses the filters of {% set x | f | g %}, if any.
func (p *parser) filters(x node) node {
	for links := 0; p.isOp("|"); p.chain(&links) {
		p.next()
		x = p.filter(x)
	}
	return x
}

// filter parses the name and arguments of a filter.
func (p *parser) filter(x node) node {
	f := &filterExpr{pos: pos(p.cur().line), x: x, name: p.dotted()}
	if p.isOp("(") {
		f.args = p.args()
	}
	return f
}

func (p *parser) dotted() string {
	name := p.expectName().text
	for p.skipOp(".") {
		name += "." + p.expectName().text
	}
	return name
}

func (p *parser) test(x node) node {
	line := pos(p.next().line)
	negated := p.skipName("not")
	t := &testExpr{pos: line, x: x, name: p.dotted()}
	switch c := p.cur(); {
	case p.isOp("("):
		t.args = p.args()
	case c.kind == tokName || c.kind == tokString || c.kind == tokInteger || c.kind == tokFloat || p.isOp("[") || p.isOp("{"):
		if p.isName("else", "or", "and") {
			break
		}
		if p.isName("is") {
			p.fail(c.line, "you cannot chain multiple tests with is")
		}
		links := 0
		t.args.positional = []node{p.postfix(p.primary(false), &links)}
	}
	if negated {
		return &unaryExpr{line, "not", t}
	}
	return t
}
