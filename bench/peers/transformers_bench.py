"""Measures Hugging Face transformers on torch's CPU backend: what package bench measures, under the same JSON keys.

As a user would have it: AutoModelForCausalLM in the checkpoint's dtype, sdpa attention, torch.inference_mode, model.generate with greedy
decoding and the default cache, all cores. Start counts from this script's first line, importing torch included. With --steering, runs
alternate with such in which a forward hook at each block adds a vector to its output, as steering is commonly done.
"""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402  (importing is part of the start that is measured)
import json
import statistics

import torch
import transformers

import figures


class Clock(transformers.StoppingCriteria):
    """Notes when each token was there, and never stops."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **kwargs):
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", type=numbers, default=[1, 8])
    parser.add_argument("--context", type=numbers, default=[16])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt", type=numbers, default=[512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32"])
    parser.add_argument("--steering", action="store_true")
    args = parser.parse_args()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype or "auto").eval()
    loaded = time.perf_counter()
    model.generation_config.eos_token_id = None  # never stop; min_new_tokens would cost a pass over the logits at each step

    def prompts(rows, n):
        return torch.tensor([figures.row(i, n, model.config.vocab_size) for i in range(rows)])

    def generate(rows, context, n):
        """Times of n tokens from the call on, and the first row's ids."""
        ids, clock = prompts(rows, context), Clock()
        began = time.perf_counter()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True, max_new_tokens=n,
                             pad_token_id=0, stopping_criteria=[clock])
        assert out.shape == (rows, context + n), out.shape
        return [t - began for t in clock.times], out[0, context:].tolist()

    def steps(rows, context):
        times, ids = generate(rows, context, args.tokens + 1)
        return [b - a for a, b in zip(times, times[1:])], times[0], ids[:args.tokens]

    def prefill(ids):
        began = time.perf_counter()
        model(ids, use_cache=True, logits_to_keep=1).logits.argmax(-1).item()
        return time.perf_counter() - began

    def alternate(run):
        """Seconds of runs without and with hooks, in turn."""
        hidden, moved = model.config.hidden_size, 0
        vectors = torch.nn.functional.normalize(torch.randn(model.config.num_hidden_layers, hidden, generator=torch.Generator().manual_seed(0)))
        vectors = (vectors * 0.1).to(model.dtype)

        def hook(vector):
            def add(module, inputs, output):
                nonlocal moved
                moved += 1
                return output + vector if torch.is_tensor(output) else (output[0] + vector, *output[1:])
            return add

        plain, hooked = [], []
        for number in range(1 + args.repeats):
            for side in (plain, hooked) if number % 2 == 0 else (hooked, plain):
                handles = [] if side is plain else [b.register_forward_hook(hook(v)) for b, v in zip(model.model.layers, vectors)]
                seconds = run()
                for h in handles:
                    h.remove()
                if number > 0:
                    side.append(seconds)
        assert moved > 0
        return plain, hooked

    with torch.inference_mode():
        generate(1, 16, 1)
        result = {
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "backend": f"torch-cpu, {torch.get_num_threads()} threads, {model.config._attn_implementation}", "model": args.model,
            "dtype": args.dtype or "as stored", "start": {"s": time.perf_counter() - BEGAN, "load_s": loaded - BEGAN}, "decode": [], "prefill": [],
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
            ids = prompts(1, n)
            seconds = [prefill(ids) for _ in range(1 + args.repeats)][1:]
            result["prefill"].append({"prompt": n, "tok_s": figures.summary([n / s for s in seconds]), "first_token_s": figures.summary(seconds)})
        result["peak_rss_bytes"] = figures.peak_rss()
        if args.steering:
            result["steering"] = []
            for rows in args.batch:
                context = args.context[0]
                both = alternate(lambda: statistics.mean(steps(rows, context)[0]))
                result["steering"] += figures.steering("decode", rows, context, *both)
            for n in args.prompt:
                ids = prompts(1, n)
                result["steering"] += figures.steering("prefill", 1, n, *alternate(lambda: prefill(ids)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
