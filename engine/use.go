package engine

import (
	"context"
	"fmt"
	"reflect"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/steerage/steerage/layers"
	"github.com/steerage/steerage/model"
)

// Device is a model's device while a function has it for itself, see [Model.Use]. It must not be kept.
type Device struct{ d *device }

// Program is a graph of the caller's own that runs beside the engine's, on the same weights. Training is one.
type Program struct {
	Name    string         // must tell all that shapes the program: it is built once for each name
	Weights bool           // whether Build gets the model's weights
	Inputs  []shapes.Shape // of the arguments of Call
	// Build returns the results. It may panic, by GoMLX's convention; the panic becomes Call's error.
	Build func(b Builder, in []*graph.Node) []*graph.Node
}

// Builder is what Program.Build sees of the model.
type Builder struct {
	Graph    *graph.Graph
	Config   *model.Config
	Platform layers.Platform
	Params   model.Params // nil without Program.Weights
	KV       dtypes.DType // of keys and values
}

// Use gives f the device, between two steps of the requests in work, and returns when f has. Requests wait meanwhile; work that takes
// long is cut into several calls. f runs in the caller's goroutine.
func (m *Model) Use(ctx context.Context, f func(*Device) error) error {
	lent, back, refused := make(chan *device), make(chan struct{}), make(chan error, 1)
	go func() {
		refused <- m.exclusive(ctx, func(d *device) error {
			lent <- d
			<-back
			return nil
		})
	}()
	select {
	case err := <-refused:
		return err
	case d := <-lent:
		defer close(back) // even if f panics
		return f(&Device{d})
	}
}

// Backend returns the backend. Programs compiled on it directly do not know the engine's memory.
func (d *Device) Backend() compute.Backend { return d.d.backend }

// Platform says for what the model's weights are laid out.
func (d *Device) Platform() layers.Platform { return d.d.ps.platform }

// Call runs a program, which it builds and compiles if there is none of that name yet. Inputs are flat slices of the Go type
// of their shape; so are the results.
func (d *Device) Call(p *Program, inputs ...any) ([]any, error) {
	if len(inputs) != len(p.Inputs) {
		return nil, fmt.Errorf("engine: program %s takes %d inputs, got %d", p.Name, len(p.Inputs), len(inputs))
	}
	prog, err := d.d.ps.get("use "+p.Name, p.Weights, func(b *builder) []*graph.Node {
		var in []*graph.Node
		for i, s := range p.Inputs {
			in = append(in, graph.Parameter(b.g, fmt.Sprintf("in_%d", i), s))
		}
		view := Builder{Graph: b.g, Config: b.cfg, Platform: b.platform, KV: b.kv}
		if p.Weights {
			view.Params = b.w
		}
		return p.Build(view, in)
	})
	if err != nil {
		return nil, err
	}
	var buffers []compute.Buffer
	defer func() { finalize(buffers) }()
	for i, flat := range inputs {
		want := p.Inputs[i] // the backend would read beyond a slice that is too short
		if v := reflect.ValueOf(flat); v.Kind() != reflect.Slice || v.Type().Elem() != want.DType.GoType() || v.Len() != want.Size() {
			return nil, fmt.Errorf("engine: program %s: input %d is %T of %d, want %s", p.Name, i, flat, sizeOf(v), want)
		}
		b, err := d.d.backend.BufferFromFlatData(0, flat, p.Inputs[i])
		if err != nil {
			return nil, fmt.Errorf("engine: program %s: input %d: %w", p.Name, i, err)
		}
		buffers = append(buffers, b)
	}
	out, err := d.d.run(prog, nil, buffers...)
	if err != nil {
		return nil, err
	}
	defer finalize(out)
	results := make([]any, len(out))
	for i, b := range out {
		shape, err := b.Shape()
		if err != nil {
			return nil, fmt.Errorf("engine: program %s: result %d: %w", p.Name, i, err)
		}
		results[i] = dtypes.MakeAnySlice(shape.DType, shape.Size())
		if err := b.ToFlatData(results[i]); err != nil {
			return nil, fmt.Errorf("engine: program %s: result %d: %w", p.Name, i, err)
		}
	}
	return results, nil
}

// sizeOf is a slice's length; 0 for anything else.
func sizeOf(v reflect.Value) int {
	if v.Kind() != reflect.Slice {
		return 0
	}
	return v.Len()
}
