"""Writes a checkpoint with seeded random weights: random_model.py FOLDER [--config FILE] [--dtype float32|bfloat16] [--seed N].

The shape is that of a config.json (Llama or Qwen3), by default Qwen3-0.6B's. Matrices have a standard deviation of 0.02, norms are
1. Tensors are made and written one by one, so memory holds one of them. Each has its own seed, derived from its name, so
both types hold the same numbers, those of bfloat16 rounded.
"""

import argparse
import json
import pathlib
import shutil
import tempfile
import zlib

import torch

QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": None,
    "tie_word_embeddings": True, "hidden_act": "silu", "attention_bias": False, "use_sliding_window": False,
    "sliding_window": None, "bos_token_id": 151643, "eos_token_id": 151645,
}
DTYPES = {"float32": ("F32", torch.float32, 4), "bfloat16": ("BF16", torch.bfloat16, 2)}


def weights(config):
    """Yields (name, shape) of every tensor that transformers stores for this configuration."""
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head = config.get("head_dim") or hidden // heads
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        block = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (heads * head, hidden), "self_attn.k_proj": (kv_heads * head, hidden),
            "self_attn.v_proj": (kv_heads * head, hidden), "self_attn.o_proj": (hidden, heads * head),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn),
        }
        if config["model_type"] == "qwen3":
            block |= {"self_attn.q_norm": (head,), "self_attn.k_norm": (head,)}
        for name, shape in block.items():
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", (hidden,)
    if not config.get("tie_word_embeddings", False):
        yield "lm_head.weight", (config["vocab_size"], hidden)


def tensor_bytes(name, shape, dtype, seed):
    if len(shape) == 1:
        t = torch.ones(shape)
    else:
        generator = torch.Generator().manual_seed(seed << 32 | zlib.crc32(name.encode()))
        t = torch.randn(shape, generator=generator).mul_(0.02)
    t = t.to(dtype)
    return memoryview(t.view(torch.int16 if dtype == torch.bfloat16 else torch.int32).numpy()).cast("B")


def write(folder, config, dtype_name, seed=0):
    """Writes a model folder. It appears whole or not at all."""
    if config["model_type"] not in ("qwen3", "llama"):
        raise SystemExit(f"model_type is {config['model_type']!r}, want qwen3 or llama")
    stored, dtype, size = DTYPES[dtype_name]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in weights(config):
        end = offset + size * torch.Size(shape).numel()
        header[name] = {"dtype": stored, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + "-"))
    try:
        with open(partial / "model.safetensors", "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name, shape in weights(config):
                out.write(tensor_bytes(name, shape, dtype, seed))
        (partial / "config.json").write_text(json.dumps(config | {"torch_dtype": dtype_name}, indent=1) + "\n")
        partial.chmod(0o755)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial)
        raise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--config", type=pathlib.Path, help="a config.json (default: Qwen3-0.6B's shape)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = json.loads(args.config.read_text()) if args.config else QWEN3_06B
    write(args.folder, config, args.dtype, args.seed)


if __name__ == "__main__":
    main()
