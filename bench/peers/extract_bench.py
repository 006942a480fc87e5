"""Does the work of bench/extract with what people use: hidden states by transformers, directions by scikit-learn. One line of JSON.

Capture: output_hidden_states in batches of --batch sequences of equal length, the mean over the response's tokens taken of each layer at once,
so that no more than one batch's states are held; the head is not run (AutoModel). Fit: LogisticRegression(C=1) on the embeddings that
bench/extract wrote, layer after layer in float64, once as scikit-learn is used by default (lbfgs, tol 1e-4) and once to the gradient that
bench/extract reaches as far as lbfgs can (tol 1e-10, scipy's ftol allowing).
"""

import argparse
import json
import time

import numpy as np
import sklearn
import torch
import transformers
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

import figures


def timed(repeats, run):
    seconds = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1:]


def gradient(x, y, clf):
    """The largest element of the gradient of C * loss + |w|²/2."""
    w, b = clf.coef_[0], clf.intercept_[0]
    residual = 1 / (1 + np.exp(-(x @ w + b))) - y
    return max(np.abs(x.T @ residual + w).max(), abs(residual.sum()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--embeddings", required=True)
    parser.add_argument("--texts", type=int, default=50)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--response", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    model = transformers.AutoModel.from_pretrained(args.model, dtype="auto").eval()
    ids = torch.tensor([figures.row(i, args.prompt + args.response, model.config.vocab_size) for i in range(2 * args.texts)])
    means = None

    def capture():
        nonlocal means
        parts = []
        for batch in ids.split(args.batch):
            states = model(batch, attention_mask=torch.ones_like(batch), output_hidden_states=True, use_cache=False).hidden_states[1:]
            parts.append(torch.stack([s[:, args.prompt:].float().mean(1) for s in states]))
        means = torch.cat(parts, 1).numpy()  # [layers, texts, hidden]

    with torch.inference_mode():
        first, seconds = timed(args.repeats, capture)
    tokens = ids.numel()
    result = {
        "engine": f"transformers {transformers.__version__}, torch {torch.__version__}, scikit-learn {sklearn.__version__}",
        "backend": f"torch-cpu, {torch.get_num_threads()} threads", "capture_tok_s": figures.summary([tokens / s for s in seconds]),
        "capture_first_s": first,
    }
    x = load_file(args.embeddings)
    layers = len(x) // 2
    data = [np.concatenate([x[f"positive.{i}"], x[f"negative.{i}"]]).astype(np.float64) for i in range(layers)]
    y = np.repeat([1, 0], args.texts)
    # Where both captured the same: the last block's output is beside a norm in transformers, the others are comparable.
    ours = np.stack([x["positive.0"], x["negative.0"]], 1).reshape(-1, x["positive.0"].shape[1])
    result["apart"] = float(np.abs(ours - means[0]).max() / np.abs(ours).max())
    for name, options in {"default": {}, "tight": {"tol": 1e-10, "max_iter": 10000}}.items():
        fits = []

        def fit():
            fits[:] = [LogisticRegression(C=1.0, **options).fit(d, y) for d in data]

        first, seconds = timed(args.repeats, fit)
        result |= {f"fit_{name}_s": figures.summary(seconds), f"fit_{name}_first_s": first,
                   f"gradient_{name}": float(max(gradient(d, y, f) for d, f in zip(data, fits)))}
        result["w"] = fits[0].coef_[0].tolist()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
