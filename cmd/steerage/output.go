package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/steering"
)

// This file is what the commands that make a vector share: where it goes, and what is said of it.

// output writes the files that a command makes.
type output struct{ force, asJSON *bool }

// outputFlags adds --force and --json.
func outputFlags(cmd *cobra.Command) *output {
	return &output{cmd.Flags().Bool("force", false, "write over files that exist"), jsonFlag(cmd)}
}

// written is what --json prints of a vector that was written.
type written struct {
	File     string   `json:"file"`
	Layers   []int    `json:"layers"`
	Lost     []string `json:"lost"`     // what the format cannot keep
	Warnings []string `json:"warnings"` // what cannot be done with the file
}

// check says early that a vector cannot be written to file, or that another file that will be written exists.
func (o *output) check(file string, others ...string) error {
	if ext := filepath.Ext(file); ext != ".safetensors" && ext != ".gguf" {
		return badUsage("OUT is %q: the extension says the format, .safetensors or .gguf", file)
	}
	if _, err := os.Stat(filepath.Dir(file)); err != nil {
		return err
	}
	for _, f := range append([]string{file}, others...) {
		_, err := os.Lstat(f)
		switch {
		case err == nil && !*o.force:
			return fmt.Errorf("%s exists; --force writes over it", f)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// write writes a vector in the format of the file's extension.
func (o *output) write(v *steering.Vector, file string) (written, error) {
	w := written{File: file, Layers: v.Indices(), Lost: []string{}, Warnings: []string{}}
	if filepath.Ext(file) != ".gguf" {
		return w, v.Save(file)
	}
	w.Lost = lostInGGUF(v)
	if slices.Contains(w.Lost, "statistics") {
		w.Warnings = append(w.Warnings, "without statistics only swfc and ablate can use it")
	}
	if w.Layers[0] == 0 {
		w.Warnings = append(w.Warnings, "llama.cpp refuses a control vector with layer 0; `steerage vector convert --layers` leaves it out")
	}
	return w, v.SaveGGUF(file)
}

// note says on standard error what is to be said of a vector that was written.
func (w *written) note(cmd *cobra.Command) {
	if len(w.Lost) > 0 {
		note(cmd, "GGUF does not keep: %s", strings.Join(w.Lost, ", "))
	}
	for _, warning := range w.Warnings {
		note(cmd, "%s", warning)
	}
}

// finish writes a vector and ends the command with its name, or with its JSON.
func (o *output) finish(cmd *cobra.Command, v *steering.Vector, file string) error {
	w, err := o.write(v, file)
	if err != nil {
		return err
	}
	if *o.asJSON {
		return printJSON(cmd.OutOrStdout(), w)
	}
	w.note(cmd)
	_, err = fmt.Fprintln(cmd.OutOrStdout(), file)
	return err
}

// lostInGGUF names what a control vector cannot keep of a vector.
func lostInGGUF(v *steering.Vector) []string {
	lost := []string{}
	for _, part := range []struct {
		name string
		have bool
	}{
		{"statistics", v.Layers[0].Statistics != nil},
		{"fingerprint", v.Fingerprint != ""},
		{"num_hidden_layers", v.NumHiddenLayers > 0},
		{"method", v.Method != ""},
		{"data", v.Data != ""},
		{"date", v.Date != ""},
	} {
		if part.have {
			lost = append(lost, part.name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.Notes)) {
		lost = append(lost, printable(key))
	}
	return lost
}

// beside returns the name of a file that belongs to OUT: honesty.safetensors and ".svg" give honesty.svg.
func beside(out, ending string) string { return strings.TrimSuffix(out, filepath.Ext(out)) + ending }

// plotFile returns the file that --plot names, or the one beside OUT, and its format.
func plotFile(flag, out string) (file, format string, err error) {
	if flag == "" {
		return beside(out, ".svg"), "svg", nil
	}
	switch ext := filepath.Ext(flag); ext {
	case ".svg", ".png":
		return flag, ext[1:], nil
	}
	return "", "", badUsage("--plot is %q, want a .svg or .png file", flag)
}

// writePlot draws to a file, which is left alone if drawing fails.
func writePlot(file, format string, draw func(w io.Writer, format string) error) error {
	var b bytes.Buffer
	if err := draw(&b, format); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o666)
}
