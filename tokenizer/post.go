package tokenizer

import "fmt"

// template is what the post-processor puts around the ids of one text when special tokens are asked for.
type template struct{ before, after []int32 }

// readPostProcessor reads "post_processor". ByteLevel changes offsets only, and those of the text whether it comes before
// or after the TemplateProcessing, of which there is at most one.
func (t *BPE) readPostProcessor(n node) error {
	if n == nil {
		return nil
	}
	templates := 0
	return t.readProcessor(n, &templates)
}

func (t *BPE) readProcessor(n node, templates *int) error {
	typ, f, err := component("post_processor", n)
	if err != nil {
		return err
	}
	switch typ {
	case "Sequence":
		for _, child := range f.list("processors") {
			if err := t.readProcessor(child, templates); err != nil {
				return err
			}
		}
	case "ByteLevel":
		if prefix := f.boolean("add_prefix_space"); f.boolean("trim_offsets") {
			t.trims = append(t.trims, prefix)
		}
		f.boolOr("use_regex", true)
	case "TemplateProcessing":
		if *templates++; *templates > 1 {
			return fmt.Errorf("%s: a second one is not supported", f.where)
		}
		t.readTemplate(f)
	default:
		return fmt.Errorf("%s is not supported", f.where)
	}
	return f.done()
}

func (t *BPE) readTemplate(f *fields) {
	tokens := f.object("special_tokens")
	ids := map[string][]int32{}
	for _, name := range tokens.obj.keys {
		tok := tokens.object(name)
		tok.str("id")
		list, spelled := tok.list("ids"), tok.list("tokens")
		if tok.err == nil && len(list) != len(spelled) {
			tok.fail("has %d ids and %d tokens", len(list), len(spelled))
		}
		for i, n := range list {
			id, ok := n.(float64)
			token, known := t.IDToToken(int32(id))
			if !ok || id != float64(int32(id)) || !known {
				tok.fail("ids has %s, which is not in the vocabulary", kind(n))
			} else if i < len(spelled) && spelled[i] != token {
				tok.fail("id %d is %.200q in the vocabulary, not %s", int32(id), token, kind(spelled[i]))
			}
			ids[name] = append(ids[name], int32(id))
		}
		if err := tok.done(); err != nil {
			f.fail("%w", err)
			return
		}
	}
	single := t.templatePieces(f, "single", ids)
	t.templatePieces(f, "pair", ids) // read to refuse what is malformed; pairs of texts are never encoded
	if f.err != nil {
		return
	}
	texts := 0
	for _, piece := range single {
		switch {
		case piece.text == "A":
			texts++
		case piece.text == "B":
			f.fail("single has the second sequence")
		case texts == 0:
			t.template.before = append(t.template.before, piece.ids...)
		default:
			t.template.after = append(t.template.after, piece.ids...)
		}
	}
	if texts != 1 {
		f.fail("single has the sequence %d times, want once", texts)
	}
}

type templatePiece struct {
	text string // "A" or "B", or
	ids  []int32
}

func (t *BPE) templatePieces(f *fields, name string, ids map[string][]int32) (pieces []templatePiece) {
	for _, n := range f.list(name) {
		o, ok := n.(*object)
		if !ok || len(o.keys) != 1 {
			f.fail("%s has %s, want an object with one key", name, kind(n))
			return nil
		}
		piece := &fields{where: f.where + " " + name, obj: o}
		inner := piece.object(o.keys[0])
		id := inner.str("id")
		inner.integer("type_id")
		switch o.keys[0] {
		case "Sequence":
			if inner.err == nil && id != "A" && id != "B" {
				inner.fail("id %.200q, want A or B", id)
			}
			pieces = append(pieces, templatePiece{text: id})
		case "SpecialToken":
			list, ok := ids[id]
			if inner.err == nil && !ok {
				inner.fail("id %.200q is not in special_tokens", id)
			}
			pieces = append(pieces, templatePiece{ids: list})
		default:
			inner.fail("unknown piece")
		}
		if err := inner.done(); err != nil {
			f.fail("%w", err)
			return nil
		}
	}
	return pieces
}
