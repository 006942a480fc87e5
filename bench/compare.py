#!/usr/bin/env python3
"""Compares the engine with Hugging Face transformers on the same random weights, in one run, A B A B.

compare.py [--rounds 3] [--dtypes float32,bfloat16] [--batch 1,8] [--tokens 32] [--prompt 512] [--out FILE] [--dry].
Each round starts fresh processes of both; one unmeasured process of each goes before, so that files are in the page
cache and programs in the compile cache. Models are made once, in ${XDG_CACHE_HOME:-~/.cache}/steerage/bench. The report goes to
docs/bench/<date>-cpu-transformers.md, never over an earlier one; --dry prints it only. --python is one with torch and
transformers (default: the venv of `make venv`), --steerage a binary that is not to be built from here.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "steerage"
SEED = 0


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parent).stdout


def measure(command):
    return json.loads(output(*map(str, command)).splitlines()[-1])


def figures(result):
    """name -> (value, whether more is better), in the order of the report."""
    out = {f"decode, batch {d['batch']} (tokens/s)": (d["tok_s"]["median"], True) for d in result["decode"]}
    out[f"prefill, {result['prompt']} tokens (tokens/s)"] = (result["prefill_tok_s"]["median"], True)
    out["start to first token (s)"] = (result["start_s"]["median"], False)
    out["peak resident memory (GB)"] = (result["peak_rss_bytes"] / 1e9, False)
    return out


def ratio(ours, theirs, more):
    return ours / theirs if more else theirs / ours


def agreement(ours, theirs):
    """How many greedy tokens are the same from the first one on."""
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    return f"{same} of {len(theirs)}"


def table(rounds):
    lines = ["| | engine | transformers | ratio | each round |", "| --- | --- | --- | --- | --- |"]
    for name, (_, more) in figures(rounds[0][0]).items():
        ours, theirs = ([figures(pair[side])[name][0] for pair in rounds] for side in (0, 1))
        ratios = [ratio(a, b, more) for a, b in zip(ours, theirs)]
        lines.append(f"| {name} | {statistics.median(ours):.2f} | {statistics.median(theirs):.2f} | "
                     f"{statistics.median(ratios):.2f} | {', '.join(f'{r:.2f}' for r in ratios)} |")
    return lines


def cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {cpu()}, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def unused(path):
    """The path, or path-2, path-3 …: an earlier report is never overwritten."""
    n, free = 1, path
    while free.exists():
        n, free = n + 1, path.with_stem(f"{path.stem}-{n + 1}")
    return free


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--python", type=pathlib.Path, default=CACHE / "venv/bin/python")
    parser.add_argument("--steerage", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}, want at least 1")
    if not args.python.exists():
        sys.exit(f"{args.python} is not there: `make venv` makes it, --python names another with torch and transformers")
    steerage = args.steerage
    if steerage is None:
        steerage = CACHE / "bench" / "steerage"
        output("go", "build", "-o", str(steerage), "./cmd/steerage")
    # The machine's own noise is the reader's to judge, so it is in the report.
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"the machine is busy (load {busy:.1f}): expect noise", file=sys.stderr)
    changed = " with uncommitted changes" if output("git", "status", "--porcelain", "--untracked-files=no").strip() else ""
    # Paths of this machine are no part of a command that a reader repeats.
    said = ["bench/compare.py", f"--rounds {args.rounds}", f"--dtypes {args.dtypes}", f"--batch {args.batch}", f"--tokens {args.tokens}",
            f"--prompt {args.prompt}"]
    work = ["--batch", args.batch, "--tokens", args.tokens, "--prompt", args.prompt]
    sections, versions = [], ""
    for dtype in args.dtypes.split(","):
        model = CACHE / "bench" / f"qwen3-0.6b-{dtype}-seed{SEED}"
        if not model.exists():
            print(f"writing {model}", file=sys.stderr)
            subprocess.run([args.python, HERE / "peers/random_model.py", model, "--dtype", dtype, "--seed", str(SEED)], check=True)
        sides = ([steerage, "bench", model, "--json", *work], [args.python, HERE / "peers/transformers_bench.py", model, *work])
        measure(sides[0])
        measure([*sides[1][:3], "--batch", "1", "--tokens", "2", "--prompt", "16"])  # it has no programs to keep
        rounds = []
        for number in range(args.rounds):
            rounds.append([measure(command) for command in sides])
            for result in rounds[-1]:
                print(dtype, "round", number + 1, json.dumps(result), file=sys.stderr, flush=True)
        ours, theirs = rounds[0]
        versions = theirs["engine"]
        compiled = ", ".join(f"{a['compile_s']:.2f}" for a, _ in rounds)
        sections += [f"## {dtype}: {ours['backend']} against {theirs['backend']}", "", *table(rounds), "",
                     f"Greedy tokens equal from the first on: {agreement(ours['ids'], theirs['ids'])}. Building and loading programs took "
                     f"{compiled} s of the engine's start.", ""]
    text = "\n".join([
        f"# Engine against transformers on a CPU, {datetime.date.today()}", "",
        f"`{' '.join(said)}`, commit {output('git', 'rev-parse', '--short', 'HEAD').strip()}{changed}. {machine()}; load {busy:.1f} at the "
        f"beginning. {output('go', 'version').split()[2]}; {versions}. Random weights of Qwen3-0.6B's shape (seed {SEED}).", "",
        "Rounds alternate, each of fresh processes with warm caches; a round's figure is the median of its runs. The ratio is the median of "
        "the rounds' ratios, above 1 where the engine is ahead. Memory counts mapped files, as VmHWM does.", "", *sections])
    print(text)
    if not args.dry:
        out = args.out or unused(HERE.parent / "docs/bench" / f"{datetime.date.today()}-cpu-transformers.md")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        print(f"written to {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
