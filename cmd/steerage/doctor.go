package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/pjrt"
)

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Show which backends work on this machine, and which would be used and why",
		Long: `Doctor looks for XLA plugins, opens each that it finds, and then the backend that --backend asks for. Its exit status
is 1 if that backend cannot be opened; a broken plugin that would not be used is only reported.`,
		Example: `  steerage doctor
  steerage doctor --backend xla:cuda --json`,
		Args: cobra.NoArgs,
	}
	backend, asJSON := backendFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		report := pjrt.Doctor(cmd.Context(), *backend)
		var err error
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), report)
		} else {
			_, err = io.WriteString(cmd.OutOrStdout(), diagnosis(report))
		}
		if err == nil && report.BackendError != "" {
			err = errors.New(report.BackendError)
		}
		return err
	}
	return cmd
}

// diagnosis spells a report for a person.
func diagnosis(r pjrt.Report) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("machine    %s, %d processors, %s of memory, NVIDIA device: %s", r.Platform, r.Processors, known(r.HostMemory), yes(r.NVIDIA))
	line("binary     %s, can open XLA plugins: %s", r.GoVersion, yes(r.PJRT))
	for i, looked := range r.Looked {
		line("%-10s %s", first(i, "looked"), looked)
	}
	for i, p := range r.Plugins {
		line("%-10s %s %s (%s) %s", first(i, "plugins"), p.Kind, p.Version, p.Source, p.Path)
		switch {
		case p.Error != "":
			line("           does not work: %s", p.Error)
		case p.Opened != nil:
			line("           works: PJRT API %d.%d, %s, devices: %s", p.Opened.APIMajor, p.Opened.APIMinor,
				strings.Join(strings.Fields(p.Opened.PlatformVersion), " "), strings.Join(p.Opened.Devices, ", "))
		}
	}
	if len(r.Plugins) == 0 {
		line("plugins    none; `steerage setup` fetches one")
	}
	for _, f := range r.Folders {
		line("%-10s %s: %d files, %s", "folder", f.Path, f.Files, size(f.Bytes))
		if f.Error != "" {
			line("           cannot be used: %s", f.Error)
		}
	}
	for i, m := range r.Memory {
		line("device %-3d %s in use, at most %s so far, of %s", i, known(m.InUse), known(m.Peak), known(m.Limit))
	}
	if r.BackendError != "" {
		line("backend    none: %s", r.BackendError)
	} else {
		line("backend    %s", strings.TrimPrefix(r.Backend.String(), "backend "))
	}
	return b.String()
}

// first returns the heading of a list on its first line only.
func first(i int, heading string) string {
	if i == 0 {
		return heading
	}
	return ""
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// known spells bytes that may be unknown (-1).
func known(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return size(n)
}
