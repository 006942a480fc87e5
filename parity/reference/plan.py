"""What a dump computes: prompts, steering sequences, directions, cases and the mixed batch.

A plan is drawn at random (small models), built from given prompts (a user's own model), or read back from an existing
dump (to check it). Drawing keeps clear of ties: a greedy step whose two best logits are close, or a projection close to
its gate, would let two correct engines disagree.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import safe_open

import hf
from hf import Row
from steering import Case, Site, f32, gate_margin

PROMPT_TOKENS = 32  # greedy tokens after every prompt
STEER_TOKENS = 24  # greedy tokens of a steered or mixed run
MIXED_CASES = ("none", "swfc_one_all", "sttp_multi_all", "stmp_one_response")
DISTINCT = 10  # a drawn prompt's continuation has at least so many different tokens: a loop of one shows little
RESERVED = 5  # ids below are pad, bos, eos: not drawn

# name -> (mode, sites): a site is (depth, method, alpha[, "negative" | "cap"]); depths 0 to 3 are spread over the layers.
CASES = {
    "swfc_one_all": ("all", [(1, "swfc", 2.0)]),
    "sttp_one_all": ("all", [(2, "sttp", 5.0)]),
    "sttp_negative_all": ("all", [(2, "sttp", 4.0, "negative")]),
    "stmp_one_all": ("all", [(2, "stmp", 1.0)]),
    "stmp_cap_all": ("all", [(2, "stmp", 4.0, "cap")]),
    "swfc_multi_all": ("all", [(0, "swfc", 1.0), (2, "swfc", 1.5), (3, "swfc", 1.0)]),
    "sttp_multi_all": ("all", [(0, "sttp", 5.0), (2, "sttp", 5.0), (3, "sttp", 5.0)]),
    "stmp_multi_all": ("all", [(0, "stmp", 1.5), (2, "stmp", 1.25), (3, "stmp", 1.5)]),
    "mixed_methods_all": ("all", [(0, "swfc", -1.0), (2, "sttp", 3.0), (2, "stmp", 1.5), (3, "stmp", 2.0)]),
    "swfc_one_response": ("response", [(1, "swfc", 2.0)]),
    "sttp_multi_response": ("response", [(0, "sttp", 5.0), (2, "sttp", 5.0), (3, "sttp", 5.0)]),
    "stmp_one_response": ("response", [(2, "stmp", 1.0)]),
}
BASIC = ("swfc_one_all", "sttp_multi_all", "stmp_one_all", "stmp_multi_all", "sttp_multi_response", "stmp_one_response")


@dataclass
class Limits:
    """Smallest margins a drawn plan may have, in logits and in projections; 0 accepts the first draw."""

    greedy: float = 0.0
    gate: float = 0.0
    tries: int = 400


@dataclass
class Plan:
    prompts: list[list[int]]
    sequences: list[Row] = field(default_factory=list)  # ids and prompt_len, no case
    v_hat: np.ndarray | None = None  # [K, H] float32
    cases: list[Case] = field(default_factory=list)
    mixed: list[Row] = field(default_factory=list)


def from_dump(folder: Path) -> Plan:
    """The plan that made the dump in `folder`."""
    dump = json.loads((Path(folder) / "dump.json").read_text())
    plan = Plan([p["ids"] for p in dump["prompts"]])
    if "steer" not in dump:
        return plan
    plan.sequences = [Row(s["ids"], prompt_len=s["prompt_len"]) for s in dump["steer"]["sequences"]]
    with safe_open(Path(folder) / "dump.safetensors", framework="np") as tensors:
        plan.v_hat = tensors.get_tensor("steer.v_hat")
    plan.cases = [Case(c["name"], c["mode"], [Site(**s) for s in c["sites"]]) for c in dump["steer"]["cases"]]
    by_name = {c.name: c for c in plan.cases} | {"none": hf.NONE}
    plan.mixed = [Row(r["ids"], by_name[r["config"]], r["prompt_len"]) for r in dump.get("mixed", {}).get("rows", [])]
    return plan


def draw(model, rng: np.random.Generator, lengths: list[int], cases: tuple[str, ...], limits: Limits) -> Plan:
    """A plan of random ids for a model with random weights."""
    ids = lambda n: rng.integers(RESERVED, model.config.vocab_size, n).tolist()
    plan = Plan([_first(limits, f"prompt of {n}", lambda: ids(n), lambda p: _greedy_ok(model, p, limits)) for n in lengths])
    if cases:
        plan.sequences = [Row(ids(n), prompt_len=p) for n, p in ((22, 8), (18, 11))]
        _draw_steering(model, rng, plan, cases, limits, lambda n, p: Row(ids(n), prompt_len=p))
    return plan


def from_prompts(model, rng: np.random.Generator, prompts: list[list[int]], cases: tuple[str, ...]) -> Plan:
    """A plan around given prompts: the steering sequences are cut from the two longest."""
    plan = Plan(prompts)
    if cases:
        longest = sorted(prompts, key=len)[-2:]
        if len(longest[0]) < 4:
            raise ValueError("steering needs two prompts of at least 4 tokens")
        cut = lambda p, n: Row(p[:n], prompt_len=max(1, len(p[:n]) // 2))
        plan.sequences = [cut(longest[-1], 24), cut(longest[0], 18)]
        _draw_steering(model, rng, plan, cases, Limits(tries=50), lambda n, _p: cut(longest[n % 2], n))
    return plan


def _draw_steering(model, rng, plan: Plan, names, limits: Limits, new_row) -> None:
    """Draws directions and statistics of the named cases, and the mixed batch of four rows."""
    directions = []
    for name in names:
        case, vs = _first(
            limits,
            name,
            lambda: _draw_case(model, rng, plan, name, len(directions)),
            lambda cv: _case_ok(model, plan, cv[0], np.array(directions + cv[1], np.float32), limits),
        )
        plan.cases.append(case)
        directions += vs
    plan.v_hat = np.array(directions, np.float32)
    by_name = {c.name: c for c in plan.cases} | {"none": hf.NONE}
    one, two = plan.sequences
    configs = [by_name[name] for name in MIXED_CASES]

    def rows():
        drawn = [new_row(13, 6), one, two, new_row(20, 7)]
        return [Row(r.ids, case, r.prompt_len) for r, case in zip(drawn, configs)]

    plan.mixed = _first(limits, "mixed", rows, lambda rs: _rows_ok(model, rs, plan.v_hat, limits))


def _draw_case(model, rng, plan: Plan, name: str, v_index: int) -> tuple[Case, list[np.ndarray]]:
    """One case: random unit directions; m lies in a wide gap of the projections that its site really sees."""
    mode, specs = CASES[name]
    case, directions = Case(name, mode, []), []
    layers, hidden = model.config.num_hidden_layers, model.config.hidden_size
    for depth, method, alpha, *special in specs:
        v = rng.standard_normal(hidden)
        directions.append((v / np.linalg.norm(v)).astype(np.float32))
        site = Site(_layer(depth, layers), method, v_index + len(directions) - 1, alpha, 0, 0, 0, 0, 0, 0, 0)
        case.sites.append(site)
        v_hat = np.concatenate([np.zeros((v_index, hidden), np.float32), np.array(directions)])
        rho = []
        for seq in plan.sequences:  # earlier sites are in effect, this one does not edit before its trace is taken
            trace = hf.forward(model, [Row(seq.ids, case, seq.prompt_len)], v_hat)[0].traces[-1]
            rho.append(trace.rho[trace.eligible])
        m, spread = _middle_of_gap(np.concatenate(rho))
        site.m = f32(m)
        site.mu_pos = f32(m + rng.uniform(0.9, 1.3) * spread)
        site.mu_neg = f32(m - rng.uniform(0.9, 1.3) * spread)
        site.sigma_pos = f32((0.01 if "cap" in special else rng.uniform(0.18, 0.26)) * spread)
        site.sigma_neg = f32(rng.uniform(0.18, 0.26) * spread)
        site.delta_mu = f32(np.float32(site.mu_pos) - np.float32(site.mu_neg))
        site.cap = f32(site.mu_pos + 40 * site.sigma_pos) if method == "stmp" else None
        site.direction = "negative" if "negative" in special else "positive"
    return case, directions


def _layer(depth: int, layers: int) -> int:
    """Depths 0 to 3 on a model of any size: the first, about a third, about two thirds, the last."""
    return round(depth * (layers - 1) / 3)


def _middle_of_gap(rho: np.ndarray) -> tuple[float, float]:
    """Centre of the widest gap among the middle half of the values, and their standard deviation."""
    x = np.sort(rho.astype(np.float64))
    x_mid = x[len(x) // 4 : len(x) - len(x) // 4]
    if len(x_mid) < 2:
        return float(x.mean()), float(x.std() or 1)
    i = np.diff(x_mid).argmax()
    return float((x_mid[i] + x_mid[i + 1]) / 2), float(x.std())


def _first(limits: Limits, what: str, make, good):
    """The first made thing that is good."""
    for _ in range(limits.tries):
        thing = make()
        if good(thing):
            return thing
    raise RuntimeError(f"{what}: no draw out of {limits.tries} keeps the margins {limits}")


def _greedy_ok(model, prompt: list[int], limits: Limits) -> bool:
    if not limits.greedy:
        return True
    more = hf.greedy(model, [Row(prompt)], PROMPT_TOKENS)[0]
    return more.margin.min() >= limits.greedy and len(set(more.tokens.tolist())) >= DISTINCT


def _case_ok(model, plan: Plan, case: Case, v_hat: np.ndarray, limits: Limits) -> bool:
    """Every site moves some but (if it has a gate) not all positions, and nothing is near a tie."""
    rows = [Row(s.ids, case, s.prompt_len) for s in plan.sequences]
    traces = [hf.forward(model, [row], v_hat)[0].traces for row in rows]
    for s, site in enumerate(case.sites):
        moved, eligible = (sum(int(getattr(t[s], k).sum()) for t in traces) for k in ("gate", "eligible"))
        if not moved or (site.method != "swfc" and moved == eligible):
            return False
    return _rows_ok(model, rows, v_hat, limits, together=False)


def _rows_ok(model, rows: list[Row], v_hat: np.ndarray, limits: Limits, together: bool = True) -> bool:
    if not (limits.greedy or limits.gate):
        return True
    for batch in [rows] if together else [[r] for r in rows]:
        results = hf.forward(model, batch, v_hat)
        prompts = [Row(r.ids[: r.prompt_len], r.case, r.prompt_len) for r in batch]
        for row, result, more in zip(batch, results, hf.greedy(model, prompts, STEER_TOKENS, v_hat)):
            margins = [gate_margin(row.case.sites, t) for t in (result.traces, more.traces)]
            if more.margin.min() < limits.greedy or min([m for m in margins if m is not None], default=1e9) < limits.gate:
                return False
    return True
