"""What bench/engine measures, with Hugging Face transformers on torch's CPU backend: one line of JSON, the same names.

The model is loaded as a user loads it (AutoModelForCausalLM, sdpa attention, the checkpoint's dtype) and generates with
model.generate, greedy, with the default cache. torch uses all cores.
"""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402  (imports are part of the start that is measured)
import json
import statistics

import torch
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=512)
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto").eval()
    model.generation_config.eos_token_id = None  # nothing stops early, and no logits processor has to see to it

    def prompt(rows, n):
        return torch.tensor([[(1000 + 37 * i) % model.config.vocab_size for i in range(n)]] * rows)

    def generate(rows, new, length):
        ids = prompt(rows, length)
        start = time.perf_counter()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True,
                             max_new_tokens=new, pad_token_id=0)
        assert out.shape[1] == length + new
        return time.perf_counter() - start

    repeats = 3
    with torch.inference_mode():
        generate(1, 1, 16)
        result = {"start_to_first_token_s": time.perf_counter() - BEGAN}
        for rows in (1, 8):
            rates = []
            generate(rows, 2, 16)
            for _ in range(repeats):
                first = generate(rows, 1, 16)
                rates.append(rows * (args.tokens - 1) / (generate(rows, args.tokens, 16) - first))
            result[f"decode_b{rows}_tok_s"] = statistics.median(rates)
        generate(1, 1, args.prompt)
        rates = [args.prompt / generate(1, 1, args.prompt) for _ in range(repeats)]
        result[f"prefill_{args.prompt}_tok_s"] = statistics.median(rates)
    with open("/proc/self/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    result["peak_rss_gb"] = kib * 1024 / 1e9
    result["backend"] = "transformers, torch " + torch.__version__
    print(json.dumps(result))


if __name__ == "__main__":
    main()
