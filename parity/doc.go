// Package parity compares the engine with reference dumps: what Hugging Face transformers computes with the same model
// folder, number by number.
//
//	report, err := parity.Run(ctx, dir, parity.Options{Backend: "xla"})
//	report.Write(os.Stdout)
//	if err != nil || !report.OK() { … }
//
// A folder holds the model and dump.safetensors with dump.json. README.md beside this file is the definition of that
// format, says how to make a dump of any local model, and derives the tolerances that are used here.
//
// # What is compared
//
// The engine is opened once per reference: in float32 for `f32`, as stored for `bf16`. Each gives these parts, a row of
// the report each:
//
//	config       config.json against dump.json, and against its twin config.transformers5.json where there is one
//	hidden       the output of every block, all positions ([engine.Model.Trace])
//	logits       all positions
//	greedy       f32: the continuation by [engine.Model.Generate], token by token; bf16: the f32 continuation is fed, and
//	             the arg-max must be its next token wherever the margin is not within the reference's own bf16 error
//	cached       log-probabilities from Generate, which decodes with the key/value cache, against one pass without
//	score        log-probabilities from [engine.Model.Score] against the same pass
//	batch.SIDE   the rows of a padded batch, without their padding, run at the same time
//	steer, …     parts that a dump has and this version cannot compute have the verdict "not yet"
//
// A mismatch names the first layer that disagrees. A value that is not finite, on either side, is a mismatch always.
//
// Reading order: run.go (what is run), diff.go (how it is judged), dump.go (the format), report.go (the table).
package parity
