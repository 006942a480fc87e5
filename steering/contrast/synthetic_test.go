package contrast

import "math/rand/v2"

// synthetic makes classes that differ along a direction of their own at every layer, the more the deeper.
func synthetic(layers, pos, neg, hidden int, seed uint64) Embeddings {
	rng := rand.New(rand.NewPCG(seed, 0))
	e := Embeddings{Hidden: hidden, NumHiddenLayers: layers, Paired: pos == neg}
	for l := range layers {
		direction := make([]float32, hidden)
		for i := range direction {
			direction[i] = float32(rng.NormFloat64()) * float32(l+1) / float32(layers)
		}
		draw := func(n int, sign float32) (out []float32) {
			for range n {
				for i := range hidden {
					out = append(out, 1+float32(rng.NormFloat64())+sign*direction[i]/2)
				}
			}
			return out
		}
		e.Layers = append(e.Layers, l)
		e.Positive = append(e.Positive, draw(pos, 1))
		e.Negative = append(e.Negative, draw(neg, -1))
	}
	return e
}
