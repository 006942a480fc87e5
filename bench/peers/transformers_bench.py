"""Measures Hugging Face transformers on torch's CPU backend: what package bench measures, under the same JSON keys.

transformers_bench.py MODEL [--batch 1,8] [--tokens 32] [--prompt 512] [--dtype float32]. As a user would have it:
AutoModelForCausalLM in the checkpoint's dtype, sdpa attention, torch.inference_mode, model.generate with greedy decoding and the default
cache, all cores. Start counts from this script's first line, importing torch included.
"""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402  (importing is part of the start that is measured)
import json
import statistics

import torch
import transformers

REPEATS = 5
SHORT = 16  # tokens before the decode runs


def row(number, n, vocabulary):
    """bench.Prompt: the upper bits of Knuth's MMIX generator."""
    ids, x = [], number + 1
    for _ in range(n):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((x >> 33) % vocabulary)
    return ids


def summary(runs):
    return {"min": min(runs), "median": statistics.median(runs), "max": max(runs), "runs": len(runs)}


class Clock(transformers.StoppingCriteria):
    """Notes when each token was there, and never stops."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **kwargs):
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--dtype", choices=["float32"])
    args = parser.parse_args()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype or "auto").eval()
    loaded = time.perf_counter()
    model.generation_config.eos_token_id = None  # never stop; min_new_tokens would cost a pass over the logits at each step

    def prompts(rows, n):
        return torch.tensor([row(i, n, model.config.vocab_size) for i in range(rows)])

    def generate(rows, n):
        ids, clock = prompts(rows, SHORT), Clock()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True, max_new_tokens=n,
                             pad_token_id=0, stopping_criteria=[clock])
        assert out.shape == (rows, SHORT + n), out.shape
        return clock.times, out[0, SHORT:].tolist()

    def decode(rows):
        times, ids = generate(rows, args.tokens)
        return rows * (len(times) - 1) / (times[-1] - times[0]), ids

    def prefill(ids):
        began = time.perf_counter()
        model(ids, use_cache=True, logits_to_keep=1).logits.argmax(-1).item()
        return args.prompt / (time.perf_counter() - began)

    with torch.inference_mode():
        times, _ = generate(1, 1)
        result = {
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "backend": f"torch-cpu, {torch.get_num_threads()} threads, {model.config._attn_implementation}",
            "dtype": args.dtype or "as stored", "tokens": args.tokens, "prompt": args.prompt,
            "start_s": summary([times[0] - BEGAN]), "load_s": loaded - BEGAN, "compile_s": 0, "decode": [],
        }
        for rows in map(int, args.batch.split(",")):
            _, ids = decode(rows)
            result.setdefault("ids", ids)
            result["decode"].append({"batch": rows, "tok_s": summary([decode(rows)[0] for _ in range(REPEATS)])})
        ids = prompts(1, args.prompt)
        prefill(ids)
        result["prefill_tok_s"] = summary([prefill(ids) for _ in range(REPEATS)])
    with open("/proc/self/status") as status:
        result["peak_rss_bytes"] = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
