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
//
// of steering, for all texts of steer (every case over every sequence) and of mixed (the rows of one batch),
//
//	PART.logits  all positions; of steer the unsteered sequences, too
//	PART.hidden  the output of the last block, steered
//	PART.gates   the projection that each site saw, and whether it moved the token; token by token
//	PART.readout what each site reports: tokens eligible, moved, capped, and the mean distance. Of the text, and of its
//	             prompt with a continuation, generated in a batch and run alone
//	PART.greedy  as greedy, all texts in work at once; the rows of mixed are one batch
//	PART.cached  log-probabilities from that batch against one pass of each text alone
//
// and of directions, where the folder has contrastive.safetensors, or is a folder of embeddings without a model:
//
//	capture      embeddings by [engine.Model.Capture]
//	logistic     [contrast.Fit] on the dump's embeddings: w, b, v̂ and all statistics, relative to the exact optimum
//	diff_means, pca
//	whole        v̂ from the texts: captured and fitted
//
// A mismatch names the first layer, or the text and site, that disagrees. A value that is not finite, on either side, is a
// mismatch always.
//
// Reading order: run.go (what is run), prompts.go, batches.go, steered.go, contrastive.go and logistic.go (the parts),
// diff.go (how it is judged), dump.go and text.go (the format), subject.go (the engine), report.go (the table).
package parity
