package tokenizer

import "fmt"

// Stream decodes ids as they come. The pieces that Push returns and the one from Flush, joined, are exactly what Decode
// returns for all the ids. A piece never ends inside a character: what could still change is kept back, which is an
// incomplete character with a byte-level vocabulary, and a run of byte tokens with a SentencePiece one (Hugging Face
// decides about such a run as a whole). A Stream is for one goroutine.
type Stream struct {
	tok         Tokenizer
	skipSpecial bool
	pipe        *pipe // nil: tok is not of this package
	ids         []int32
}

// NewStream starts a stream. Only the tokenizers of this package are decoded piece by piece; of another nothing is known
// but its whole Decode, so that its text comes from Flush.
func NewStream(tok Tokenizer, skipSpecialTokens bool) *Stream {
	s := &Stream{tok: tok, skipSpecial: skipSpecialTokens}
	if t, ok := tok.(interface{ newPipe() *pipe }); ok {
		s.pipe = t.newPipe()
	}
	return s
}

// Push adds one id and returns the text that became final, often "". Ids that Decode would drop or refuse add nothing.
func (s *Stream) Push(id int32) string {
	if s.pipe == nil {
		if id >= 0 {
			s.ids = append(s.ids, id)
		}
		return ""
	}
	s.pipe.push(id, s.skipSpecial)
	return s.pipe.take()
}

// Flush ends the text and returns the rest of it. The stream then starts anew.
func (s *Stream) Flush() string {
	if s.pipe == nil {
		text, err := s.tok.Decode(s.ids, s.skipSpecial)
		s.ids = nil
		if err != nil {
			return ""
		}
		return text
	}
	s.pipe.chain.flush()
	text := s.pipe.take()
	s.pipe = s.pipe.t.newPipe()
	return text
}

// Decode is [Tokenizer.Decode].
func (t *BPE) Decode(ids []int32, skipSpecialTokens bool) (string, error) {
	p := t.newPipe()
	p.out.buf = make([]byte, 0, 4*len(ids))
	for i, id := range ids {
		if id < 0 {
			return "", errNegative(id, i)
		}
		p.push(id, skipSpecialTokens)
	}
	p.chain.flush()
	return p.take(), nil
}

func errNegative(id int32, at int) error {
	return fmt.Errorf("tokenizer: id %d at position %d is negative", id, at)
}

// pipe is the decoders of one text under way.
type pipe struct {
	t     *BPE
	chain stage
	out   sink
	token []byte
}

func (t *BPE) newPipe() *pipe {
	p := &pipe{t: t}
	p.chain = &p.out
	for i := len(t.decoders) - 1; i >= 0; i-- {
		p.chain = t.decoders[i](p.chain)
	}
	return p
}

func (p *pipe) push(id int32, skipSpecial bool) {
	if skipSpecial && p.t.special[id] {
		return
	}
	if token, ok := p.t.spelling(id); ok {
		p.token = append(p.token[:0], token...)
		emit(p.chain, p.token)
	}
}

func (p *pipe) take() string {
	text := string(p.out.buf)
	p.out.buf = p.out.buf[:0]
	return text
}

// sink is the end of a chain.
type sink struct{ buf []byte }

func (s *sink) text(fragment []byte) { s.buf = append(s.buf, fragment...) }
func (s *sink) end()                 {}
func (s *sink) flush()               {}
