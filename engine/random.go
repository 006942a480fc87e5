package engine

import (
	"fmt"
	"hash/fnv"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
)

// randomWeights is a source of weights that are made up, see Options.RandomWeights: norms are 1, matrices uniform with the standard
// deviation 0.02 that transformers initialises with. Each weight is a function of its name, so two runs agree. They are written
// straight to where a checkpoint would be read to, so the memory is that of a loaded model.
func randomWeights(cfg *model.Config) *source {
	const spread = 0.02 * 1.7320508 // a uniform distribution reaches √3 standard deviations
	dtype := dtypes.BFloat16
	switch cfg.DType {
	case "float32":
		dtype = dtypes.Float32
	case "float16":
		dtype = dtypes.Float16
	}
	return &source{
		dtype:  dtype,
		stored: func(string) dtypes.DType { return dtype },
		fill: func(_ layers.Platform, w model.Weight, _ shapes.Shape, flat any) error {
			next := func() float32 { return 1 }
			if w.Kind != model.Norm {
				seed := fnv.New64a()
				_, _ = seed.Write([]byte(w.Name))
				x := seed.Sum64()
				next = func() float32 { // a linear congruential generator (Knuth's MMIX), its upper bits
					x = x*6364136223846793005 + 1442695040888963407
					return float32(int32(x>>32)) * spread / (1 << 31)
				}
			}
			switch flat := flat.(type) {
			case []float32:
				for i := range flat {
					flat[i] = next()
				}
			case []bfloat16.BFloat16:
				for i := range flat {
					flat[i] = bfloat16.FromFloat32(next())
				}
			case []float16.Float16:
				for i := range flat {
					flat[i] = float16.FromFloat32(next())
				}
			default:
				return fmt.Errorf("no random data of %T", flat)
			}
			return nil
		},
		close: func() error { return nil },
	}
}
