"""An independent float64 forward pass of Llama-3 and Qwen3, in numpy.

It shares no code with transformers: the difference between the two is the rounding error of the float32 reference
(reported as `vs_f64`), and a bug in either shows as a difference of another order of magnitude.
Weights are read from the safetensors files when they are needed, so a model of any size fits.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from steering import Site


class Weights:
    """Tensors of a Hugging Face folder (one file or shards) as float64 arrays, read by name on demand."""

    def __init__(self, folder: Path):
        files = sorted(Path(folder).glob("model*.safetensors"))
        self._file_of = {name: f for f in (safe_open(p, framework="pt") for p in files) for name in f.keys()}

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def dtype(self, name: str) -> str:
        """The stored dtype in safetensors' own name: F32, BF16, ..."""
        return self._file_of[name].get_slice(name).get_dtype()

    def __getitem__(self, name: str) -> np.ndarray:
        return self._file_of[name].get_tensor(name).to(torch.float64).numpy()


@dataclass
class Output:
    logits: np.ndarray  # [T, V]
    hidden: np.ndarray  # [L, T, H]: output of every block, steering included
    rho: np.ndarray  # [S, T]: projection each site saw, before its own edit
    gate: np.ndarray  # [S, T] bool: where the site edited


class Ref64:
    """A model folder that can be run in float64, one sequence at a time, without a cache."""

    def __init__(self, folder: Path):
        self.config = c = json.loads((Path(folder) / "config.json").read_text())
        if c["model_type"] not in ("llama", "qwen3"):
            raise NotImplementedError(f"model_type {c['model_type']!r}: only llama and qwen3")
        self.weights = Weights(folder)
        self.heads = c["num_attention_heads"]
        self.kv_heads = c.get("num_key_value_heads") or self.heads
        self.head_dim = c.get("head_dim") or c["hidden_size"] // self.heads
        self.inv_freq, self.rope_scale = inverse_frequencies(c, self.head_dim)

    def forward(self, ids, sites: list[Site] = (), v_hat=None, first: int = 0, start: int = 0) -> Output:
        """Runs `ids` [T] from position `start`; `sites` steer the positions >= `first`."""
        c, w = self.config, self.weights
        eps = c["rms_norm_eps"]
        T = len(ids)
        eligible = np.arange(T) >= first
        h = w["model.embed_tokens.weight"][np.asarray(ids)]
        hidden, rho, gate = [], np.zeros((len(sites), T)), np.zeros((len(sites), T), bool)
        for l in range(c["num_hidden_layers"]):
            p = f"model.layers.{l}."
            h = h + self._attention(p, rms_norm(h, w[p + "input_layernorm.weight"], eps), start)
            x = rms_norm(h, w[p + "post_attention_layernorm.weight"], eps)
            h = h + (silu(x @ w[p + "mlp.gate_proj.weight"].T) * (x @ w[p + "mlp.up_proj.weight"].T)) @ w[
                p + "mlp.down_proj.weight"
            ].T
            for s, site in enumerate(sites):
                if site.layer == l:
                    v = np.asarray(v_hat[site.v_index], np.float64)
                    rho[s] = h @ v
                    delta, fires, _ = site.delta(rho[s], np)
                    gate[s] = fires & eligible
                    h = h + np.where(gate[s], delta, 0.0)[:, None] * v
            hidden.append(h)
        head = "model.embed_tokens.weight" if c.get("tie_word_embeddings") else "lm_head.weight"
        logits = rms_norm(h, w["model.norm.weight"], eps) @ w[head].T
        return Output(logits, np.stack(hidden), rho, gate)

    def _attention(self, p: str, x: np.ndarray, start: int) -> np.ndarray:
        """Causal grouped-query attention of block prefix `p` over x [T, H]."""
        w, T, d = self.weights, len(x), self.head_dim
        q, k, v = (
            (x @ w[f"{p}self_attn.{n}_proj.weight"].T).reshape(T, heads, d)
            for n, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads))
        )
        if self.config["model_type"] == "qwen3":
            q = rms_norm(q, w[p + "self_attn.q_norm.weight"], self.config["rms_norm_eps"])
            k = rms_norm(k, w[p + "self_attn.k_norm.weight"], self.config["rms_norm_eps"])
        angle = (start + np.arange(T))[:, None, None] * self.inv_freq  # [T, 1, d/2]
        cos, sin = np.cos(angle) * self.rope_scale, np.sin(angle) * self.rope_scale
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = np.empty((T, self.heads, d))
        causal = np.tril(np.ones((T, T), bool))
        for head in range(self.heads):
            kv = head * self.kv_heads // self.heads
            scores = np.where(causal, q[:, head] @ k[:, kv].T / math.sqrt(d), -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = scores / scores.sum(-1, keepdims=True) @ v[:, kv]
        return out.reshape(T, -1) @ w[p + "self_attn.o_proj.weight"].T


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def rotate(x, cos, sin):
    """Rotates x [T, heads, d] in the half-split layout: element i is paired with element i + d/2."""
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def inverse_frequencies(config: dict, d: int) -> tuple[np.ndarray, float]:
    """Rotary frequencies [d/2] and the factor on cos and sin, from a config in the old or the new key style."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    base = rope.get("rope_theta", config.get("rope_theta"))
    freq = base ** (-np.arange(0, d, 2) / d)
    if kind == "default":
        return freq, 1.0
    factor = rope["factor"]
    if kind == "linear":
        return freq / factor, 1.0
    original = rope["original_max_position_embeddings"]
    turns = original * freq / (2 * math.pi)  # full turns that a pair makes within the original context
    if kind == "llama3":  # Llama 3.1: keep fast pairs, stretch slow ones, blend between
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        keep = np.clip((turns - low) / (high - low), 0, 1)
        return freq * (keep + (1 - keep) / factor), 1.0
    if kind == "yarn":  # arXiv 2309.00071: the blend is linear in the index of the pair
        def pair_with(n):
            return d * math.log(original / (n * 2 * math.pi)) / (2 * math.log(base))
        low, high = pair_with(rope.get("beta_fast") or 32), pair_with(rope.get("beta_slow") or 1)
        if rope.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, d - 1)
        stretch = np.clip((np.arange(d // 2) - low) / max(high - low, 1e-3), 0, 1)
        scale = rope.get("attention_factor") or (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)
        return freq * (1 - stretch + stretch / factor), scale
    raise NotImplementedError(f"rope_type {kind!r}")
