"""Directions from two sets of embeddings: logistic regression to its exact optimum, difference of means, PCA."""

import numpy as np
from scipy.optimize import linprog
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

C = 1.0


def objective(x: np.ndarray, z: np.ndarray, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Value, gradient and Hessian of 0.5|w|^2 + C sum log(1 + exp(-z (x w + b))); theta = [w, b], z in {-1, +1}."""
    x1 = np.c_[x, np.ones(len(x))]
    penalty = np.r_[np.ones(x.shape[1]), 0.0]  # scikit-learn does not penalise the intercept
    margin = z * (x1 @ theta)
    p = expit(-margin)
    value = 0.5 * theta @ (penalty * theta) + C * np.logaddexp(0, -margin).sum()
    gradient = penalty * theta - C * x1.T @ (z * p)
    hessian = np.diag(penalty) + C * x1.T @ ((p * (1 - p))[:, None] * x1)
    return value, gradient, hessian


def newton(x: np.ndarray, z: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Minimises the objective to the limit of float64 by damped Newton steps."""
    for _ in range(200):
        value, gradient, hessian = objective(x, z, theta)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        if np.abs(step).max() <= 1e-15 * max(1, np.abs(theta).max()):
            break
        size = 1.0
        while objective(x, z, theta - size * step)[0] > value + 1e-13 * abs(value) and size > 1e-6:
            size /= 2
        theta = theta - size * step
    return theta


def fit(pos: np.ndarray, neg: np.ndarray, pairs: bool = True) -> tuple[dict, dict]:
    """Tensors and report of one layer. pos [N, H], neg [M, H] float32; `pairs`: row i of both belong together."""
    pos, neg = pos.astype(np.float64), neg.astype(np.float64)
    x, y = np.r_[pos, neg], np.r_[np.ones(len(pos)), np.zeros(len(neg))]
    z = 2 * y - 1
    sk = LogisticRegression(C=C, solver="lbfgs", tol=1e-10, max_iter=100_000).fit(x, y)
    first = np.r_[sk.coef_[0], sk.intercept_]
    theta = newton(x, z, first)
    w, b = theta[:-1], theta[-1]
    norm = np.linalg.norm(w)
    v = w / norm
    rho_pos, rho_neg = pos @ v, neg @ v
    difference = pos.mean(0) - neg.mean(0)
    tensors = {
        "w": w, "b": theta[-1:], "sklearn_w": first[:-1], "sklearn_b": first[-1:],
        "v_hat": v, "diff_means": difference, "diff_means_unit": difference / np.linalg.norm(difference),
    }  # fmt: skip
    delta_mu = rho_pos.mean() - rho_neg.mean()
    pooled = np.sqrt((rho_pos.var(ddof=1) + rho_neg.var(ddof=1)) / 2)
    report = {
        "m": -b / norm,
        "mu_pos": rho_pos.mean(),
        "mu_neg": rho_neg.mean(),
        "sigma_pos": rho_pos.std(),
        "sigma_neg": rho_neg.std(),
        "delta_mu": delta_mu,
        "cap": rho_pos.mean() + 40 * rho_pos.std(),
        "cosine_lr_diff_means": v @ tensors["diff_means_unit"],
        "cohens_d": delta_mu / pooled,
    }
    if pairs:
        centre = (pos + neg) / 2
        for name, rows in (("pca_diff", pos - neg), ("pca_center", np.r_[pos - centre, neg - centre])):
            tensors[name], variances, vote = principal_axis(rows, pos, neg)
            report |= {f"{name}_explained_variance": variances, f"{name}_sign_vote": vote}
    report["lr"] = {
        "iterations": int(sk.n_iter_[0]),
        "sklearn_grad_inf": np.abs(objective(x, z, first)[1]).max(),
        "exact_grad_inf": np.abs(objective(x, z, theta)[1]).max(),
        "max_abs_w_sklearn_minus_exact": np.abs(first[:-1] - w).max(),
        "cosine_sklearn_exact": v @ first[:-1] / np.linalg.norm(first[:-1]),
        "loss_exact": objective(x, z, theta)[0],
        "train_accuracy": np.mean((x @ w + b > 0) == (y > 0)),
        "linearly_separable": separable(x, z),
    }
    return tensors, plain(report)


def principal_axis(rows: np.ndarray, pos: np.ndarray, neg: np.ndarray) -> tuple[np.ndarray, list, dict]:
    """First axis of the centred rows, pointing to where most pairs have pos above neg; two variances; the vote."""
    pca = PCA(n_components=2, svd_solver="full").fit(rows)
    axis = pca.components_[0]
    d = (pos - neg) @ axis
    vote = {"pos_smaller": float(np.mean(d < 0)), "pos_larger": float(np.mean(d > 0))}
    return -axis if vote["pos_smaller"] > vote["pos_larger"] else axis, pca.explained_variance_.tolist(), vote


def separable(x: np.ndarray, z: np.ndarray) -> bool:
    """Whether a hyperplane has all of z = +1 on one side and all of z = -1 on the other (a linear program)."""
    a = -z[:, None] * np.c_[x, np.ones(len(x))]
    return linprog(np.zeros(a.shape[1]), A_ub=a, b_ub=-np.ones(len(x)), bounds=(None, None), method="highs").status == 0


def plain(value):
    """numpy scalars to Python's, for JSON."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value
