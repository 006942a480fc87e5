package engine

import (
	"github.com/gomlx/compute/dtypes"

	"github.com/steerage/steerage/model"
	"github.com/steerage/steerage/pjrt"
)

// Survey says how a model would sit on a device of this machine. Nothing of the model is loaded for it.
type Survey struct {
	Backend pjrt.Choice
	DType   dtypes.DType // of matrices and cache there
	Plan    Plan         // its Limit is what is free on the device now, 0 if that is not known; the plan may be above it
}

// SurveyModel opens the backend of opt, works out the plan for a model with matrices of the stored dtype, and closes the backend. With
// opt.MaxContext 0 the context is the model's own, at most 8192, whether it fits or not. Without opt.MemoryLimit the limit is what is free.
func SurveyModel(cfg *model.Config, stored dtypes.DType, opt Options) (s Survey, err error) {
	backend, choice, err := pjrt.Select(opt.Backend, pjrt.Options{})
	if err != nil {
		return s, err
	}
	defer backend.Finalize()
	s.Backend = choice
	platform := platformOf(choice)
	if s.DType, err = computeDType(opt.DType, stored, platform); err != nil {
		return s, err
	}
	limit := opt.MemoryLimit
	if limit == 0 {
		limit = freeMemory(backend, platform)
	}
	opt.MemoryLimit = 0 // what does not fit is an answer here, not an error
	s.Plan, err = PlanMemory(cfg, s.DType, opt)
	s.Plan.Limit = limit
	return s, err
}

// LargestContext is the most tokens that each of batch requests can have at the same time within the plan's limit, at most positions. It is
// 0 if not one fits, and positions if the limit is not known.
func (p Plan) LargestContext(batch, positions int) int {
	if p.Limit == 0 {
		return positions
	}
	left := p.Limit - p.Weights - p.Workspace
	return int(max(0, min(left/(p.KVPerToken*int64(batch)), int64(positions))))
}
