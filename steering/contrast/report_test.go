package contrast

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/steerage/steerage/pjrt/pjrttest"
)

func fitted(t *testing.T, e Embeddings, opt Options) *Fitted {
	t.Helper()
	f, err := Fit(context.Background(), pjrttest.Backends(t)["go"], e, opt)
	require.NoError(t, err)
	return f
}

func TestReport(t *testing.T) {
	pairs, loose := fitted(t, synthetic(6, 10, 10, 8, 1), Options{}), fitted(t, synthetic(6, 10, 7, 8, 2), Options{Splits: -1})
	r, err := NewReport(Named{"response mean", pairs}, Named{"last prompt token", loose})
	require.NoError(t, err)

	encoded, err := json.Marshal(r)
	require.NoError(t, err)
	var back Report
	require.NoError(t, json.Unmarshal(encoded, &back))
	require.Equal(t, pairs.Layers[3].Estimate(PCADiff).CohensD, back.Fits[0].Layers[3].estimate(PCADiff).CohensD)
	require.Equal(t, pairs.Layers[3].Cosine(PCADiff, DiffMeans), back.Fits[0].Layers[3].estimate(PCADiff).Cosines["diff_means"])
	require.True(t, math.IsNaN(float64(back.Fits[0].Layers[3].estimate(PCADiff).Stability)))
	require.True(t, math.IsNaN(float64(back.Fits[1].Layers[0].estimate(LogisticRegression).Stability)))
	require.Nil(t, back.Fits[1].Layers[0].estimate(PCACenter), "there are no pairs")
	require.Equal(t, r.Fits[0].Ranking, back.Fits[0].Ranking)

	var text bytes.Buffer
	require.NoError(t, r.WriteText(&text))
	lines := strings.Split(text.String(), "\n")
	require.Equal(t, "response mean: 10 positive, 10 negative texts; stability over 8 halvings; layer l is the output of block l, from 0", lines[0])
	require.Len(t, strings.Fields(lines[3]), 11)
	require.Equal(t, []string{"-", "-", "-"}, strings.Fields(lines[11])[5:8], "stability is not known without halvings")
}

func TestReportErrors(t *testing.T) {
	a, b := fitted(t, synthetic(2, 4, 4, 3, 1), Options{}), fitted(t, synthetic(2, 4, 4, 5, 1), Options{})
	_, err := NewReport()
	require.ErrorContains(t, err, "no fits")
	_, err = NewReport(Named{"x", a}, Named{"y", b})
	require.ErrorContains(t, err, `"x" has hidden_size 3 and num_hidden_layers 2, "y" has 5 and 2`)
	_, err = NewReport(Named{"x", a}, Named{"x", a})
	require.ErrorContains(t, err, `two fits named "x"`)
}

func TestPlot(t *testing.T) {
	r, err := NewReport(Named{"response mean", fitted(t, synthetic(12, 10, 10, 8, 1), Options{})},
		Named{"without halvings", fitted(t, synthetic(12, 10, 10, 8, 2), Options{Splits: -1})})
	require.NoError(t, err)

	var svg bytes.Buffer
	require.NoError(t, r.WritePlot(&svg, "svg"))
	for _, text := range []string{"response mean", "without halvings", "mean cosine", "layer (output of block l, from 0)"} {
		require.Contains(t, svg.String(), text)
	}
	for decoder := xml.NewDecoder(&svg); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
	}
	var raster bytes.Buffer
	require.NoError(t, r.WritePlot(&raster, "png"))
	image, err := png.Decode(&raster)
	require.NoError(t, err)
	require.Equal(t, int(plotWidth.Points()/72*plotDPI), image.Bounds().Dx())

	require.ErrorContains(t, r.WritePlot(io.Discard, "pdf"), `svg or png, not "pdf"`)
}

func TestWholeTicks(t *testing.T) {
	for _, c := range []struct {
		high        float64
		count, step int
	}{{1, 2, 1}, {5, 6, 1}, {20, 21, 1}, {27, 14, 2}, {79, 20, 4}, {4000, 21, 200}} {
		ticks := wholeTicks{}.Ticks(0, c.high)
		require.Len(t, ticks, c.count, c.high)
		require.Equal(t, float64(c.step), ticks[1].Value)
	}
}

func TestRank(t *testing.T) {
	f := fitted(t, synthetic(13, 12, 12, 16, 4), Options{})
	ranking := Rank(f)
	require.Len(t, ranking, 13)
	for i, c := range ranking {
		require.InDelta(t, c.Stability*c.Separation*c.Shift*c.Depth, c.Score, 1e-15)
		for _, part := range []float64{c.Stability, c.Separation, c.Shift, c.Depth} {
			require.True(t, part >= 0 && part <= 1, "%+v", c)
		}
		require.True(t, i == 0 || c.Score <= ranking[i-1].Score)
	}
	// In the data the classes part more with every layer, and what is known of steering speaks for the middle.
	require.GreaterOrEqual(t, ranking[0].Layer, 6)
	require.LessOrEqual(t, ranking[0].Layer, 10)
	require.Less(t, ranking[12].Layer, 3)

	// A part that turns bad brings its layer down.
	best := ranking[0].Layer
	f.Layers[best].Estimate(LogisticRegression).Stability = -0.2
	require.Equal(t, best, Rank(f)[12].Layer)
	require.Zero(t, Rank(f)[12].Score)

	for _, c := range []struct {
		layer, last int
		want        float64
	}{{0, 0, 1}, {0, 30, 0.25}, {5, 30, 0.625}, {10, 30, 1}, {15, 30, 1}, {20, 30, 1}, {25, 30, 0.625}, {30, 30, 0.25}} {
		require.InDelta(t, c.want, depthWeight(c.layer, c.last), 1e-12)
	}
	require.Nil(t, Rank(&Fitted{}))
}
