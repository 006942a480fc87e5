"""Dumps what a local Hugging Face model computes, for `steerage parity` and `go test ./parity`.

    python dump.py MODEL_DIR --out DIR [--prompts FILE] [--steer none|basic|full]

writes DIR/dump.safetensors and DIR/dump.json in the format of parity/README.md. DIR is MODEL_DIR itself as a rule:
`steerage parity` looks for the dump beside the model.
The prompts file is a JSON list; an item is a text (needs a tokenizer in MODEL_DIR) or a list of token ids.
Without it, a folder with a tokenizer gets English prompts and any other gets random ids.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

import hf
import plan as planning
from hf import Row
from plan import PROMPT_TOKENS, STEER_TOKENS, Plan
from ref64 import Ref64, Weights
from steering import gate_margin

TEXTS = [
    "The",
    "The capital of France is the city of",
    "Once upon a time there was a lighthouse keeper who counted the ships that passed. One night, when the fog was thick,",
    (
        "Honesty is not only the refusal to lie. A person who answers every question truthfully, but chooses which questions"
        " to hear, may leave everyone with a false picture. The difference matters most when the listener cannot check:"
        " a patient, a pupil, a reader far away. The first rule of a careful witness is therefore"
    ),
]


def run(folder: Path, plan: Plan, references: list[str], f64: bool = True) -> tuple[dict, dict]:
    """Computes the plan: (tensors of dump.safetensors, content of dump.json)."""
    exact = Ref64(folder) if f64 else None
    tensors, prompts = {}, [{"ids": ids, "length": len(ids)} for ids in plan.prompts]
    report = {"references": references, "prompts": prompts}
    for i, ids in enumerate(plan.prompts):
        tensors[f"prompt.{i}.ids"] = int32(ids)
    if plan.cases:
        report["steer"] = {
            "sequences": [{"ids": s.ids, "prompt_len": s.prompt_len} for s in plan.sequences],
            "cases": [
                {"name": c.name, "mode": c.mode, "sites": [s.json() for s in c.sites], "sequences": [{} for _ in plan.sequences]}
                for c in plan.cases
            ],
        }
        tensors["steer.v_hat"] = torch.from_numpy(plan.v_hat)
        for j, s in enumerate(plan.sequences):
            tensors[f"steer.seq.{j}.ids"] = int32(s.ids)
    if plan.mixed:
        rows = [{"config": r.case.name, "ids": r.ids, "prompt_len": r.prompt_len} for r in plan.mixed]
        report["mixed"] = {"rows": rows, "padding": "left", "pad_id": hf.PAD}
    for r in references:
        model = hf.load(folder, r)
        if r == "f32":
            c = model.config
            shape = {"num_layers": c.num_hidden_layers, "hidden_size": c.hidden_size, "vocab_size": c.vocab_size}
            report = {"model": Path(folder).resolve().name, "dtype": references[-1]} | shape | report
        for i, ids in enumerate(plan.prompts):
            prompts[i][r] = dump_prompt(model, r, i, ids, exact, tensors)
        if r == "f32" and len(plan.prompts) >= 3:
            report["batch"] = dump_batch(model, plan.prompts[:3], tensors)
        if plan.cases:
            dump_steering(model, r, plan, exact, tensors, report["steer"]["cases"])
        if plan.mixed:
            report["mixed"][r] = dump_mixed(model, r, plan, tensors)
    return tensors, report


def dump_prompt(model, r: str, i: int, ids: list[int], exact: Ref64 | None, tensors: dict) -> dict:
    """All logits and hidden states of one prompt, and its greedy continuation."""
    row, name = Row(ids), f"{r}.prompt.{i}."
    out, more = hf.forward(model, [row])[0], hf.greedy(model, [row], PROMPT_TOKENS)[0]
    tensors |= {name + "logits": out.logits, name + "hidden": out.hidden}
    tensors |= {name + "greedy": int32(more.tokens), name + "greedy_margin": torch.from_numpy(more.margin)}
    logits, hidden = f64(out.logits), f64(out.hidden)
    report = {
        "greedy": more.tokens.tolist(),
        "greedy_min_margin": float(more.margin.min()),
        "greedy_recomputed_without_cache_agreement": hf.agreement_without_cache(model, row, more),
        "logits_max_abs": float(np.abs(logits).max()),
        "logits_std": float(logits.std()),
    }
    if exact:
        want = exact.forward(ids)
        report["vs_f64"] = difference(logits, hidden, want.logits, want.hidden)
        report["vs_f64"]["hidden_rms_per_layer"] = [rms(h) for h in want.hidden]
    if r != "f32":
        base = f64(tensors[f"f32.prompt.{i}.logits"])
        report["vs_f32"] = difference(logits, hidden, base, f64(tensors[f"f32.prompt.{i}.hidden"])) | {
            "argmax_agreement": float(np.mean(logits.argmax(-1) == base.argmax(-1))),
            "greedy_equal_f32": more.tokens.tolist() == tensors[f"f32.prompt.{i}.greedy"].tolist(),
        }
    return report


def dump_batch(model, prompts: list[list[int]], tensors: dict) -> dict:
    """Three prompts as one padded batch, on both sides: padding must not change a result."""
    report = {"row_prompt": [0, 1, 2], "pad_id": hf.PAD}
    singles = [hf.forward(model, [Row(ids)])[0].logits for ids in prompts]
    for side in ("left", "right"):
        for key, value in zip(("ids", "mask", "position_ids"), hf.pad(prompts, side)):
            tensors[f"batch.{side}.{key}"] = int32(value)
        results = hf.forward(model, [Row(ids) for ids in prompts], side=side)
        tensors[f"f32.batch.{side}.last_logits"] = torch.stack([x.logits[-1] for x in results])
        report[f"{side}_max_abs_diff_to_singles"] = max(max_abs(x.logits, y) for x, y in zip(results, singles))
    return report


def dump_steering(model, r: str, plan: Plan, exact: Ref64 | None, tensors: dict, cases: list[dict]) -> None:
    """Every case on every sequence: teacher-forced, and greedy from the sequence's prompt."""
    unsteered = [hf.forward(model, [Row(s.ids)])[0].logits for s in plan.sequences]
    for j, logits in enumerate(unsteered):
        tensors[f"{r}.steer.unsteered.seq.{j}.logits"] = logits
    for case, entry in zip(plan.cases, cases):
        for j, seq in enumerate(plan.sequences):
            rest = f"steer.{case.name}.seq.{j}."
            name = f"{r}.{rest}"
            row = Row(seq.ids, case, seq.prompt_len)
            prompt = Row(seq.ids[: seq.prompt_len], case, seq.prompt_len)
            out = hf.forward(model, [row], plan.v_hat)[0]
            more = hf.greedy(model, [prompt], STEER_TOKENS, plan.v_hat)[0]
            tensors |= {
                name + "logits": out.logits,
                name + "hidden_last": out.hidden[-1],
                name + "rho": torch.from_numpy(np.stack([t.rho for t in out.traces])),
                name + "gate": torch.from_numpy(np.stack([t.gate for t in out.traces]).astype(np.uint8)),
                name + "greedy": int32(more.tokens),
                name + "greedy_margin": torch.from_numpy(more.margin),
            }
            report = {"sites": statistics(case, out.traces), "gate_min_margin": gate_margin(case.sites, out.traces)}
            if exact:
                want = exact.forward(seq.ids, case.sites, plan.v_hat, case.first(seq.prompt_len))
                report["vs_f64_logits_max_abs_diff"] = max_abs(out.logits, want.logits)
                report["vs_f64_hidden_last_max_abs_diff"] = max_abs(out.hidden[-1], want.hidden[-1])
            report |= {
                "effect_max_abs_logit_change": max_abs(out.logits, unsteered[j]),
                "greedy": more.tokens.tolist(),
                "greedy_min_margin": float(more.margin.min()),
                "greedy_gate_min_margin": gate_margin(case.sites, more.traces),
                "greedy_sites": statistics(case, more.traces),
                "greedy_recomputed_without_cache_agreement": hf.agreement_without_cache(model, prompt, more, plan.v_hat),
            }
            if r != "f32":
                d = f64(out.logits) - f64(tensors[f"f32.{rest}logits"])
                report["vs_f32"] = {
                    "logits_max_abs_diff": float(np.abs(d).max()),
                    "logits_rms_diff": rms(d),
                    "gates_differ": int((tensors[name + "gate"] != tensors[f"f32.{rest}gate"]).sum()),
                    "greedy_equal_f32": more.tokens.tolist() == tensors[f"f32.{rest}greedy"].tolist(),
                }
            entry["sequences"][j][r] = report


def dump_mixed(model, r: str, plan: Plan, tensors: dict) -> dict:
    """One left-padded batch in which every row has its own steering."""
    prompts = [Row(x.ids[: x.prompt_len], x.case, x.prompt_len) for x in plan.mixed]
    results, mores = hf.forward(model, plan.mixed, plan.v_hat), hf.greedy(model, prompts, STEER_TOKENS, plan.v_hat)
    diff, equal = 0.0, []
    for b, (row, prompt, out, more) in enumerate(zip(plan.mixed, prompts, results, mores)):
        name = f"{r}.mixed.{b}."
        tensors |= {name + "logits": out.logits, name + "greedy": int32(more.tokens)}
        tensors[name + "greedy_margin"] = torch.from_numpy(more.margin)
        diff = max(diff, max_abs(out.logits, hf.forward(model, [row], plan.v_hat)[0].logits))
        alone = hf.greedy(model, [prompt], STEER_TOKENS, plan.v_hat)[0]
        equal.append(bool((alone.tokens == more.tokens).all()))
    return {
        "max_abs_diff_to_singles": diff,
        "greedy_equals_singles": equal,
        "sites": [statistics(row.case, out.traces) for row, out in zip(plan.mixed, results)],
        "greedy_min_margin": [float(more.margin.min()) for more in mores],
        "greedy_gate_min_margin": [gate_margin(row.case.sites, more.traces) for row, more in zip(plan.mixed, mores)],
    }


def statistics(case, traces) -> list[dict]:
    return [t.statistics(s.layer) for s, t in zip(case.sites, traces)]


def difference(logits, hidden, want_logits, want_hidden) -> dict:
    return {
        "logits_max_abs_diff": float(np.abs(logits - want_logits).max()),
        "logits_rms_diff": rms(logits - want_logits),
        "hidden_max_abs_diff_per_layer": [float(np.abs(a - b).max()) for a, b in zip(hidden, want_hidden)],
        "hidden_rms_diff_per_layer": [rms(a - b) for a, b in zip(hidden, want_hidden)],
    }


def int32(x) -> torch.Tensor:
    return torch.as_tensor(np.asarray(x), dtype=torch.int32)


def f64(x) -> np.ndarray:
    return x.double().numpy() if isinstance(x, torch.Tensor) else x


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def max_abs(a, b) -> float:
    return float(np.abs(f64(a) - f64(b)).max())


def write(out: Path, tensors: dict, report: dict) -> None:
    out.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensors[name].contiguous() for name in sorted(tensors)}
    save_file(contiguous, out / "dump.safetensors", metadata={"model": report["model"]})
    write_json(out / "dump.json", report)


def write_json(path: Path, value) -> None:
    """Indented JSON, with lists of plain numbers on one line."""
    text = json.dumps(value, indent=1)
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda m: re.sub(r"\s+", " ", m[0]).replace("[ ", "[").replace(" ]", "]"), text)
    path.write_text(text + "\n")


def read_prompts(folder: Path, file: Path | None) -> list[list[int]] | None:
    """Prompts as ids; None when neither a file nor a tokenizer is there."""
    tokenizer = (folder / "tokenizer.json").exists() or (folder / "tokenizer.model").exists()
    if file is None and not tokenizer:
        return None
    prompts = TEXTS if file is None else json.loads(file.read_text())
    if any(isinstance(p, str) for p in prompts):
        if not tokenizer:
            raise SystemExit(f"{file}: a prompt is a text, but {folder} has no tokenizer; give lists of ids")
        encode = AutoTokenizer.from_pretrained(str(folder)).encode
        prompts = [encode(p) if isinstance(p, str) else p for p in prompts]
    if not prompts or not all(prompts):
        raise SystemExit("every prompt needs at least one token")
    return prompts


def references_of(folder: Path) -> list[str]:
    """float32 always; bfloat16 too when the checkpoint is stored so."""
    return ["f32", "bf16"] if Weights(folder).dtype("model.embed_tokens.weight") == "BF16" else ["f32"]


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--prompts", type=Path, metavar="FILE")
    parser.add_argument("--steer", choices=("none", "basic", "full"), default="basic", help="steering cases (default: basic)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 7, 33, 97], help="lengths of random prompts")
    parser.add_argument("--seed", type=int, default=1, help="of random prompts and directions")
    parser.add_argument("--min-margin", type=float, default=0, help="redraw random prompts until greedy margins reach this")
    parser.add_argument("--min-gate-margin", type=float, default=0, help="redraw directions until |rho - m| reaches this")
    parser.add_argument("--no-f64", action="store_true", help="leave out the float64 comparison (slow for large models)")
    a = parser.parse_args(argv)
    if not (a.model / "config.json").exists():
        parser.error(f"{a.model} is no model folder: it has no config.json")
    rng = np.random.default_rng(a.seed)
    cases = {"none": (), "basic": planning.BASIC, "full": tuple(planning.CASES)}[a.steer]
    prompts = read_prompts(a.model, a.prompts)
    model = hf.load(a.model, "f32")
    if prompts is None:
        plan = planning.draw(model, rng, a.lengths, cases, planning.Limits(a.min_margin, a.min_gate_margin))
    else:
        plan = planning.from_prompts(model, rng, prompts, cases)
    del model
    tensors, report = run(a.model, plan, references_of(a.model), f64=not a.no_f64)
    write(a.out, tensors, report)
    print(f"{a.out}: {len(tensors)} tensors, {len(plan.prompts)} prompts, {len(plan.cases)} steering cases", file=sys.stderr)


if __name__ == "__main__":
    main()
