package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Write writes the result as a table for a person. GB/s are the weights that a decode step must read, GFLOP/s the products that the
// prompt needs: what a machine's bandwidth and arithmetic are to be compared with.
func (r *Result) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format+"\n", args...) } // an error stays with t until Flush
	figure := func(name string, s Summary, unit, note string) {
		line("%s\t%.2f\t%.2f\t%.2f\t%s\t%d\t%s", name, s.Min, s.Median, s.Max, unit, s.Runs, note)
	}
	line("%s on %s, %s\tmin\tmedian\tmax\t\truns\t", r.Engine, r.Backend, r.DType)
	for _, d := range r.Decode {
		perStep := float64(r.WeightsRead) / float64(d.Batch)
		figure(fmt.Sprintf("decode, batch %d", d.Batch), d.Rate, "tokens/s", fmt.Sprintf("%.1f GB/s of weights", d.Rate.Median*perStep/1e9))
	}
	figure(fmt.Sprintf("prefill, %d tokens", r.Prompt), r.Prefill, "tokens/s",
		fmt.Sprintf("%.0f GFLOP/s", r.Prefill.Median/float64(r.Prompt)*r.PrefillFLOPs/1e9))
	figure("start to first token", r.Start, "s", fmt.Sprintf("load %.2f s, build and compile %.2f s", r.Load, r.Compile))
	if r.PeakRSS > 0 {
		figure("peak resident memory", Summarize([]float64{float64(r.PeakRSS) / 1e9}), "GB", "")
	}
	return t.Flush()
}
