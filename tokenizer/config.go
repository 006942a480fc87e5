package tokenizer

import (
	"fmt"
	"slices"
	"strconv"
)

// anyID stands for the id of a token whose file does not give one.
const anyID = -1

// readConfig reads what tokenizer_config.json adds to a tokenizer.json when transformers (5.23) loads both: the tokens
// of added_tokens_decoder, whose attributes win, then the named and extra special tokens that are new. Nothing else in
// it changes ids: add_bos_token, add_eos_token, add_prefix_space and clean_up_tokenization_spaces are not looked at
// when there is a tokenizer.json.
func readConfig(data []byte) ([]addedToken, error) {
	r := &reader{data: data}
	n, err := r.value()
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return nil, err
	}
	root, ok := n.(*object)
	if !ok {
		return nil, fmt.Errorf("want an object, have %s", kind(n))
	}
	var list []addedToken
	switch decoder := root.values["added_tokens_decoder"].(type) {
	case nil:
	case *object:
		for _, key := range decoder.keys {
			id, err := strconv.ParseInt(key, 10, 32)
			if err != nil || id < 0 {
				return nil, fmt.Errorf("added_tokens_decoder: %.200q is not an id", key)
			}
			tok, err := configToken(fmt.Sprintf("added_tokens_decoder %d", id), decoder.values[key])
			if err != nil {
				return nil, err
			}
			tok.id = int32(id)
			list = append(list, tok)
		}
		slices.SortStableFunc(list, func(a, b addedToken) int { return int(a.id) - int(b.id) })
	default:
		return nil, fmt.Errorf("added_tokens_decoder is %s, want an object", kind(decoder))
	}
	add := func(where string, n node) error {
		if n == nil {
			return nil
		}
		tok, err := configToken(where, n)
		tok.id, tok.onlyIfNew = anyID, true
		list = append(list, tok)
		return err
	}
	for _, name := range []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"} {
		if err := add(name, root.values[name]); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"additional_special_tokens", "extra_special_tokens"} {
		switch extra := root.values[name].(type) {
		case nil:
		case []node:
			for _, n := range extra {
				if err := add(name, n); err != nil {
					return nil, err
				}
			}
		case *object: // {"image_token": "<image>"}
			for _, key := range extra.keys {
				if err := add(name+" "+key, extra.values[key]); err != nil {
					return nil, err
				}
			}
		default:
			return nil, fmt.Errorf("%s is %s, want an array or an object", name, kind(extra))
		}
	}
	return list, nil
}

// configToken reads a token given as a string, which means a special one, or as an object.
func configToken(where string, n node) (addedToken, error) {
	tok := addedToken{special: true}
	switch n := n.(type) {
	case string:
		tok.content = n
	case *object:
		f := &fields{where: where, obj: n}
		tok.content = f.str("content")
		tok.singleWord = f.boolOr("single_word", false)
		tok.lstrip = f.boolOr("lstrip", false)
		tok.rstrip = f.boolOr("rstrip", false)
		tok.special = f.boolOr("special", true)
		tok.normalized = f.boolOr("normalized", !tok.special)
		f.strOr("__type", "AddedToken")
		if f.err == nil && len(tok.content) > maxAddedToken {
			f.fail("content has %d bytes, limit %d", len(tok.content), maxAddedToken)
		}
		return tok, f.done()
	default:
		return tok, fmt.Errorf("%s is %s, want a token", where, kind(n))
	}
	if len(tok.content) > maxAddedToken {
		return tok, fmt.Errorf("%s has %d bytes, limit %d", where, len(tok.content), maxAddedToken)
	}
	return tok, nil
}
