// Command extract makes a steering vector from a file of contrastive scenarios, chooses a layer, and writes the vector and its report:
// extract MODEL SCENARIOS OUT. `steerage extract` is the same with flags; go doc contrast says what a scenario is.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/steering"
	"github.com/steerage/steerage/steering/contrast"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: extract MODEL SCENARIOS OUT")
	}
	if err := run(context.Background(), os.Stdout, os.Args[1], "", os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, w io.Writer, model, backend, scenarios, out string) error {
	m, err := engine.Open(ctx, model, engine.Options{Backend: backend})
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	data, err := contrast.LoadScenarios(scenarios)
	if err != nil {
		return err
	}
	// Answers that the model generates are kept beside the vector; a second run goes on from what is there.
	x, err := contrast.Extract(ctx, m, data, contrast.ExtractOptions{
		Model: filepath.Base(model), Data: filepath.Base(scenarios), Keep: out + ".responses.jsonl",
	})
	if err != nil {
		return err
	}
	if err := x.Report.WriteText(w); err != nil {
		return err
	}
	layer, probes, err := x.ChooseLayer(ctx, m, contrast.LogisticRegression, nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nlayer %d: steering moves held-out texts apart by %.2f nats a token\n", layer, probes[0].Margin)
	if err != nil {
		return err
	}
	v, err := x.Vector(contrast.LogisticRegression)
	if err != nil {
		return err
	}
	if v, err = v.Select(layer); err != nil {
		return err
	}
	if err := v.Save(out); err != nil {
		return err
	}
	// Whoever loads it checks that it fits the model.
	if v, err = steering.Load(out); err != nil {
		return err
	}
	return v.Check(m.SteeringConfig(), false)
}
