package contrast

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// Report is what several fits of the same texts say of the layers: one fit, or one for each way to pool hidden states.
type Report struct {
	Hidden          int         `json:"hidden_size"`
	NumHiddenLayers int         `json:"num_hidden_layers,omitempty"` // 0: not known
	Fits            []FitReport `json:"fits"`
}

// FitReport is one fit of a Report.
type FitReport struct {
	Name     string        `json:"name"` // how the hidden states were pooled
	Positive int           `json:"positive"`
	Negative int           `json:"negative"`
	Paired   bool          `json:"paired"`
	Splits   int           `json:"splits"` // random halvings that the stabilities are means over
	Layers   []LayerReport `json:"layers"`
	Ranking  []Candidate   `json:"ranking"` // see Rank
}

// LayerReport is one layer of a fit.
type LayerReport struct {
	Layer     int              `json:"layer"` // output of this block, from 0
	Norm      float64          `json:"norm"`  // root mean square of the embeddings' norms
	Gradient  float64          `json:"gradient"`
	Steps     int              `json:"newton_steps"`
	Estimates []EstimateReport `json:"estimates"`
}

// EstimateReport is what one estimator found at one layer. What is not known is null.
type EstimateReport struct {
	Estimator      Estimator          `json:"estimator"`
	Length         float64            `json:"length"`
	M              float64            `json:"m"`
	MuPos          float64            `json:"mu_pos"`
	MuNeg          float64            `json:"mu_neg"`
	SigmaPos       float64            `json:"sigma_pos"`
	SigmaNeg       float64            `json:"sigma_neg"`
	DeltaMu        float64            `json:"delta_mu"`
	CohensD        float64            `json:"cohens_d"`
	Accuracy       float64            `json:"accuracy"`
	Shift          float64            `json:"shift"` // |delta_mu| / norm
	Stability      Known              `json:"stability"`
	LeastStability Known              `json:"least_stability"`
	Variances      []float64          `json:"explained_variance,omitempty"`
	Votes          []float64          `json:"sign_vote,omitempty"` // shares of the pairs: positive above, positive below
	Cosines        map[string]float64 `json:"cosines"`             // to the other estimators
}

// Known is a number that may not be known, NaN: null in JSON.
type Known float64

// MarshalJSON implements json.Marshaler.
func (k Known) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(k)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(k))
}

// UnmarshalJSON implements json.Unmarshaler.
func (k *Known) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*k = Known(math.NaN())
		return nil
	}
	return json.Unmarshal(data, (*float64)(k))
}

// Named is a fit and its name in a report: how the hidden states were pooled.
type Named struct {
	Name string
	*Fitted
}

// NewReport compares fits. They must be of one model.
func NewReport(fits ...Named) (*Report, error) {
	if len(fits) == 0 {
		return nil, fmt.Errorf("contrast: a report of no fits")
	}
	r := &Report{Hidden: fits[0].Hidden, NumHiddenLayers: fits[0].NumHiddenLayers}
	for i, f := range fits {
		if f.Hidden != r.Hidden || f.NumHiddenLayers != r.NumHiddenLayers {
			return nil, fmt.Errorf("contrast: a report of fits of two models: %q has hidden_size %d and num_hidden_layers %d, %q has %d and %d",
				fits[0].Name, r.Hidden, r.NumHiddenLayers, f.Name, f.Hidden, f.NumHiddenLayers)
		}
		if slices.ContainsFunc(fits[:i], func(other Named) bool { return other.Name == f.Name }) {
			return nil, fmt.Errorf("contrast: a report of two fits named %q", f.Name)
		}
		r.Fits = append(r.Fits, f.report())
	}
	return r, nil
}

func (n Named) report() FitReport {
	out := FitReport{
		Name: n.Name, Positive: n.Positive, Negative: n.Negative, Paired: n.Paired, Splits: n.Splits, Ranking: Rank(n.Fitted),
	}
	for i := range n.Layers {
		layer := &n.Layers[i]
		l := LayerReport{Layer: layer.Index, Norm: layer.Norm, Gradient: layer.Gradient, Steps: layer.NewtonSteps}
		for _, k := range Estimators {
			e := layer.Estimate(k)
			if e == nil {
				continue
			}
			r := EstimateReport{
				Estimator: k, Length: e.Length, M: e.M, MuPos: e.MuPos, MuNeg: e.MuNeg, SigmaPos: e.SigmaPos, SigmaNeg: e.SigmaNeg,
				DeltaMu: e.DeltaMu, CohensD: e.CohensD, Accuracy: e.Accuracy, Shift: layer.Shift(k),
				Stability: Known(e.Stability), LeastStability: Known(e.LeastStability), Cosines: map[string]float64{},
			}
			if k == PCADiff || k == PCACenter {
				r.Variances, r.Votes = e.Variances[:], e.Votes[:]
			}
			for _, other := range Estimators {
				if other != k && layer.Estimate(other) != nil {
					r.Cosines[other.String()] = layer.Cosine(k, other)
				}
			}
			l.Estimates = append(l.Estimates, r)
		}
		out.Layers = append(out.Layers, l)
	}
	return out
}

// estimate returns a layer's estimate, or nil.
func (l *LayerReport) estimate(k Estimator) *EstimateReport {
	for i := range l.Estimates {
		if l.Estimates[i].Estimator == k {
			return &l.Estimates[i]
		}
	}
	return nil
}

// WriteText writes a table of each fit, for people.
func (r *Report) WriteText(w io.Writer) error {
	for i, fit := range r.Fits {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s: %d positive, %d negative texts; stability over %d halvings; layer l is the output of block l, from 0\n",
			fit.Name, fit.Positive, fit.Negative, fit.Splits)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(table, "layer\trank\td\taccuracy\tshift\tstability\tworst\tstability of means\tcos to means\tpca_diff\tpca_center\t\n")
		for l := range fit.Layers {
			layer := &fit.Layers[l]
			lr, means := layer.estimate(LogisticRegression), layer.estimate(DiffMeans)
			rank := 1 + slices.IndexFunc(fit.Ranking, func(c Candidate) bool { return c.Layer == layer.Layer })
			fmt.Fprintf(table, "%d\t%d\t%.2f\t%.3f\t%.3f\t%s\t%s\t%s\t%.3f\t%s\t%s\t\n", layer.Layer, rank, lr.CohensD, lr.Accuracy, lr.Shift,
				lr.Stability, lr.LeastStability, means.Stability, lr.Cosines[DiffMeans.String()],
				lr.cosine(PCADiff), lr.cosine(PCACenter))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// String writes three decimals, or a dash.
func (k Known) String() string {
	if math.IsNaN(float64(k)) {
		return "-"
	}
	return fmt.Sprintf("%.3f", float64(k))
}

func (e *EstimateReport) cosine(k Estimator) Known {
	if c, ok := e.Cosines[k.String()]; ok {
		return Known(c)
	}
	return Known(math.NaN())
}
