package chat

import (
	"fmt"
	"math"
	"math/big"
	"strings"
)

// This file evaluates expressions.

func (r *run) eval(n node, a *activation) value {
	r.step(1)
	switch n := n.(type) {
	case *constExpr:
		return n.value
	case *nameExpr:
		if v := *a.at(n.ref); v != missing {
			return v
		}
		return &undefined{fmt.Sprintf("%q is undefined", n.name)}
	case *attrExpr:
		x := r.eval(n.x, a)
		r.line = n.line()
		return r.getAttr(x, n.name)
	case *itemExpr:
		x := r.eval(n.x, a)
		if s, ok := n.index.(*sliceExpr); ok {
			return r.slice(x, s, a)
		}
		i := r.eval(n.index, a)
		r.line = n.line()
		return r.getItem(x, i)
	case *callExpr:
		return r.evalCall(n, a, nil)
	case *filterExpr:
		return r.evalFilter(n, missing, a)
	case *testExpr:
		x := r.eval(n.x, a)
		args, kw := r.evalArgs(n.args, a)
		r.line = n.line()
		return r.applyTest(n.name, x, args, kw)
	case *condExpr:
		if r.truth(r.eval(n.test, a)) {
			return r.eval(n.yes, a)
		}
		if n.no == nil {
			return &undefined{"the inline if was false and has no else"}
		}
		return r.eval(n.no, a)
	case *logicExpr:
		left := r.eval(n.left, a)
		if r.truth(left) == n.or {
			return left
		}
		return r.eval(n.right, a)
	case *unaryExpr:
		x := r.eval(n.x, a)
		r.line = n.line()
		return r.unary(n.op, x)
	case *binaryExpr:
		left := r.eval(n.left, a)
		right := r.eval(n.right, a)
		r.line = n.line()
		return r.binary(n.op, left, right)
	case *compareExpr:
		left := r.eval(n.x, a)
		for i, op := range n.ops {
			right := r.eval(n.with[i], a)
			r.line = n.line()
			if !r.compare(op, left, right) {
				return false
			}
			left = right
		}
		return true
	case *concatExpr:
		parts := make([]value, len(n.items))
		for i, item := range n.items {
			parts[i] = r.eval(item, a)
		}
		r.line = n.line()
		b := builder{r: r}
		for _, p := range parts {
			b.write(r.str(p))
		}
		return b.String()
	case *listExpr:
		return &list{r.evalAll(n.items, a)}
	case *tupleExpr:
		return &tuple{items: r.evalAll(n.items, a)}
	case *dictExpr:
		d := &dict{}
		for i := range n.keys {
			k := r.eval(n.keys[i], a)
			v := r.eval(n.values[i], a)
			r.line = n.line()
			r.alloc(entrySize)
			d.set(r, k, v)
		}
		return d
	}
	r.fail("internal: expression %T", n)
	return nil
}

func (r *run) evalAll(ns []node, a *activation) []value {
	r.alloc(len(ns) * valueSize)
	items := make([]value, len(ns))
	for i, n := range ns {
		items[i] = r.eval(n, a)
	}
	return items
}

func (r *run) evalArgs(c callArgs, a *activation) (args []value, kw []keyword) {
	if len(c.positional) > 0 {
		args = r.evalAll(c.positional, a)
	}
	for i, key := range c.keys {
		kw = append(kw, keyword{key, r.eval(c.values[i], a)})
	}
	if c.star != nil {
		args = append(args, r.collect(r.eval(c.star, a))...)
	}
	if c.starStar != nil {
		d, ok := r.eval(c.starStar, a).(*dict)
		if !ok {
			r.fail("the argument after ** must be a dict")
		}
		for _, e := range d.entries {
			name, ok := e.key.(string)
			if !ok {
				r.fail("a keyword argument must be a string")
			}
			for _, k := range kw {
				if k.name == name {
					r.fail("several values for the keyword argument %q", name)
				}
			}
			r.step(1 + len(kw))
			r.alloc(entrySize)
			kw = append(kw, keyword{name, e.value})
		}
	}
	return args, kw
}

func (r *run) evalCall(n *callExpr, a *activation, caller *macro) value {
	fn := r.eval(n.fn, a)
	args, kw := r.evalArgs(n.args, a)
	r.line = n.line()
	if caller != nil {
		for _, k := range kw {
			if k.name == "caller" {
				r.fail("several values for the keyword argument \"caller\"")
			}
		}
		kw = append(kw, keyword{"caller", caller})
	}
	switch fn := fn.(type) {
	case *builtin:
		return fn.call(r, args, kw)
	case *macro:
		return fn.invoke(r, args, kw)
	case *loopContext:
		if fn.recurse == nil {
			r.fail("the loop must be recursive to be called")
		}
		if len(args) != 1 || len(kw) > 0 {
			r.fail("loop(…) takes one argument")
		}
		return fn.recurse(args[0], fn.depth0+1)
	case *joiner:
		if len(args)+len(kw) > 0 {
			r.fail("a joiner takes no arguments")
		}
		if fn.used {
			return fn.sep
		}
		fn.used = true
		return ""
	case *undefined:
		r.fail("%s", fn.hint)
	}
	r.fail("%s cannot be called", describe(fn))
	return nil
}

// evalFilter applies a filter. block is the text of a filter or set block, which the innermost filter of a chain gets; in
// an expression it is missing.
func (r *run) evalFilter(n *filterExpr, block value, a *activation) value {
	x := block
	if inner, ok := n.x.(*filterExpr); ok && block != missing {
		x = r.evalFilter(inner, block, a)
	} else if n.x != nil {
		x = r.eval(n.x, a)
	}
	args, kw := r.evalArgs(n.args, a)
	r.line = n.line()
	return r.applyFilter(n.name, x, args, kw)
}

// getItem is x[key]: an item, or else an attribute.
func (r *run) getItem(x, key value) value {
	if u, ok := x.(*undefined); ok {
		r.fail("%s", u.hint)
	}
	if i, ok := index(key); ok {
		switch x := x.(type) {
		case *list:
			if i = wrap(i, len(x.items)); i >= 0 {
				return x.items[i]
			}
		case *tuple:
			if i = wrap(i, len(x.items)); i >= 0 {
				return x.items[i]
			}
		case *intRange:
			if i = wrap(i, int(x.n)); i >= 0 {
				return x.start + int64(i)*x.step
			}
		case string:
			r.scan(len(x))
			if s, ok := charAt(x, i); ok {
				return s
			}
		}
	}
	if d, ok := x.(*dict); ok && hashable(key) {
		if v, ok := d.get(r, key); ok {
			return v
		}
	}
	name, ok := key.(string)
	if !ok {
		if _, ok := x.(markup); ok {
			r.fail("a safe string can only be printed or added to")
		}
		return &undefined{fmt.Sprintf("%s has no element %s", describe(x), r.brief(key))}
	}
	if v, ok := r.attribute(x, name); ok {
		return v
	}
	return &undefined{fmt.Sprintf("%s has no attribute %q", describe(x), name)}
}

// brief is repr for error messages: short, and never an error itself.
func (r *run) brief(v value) string {
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
		s := r.repr(v)
		if len(s) > 60 {
			s = strings.ToValidUTF8(s[:60], "") + "…"
		}
		return s
	}
	return "of type " + typeName(v)
}

// hashable says whether x[key] may look key up: what cannot be hashed is not there.
func hashable(v value) bool {
	switch v := v.(type) {
	case *list, *dict:
		return false
	case *view:
		return v.kind == "values"
	case *tuple:
		for _, item := range v.items {
			if !hashable(item) {
				return false
			}
		}
	}
	return true
}

// index returns an integer index.
func index(v value) (int, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case int64:
		return int(v), true
	case *big.Int:
		return math.MaxInt, true // out of range for all
	}
	return 0, false
}

// wrap counts a negative index from the end; it returns -1 for one that is out of range.
func wrap(i, n int) int {
	if i < 0 {
		i += n
	}
	if i < 0 || i >= n {
		return -1
	}
	return i
}

// getAttr is x.name: an attribute (a method), or else an item.
func (r *run) getAttr(x value, name string) value {
	if u, ok := x.(*undefined); ok {
		r.fail("%s", u.hint)
	}
	if v, ok := r.attribute(x, name); ok {
		return v
	}
	if d, ok := x.(*dict); ok {
		if v, ok := d.get(r, name); ok {
			if strings.HasPrefix(name, "__") { // whether Python's dicts have such an attribute is not known here
				r.fail("the attribute %q is not supported", name)
			}
			return v
		}
	}
	return &undefined{fmt.Sprintf("%s has no attribute %q", describe(x), name)}
}

func (r *run) slice(x value, s *sliceExpr, a *activation) value {
	bound := func(n node) (int, bool) {
		if n == nil {
			return 0, false
		}
		v := r.eval(n, a)
		if v == nil {
			return 0, false
		}
		if b, ok := v.(*big.Int); ok {
			if b.Sign() < 0 {
				return math.MinInt, true
			}
			return math.MaxInt, true
		}
		i, ok := index(v)
		if !ok {
			r.fail("slicing by %s is not supported", describe(v))
		}
		return i, true
	}
	start, hasStart := bound(s.start)
	stop, hasStop := bound(s.stop)
	step, hasStep := bound(s.step)
	r.line = s.line()
	if !hasStep {
		step = 1
	}
	if step == 0 {
		r.fail("slice step cannot be zero")
	}
	// indices is Python's slice.indices(n), and the number of items.
	indices := func(n int) (int, int) {
		low, high := 0, n
		if step < 0 {
			low, high = -1, n-1
		}
		clip := func(i int, ok bool, missing int) int {
			if !ok {
				return missing
			}
			if i < 0 {
				return max(i+n, low)
			}
			return min(i, high)
		}
		if step > 0 {
			from, to := clip(start, hasStart, low), clip(stop, hasStop, high)
			if from >= to {
				return 0, 0
			}
			return from, (to-from-1)/step + 1
		}
		from, to := clip(start, hasStart, high), clip(stop, hasStop, low)
		if to >= from {
			return 0, 0
		}
		if step == math.MinInt {
			return from, 1
		}
		return from, (from-to-1)/-step + 1
	}
	pick := func(items []value) []value {
		from, count := indices(len(items))
		r.step(1 + count>>3)
		r.alloc(count * valueSize)
		out := make([]value, count)
		for i := range out {
			out[i] = items[from+i*step]
		}
		return out
	}
	switch x := x.(type) {
	case *list:
		return &list{pick(x.items)}
	case *tuple:
		return &tuple{items: pick(x.items)}
	case string:
		r.scan(len(x))
		if step == 1 && isASCII(x) {
			from, count := indices(len(x))
			return x[from : from+count]
		}
		r.alloc(4 * len(x))
		runes := []rune(x)
		from, count := indices(len(runes))
		out := make([]rune, count)
		for i := range out {
			out[i] = runes[from+i*step]
		}
		return string(out)
	case *intRange:
		from, count := indices(int(x.n))
		if count == 0 || step != 1 || x.step != 1 {
			r.fail("this slice of a range is not supported")
		}
		return &intRange{x.start + int64(from), x.start + int64(from+count), 1, int64(count)}
	case *undefined:
		r.fail("%s", x.hint)
	}
	r.fail("slicing %s is not supported", describe(x))
	return nil
}

func (r *run) compare(op string, a, b value) bool {
	switch op {
	case "==":
		return r.equal(a, b)
	case "!=":
		return !r.equal(a, b)
	case "in":
		return r.contains(b, a)
	case "not in":
		return !r.contains(b, a)
	}
	return r.order(a, b, op, 0)
}

func (r *run) unary(op string, x value) value {
	if op == "not" {
		return !r.truth(x)
	}
	i, small, f, kind := number(x)
	switch {
	case kind == 0:
		r.fail("%s has no unary '%s'", describe(x), op)
	case op == "+" && kind == 1 && i == nil:
		return small
	case op == "+":
		return x
	case kind == 2:
		return -f
	case i == nil && small != math.MinInt64:
		return -small
	}
	return normInt(new(big.Int).Neg(toBig(x)))
}

func (r *run) binary(op string, a, b value) value {
	if s, ok := a.(string); ok && op == "%" { // str's own operator, which takes what is undefined as well
		return r.percent(s, b)
	}
	for _, v := range []value{a, b} {
		switch v := v.(type) {
		case *undefined:
			r.fail("%s", v.hint)
		}
	}
	switch op {
	case "+":
		if isMarkup(a) || isMarkup(b) {
			return r.escaped(a) + r.escaped(b)
		}
		switch a := a.(type) {
		case string:
			if b, ok := b.(string); ok {
				if a == "" {
					return b
				}
				r.alloc(len(a) + len(b))
				r.scan(len(a) + len(b))
				if len(a)+len(b) > r.max.text {
					r.fail("a string is longer than %d MiB", r.max.text>>20)
				}
				return a + b
			}
		case *list:
			if b, ok := b.(*list); ok {
				return &list{r.join(a.items, b.items)}
			}
		case *tuple:
			if b, ok := b.(*tuple); ok {
				return &tuple{items: r.join(a.items, b.items)}
			}
		}
	case "*":
		if n, ok := index(a); ok {
			switch b.(type) {
			case string, *list, *tuple:
				return r.repeat(b, n)
			}
		}
		if n, ok := index(b); ok {
			switch a.(type) {
			case string, *list, *tuple:
				return r.repeat(a, n)
			}
		}
	}
	if isNumber(a) && isNumber(b) {
		return r.arithmetic(op, a, b)
	}
	r.fail("'%s' is not supported between %s and %s", op, typeName(a), typeName(b))
	return nil
}

// escaped is an operand of + beside a safe string, as a safe string itself.
func (r *run) escaped(v value) markup {
	switch v := v.(type) {
	case markup:
		r.alloc(len(v))
		return v
	case string:
		r.alloc(6 * len(v))
		return markup(htmlEscapes.Replace(v))
	}
	r.fail("'+' is not supported between a safe string and %s", typeName(v))
	return ""
}

func (r *run) join(a, b []value) []value {
	n := len(a) + len(b)
	r.alloc(n * valueSize)
	r.step(1 + n>>3)
	return append(append(make([]value, 0, n), a...), b...)
}

func (r *run) repeat(v value, n int) value {
	if n == math.MaxInt { // an integer beyond 64 bits, see index
		r.fail("cannot repeat a value that often")
	}
	n = max(n, 0)
	repeatItems := func(items []value) []value {
		total := r.repeated(len(items), n)
		r.alloc(r.repeated(total, valueSize))
		out := make([]value, 0, total)
		if len(items) > 0 {
			for range n {
				out = append(out, items...)
			}
		}
		return out
	}
	switch v := v.(type) {
	case string:
		total := r.repeated(len(v), n)
		if total > r.max.text {
			r.fail("a string is longer than %d MiB", r.max.text>>20)
		}
		r.alloc(total)
		if total == 0 {
			return ""
		}
		return strings.Repeat(v, n)
	case *list:
		return &list{repeatItems(v.items)}
	default:
		return &tuple{items: repeatItems(v.(*tuple).items)}
	}
}

func (r *run) arithmetic(op string, a, b value) value {
	ai, as, af, ak := number(a)
	bi, bs, bf, bk := number(b)
	if op == "/" && ak == 1 && bk == 1 {
		if ai != nil || bi != nil || as > 1<<53 || as < -1<<53 || bs > 1<<53 || bs < -1<<53 {
			r.fail("division of integers beyond 2^53 is not supported")
		}
		if bs == 0 {
			r.fail("division by zero")
		}
		return af / bf
	}
	if ak == 2 || bk == 2 {
		for _, v := range []value{a, b} {
			if i, ok := v.(*big.Int); ok && i.BitLen() > 1000 {
				r.fail("an integer of %d bits is too large for a float", i.BitLen())
			}
		}
		return r.floatArithmetic(op, af, bf)
	}
	if ai == nil && bi == nil {
		switch op {
		case "+":
			if c := as + bs; (c > as) == (bs > 0) {
				return c
			}
		case "-":
			if c := as - bs; (c < as) == (bs > 0) {
				return c
			}
		case "*":
			if as == 0 || bs == 0 {
				return int64(0)
			}
			if c := as * bs; c/bs == as && !(as == -1 && bs == math.MinInt64) && !(bs == -1 && as == math.MinInt64) {
				return c
			}
		case "//", "%":
			if bs == 0 {
				r.fail("division by zero")
			}
			if bs == -1 && as == math.MinInt64 {
				break
			}
			q, m := as/bs, as%bs
			if m != 0 && (m < 0) != (bs < 0) {
				q, m = q-1, m+bs
			}
			if op == "//" {
				return q
			}
			return m
		}
	}
	x, y := toBig(a), toBig(b)
	z := new(big.Int)
	switch op {
	case "+":
		z.Add(x, y)
	case "-":
		z.Sub(x, y)
	case "*":
		z.Mul(x, y)
	case "//", "%":
		if y.Sign() == 0 {
			r.fail("division by zero")
		}
		q, m := new(big.Int).QuoRem(x, y, new(big.Int))
		if m.Sign() != 0 && m.Sign() != y.Sign() {
			q.Sub(q, big.NewInt(1))
			m.Add(m, y)
		}
		if z = m; op == "//" {
			z = q
		}
	case "**":
		if y.Sign() < 0 {
			return r.floatArithmetic(op, af, bf)
		}
		if x.BitLen() > 1 && (!y.IsInt64() || y.Int64() > maxBits || int64(x.BitLen())*y.Int64() > 2*maxBits) {
			r.fail("an integer has more than %d bits", maxBits)
		}
		if x.BitLen() <= 1 { // -1, 0, 1
			switch {
			case y.Sign() == 0:
				return int64(1)
			case x.Sign() < 0 && y.Bit(0) == 0:
				return int64(1)
			}
			return normInt(x)
		}
		z.Exp(x, y, nil)
	}
	if z.BitLen() > maxBits {
		r.fail("an integer has more than %d bits", maxBits)
	}
	r.alloc(z.BitLen() / 8)
	r.step(1 + z.BitLen()>>6)
	return normInt(z)
}

func (r *run) floatArithmetic(op string, a, b float64) value {
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "/":
		if b == 0 {
			r.fail("division by zero")
		}
		return a / b
	case "//", "%":
		if b == 0 {
			r.fail("division by zero")
		}
		// As CPython's float_divmod does it.
		mod := math.Mod(a, b)
		div := (a - mod) / b
		if mod != 0 {
			if (b < 0) != (mod < 0) {
				mod += b
				div--
			}
		} else {
			mod = math.Copysign(0, b)
		}
		if op == "%" {
			return mod
		}
		if div != 0 {
			floor := math.Floor(div)
			if div-floor > 0.5 {
				floor++
			}
			return floor
		}
		return math.Copysign(0, a/b)
	case "**":
		if a == 0 && b < 0 {
			r.fail("0.0 cannot be raised to a negative power")
		}
		if a < 0 && b != math.Trunc(b) {
			r.fail("complex numbers are not supported")
		}
		p, ok := floatPower(a, b)
		if !ok {
			r.fail("the power of %s to %s is not supported", floatRepr(a), floatRepr(b))
		}
		if math.IsInf(p, 0) && !math.IsInf(a, 0) && !math.IsInf(b, 0) {
			r.fail("result too large")
		}
		return p
	}
	return nil
}

// floatPower is C's pow where it can be had exactly rounded: for whole exponents and square roots. Go's math.Pow is off
// by a unit in the last place too often.
func floatPower(a, b float64) (p float64, ok bool) {
	switch {
	case a == 0 || a == 1 || math.IsInf(a, 0) || math.IsNaN(a) || math.IsInf(b, 0) || math.IsNaN(b) || b == 0:
		return math.Pow(a, b), true
	case b == 0.5:
		return math.Sqrt(a), true
	case b != math.Trunc(b) || math.Abs(b) > 1100:
		return 0, false
	}
	const precision = 2048
	x := new(big.Float).SetPrec(precision).SetFloat64(a)
	y := new(big.Float).SetPrec(precision).SetInt64(1)
	for n := int(math.Abs(b)); n > 0; n >>= 1 {
		if n&1 == 1 {
			y.Mul(y, x)
		}
		x.Mul(x, x)
	}
	if b < 0 {
		y.Quo(new(big.Float).SetPrec(precision).SetInt64(1), y)
	}
	p, _ = y.Float64()
	return p, true
}
