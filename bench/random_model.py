"""Writes a checkpoint with seeded random weights: random_model.py FOLDER float32|bfloat16 [CONFIG].

CONFIG is a name in bench/configs or the path of a config.json; qwen3-0.6b if left out. Norms are 1, matrices normal with deviation 0.02.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file


def shapes(config):
    """Yields the name and shape of each tensor of a Llama or Qwen3 checkpoint."""
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv_heads, head_dim = config["num_key_value_heads"], config["head_dim"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        block = {
            "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (heads * head_dim, hidden), "self_attn.k_proj": (kv_heads * head_dim, hidden),
            "self_attn.v_proj": (kv_heads * head_dim, hidden), "self_attn.o_proj": (hidden, heads * head_dim),
            "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn),
        }
        if config["model_type"] == "qwen3":
            block |= {"self_attn.q_norm": (head_dim,), "self_attn.k_norm": (head_dim,)}
        for name, shape in block.items():
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def main():
    folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    path = pathlib.Path(__file__).parent / "configs" / ((sys.argv[3] if len(sys.argv) > 3 else "qwen3-0.6b") + ".json")
    config = json.loads((path if path.exists() else pathlib.Path(sys.argv[3])).read_text())
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: (torch.randn(shape, generator=generator) * 0.02 if len(shape) == 2 else torch.ones(shape)).to(dtype)
        for name, shape in shapes(config)
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": name}, indent=1))


if __name__ == "__main__":
    main()
