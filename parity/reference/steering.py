"""The steering formulas, on arrays of numpy or torch alike, and the record of what they did.

With h the output of one block at one position and rho = <h, v_hat>:

    swfc   h' = h + alpha * delta_mu * v_hat                               always
    sttp   h' = h + (mu_pos + alpha * sigma_pos - rho) * v_hat             if rho < m   ("negative": rho > m, mu_neg, sigma_neg)
    stmp   h' = h + (min(rho + 2 * alpha * (m - rho), cap) - rho) * v_hat  if rho < m
"""

from dataclasses import asdict, dataclass

import numpy as np


def f32(x: float) -> float:
    """Rounds to the nearest float32: every steering parameter of a dump is one exactly."""
    return float(np.float32(x))


@dataclass
class Site:
    """One edit: a method with its parameters at the output of block `layer`, along `v_hat[v_index]`."""

    layer: int
    method: str
    v_index: int
    alpha: float
    m: float
    mu_pos: float
    mu_neg: float
    sigma_pos: float
    sigma_neg: float
    delta_mu: float
    cap: float | None = None
    direction: str = "positive"

    def json(self) -> dict:
        return asdict(self)

    def delta(self, rho, xp):
        """(delta, fires, capped) of projections `rho`, in rho's own precision; xp is numpy or torch."""
        if self.method == "swfc":
            everywhere = xp.ones_like(rho, dtype=bool)
            # alpha * delta_mu is one number: it is rounded like the rest of the arithmetic.
            return xp.zeros_like(rho) + _product(rho, self.alpha, self.delta_mu), everywhere, ~everywhere
        if self.method == "sttp":
            if self.direction == "negative":
                return self.mu_neg + _product(rho, self.alpha, self.sigma_neg) - rho, rho > self.m, xp.zeros_like(rho, dtype=bool)
            return self.mu_pos + _product(rho, self.alpha, self.sigma_pos) - rho, rho < self.m, xp.zeros_like(rho, dtype=bool)
        if self.method == "stmp":
            target = rho + 2 * self.alpha * (self.m - rho)
            fires = rho < self.m
            return xp.clip(target, None, self.cap) - rho, fires, fires & (target > self.cap)
        raise ValueError(f"method {self.method!r}")


def _product(rho, a: float, b: float) -> float:
    return a * b if "64" in str(rho.dtype) else f32(np.float32(a) * np.float32(b))


@dataclass(frozen=True)
class Case:
    """A named steering configuration. `mode` is "all" (every real position) or "response" (positions >= prompt_len)."""

    name: str
    mode: str
    sites: list[Site]

    def first(self, prompt_len: int) -> int:
        """The first position that is steered."""
        return 0 if self.mode == "all" else prompt_len


NONE = Case("none", "all", [])


@dataclass
class Trace:
    """What one site did, position by position (float32 rho and |h'-h|)."""

    rho: np.ndarray
    eligible: np.ndarray
    gate: np.ndarray
    l2: np.ndarray  # 0 where not gated
    capped: np.ndarray

    def statistics(self, layer: int) -> dict:
        eligible, gated = int(self.eligible.sum()), int(self.gate.sum())
        total = float(self.l2.sum(dtype=np.float64))
        return {
            "layer": layer,
            "eligible": eligible,
            "gated": gated,
            "mean_l2_eligible": total / eligible if eligible else 0.0,
            "mean_l2_gated": total / gated if gated else 0.0,
            "capped": int(self.capped.sum()),
        }


def gate_margin(sites: list[Site], traces: list[Trace]) -> float | None:
    """Smallest |rho - m| over the eligible positions of the sites that have a gate; None if there is none."""
    margins = [
        np.abs(t.rho[t.eligible] - np.float32(s.m)).min()
        for s, t in zip(sites, traces)
        if s.method != "swfc" and t.eligible.any()
    ]
    return float(min(margins)) if margins else None
