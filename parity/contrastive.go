package parity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

// contrastive is the contrastive part of a dump: pairs of texts, and what was fitted on their embeddings.
type contrastive struct {
	aligned, malicious []engine.Sequence // the positive and the negative class; pairs
	embedded
}

// contrastiveInfo is contrastive.json.
type contrastiveInfo struct {
	Aligned   []pairText   `json:"aligned"`
	Malicious []pairText   `json:"malicious"`
	Layers    []directions `json:"layers"`
}

type pairText struct {
	IDs         []int32 `json:"ids"`
	PromptLen   int     `json:"prompt_len"`
	ResponseLen int     `json:"response_len"`
}

// openContrastive returns nil if there is none.
func openContrastive(dir string, cfg *model.Config) (*contrastive, error) {
	var info contrastiveInfo
	if err := readJSON(dir, contrastiveJSON, &info); err != nil {
		if _, other := os.Stat(filepath.Join(dir, contrastiveName)); errors.Is(err, os.ErrNotExist) && errors.Is(other, os.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	file, err := openStore(dir, contrastiveName)
	if err != nil {
		return nil, err
	}
	c := &contrastive{embedded: embedded{file: file, want: info.Layers, layered: true}}
	if err := c.read(&info, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", contrastiveJSON, err), file.Close())
	}
	return c, nil
}

func (c *contrastive) read(info *contrastiveInfo, cfg *model.Config) error {
	if len(info.Aligned) != len(info.Malicious) || len(info.Aligned) == 0 {
		return fmt.Errorf("%d aligned and %d malicious texts are not pairs", len(info.Aligned), len(info.Malicious))
	}
	for _, class := range []struct {
		name string
		from []pairText
		to   *[]engine.Sequence
	}{{"aligned", info.Aligned, &c.aligned}, {"malicious", info.Malicious, &c.malicious}} {
		for i, x := range class.from {
			if x.PromptLen < 1 || x.ResponseLen < 1 || x.PromptLen >= len(x.IDs) || x.ResponseLen != len(x.IDs)-x.PromptLen {
				return fmt.Errorf("%s[%d]: prompt_len %d and response_len %d of %d ids", class.name, i, x.PromptLen, x.ResponseLen, len(x.IDs))
			}
			for k, id := range x.IDs {
				if id < 0 || int(id) >= cfg.VocabSize {
					return fmt.Errorf("%s[%d] holds id %d at %d, the vocabulary has %d", class.name, i, id, k, cfg.VocabSize)
				}
			}
			*class.to = append(*class.to, engine.Sequence{Prompt: x.IDs[:x.PromptLen], Continuation: x.IDs[x.PromptLen:]})
		}
	}
	for i, l := range c.want {
		if l.Layer < 0 || l.Layer >= cfg.NumHiddenLayers || i > 0 && l.Layer <= c.want[i-1].Layer {
			return fmt.Errorf("layers[%d] is layer %d; they must ascend, and the model has %d", i, l.Layer, cfg.NumHiddenLayers)
		}
	}
	return c.readEmbeddings(len(c.aligned), len(c.malicious), cfg.HiddenSize, true)
}

// sequences returns the texts of both classes.
func (c *contrastive) sequences() []engine.Sequence { return slices.Concat(c.aligned, c.malicious) }

// compareContrastive captures the embeddings, fits on the dump's, and then fits on the captured.
func (r *comparison) compareContrastive() error {
	c := r.contrastive
	layers := c.e.Layers
	captured, err := r.subject.Capture(r.ctx, c.sequences(), layers, engine.Pool{Positions: steering.Response, Reduce: engine.Mean})
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	own := contrast.Embeddings{Hidden: c.e.Hidden, NumHiddenLayers: c.e.NumHiddenLayers, Layers: layers, Paired: true}
	for i, x := range captured {
		if err := own.Append(i < len(c.aligned), x[0].Values); err != nil {
			return fmt.Errorf("capture: sequence %d: %w", i, err)
		}
	}
	var means tally
	for _, class := range []struct {
		name      string
		got, want [][]float32
	}{{"pos", own.Positive, c.e.Positive}, {"neg", own.Negative, c.e.Negative}} {
		for l, layer := range layers {
			means.add(fmt.Sprintf("emb.%s, layer %d", class.name, layer), class.got[l], class.want[l], float32Bound)
		}
		r.out.floats("emb."+class.name, slices.Concat(class.got...), len(layers), len(class.got[0])/c.e.Hidden, c.e.Hidden)
	}
	r.judge("contrastive.capture", means, nil, nil)

	f, fitted := fitting{out: r.out}, (*contrast.Fitted)(nil)
	if fitted, err = r.subject.fit(r.ctx, c.e); err == nil {
		err = f.compare(&c.embedded, fitted)
	}
	if err != nil {
		return err
	}
	f.judge("contrastive.", r.row)

	// From the texts to the direction, all by the subject.
	if fitted, err = r.subject.fit(r.ctx, own); err != nil {
		return fmt.Errorf("on captured embeddings: %w", err)
	}
	var whole tally
	want, err := c.tensor("v_hat")
	if err != nil {
		return err
	}
	for l, layer := range fitted.Layers {
		whole.addDirection(fmt.Sprintf("layer %d", layer.Index), layer.Estimate(contrast.LogisticRegression).Vector, want[l], directionSlack)
	}
	r.judge("contrastive.whole", whole, nil, nil)
	return nil
}
