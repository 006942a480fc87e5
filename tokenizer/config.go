package tokenizer

func (t *BPE) applyConfig(data []byte) error { return nil }
