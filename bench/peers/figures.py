"""What the peers have in common with package bench: its prompts, its summaries and its intervals."""

import random
import statistics


def row(number, n, vocabulary):
    """bench.Prompt: the upper bits of Knuth's MMIX generator."""
    ids, x = [], number + 1
    for _ in range(n):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((x >> 33) % vocabulary)
    return ids


def summary(runs):
    return {"min": min(runs), "median": statistics.median(runs), "max": max(runs), "runs": len(runs)}


def quantile(values, q):
    s = sorted(values)
    at = q * (len(s) - 1)
    below = int(at)
    return s[below] + (at - below) * (s[min(below + 1, len(s) - 1)] - s[below])


def interval(a, b):
    """The median of the ratios of two figures round by round, and its 95% bootstrap interval."""
    ratios = [x / y for x, y in zip(a, b)]
    rng = random.Random(1)
    medians = [statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(4000)]
    return {"median": statistics.median(ratios), "low": quantile(medians, 0.025), "high": quantile(medians, 0.975), "rounds": len(ratios)}


def steering(what, batch, tokens, plain, steered):
    """Two entries of bench.Result.Steering: without, and with one vector."""
    return [
        {"what": what, "batch": batch, "tokens": tokens, "configurations": k, "among": 1, "s": summary(s), "to_plain": interval(s, plain),
         "to_one": interval(s, steered)} for k, s in enumerate((plain, steered))
    ]


def peak_rss():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
