package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/hub"
	"github.com/steerage/steerage/pjrt"
)

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Show which backends work on this machine, and which would be used and why",
		Long: `Doctor looks for XLA plugins, opens each that it finds, and then the backend that --backend asks for. It says where
models of the hub come from and where they are kept, without asking the hub. Its exit status is 1 if the backend cannot be
opened; a broken plugin that would not be used is only reported. What a model needs on the device, inspect says.`,
		Example: `  steerage doctor
  steerage doctor --backend xla:cuda --json`,
		Args: cobra.NoArgs,
	}
	backend, asJSON := backendFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		report := checkup{Report: pjrt.Doctor(cmd.Context(), *backend), Hub: hubState()}
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

// checkup is what --json prints.
type checkup struct {
	pjrt.Report
	Hub hubReport `json:"hub"`
}

// hubReport is what the environment says of the hub.
type hubReport struct {
	Endpoint string `json:"endpoint"`
	Cache    string `json:"cache"`
	Models   int    `json:"models"` // that the cache has a folder for
	Offline  bool   `json:"offline"`
	Token    bool   `json:"token"` // whether there is one
	Error    string `json:"error,omitempty"`
}

func hubState() hubReport {
	c, err := hub.FromEnv()
	if err != nil {
		return hubReport{Error: err.Error()}
	}
	r := hubReport{Endpoint: c.Endpoint, Cache: c.Cache, Offline: c.Offline, Token: c.Token != ""}
	entries, err := os.ReadDir(c.Cache)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it is made when needed
		r.Error = err.Error()
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "models--") {
			r.Models++
		}
	}
	return r
}

// diagnosis spells a report for a person.
func diagnosis(r checkup) string {
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
	if h := r.Hub; h.Cache != "" {
		line("hub        %s, offline: %s, token: %s", h.Endpoint, yes(h.Offline), yes(h.Token))
		line("           %s: %d models", h.Cache, h.Models)
	}
	if r.Hub.Error != "" {
		line("hub        cannot be used: %s", r.Hub.Error)
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
