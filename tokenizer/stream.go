package tokenizer

import "fmt"

// Stream decodes ids as they come. The pieces that Push returns and the one from Flush, joined, are exactly what Decode
// returns for all the ids. A piece never ends inside a character: what could still change is kept back, which is an
// incomplete character with a byte-level vocabulary, and a run of byte tokens with a SentencePiece one (Hugging Face
// decides about such a run as a whole). A Stream is for one goroutine.
type Stream struct {
	tok         Tokenizer
	skipSpecial bool
	chain       stage // nil: tok is not of this package
	out         sink
	ids         []int32
}

// NewStream starts a stream. Only a *BPE is decoded piece by piece; of another Tokenizer nothing is known but its whole
// Decode, so that its text comes from Flush.
func NewStream(tok Tokenizer, skipSpecialTokens bool) *Stream {
	s := &Stream{tok: tok, skipSpecial: skipSpecialTokens}
	if t, ok := tok.(*BPE); ok {
		s.chain = t.chain(&s.out)
	}
	return s
}

// Push adds one id and returns the text that became final, often "". Ids that Decode would drop or refuse add nothing.
func (s *Stream) Push(id int32) string {
	if s.chain == nil {
		if id >= 0 {
			s.ids = append(s.ids, id)
		}
		return ""
	}
	s.tok.(*BPE).push(s.chain, id, s.skipSpecial)
	return s.out.take()
}

// Flush ends the text and returns the rest of it. The stream then starts anew.
func (s *Stream) Flush() string {
	if s.chain == nil {
		text, err := s.tok.Decode(s.ids, s.skipSpecial)
		s.ids = nil
		if err != nil {
			return ""
		}
		return text
	}
	s.chain.flush()
	text := s.out.take()
	s.chain = s.tok.(*BPE).chain(&s.out)
	return text
}

// Decode is [Tokenizer.Decode].
func (t *BPE) Decode(ids []int32, skipSpecialTokens bool) (string, error) {
	out := sink{buf: make([]byte, 0, 4*len(ids))}
	chain := t.chain(&out)
	for i, id := range ids {
		if id < 0 {
			return "", fmt.Errorf("tokenizer: id %d at position %d is negative", id, i)
		}
		t.push(chain, id, skipSpecialTokens)
	}
	chain.flush()
	return string(out.buf), nil
}

func (t *BPE) chain(out *sink) stage {
	var s stage = out
	for i := len(t.decoders) - 1; i >= 0; i-- {
		s = t.decoders[i](s)
	}
	return s
}

func (t *BPE) push(chain stage, id int32, skipSpecial bool) {
	if skipSpecial && t.special[id] {
		return
	}
	if token, ok := t.spelling(id); ok {
		emit(chain, []byte(token))
	}
}

// sink is the end of a chain.
type sink struct{ buf []byte }

func (s *sink) text(fragment []byte) { s.buf = append(s.buf, fragment...) }
func (s *sink) end()                 {}
func (s *sink) flush()               {}

func (s *sink) take() string {
	text := string(s.buf)
	s.buf = s.buf[:0]
	return text
}
