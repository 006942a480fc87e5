"""Runs a Hugging Face model: block outputs, steering inside the residual stream, greedy continuation with a KV cache.

Everything goes through forward hooks on the decoder layers, so that a hidden state is the true output of its block
(transformers' own `hidden_states[-1]` is already normalised).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

from steering import NONE, Case, Trace

PAD = 0
logging.disable_progress_bar()
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def load(folder: Path, reference: str):
    """The model in `folder`, weights cast to the dtype of `reference` ("f32" or "bf16"), eager attention."""
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=DTYPES[reference], attn_implementation="eager")
    return model.eval()


@dataclass
class Row:
    """One sequence of a batch and its steering."""

    ids: list[int]
    case: Case = NONE
    prompt_len: int = 0


@dataclass
class Result:
    """One row's outputs at its real positions. Tensors keep the model's dtype."""

    logits: torch.Tensor  # [T, V]
    hidden: torch.Tensor  # [L, T, H]
    traces: list[Trace]  # one per site


@dataclass
class Continuation:
    tokens: np.ndarray  # [n] int32
    margin: np.ndarray  # [n] float32: top-1 minus top-2 logit
    traces: list[Trace]  # prompt and the n-1 tokens fed back


def pad(rows: list[list[int]], side: str = "left") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, mask and position ids [B, T] of sequences of different length; pads repeat the nearest real position."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros((len(rows), width), dtype=torch.long)
    for b, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[b, where], mask[b, where] = torch.tensor(row), 1
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


class Hooks:
    """Steers and records the output of every block while a `with` block lasts."""

    def __init__(self, model, rows: list[Row], v_hat: np.ndarray | None):
        self.model, self.rows, self.v_hat = model, rows, v_hat
        self.hidden: list[torch.Tensor] = []
        self.steps = [[[] for _ in row.case.sites] for row in rows]  # pieces of a Trace per row, site and call

    def __enter__(self):
        self.handles = [
            layer.register_forward_hook(lambda _m, _i, out, l=l: self._after_block(l, out))
            for l, layer in enumerate(self.model.model.layers)
        ]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def run(self, ids, mask, positions, cache=None) -> torch.Tensor:
        """Logits [B, T, V] of one call; `mask` also covers what the cache holds."""
        self.hidden, self.positions, self.real = [], positions, mask[:, -ids.shape[1] :].bool()
        return self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=cache is not None
        ).logits

    def traces(self, row: int) -> list[Trace]:
        return [Trace(*(np.concatenate(part) for part in zip(*pieces))) for pieces in self.steps[row]]

    def _after_block(self, layer: int, h: torch.Tensor) -> torch.Tensor:
        for b, row in enumerate(self.rows):
            for s, site in enumerate(row.case.sites):
                if site.layer != layer:
                    continue
                real = self.real[b]
                v = torch.from_numpy(self.v_hat[site.v_index])
                x = h[b].float()
                rho = x @ v
                delta, fires, capped = site.delta(rho, torch)
                eligible = real & (self.positions[b] >= row.case.first(row.prompt_len))
                gate = fires & eligible
                delta = torch.where(gate, delta, torch.zeros_like(delta))
                edited = (x + delta[:, None] * v).to(h.dtype)
                h = h.clone()
                h[b] = torch.where(gate[:, None], edited, h[b])
                self.steps[b][s].append([t[real].numpy() for t in (rho, eligible, gate, delta.abs(), capped & gate)])
        self.hidden.append(h)
        return h


def forward(model, rows: list[Row], v_hat=None, side: str = "left") -> list[Result]:
    """Teacher-forced run of a padded batch (of one row: no padding)."""
    ids, mask, positions = pad([row.ids for row in rows], side)
    with Hooks(model, rows, v_hat) as hooks:
        logits = hooks.run(ids, mask, positions)
        hidden = torch.stack(hooks.hidden)
        real = mask.bool()
        return [Result(logits[b, real[b]], hidden[:, b, real[b]], hooks.traces(b)) for b in range(len(rows))]


def greedy(model, rows: list[Row], n: int, v_hat=None) -> list[Continuation]:
    """Greedy continuation of n tokens with a KV cache, left-padded; EOS does not stop, ties go to the lowest id."""
    ids, mask, positions = pad([row.ids for row in rows])
    tokens, margins, cache = [], [], DynamicCache()
    with Hooks(model, rows, v_hat) as hooks:
        for step in range(n):
            last = hooks.run(ids, mask, positions, cache)[:, -1].float()
            top = last.topk(2).values
            margins.append((top[:, 0] - top[:, 1]).numpy())
            tokens.append(last.numpy().argmax(-1))  # numpy's arg-max is the first one by contract
            ids = torch.from_numpy(tokens[-1])[:, None]
            mask = torch.cat([mask, torch.ones_like(ids)], -1)
            positions = positions[:, -1:] + 1
        return [
            Continuation(
                np.array([t[b] for t in tokens], np.int32), np.array([m[b] for m in margins], np.float32), hooks.traces(b)
            )
            for b in range(len(rows))
        ]


def agreement_without_cache(model, row: Row, got: Continuation, v_hat=None) -> float:
    """Share of `got`'s tokens that one uncached pass over prompt and continuation chooses too."""
    whole = Row(row.ids + got.tokens[:-1].tolist(), row.case, row.prompt_len)
    logits = forward(model, [whole], v_hat)[0].logits[len(row.ids) - 1 :].float().numpy()
    return float(np.mean(logits.argmax(-1) == got.tokens))
