package parity

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Verdict is the outcome of one part.
type Verdict string

const (
	Pass Verdict = "PASS"
	Fail Verdict = "FAIL"
)

// Row is the outcome of one part of a dump on one backend.
type Row struct {
	Model   string `json:"model"`             // the folder's name
	Backend string `json:"backend,omitempty"` // pjrt.Choice.Kind
	DType   string `json:"dtype,omitempty"`   // the reference: "f32" or "bf16"
	Part    string `json:"part"`

	Diff  *Diff      `json:"diff,omitempty"`  // the largest of the part
	Used  float64    `json:"used,omitempty"`  // share of the tolerance that the worst comparison took; above 1 it fails
	Exact *Agreement `json:"exact,omitempty"` // tokens, gates or counts: equal of compared

	Verdict Verdict `json:"verdict"`
	Note    string  `json:"note,omitempty"` // what disagrees, and where; or why nothing was compared
}

// Report is what [Run] found. Reports of several folders may be joined by appending their rows.
type Report struct {
	Rows []Row `json:"rows"`
}

// OK reports whether something was compared and nothing failed.
func (r Report) OK() bool {
	compared := false
	for _, row := range r.Rows {
		if row.Verdict == Fail {
			return false
		}
		compared = compared || row.Verdict == Pass
	}
	return compared
}

// Failures returns the rows that failed.
func (r Report) Failures() []Row {
	var failed []Row
	for _, row := range r.Rows {
		if row.Verdict == Fail {
			failed = append(failed, row)
		}
	}
	return failed
}

// Write writes the report as a table. The column "used" is the share of the tolerance that was taken.
func (r Report) Write(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(tab, strings.Join(cells, "\t")) } // tab keeps the error for Flush
	line("model", "backend", "dtype", "part", "max|Δ|", "rms", "cosine", "used", "exact", "verdict")
	for _, row := range r.Rows {
		cells := []string{row.Model, or(row.Backend), or(row.DType), row.Part, "-", "-", "-", "-", "-", string(row.Verdict)}
		if d := row.Diff; d != nil {
			copy(cells[4:], []string{fmt.Sprintf("%.1e", d.Max), fmt.Sprintf("%.1e", d.RMS), fmt.Sprintf("%.8f", d.Cosine),
				fmt.Sprintf("%.2f", row.Used)})
			if d.NotFinite > 0 {
				cells[4], cells[7] = "NaN", "∞"
			}
		}
		if g := row.Exact; g != nil {
			cells[8] = fmt.Sprintf("%d/%d", g.Equal, g.Total)
		}
		line(cells...)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, row := range r.Rows {
		if row.Note == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", row, row.Note); err != nil {
			return err
		}
	}
	return nil
}

// String names the row, without its numbers.
func (r Row) String() string {
	var parts []string
	for _, s := range []string{r.Model, r.Backend, r.DType, r.Part, string(r.Verdict)} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, " ")
}

func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
