package chat

import (
	"math/big"
)

// This file holds the tests of `x is name`.

type testFunc func(r *run, x value, args []value, kw []keyword) bool

var tests map[string]testFunc

func (r *run) applyTest(name string, x value, args []value, kw []keyword) bool {
	t, ok := tests[name]
	if !ok {
		r.fail("no test named %q", name)
	}
	return t(r, x, args, kw)
}

// typeTest is a test without arguments.
func typeTest(name string, is func(r *run, x value) bool) testFunc {
	return func(r *run, x value, args []value, kw []keyword) bool {
		r.bind(name, args, kw, 0)
		return is(r, x)
	}
}

func operatorTest(op string) testFunc {
	return func(r *run, x value, args []value, kw []keyword) bool {
		a := r.bind(op, args, kw, 1, "/other")
		return r.compare(op, x, a[0])
	}
}

func isType[T any](name string) testFunc {
	return typeTest(name, func(_ *run, x value) bool { _, ok := x.(T); return ok })
}

func isBool(x value) bool { _, ok := x.(bool); return ok }

func init() { // not a composite literal: select reaches back to it
	tests = map[string]testFunc{
		"defined":   typeTest("defined", func(_ *run, x value) bool { _, ok := x.(*undefined); return !ok }),
		"undefined": isType[*undefined]("undefined"),
		"none":      typeTest("none", func(_ *run, x value) bool { return x == nil }),
		"boolean":   isType[bool]("boolean"),
		"true":      typeTest("true", func(_ *run, x value) bool { return x == true }),
		"false":     typeTest("false", func(_ *run, x value) bool { return x == false }),
		"integer": typeTest("integer", func(_ *run, x value) bool {
			_, _, _, kind := number(x)
			return kind == 1 && !isBool(x)
		}),
		"float":  isType[float64]("float"),
		"number": typeTest("number", func(_ *run, x value) bool { return isNumber(x) }),
		"string": typeTest("string", func(_ *run, x value) bool {
			switch x.(type) {
			case string, markup:
				return true
			}
			return false
		}),
		"mapping":  isType[*dict]("mapping"),
		"iterable": typeTest("iterable", func(r *run, x value) bool { _, ok := r.iterate(x); return ok || isMarkup(x) }),
		"sequence": typeTest("sequence", func(_ *run, x value) bool {
			switch x.(type) { // those with a length and a subscript
			case string, markup, *list, *tuple, *dict, *intRange, *undefined:
				return true
			}
			return false
		}),
		"callable": typeTest("callable", func(_ *run, x value) bool {
			switch x.(type) {
			case *builtin, *macro, *loopContext, *joiner, *undefined:
				return true
			}
			return false
		}),
		"escaped": isType[markup]("escaped"),
		"lower":   typeTest("lower", func(r *run, x value) bool { return hasCase(r.str(x), isLower) }),
		"upper":   typeTest("upper", func(r *run, x value) bool { return hasCase(r.str(x), isUpper) }),
		"odd":     typeTest("odd", func(r *run, x value) bool { return r.equal(r.binary("%", x, int64(2)), int64(1)) }),
		"even":    typeTest("even", func(r *run, x value) bool { return r.equal(r.binary("%", x, int64(2)), int64(0)) }),
		"divisibleby": func(r *run, x value, args []value, kw []keyword) bool {
			a := r.bind("divisibleby", args, kw, 1, "num")
			return r.equal(r.binary("%", x, a[0]), int64(0))
		},
		"in": func(r *run, x value, args []value, kw []keyword) bool {
			a := r.bind("in", args, kw, 1, "seq")
			return r.contains(a[0], x)
		},
		"sameas": func(r *run, x value, args []value, kw []keyword) bool {
			a := r.bind("sameas", args, kw, 1, "other")
			return r.same(x, a[0])
		},
		"filter": typeTest("filter", func(r *run, x value) bool { s, ok := hashKey(r, x).(string); return ok && filters[s] != nil }),
		"test":   typeTest("test", func(r *run, x value) bool { s, ok := hashKey(r, x).(string); return ok && tests[s] != nil }),
	}
	for op, names := range map[string][]string{
		"==": {"==", "eq", "equalto"},
		"!=": {"!=", "ne"},
		">":  {">", "gt", "greaterthan"},
		">=": {">=", "ge"},
		"<":  {"<", "lt", "lessthan"},
		"<=": {"<=", "le"},
	} {
		for _, name := range names {
			tests[name] = operatorTest(op)
		}
	}
}

func isMarkup(x value) bool { _, ok := x.(markup); return ok }

// same is Python's `is`, where it does not depend on which equal objects happen to be one.
func (r *run) same(a, b value) bool {
	if typeName(a) != typeName(b) {
		return false
	}
	switch a.(type) {
	case nil, bool:
		return a == b
	case int64, *big.Int, float64, string, markup, *tuple:
		if r.equal(a, b) {
			r.fail("whether two equal values of type %s are the same is not supported", typeName(a))
		}
		return false
	case *builtin, *undefined:
		r.fail("sameas of %s is not supported", describe(a))
	}
	return a == b
}
