"""Makes logistic.safetensors and logistic.json: directions on synthetic embeddings, no model needed.

    python logistic.py --out DIR [--seed 1]
"""

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from directions import fit
from dump import write_json

# name -> (rows pos, rows neg, dimensions, distance of the class means, scale of all values, distance from the origin)
CASES = {
    "separable": (24, 24, 40, 4.5, 1.0, 1.0),
    "overlapping": (50, 50, 10, 1.6, 1.0, 1.0),
    "unbalanced_overlapping": (14, 36, 6, 1.3, 1.0, 1.0),
    "wide_large_norm": (18, 18, 96, 3.0, 15.0, 60.0),  # norms in the hundreds: scikit-learn's answer is visibly off
}


def embeddings(rng: np.random.Generator, n_pos, n_neg, dim, distance, scale, offset) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian clouds with per-dimension spreads in [0.5, 1.5]."""
    axis = rng.standard_normal(dim)
    axis *= distance / np.linalg.norm(axis)
    centre, spread = rng.standard_normal(dim) * offset, rng.uniform(0.5, 1.5, dim)
    cloud = lambda n, sign: centre + scale * (sign * axis / 2 + spread * rng.standard_normal((n, dim)))
    return cloud(n_pos, 1).astype(np.float32), cloud(n_neg, -1).astype(np.float32)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args(argv)
    rng = np.random.default_rng(a.seed)
    tensors, cases = {}, []
    for name, (n_pos, n_neg, dim, *shape) in CASES.items():
        pos, neg = embeddings(rng, n_pos, n_neg, dim, *shape)
        fitted, report = fit(pos, neg, pairs=n_pos == n_neg)
        tensors |= {f"{name}.{k}": v for k, v in ({"emb.pos": pos, "emb.neg": neg} | fitted).items()}
        cases.append({"name": name, "n_pos": n_pos, "n_neg": n_neg, "dim": dim} | report)
    a.out.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(tensors[k]) for k in sorted(tensors)}, a.out / "logistic.safetensors")
    write_json(a.out / "logistic.json", cases)


if __name__ == "__main__":
    main()
