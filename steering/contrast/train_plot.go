package contrast

import (
	"fmt"
	"io"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
)

// WritePlot draws over the steps the loss, that of the held-out pairs, and the divergence on neutral texts, as far as
// there are any. The format is "svg" or "png".
func (t *Trained) WritePlot(w io.Writer, format string) error {
	if format != "svg" && format != "png" {
		return fmt.Errorf("contrast: a plot is svg or png, not %.20q", format)
	}
	var training, held, kl plotter.XYs
	add := func(points *plotter.XYs, step int, y float64) {
		if !math.IsNaN(y) {
			*points = append(*points, plotter.XY{X: float64(step), Y: y})
		}
	}
	add(&held, 0, t.Before)
	for _, p := range t.History {
		add(&training, p.Step, p.Loss)
		add(&held, p.Step, p.HeldOut)
		add(&kl, p.Step, p.KL)
	}
	if !slices.ContainsFunc(t.History, func(p Point) bool { return p.KL != 0 }) { // there was no penalty
		kl = nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "Training", "step", "loss"
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	for i, l := range []struct {
		name   string
		points plotter.XYs
	}{{"training pairs", training}, {"held-out pairs", held}, {"KL on neutral texts", kl}} {
		if len(l.points) == 0 {
			continue
		}
		line, err := plotter.NewLine(l.points)
		if err != nil {
			return fmt.Errorf("contrast: plotting the loss: %w", err)
		}
		line.Color, line.Dashes = plotutil.Color(i), plotutil.Dashes(i)
		p.Add(line)
		p.Legend.Add(l.name, line)
	}
	image, err := p.WriterTo(plotWidth, plotHeight/2, format)
	if err == nil {
		_, err = image.WriteTo(w)
	}
	if err != nil {
		return fmt.Errorf("contrast: plotting the loss: %w", err)
	}
	return nil
}
