// Package bench measures how fast the engine runs a model on this machine.
//
//	result, err := bench.Run(ctx, "path/to/Qwen3-0.6B", bench.Options{})
//	result.Write(os.Stderr)
//
// # What is measured
//
// [Run] opens the model itself, since the way from a cold start to the first token is one of the figures:
//
//	start     seconds from the call of engine.Open to the first token of a prompt of 16 tokens
//	decode    tokens per second, all rows together, of N requests that run at once
//	prefill   tokens per second of one long prompt: its length over the time from Generate to its first token
//	memory    the process's greatest resident memory, mapped files included
//
// A rate is a [Summary] of several runs, because its spread says whether to believe it. Prompts are random tokens of a fixed
// seed and decoding is greedy without an end, so every run does the same work, and [Result.IDs] lets two engines on the
// same weights be compared.
//
// # What is left out of a rate
//
// Compiling: shapes are run once before they are timed, and a timed run during which the engine compiled a program
// nevertheless is discarded and repeated, as is one in which the rows were never all at work. The edges of a batch: requests do not enter at the same moment, so decode counts
// only the tokens between the last request's first token and the first request's last one, while every row is at work.
//
// The figures of one process say little about another machine, or about this one when it is busy. compare.py beside this
// file alternates fresh processes of the engine and of Hugging Face transformers (peers/) and reports ratios.
package bench
