package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/steerage/steerage/steering"
)

func newVectorConvert() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "convert IN OUT",
		Short: "Convert a vector between safetensors and GGUF",
		Long: `Convert writes the vector of the file IN, in whichever format it is, to OUT, in the format of its extension:

  .safetensors   everything that is known of the vector
  .gguf          a control vector for repeng and llama.cpp: direction and length of each layer, rounded to float32, and
                 the model's name; all else is lost, and is named on standard error

llama.cpp takes no control vector that acts on layer 0: leave that layer out with --layers. PyTorch's .pt files are
neither read nor written: they are programs. OUT is not overwritten without --force. Standard output gets its name.`,
		Example: `  steerage vector convert honesty.safetensors honesty.gguf --layers 1-27
  steerage vector convert style.gguf style.safetensors`,
		Args: cobra.ExactArgs(2),
	}
	layers := cmd.Flags().String("layers", "", "convert only these, such as 26 or 20-24 or 3,20-24 (default all)")
	out := outputFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var chosen []int
		if cmd.Flags().Changed("layers") {
			var err error
			if chosen, err = steering.ParseLayers(*layers); err != nil {
				return badUsage("--layers: %w", err)
			}
		}
		if err := out.check(args[1]); err != nil {
			return err
		}
		v, err := steering.Load(args[0])
		if err != nil {
			return err
		}
		if chosen != nil {
			if v, err = v.Select(chosen...); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
		}
		return out.finish(cmd, v, args[1])
	}
	return cmd
}
