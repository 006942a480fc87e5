"""Writes a checkpoint of the Qwen3-0.6B shape with seeded random weights: random_model.py FOLDER float32|bfloat16."""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 1024, 28, 16, 8, 128, 3072, 151936


def main():
    folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    generator = torch.Generator().manual_seed(0)

    def matrix(rows, columns):
        return (torch.randn(rows, columns, generator=generator) * 0.02).to(dtype)

    weights = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN), "model.norm.weight": torch.ones(HIDDEN, dtype=dtype)}
    for layer in range(LAYERS):
        for suffix, shape in {
            "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
            "self_attn.q_norm": (HEAD_DIM,), "self_attn.k_norm": (HEAD_DIM,),
            "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
            "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN), "mlp.down_proj": (HIDDEN, FFN),
        }.items():
            weights[f"model.layers.{layer}.{suffix}.weight"] = (
                matrix(*shape) if len(shape) == 2 else torch.ones(shape, dtype=dtype))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "vocab_size": VOCAB, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
        "rope_scaling": None, "tie_word_embeddings": True, "torch_dtype": name, "hidden_act": "silu",
        "attention_bias": False, "use_sliding_window": False, "sliding_window": None,
        "bos_token_id": 151643, "eos_token_id": 151645}, indent=1))


if __name__ == "__main__":
    main()
