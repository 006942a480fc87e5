package schedule

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestScenarios runs testdata/*.txt, which read as documentation. The model is a toy: request 3 gets 300, 301, 302, …
//
//	config max-batch=N …              a new Core; the line it prints is what is not given
//	submit id=N prompt=N max-tokens=N stop=(N,…) kept=N    prompt is a length
//	cancel id=N
//	next                              prints the plan and leaves it outstanding
//	done [err=text] [row-err=ID]      executes the outstanding plan and prints the events
//	step [n=N]                        next and done, N times
//	run [n=N]                         the same, but prints only prefills, layouts, joins and ends of requests
//	stats
//
// After a change that is meant: go test ./engine/schedule -run Scenarios -rewrite
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &scenario{}
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			var b strings.Builder
			s.command(t, td, &b)
			return b.String()
		})
	})
}

type scenario struct {
	core *Core
	plan Plan
}

func (s *scenario) command(t *testing.T, td *datadriven.TestData, b *strings.Builder) {
	id, n := 0, 1
	td.MaybeScanArgs(t, "id", &id)
	td.MaybeScanArgs(t, "n", &n)
	switch td.Cmd {
	case "config":
		s.config(t, td, b)
	case "submit":
		length, r := 0, Request{ID: ID(id), MaxTokens: 100}
		td.MaybeScanArgs(t, "prompt", &length)
		td.MaybeScanArgs(t, "max-tokens", &r.MaxTokens)
		td.MaybeScanArgs(t, "kept", &r.Kept)
		if arg, ok := td.Arg("stop"); ok {
			for i := range arg.Vals {
				var stop int32
				arg.Scan(t, i, &stop)
				r.StopIDs = append(r.StopIDs, stop)
			}
		}
		for i := range length {
			r.Prompt = append(r.Prompt, int32(i))
		}
		if err := s.core.Submit(r); err != nil {
			fmt.Fprintf(b, "error: %v\n", err)
		}
	case "cancel":
		printEvents(b, s.core.Cancel(ID(id)))
	case "next":
		s.next(b)
	case "done":
		printEvents(b, s.core.Done(s.plan, toyResult(t, td, s.plan)))
	case "step":
		for range n {
			if !s.next(b) {
				return
			}
			printEvents(b, s.core.Done(s.plan, toyResult(t, td, s.plan)))
		}
	case "run":
		for i := range n {
			var plan, events strings.Builder
			more := s.next(&plan)
			if p := s.plan; !more || p.Kind == Prefill || p.Layout != nil || p.Joins != nil {
				fmt.Fprintf(b, "[%d] %s", i+1, plan.String())
			}
			if !more {
				return
			}
			for _, e := range s.core.Done(s.plan, toyResult(t, td, s.plan)) {
				if e.Finish != None {
					printEvents(&events, []Event{e})
				}
			}
			if events.Len() > 0 {
				fmt.Fprintf(b, "[%d]%s", i+1, events.String())
			}
		}
	case "stats":
		fmt.Fprintf(b, "%+v\n", s.core.Stats())
	default:
		td.Fatalf(t, "unknown command %q", td.Cmd)
	}
}

func (s *scenario) config(t *testing.T, td *datadriven.TestData, b *strings.Builder) {
	cfg := Config{
		MaxBatch: 4, MaxContext: 128, MaxQueue: 8, Chunk: 8, PrefillRows: 4, Horizon: 4,
		Batches: []int{1, 2, 4}, Tokens: []int{2, 4, 8}, Lengths: []int{8, 16, 32, 64, 128},
	}
	td.MaybeScanArgs(t, "max-batch", &cfg.MaxBatch)
	td.MaybeScanArgs(t, "max-context", &cfg.MaxContext)
	td.MaybeScanArgs(t, "max-queue", &cfg.MaxQueue)
	td.MaybeScanArgs(t, "prefill-rows", &cfg.PrefillRows)
	td.MaybeScanArgs(t, "horizon", &cfg.Horizon)
	core, err := New(cfg)
	if err != nil {
		fmt.Fprintf(b, "error: %v\n", err)
		return
	}
	s.core = core
	fmt.Fprintf(b, "%+v\n", cfg)
}

func (s *scenario) next(b *strings.Builder) bool {
	var ok bool
	if s.plan, ok = s.core.Next(); !ok {
		b.WriteString("idle\n")
		return false
	}
	printPlan(b, s.plan)
	return true
}

func toyResult(t *testing.T, td *datadriven.TestData, p Plan) Result {
	var r Result
	var text string
	var failing uint64
	if td.MaybeScanArgs(t, "err", &text) {
		return Result{Err: errors.New(text)}
	}
	rowError := td.MaybeScanArgs(t, "row-err", &failing)
	sample := func(id ID, step uint64) {
		r.Tokens = append(r.Tokens, int32(100*uint64(id)+step))
		if rowError {
			r.Errs = append(r.Errs, nil)
			if uint64(id) == failing {
				r.Errs[len(r.Errs)-1] = errors.New("row failed")
			}
		}
	}
	for _, row := range p.Rows {
		if row.Last {
			sample(row.ID, 0)
		}
	}
	for _, row := range p.Slots {
		sample(row.ID, row.Step)
	}
	return r
}

func printPlan(b *strings.Builder, p Plan) {
	switch {
	case p.Kind == Prefill && p.First:
		fmt.Fprintf(b, "prefill first(%d,%d)", p.R, p.T)
	case p.Kind == Prefill:
		fmt.Fprintf(b, "prefill next(%d,%d)", p.R, p.T)
	default:
		fmt.Fprintf(b, "decode(%d,%d)", p.Batch, p.KVLen)
	}
	if p.Restore {
		b.WriteString(" restore")
	}
	if p.Staging > 0 {
		fmt.Fprintf(b, " staging=%d", p.Staging)
	}
	if p.Layout != nil {
		fmt.Fprintf(b, " layout=(%d,%d) from=%v", p.Layout.Batch, p.Layout.KVLen, p.Layout.From)
	}
	for _, j := range p.Joins {
		fmt.Fprintf(b, " join=%d:row%d->slot%d", j.ID, j.Row, j.Slot)
	}
	b.WriteString("\n")
	for _, r := range p.Rows {
		fmt.Fprintf(b, "  %d: positions %d to %d", r.ID, r.Start, r.Start+len(r.Tokens)-1)
		if r.Last {
			b.WriteString(", sample")
		}
		b.WriteString("\n")
	}
	for _, r := range p.Slots {
		fmt.Fprintf(b, "  %d: slot %d, token %d at %d, step %d\n", r.ID, r.Slot, r.Token, r.Position, r.Step)
	}
}

func printEvents(b *strings.Builder, events []Event) {
	for _, e := range events {
		fmt.Fprintf(b, "  -> %d:", e.ID)
		if e.HasToken {
			fmt.Fprintf(b, " token %d is %d", e.Index, e.Token)
		}
		if e.Finish != None {
			fmt.Fprintf(b, " finish %s", e.Finish)
			if !e.HasToken {
				fmt.Fprintf(b, " after %d", e.Index)
			}
		}
		if e.Err != nil {
			fmt.Fprintf(b, " (%v)", e.Err)
		}
		b.WriteString("\n")
	}
}
