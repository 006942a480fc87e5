package contrast

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Size of a plot.
const (
	plotWidth  = 9 * vg.Inch
	plotHeight = 7 * vg.Inch
	plotDPI    = 120 // of PNG
)

// WritePlot draws Cohen's d and the stability of the logistic regression's direction over the layers, a line for each fit.
// The format is "svg" or "png".
func (r *Report) WritePlot(w io.Writer, format string) error {
	separation, err := r.overDepth("Separation of the classes along the direction", "Cohen's d",
		func(e *EstimateReport) float64 { return e.CohensD })
	if err != nil {
		return err
	}
	separation.Y.Max *= 1.2 // room for the legend
	stability, err := r.overDepth("Stability of the direction between halves of the data", "mean cosine",
		func(e *EstimateReport) float64 { return float64(e.Stability) })
	if err != nil {
		return err
	}
	stability.Y.Min, stability.Y.Max = min(stability.Y.Min, 0), 1
	stability.Legend.Top, stability.Legend.Left, stability.Legend.XOffs = false, false, 0

	var canvas vg.CanvasSizer
	var write io.WriterTo
	switch format {
	case "svg":
		c := vgsvg.NewWith(vgsvg.UseWH(plotWidth, plotHeight))
		canvas, write = c, c
	case "png":
		c := vgimg.NewWith(vgimg.UseWH(plotWidth, plotHeight), vgimg.UseDPI(plotDPI))
		canvas, write = c, vgimg.PngCanvas{Canvas: c}
	default:
		return fmt.Errorf("contrast: a plot is svg or png, not %.20q", format)
	}
	plots := [][]*plot.Plot{{separation}, {stability}}
	tiles := draw.Tiles{Rows: 2, Cols: 1, PadX: vg.Millimeter, PadY: 6 * vg.Millimeter,
		PadTop: 3 * vg.Millimeter, PadBottom: 3 * vg.Millimeter, PadLeft: 3 * vg.Millimeter, PadRight: 5 * vg.Millimeter}
	for row, cells := range plot.Align(plots, tiles, draw.New(canvas)) {
		plots[row][0].Draw(cells[0])
	}
	var drawn bytes.Buffer // so that an error of drawing leaves w as it was
	if _, err := write.WriteTo(&drawn); err != nil {
		return fmt.Errorf("contrast: plot: %w", err)
	}
	_, err = drawn.WriteTo(w)
	return err
}

// overDepth plots a number of the logistic regression over the layers. Layers where it is not known are left out.
func (r *Report) overDepth(title, label string, value func(e *EstimateReport) float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text, p.X.Label.Text = title, label, "layer (output of block l, from 0)"
	p.Title.TextStyle.Font = font.From(p.Title.TextStyle.Font, 13)
	p.Title.Padding = 2 * vg.Millimeter
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, 3*vg.Millimeter
	p.Legend.ThumbnailWidth = 8 * vg.Millimeter
	p.X.Tick.Marker = wholeTicks{}
	p.Y.Min, p.Y.Max = 0, 1
	p.Add(plotter.NewGrid())
	last := max(r.NumHiddenLayers-1, 1)
	for i := range r.Fits {
		fit := &r.Fits[i]
		var points plotter.XYs
		for l := range fit.Layers {
			layer := &fit.Layers[l]
			last = max(last, layer.Layer)
			if e := layer.estimate(LogisticRegression); e != nil && !math.IsNaN(value(e)) {
				points = append(points, plotter.XY{X: float64(layer.Layer), Y: value(e)})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, fmt.Errorf("contrast: plot: %w", err)
		}
		line.Color, line.Width, line.Dashes = plotutil.Color(i), vg.Points(1.5), plotutil.Dashes(i)
		marks.Color, marks.Shape, marks.Radius = plotutil.Color(i), plotutil.Shape(i), vg.Points(2.5)
		p.Add(line, marks)
		p.Legend.Add(fit.Name, line, marks)
	}
	p.X.Min, p.X.Max = 0, float64(last)
	return p, nil
}

// wholeTicks marks whole numbers only: there is no layer 2.5.
type wholeTicks struct{}

func (wholeTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	step := 1
	for _, s := range []int{2, 4, 5, 10, 20, 50, 100, 200, 500, 1000} {
		if (high-low)/float64(step) <= 20 {
			break
		}
		step = s
	}
	for x := int(math.Ceil(low/float64(step))) * step; float64(x) <= high; x += step {
		ticks = append(ticks, plot.Tick{Value: float64(x), Label: strconv.Itoa(x)})
	}
	return ticks
}
