"""Measures llama.cpp on the CPU: what package bench measures, under the same JSON keys.

The C library is called through the low-level binding of llama-cpp-python, which pip compiles for this machine (`make llamacpp`), with its own
defaults (mapped file, float16 cache, attention as it chooses) on all cores; greedy tokens are taken by numpy from the logits. Start counts from this
script's first line. With --steering, runs alternate with such that have a control vector at all layers that llama.cpp can steer, which is all but
the first.
"""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402  (importing is part of the start that is measured)
import ctypes
import json
import os
import statistics
from importlib.metadata import version

import llama_cpp as lib
import numpy as np

import figures


@lib.llama_log_callback
def log(level, text, _):
    """Lets llama.cpp speak of errors only."""
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        print(text.decode(errors="replace"), end="", flush=True)


class Model:
    def __init__(self, path, rows, context):
        """A model whose cache holds `rows` sequences of `context` tokens."""
        lib.llama_log_set(log, None)
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = rows * context, rows
        params.n_batch = max(2048, rows)
        params.n_threads = params.n_threads_batch = os.cpu_count()
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit("llama.cpp makes no context")
        self.layers, self.hidden = lib.llama_model_n_layer(self.model), lib.llama_model_n_embd(self.model)
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.batch = lib.llama_batch_init(params.n_batch, 0, 1)

    def clear(self):
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)

    def run(self, tokens):
        """Runs (id, position, sequence, whether its logits are wanted) and returns the greedy token of each whose logits are."""
        b = self.batch
        b.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            b.token[i], b.pos[i], b.logits[i] = token, position, wanted
            b.n_seq_id[i], b.seq_id[i][0] = 1, sequence
        result = lib.llama_decode(self.context, b)
        assert result == 0, f"llama_decode returned {result}"
        return [int(np.ctypeslib.as_array(lib.llama_get_logits_ith(self.context, i), (self.vocab,)).argmax())
                for i, t in enumerate(tokens) if t[3]]

    def prompts(self, rows, n):
        """Prefills `rows` prompts of n tokens in as few calls as fit, and returns their first tokens."""
        self.clear()
        all_tokens = [(t, i, r, i == n - 1) for r in range(rows) for i, t in enumerate(figures.row(r, n, self.vocab))]
        first = []
        for at in range(0, len(all_tokens), 2048):
            first += self.run(all_tokens[at:at + 2048])
        return first

    def steer(self, data):
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) if data is not None else None
        result = lib.llama_set_adapter_cvec(self.context, pointer, 0 if data is None else data.size, self.hidden, 1, self.layers)
        assert result == 0, f"llama_set_adapter_cvec returned {result}"


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--batch", type=numbers, default=[1, 8])
    parser.add_argument("--context", type=numbers, default=[16])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt", type=numbers, default=[512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steering", action="store_true")
    args = parser.parse_args()
    room = max(max(args.prompt) + 1, max(args.context) + args.tokens + 2)
    model = Model(args.model, max(args.batch), -(-room // 256) * 256)
    loaded = time.perf_counter()

    def steps(rows, context):
        began = time.perf_counter()
        tokens = model.prompts(rows, context)
        stamps, ids = [time.perf_counter()], [tokens[0]]
        for i in range(args.tokens):
            tokens = model.run([(t, context + i, r, True) for r, t in enumerate(tokens)])
            stamps.append(time.perf_counter())
            ids.append(tokens[0])
        return [b - a for a, b in zip(stamps, stamps[1:])], stamps[0] - began, ids[:args.tokens]

    def prefill(n):
        began = time.perf_counter()
        model.prompts(1, n)
        return time.perf_counter() - began

    def alternate(run):
        rng = np.random.default_rng(0)
        data = rng.standard_normal((model.layers - 1, model.hidden)).astype(np.float32)
        data *= 0.1 / np.linalg.norm(data, axis=1, keepdims=True)
        plain, steered = [], []
        for number in range(1 + args.repeats):
            for side in (plain, steered) if number % 2 == 0 else (steered, plain):
                model.steer(None if side is plain else data)
                seconds = run()
                if number > 0:
                    side.append(seconds)
        model.steer(None)
        return plain, steered

    model.prompts(1, 16)
    name = f"llama.cpp of llama-cpp-python {version('llama-cpp-python')}"
    result = {
        "engine": name, "backend": f"llama.cpp, {os.cpu_count()} threads", "model": args.model, "dtype": "as stored",
        "start": {"s": time.perf_counter() - BEGAN, "load_s": loaded - BEGAN}, "decode": [], "prefill": [],
    }
    for context in args.context:
        for rows in args.batch:
            runs = [steps(rows, context) for _ in range(1 + args.repeats)][1:]
            result.setdefault("ids", runs[0][2])
            every = [s for run in runs for s in run[0]]
            result["decode"].append({
                "batch": rows, "context": context, "tok_s": figures.summary([rows * len(r[0]) / sum(r[0]) for r in runs]),
                "latency_median_s": statistics.median(every), "latency_p95_s": figures.quantile(every, 0.95),
                "first_token_s": figures.summary([r[1] for r in runs])})
    for n in args.prompt:
        seconds = [prefill(n) for _ in range(1 + args.repeats)][1:]
        result["prefill"].append({"prompt": n, "tok_s": figures.summary([n / s for s in seconds]), "first_token_s": figures.summary(seconds)})
    result["peak_rss_bytes"] = figures.peak_rss()
    if args.steering:
        result["steering"] = []
        for rows in args.batch:
            context = args.context[0]
            both = alternate(lambda: statistics.mean(steps(rows, context)[0]))
            result["steering"] += figures.steering("decode", rows, context, *both)
        for n in args.prompt:
            result["steering"] += figures.steering("prefill", 1, n, *alternate(lambda: prefill(n)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
