"""Makes contrastive.safetensors and contrastive.json: response means of two sets of sequences and directions from them.

    python contrastive.py MODEL_DIR --out DIR [--pairs 16] [--shared 0] [--seed 1]

Every pair is a random prompt with an "aligned" and a "malicious" random response, whose ids favour different halves of
the vocabulary; `--shared` pairs have equal responses, so that no hyperplane separates the classes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import hf
from directions import fit
from dump import write_json
from plan import RESERVED


def embeddings(model, sequences: list[dict]) -> np.ndarray:
    """[L, N, H] float32: mean block output over the response tokens, averaged in float64 and rounded once."""
    means = []
    for s in sequences:
        hidden = hf.forward(model, [hf.Row(s["ids"])])[0].hidden[:, s["prompt_len"] :]
        means.append(hidden.double().numpy().mean(1))
    return np.stack(means, 1).astype(np.float32)


def fit_layers(pos: np.ndarray, neg: np.ndarray) -> tuple[dict, list[dict]]:
    """Tensors stacked over layers, and one report a layer, from embeddings [L, N, H]."""
    fits = [fit(p, n) for p, n in zip(pos, neg)]
    tensors = {k: np.stack([t[k] for t, _ in fits]) for k in fits[0][0]}
    return tensors | {"emb.pos": pos, "emb.neg": neg}, [{"layer": l} | r for l, (_, r) in enumerate(fits)]


def draw(rng: np.random.Generator, vocab: int, pairs: int, shared: int) -> dict:
    """Random pairs: {"aligned": [...], "malicious": [...]} of {ids, prompt_len, response_len}."""
    half = vocab // 2
    aligned, malicious = [], []

    def response(high: bool):
        n = int(rng.integers(4, 20))
        usual = rng.random(n) < 0.7
        return np.where(usual == high, rng.integers(half, vocab, n), rng.integers(RESERVED, half, n)).tolist()

    for i in range(pairs):
        prompt = rng.integers(RESERVED, vocab, rng.integers(3, 11)).tolist()
        good = response(True)
        bad = good if i < shared else response(False)
        for where, r in ((aligned, good), (malicious, bad)):
            where.append({"ids": prompt + r, "prompt_len": len(prompt), "response_len": len(r)})
    return {"pairs": pairs, "shared_responses": shared, "aligned": aligned, "malicious": malicious}


def check(folder: Path) -> list[str]:
    """Refits stored contrastive data; faults in words. Prints the largest differences."""
    data, stored = json.loads((folder / "contrastive.json").read_text()), load_file(folder / "contrastive.safetensors")
    model = hf.load(folder, "f32")
    faults = []
    for name, key in (("emb.pos", "aligned"), ("emb.neg", "malicious")):
        d = np.abs(embeddings(model, data[key]) - stored[name]).max()
        print(f"  {name:40} max |d| {d:.3g}")
        if d > 1e-4:
            faults.append(f"{name}: differs by {d:.3g}")
    tensors, layers = fit_layers(stored["emb.pos"], stored["emb.neg"])
    if set(tensors) != set(stored):
        faults.append(f"contrastive.safetensors: names {sorted(set(tensors) ^ set(stored))} only in one")
    for name in sorted(set(tensors) & set(stored)):
        a, b = stored[name], tensors[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            faults.append(f"{name}: {a.dtype} {a.shape} and {b.dtype} {b.shape}")
            continue
        d = np.abs(a - b).max()
        if name.startswith("pca_"):  # the sign is arbitrary where the vote is a tie
            d = max(min(np.abs(x - y).max(), np.abs(x + y).max()) for x, y in zip(a, b))
        limit = 1e-5 if name.startswith(("sklearn", "pca")) else 1e-9
        print(f"  {name:40} max |d| {d:.3g}")
        if d > limit * max(1, np.abs(a).max()):
            faults.append(f"{name}: differs by {d:.3g}")
    for want, got in zip(data["layers"], layers):
        if want.keys() != got.keys() or want["lr"].keys() != got["lr"].keys():
            faults.append(f"contrastive.json layer {got['layer']}: other fields")
        for k in ("m", "mu_pos", "mu_neg", "sigma_pos", "sigma_neg", "delta_mu", "cap", "cosine_lr_diff_means", "cohens_d"):
            if abs(want[k] - got[k]) > 1e-9 * max(1, abs(want[k])):
                faults.append(f"contrastive.json layer {got['layer']}.{k}: {want[k]} and {got[k]}")
        if want["lr"]["linearly_separable"] != got["lr"]["linearly_separable"]:
            faults.append(f"contrastive.json layer {got['layer']}: linearly_separable")
    return faults


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--shared", type=int, default=0, help="pairs with equal responses")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args(argv)
    model = hf.load(a.model, "f32")
    data = draw(np.random.default_rng(a.seed), model.config.vocab_size, a.pairs, a.shared)
    tensors, layers = fit_layers(embeddings(model, data["aligned"]), embeddings(model, data["malicious"]))
    a.out.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(tensors[k]) for k in sorted(tensors)}, a.out / "contrastive.safetensors")
    write_json(a.out / "contrastive.json", data | {"layers": layers})


if __name__ == "__main__":
    main()
