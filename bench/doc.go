// Package bench measures how fast the engine runs a model on this machine, beside what the machine could do at best.
//
//	result, err := bench.Run(ctx, "path/to/Qwen3-0.6B", bench.Options{}, os.Stderr)
//
// # What is measured
//
// [Run] opens the model itself, since the way from a cold start to the first token is one of the figures:
//
//	machine   read bandwidth of memory, and the rate of the matrix products that the model's own backend compiles
//	start     seconds from the call of engine.Open to the first token of a prompt of 16 tokens, compiling included
//	decode    tokens per second of N rows that decode at once, and the time between two tokens, from a filled cache on
//	prefill   tokens per second of one long prompt: its length over the time from Generate to its first token
//	steering  what steering costs in decode and in prefill: ratios of runs that alternate, see [Steering]
//	memory    the process's greatest resident memory, mapped files included
//
// # The ceiling
//
// A decode step reads every weight once and the keys and values of every row. A token of a prompt needs two operations
// for each weight, and attention. Package model knows both numbers. Divided by the machine's bandwidth and by its matmul
// rate they give the time that a step or a prompt takes at least; MBU and MFU are the shares of bandwidth and of rate that
// are reached. The bandwidth is that of plain reading, so a model whose weights fit a processor's cache exceeds it.
//
// # What is believed
//
// A rate is a [Summary] of several runs. Where their range is wider than [Options.Spread] of their median, Run ends with a
// [SpreadError] and returns no result: a median would hide that the machine was busy with something else.
//
// Left out of every rate is compiling: shapes are run once before they are timed, and a timed run during which the engine
// compiled a program nevertheless is discarded and repeated. So are the edges of a batch: requests do not enter at
// the same moment, so a decode run counts the steps during which every row is at work, and goes on until it has enough.
//
// Prompts are random tokens of a fixed seed and decoding is greedy without an end, so every run does the same
// work, and [Result.IDs] lets two engines on the same weights be compared.
//
// # Against others
//
// Figures of one process say little about another machine. The scripts beside this file alternate fresh processes of the
// engine and of what people use otherwise (peers/), on the same weights, and report ratios of each round:
//
//	run           decode, prefill, start and memory beside transformers
//	run_steering  the cost of steering, and that of hooks in transformers
//	run_extract   capture beside transformers, fits beside scikit-learn
//	run_train     training steps beside PyTorch
package bench
