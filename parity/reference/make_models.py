"""Makes the small random models of parity/testdata.

    python make_models.py OUT_DIR [NAME...]

Plain initialisation hides mistakes: attention is nearly uniform and every norm weight is 1. These models have peaked
attention, norm weights in [0.4, 1.8] (QK-norm [0.7, 2.1]) and logits with a standard deviation near 3.5, so that a
wrong head order, rotary frequency, epsilon or norm weight shows in the logits.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


@dataclass
class Model:
    """A model to make. `config` holds what its config.json has beyond the common keys."""

    seed: int
    config: dict
    dtype: str = "float32"
    rope: dict = field(default_factory=lambda: {"rope_type": "default"})
    theta: float = 10000.0
    style: str = "hub"  # key style of config.json: "hub" (rope_theta, rope_scaling, torch_dtype) or "transformers5"
    shards: int = 1


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.02, "mlp_bias": False,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "use_cache": True,
}  # fmt: skip
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.02, "max_window_layers": 28,
    "rms_norm_eps": 1e-06, "sliding_window": None, "use_cache": True, "use_sliding_window": False,
}  # fmt: skip


def shape(hidden, heads, kv, inner, layers, vocab, positions, tied, head_dim=None) -> dict:
    keys = {
        "hidden_size": hidden, "num_attention_heads": heads, "num_key_value_heads": kv, "intermediate_size": inner,
        "num_hidden_layers": layers, "vocab_size": vocab, "max_position_embeddings": positions, "tie_word_embeddings": tied,
    }  # fmt: skip
    return keys if head_dim is None else keys | {"head_dim": head_dim}


MODELS = {
    # MHA, no head_dim key, linear rope scaling with the legacy key "type".
    "llama-linear-f32": Model(
        seed=101,
        config=LLAMA | shape(48, 4, 4, 104, 4, 208, 768, tied=False),
        rope={"rope_type": "linear", "factor": 4.0},
    ),
    # MQA, head_dim apart from hidden/heads, three shards, only the new key style, several eos ids.
    "llama3-mqa-bf16-sharded": Model(
        seed=102,
        config=LLAMA | shape(60, 3, 1, 120, 3, 192, 1024, tied=False, head_dim=32) | {"eos_token_id": [2, 3, 4]},
        dtype="bfloat16",
        rope={
            "rope_type": "llama3", "factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 56,
        },
        theta=300000.0,
        style="transformers5",
        shards=3,
    ),
    # Untied, yarn as Qwen3 documents it: factor 4, max_position_embeddings stays 1.25 times the original length.
    "qwen3-yarn-f32": Model(
        seed=103,
        config=QWEN3 | shape(48, 4, 2, 88, 4, 200, 1280, tied=False, head_dim=32),
        rope={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    ),
    # Tied (no lm_head tensor), groups of three query heads.
    "qwen3-tied-bf16": Model(
        seed=104,
        config=QWEN3 | shape(64, 6, 2, 96, 3, 176, 640, tied=True, head_dim=16),
        dtype="bfloat16",
        theta=1000000.0,
    ),
}


def configs(m: Model) -> tuple[dict, dict]:
    """The configuration in the hub's style and in that of transformers 5."""
    scaling = None
    if m.rope["rope_type"] == "linear":
        scaling = {"type": "linear", "factor": m.rope["factor"]}
    elif m.rope["rope_type"] != "default":
        scaling = dict(m.rope)
    version = "4.43.3" if m.config["model_type"] == "llama" else "4.51.0"
    old = {"rope_scaling": scaling, "rope_theta": m.theta, "torch_dtype": m.dtype, "transformers_version": version}
    new = {"rope_parameters": {"rope_theta": m.theta} | m.rope, "dtype": m.dtype, "transformers_version": "5.23.0"}
    if m.config["model_type"] == "qwen3":
        new["layer_types"] = ["full_attention"] * m.config["num_hidden_layers"]
    return m.config | old, m.config | new


def weights(m: Model) -> dict[str, torch.Tensor]:
    """All tensors under their Hugging Face names, in the stored dtype."""
    c, rng = m.config, np.random.default_rng(m.seed)
    hidden, inner, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    d = c.get("head_dim", hidden // heads)
    tensors = {}

    def matrix(name, rows, columns, gain):
        tensors[name + ".weight"] = rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)

    def norm(name, n, low=0.4, high=1.8):
        tensors[name + ".weight"] = rng.uniform(low, high, n)

    # A tied head favours the token that was read: larger blocks keep the model from repeating it for ever.
    block = 1.5 if c["tie_word_embeddings"] else 1.0
    # After the final norm h has an rms near 1.17: this makes the logits' standard deviation about 3.5.
    matrix("model.embed_tokens", vocab, hidden, 3.0 if c["tie_word_embeddings"] else np.sqrt(hidden))
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        norm(p + "input_layernorm", hidden)
        matrix(p + "self_attn.q_proj", heads * d, hidden, 1.5)
        matrix(p + "self_attn.k_proj", kv * d, hidden, 1.5)
        matrix(p + "self_attn.v_proj", kv * d, hidden, 1.0)
        matrix(p + "self_attn.o_proj", hidden, heads * d, 0.9 * block)
        if c["model_type"] == "qwen3":
            norm(p + "self_attn.q_norm", d, 0.7, 2.1)
            norm(p + "self_attn.k_norm", d, 0.7, 2.1)
        norm(p + "post_attention_layernorm", hidden)
        matrix(p + "mlp.gate_proj", inner, hidden, 1.0)
        matrix(p + "mlp.up_proj", inner, hidden, 1.0)
        matrix(p + "mlp.down_proj", hidden, inner, 1.2 * block)
    norm("model.norm", hidden)
    if not c["tie_word_embeddings"]:
        matrix("lm_head", vocab, hidden, 3.0)
    return {name: torch.from_numpy(t).to(getattr(torch, m.dtype)) for name, t in tensors.items()}


def save(folder: Path, m: Model) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    old, new = configs(m)
    if m.style == "hub":
        write(folder / "config.json", old)
        write(folder / "config.transformers5.json", new)
    else:
        write(folder / "config.json", new)
    generation = {"bos_token_id": 1, "do_sample": True, "eos_token_id": m.config["eos_token_id"]}
    write(folder / "generation_config.json", generation | {"temperature": 0.6, "top_p": 0.9})
    tensors = weights(m)
    if m.shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    total = sum(t.nbytes for t in tensors.values())
    where = {}
    for s in range(m.shards):
        file = f"model-{s + 1:05d}-of-{m.shards:05d}.safetensors"
        part = names[s * len(names) // m.shards : (s + 1) * len(names) // m.shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    write(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME", help=", ".join(MODELS))
    a = parser.parse_args(argv)
    for name in a.names:
        save(a.out / name, MODELS[name])
        print(a.out / name)


if __name__ == "__main__":
    main()
