"""What bench/train measures, in PyTorch: steps of Adam on a steering vector through a frozen transformers model. One line of JSON.

The same data, loss and step: the vector is added to the output of a block by a forward hook, the loss is the contrastive one of
contrast.Train, the log-probabilities of the unsteered model are computed once. Written as one would write it to be fast: parameters
frozen, no cache, and the head only at the positions that predict a response. The losses must agree with bench/train's.
"""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402  (imports are part of the start that is measured)
import json
import statistics

import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--response", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto").eval().requires_grad_(False)
    model.generation_config.eos_token_id = None

    def ids(n, seed):
        return [(1000 + 37 * i + 101 * seed) % model.config.vocab_size for i in range(n)]

    pairs = range(args.batch)
    rows = torch.tensor([ids(args.prompt, 3 * i) + ids(args.response, 3 * i + 1 + sign) for sign in (0, 1) for i in pairs])
    inputs, targets = rows[:, :-1], rows[:, args.prompt:]
    vector = torch.zeros(model.config.hidden_size, requires_grad=True)

    def add(module, arguments, output):
        if isinstance(output, tuple):
            return (output[0] + vector.to(output[0].dtype), *output[1:])
        return output + vector.to(output.dtype)

    model.model.layers[args.layer].register_forward_hook(add)

    def log_probs():
        hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state[:, args.prompt - 1:]
        logits = model.lm_head(hidden).float()
        each = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        positive, negative = each.sum(-1).chunk(2)
        return positive - negative

    with torch.no_grad():
        reference = log_probs()
    adam = torch.optim.Adam([vector], lr=1e-2)
    losses, seconds, first = [], [], None
    for step in range(args.steps):
        start = time.perf_counter()
        loss = -logsigmoid(0.1 * (log_probs() - reference)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
        if step == 0:
            first = time.perf_counter() - BEGAN
        else:
            seconds.append(time.perf_counter() - start)
    with open("/proc/self/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    took = statistics.median(seconds)
    print(json.dumps({
        "step_s": took, "steps_per_s": 1 / took, "start_to_first_step_s": first, "losses": losses, "norm": vector.norm().item(),
        "peak_rss_gb": kib * 1024 / 1e9, "backend": "transformers, torch " + torch.__version__}))


if __name__ == "__main__":
    main()
