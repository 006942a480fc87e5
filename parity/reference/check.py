"""Checks the dump maker against a dump that something else made.

    python check.py FOLDER...

recomputes every dump in FOLDER from its own prompts, directions and cases, and compares names, shapes, dtypes, JSON
fields and numbers; the largest difference of each kind of tensor is printed. Contrastive data beside it is refitted
and compared too. Exit status 1 on a difference of structure, of an integer, or beyond the tolerances of
parity/README.md.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

from safetensors.torch import load_file

import dump
import plan as planning

# bfloat16 sums depend on the processor; its continuations and gates may then leave each other, and are only shown.
TOLERANCE = {"f32": 2e-4, "bf16": 0.5}


def shape_of(value):
    """The skeleton of a JSON value: keys and types, numbers alike."""
    if isinstance(value, dict):
        return {k: shape_of(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [shape_of(v) for v in value]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def differences(a, b, path=""):
    """Paths at which two JSON skeletons differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for k in sorted(a.keys() | b.keys()):
            if k not in a or k not in b:
                yield f"{path}.{k}: only in {'the dump' if k in a else 'the recomputation'}"
            else:
                yield from differences(a[k], b[k], f"{path}.{k}")
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{path}: {len(a)} and {len(b)} items"
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(x, y, f"{path}[{i}]")
    elif a != b:
        yield f"{path}: {a} and {b}"


def check_dump(folder: Path) -> list[str]:
    stored, stored_json = load_file(folder / "dump.safetensors"), json.loads((folder / "dump.json").read_text())
    tensors, report = dump.run(folder, planning.from_dump(folder), stored_json["references"])
    faults = [f"dump.json{d}" for d in differences(shape_of(stored_json), shape_of(report))]
    faults += [f"{n}: only in one of the two" for n in stored.keys() ^ tensors.keys()]
    worst = defaultdict(float)
    for name in sorted(stored.keys() & tensors.keys()):
        a, b = stored[name], tensors[name]
        if a.dtype != b.dtype or a.shape != b.shape:
            faults.append(f"{name}: {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}")
            continue
        d = (a.double() - b.double()).abs().max().item()
        kind = re.sub(r"\.[a-z_]+(?=\.seq)|\.\d+", ".*", name)
        worst[kind] = max(worst[kind], d)
        reference, last = name.split(".")[0], name.split(".")[-1]
        limit = TOLERANCE.get(reference, 0) if a.is_floating_point() else 0
        if d > limit and not (reference == "bf16" and last in ("greedy", "greedy_margin", "gate")):
            faults.append(f"{name}: differs by {d:.3g}")
    for kind, d in worst.items():
        print(f"  {kind:40} max |d| {d:.3g}")
    faults += compare_statistics(stored_json, report)
    return faults


def compare_statistics(a: dict, b: dict) -> list[str]:
    """Per-site statistics of the float32 runs: counts exactly, means to 2e-4 relative."""
    faults = []

    def walk(x, y, path):
        if isinstance(x, dict):
            for k in x.keys() & y.keys():
                if k != "bf16":
                    walk(x[k], y[k], f"{path}.{k}")
        elif isinstance(x, list):
            for i, (p, q) in enumerate(zip(x, y)):
                walk(p, q, f"{path}[{i}]")
        elif re.search(r"\.(eligible|gated|capped|layer|gates_differ|v_index)$", path) and x != y:
            faults.append(f"{path}: {x} and {y}")
        elif re.search(r"\.mean_l2_\w+$", path) and abs(x - y) > 2e-4 * max(1, abs(x)):
            faults.append(f"{path}: {x} and {y}")

    walk({k: a.get(k, {}) for k in ("steer", "mixed")}, b, "dump.json")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    bad = 0
    for folder in parser.parse_args().folders:
        print(folder.name)
        faults = check_dump(folder)
        if (folder / "contrastive.json").exists():
            import contrastive
            faults += contrastive.check(folder)
        for fault in faults:
            print(f"  FAULT {fault}")
        bad += bool(faults)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
