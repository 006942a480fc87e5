"""Prints what justifies the tolerances of parity/README.md, from the dumps and from deliberate mistakes in float64.

    python tables.py FOLDER...
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np

from ref64 import Ref64, inverse_frequencies


def measured(dump: dict) -> dict:
    """Largest differences over all prompts and steering cases."""
    prompts = [p["f32"] for p in dump["prompts"]]
    steered = [q["f32"] for c in dump["steer"]["cases"] for q in c["sequences"]]
    gates = [q[k] for q in steered for k in ("gate_min_margin", "greedy_gate_min_margin")]
    mixed = dump["mixed"]["f32"]
    row = {
        "logits max": max(p["vs_f64"]["logits_max_abs_diff"] for p in prompts),
        "logits rms": max(p["vs_f64"]["logits_rms_diff"] for p in prompts),
        "hidden max": max(max(p["vs_f64"]["hidden_max_abs_diff_per_layer"]) for p in prompts),
        "steered logits max": max(q["vs_f64_logits_max_abs_diff"] for q in steered),
        "batch vs single": max(v for k, v in dump["batch"].items() if "diff" in k),
        "mixed vs single": mixed["max_abs_diff_to_singles"],
        "max abs logit": max(p["logits_max_abs"] for p in prompts),
        "min greedy margin": min(
            [p["greedy_min_margin"] for p in prompts] + [q["greedy_min_margin"] for q in steered] + mixed["greedy_min_margin"]
        ),
        "min gate margin": min(g for g in gates + mixed["greedy_gate_min_margin"] if g is not None),
    }
    if "bf16" in dump["references"]:
        against = [p["bf16"]["vs_f32"] for p in dump["prompts"]]
        cases = [q["bf16"]["vs_f32"] for c in dump["steer"]["cases"] for q in c["sequences"]]
        row |= {
            "bf16 logits max": max(a["logits_max_abs_diff"] for a in against),
            "bf16 logits rms": max(a["logits_rms_diff"] for a in against),
            "bf16 arg-max agreement": min(a["argmax_agreement"] for a in against),
            "bf16 greedy equal": f"{sum(a['greedy_equal_f32'] for a in against)}/{len(against)}",
            "bf16 steered logits max": max(c["logits_max_abs_diff"] for c in cases),
            "bf16 steered rms": max(c["logits_rms_diff"] for c in cases),
            "bf16 gates that differ": sum(c["gates_differ"] for c in cases),
            "bf16 steered greedy equal": f"{sum(c['greedy_equal_f32'] for c in cases)}/{len(cases)}",
        }
    return row


class Replaced:
    """Weights of a model, some of them taken as 1."""

    def __init__(self, weights, ending: str):
        self.weights, self.ending = weights, ending

    def __getitem__(self, name):
        w = self.weights[name]
        return np.ones_like(w) if name.endswith(self.ending) else w


def mistakes(folder: Path, ids: list[int]) -> dict:
    """max and rms of the change of logits that plausible mistakes make on one prompt."""
    right = Ref64(folder).forward(ids).logits
    c = json.loads((folder / "config.json").read_text())
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {"rope_type": "default"}
    kind = rope.get("rope_type", rope.get("type"))
    changed = {}

    def attempt(name, change):
        model = copy.copy(Ref64(folder))
        model.config = dict(model.config)
        change(model)
        d = model.forward(ids).logits - right
        changed[name] = f"{np.abs(d).max():.1e} / {np.sqrt(np.mean(d * d)):.1e}"

    def rope_as(**keys):
        def change(model):
            replaced = {k: v for k, v in c.items() if k not in ("rope_parameters", "rope_scaling")}
            theta = rope.get("rope_theta", c.get("rope_theta"))
            replaced["rope_parameters"] = {"rope_theta": theta} | rope | keys
            model.inv_freq, model.rope_scale = inverse_frequencies(replaced, model.head_dim)
        return change

    other = 1e-6 if c["rms_norm_eps"] == 1e-5 else 1e-5
    attempt("eps 1e-5 <-> 1e-6", lambda m: m.config.update(rms_norm_eps=other))
    attempt("control: positions shifted by 1", lambda m: setattr(m, "forward", lambda ids: Ref64.forward(m, ids, start=1)))
    attempt("final norm weight taken as 1", lambda m: setattr(m, "weights", Replaced(m.weights, "model.norm.weight")))
    if kind != "default":
        attempt("rope scaling ignored", rope_as(rope_type="default"))
    if kind == "yarn":
        attempt("yarn factor from max_position_embeddings", rope_as(factor=1.25))
        attempt("yarn without the attention factor", rope_as(attention_factor=1.0))
        attempt("yarn range not truncated to whole pairs", rope_as(truncate=False))
    if kind == "llama3":
        attempt("llama3 without the smooth band", rope_as(low_freq_factor=3.999))
    if c["model_type"] == "qwen3":
        attempt("q_norm weight taken as 1", lambda m: setattr(m, "weights", Replaced(m.weights, "q_norm.weight")))
    return changed


def table(rows: dict[str, dict]) -> None:
    keys = list(dict.fromkeys(k for r in rows.values() for k in r))
    print(f"| | {' | '.join(rows)} |\n|---|{'---|' * len(rows)}")
    for k in keys:
        cells = [r.get(k, "-") for r in rows.values()]
        print(f"| {k} | {' | '.join(f'{v:.2g}' if isinstance(v, float) else str(v) for v in cells)} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    folders = parser.parse_args().folders
    dumps = {f.name: json.loads((f / "dump.json").read_text()) for f in folders}
    table({name: measured(d) for name, d in dumps.items()})
    table({f.name: mistakes(f, dumps[f.name]["prompts"][-1]["ids"]) for f in folders})


if __name__ == "__main__":
    main()
