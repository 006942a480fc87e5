"""Writes a Llama or Qwen3 checkpoint as GGUF with the same weights, for llama.cpp: gguf_model.py FOLDER FILE. Matrices keep their type, norms become
float32, there is no tokenizer."""

import json
import pathlib
import sys

import gguf
import numpy as np


def tensors(path):
    """Yields name, type and array of each tensor of a safetensors file; bfloat16 as its bits. numpy has no bfloat16."""
    with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
    header.pop("__metadata__", None)
    data = np.memmap(path, mode="r", offset=8 + size)
    for name, t in header.items():
        begin, end = t["data_offsets"]
        yield name, t["dtype"], data[begin:end].view({"F32": np.float32, "BF16": np.uint16}[t["dtype"]]).reshape(t["shape"])


def write(folder, out):
    config = json.loads((folder / "config.json").read_text())
    if config.get("rope_scaling"):
        raise SystemExit(f"{folder}: rope_scaling is {config['rope_scaling']!r}; this writer knows none")
    kind = config["model_type"]
    arch = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen3": gguf.MODEL_ARCH.QWEN3}[kind]
    heads, kv_heads, head = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    w = gguf.GGUFWriter(str(out), kind)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(head)
    w.add_value_length(head)
    w.add_rope_dimension_count(head)
    w.add_rope_freq_base(config["rope_theta"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_vocab_size(config["vocab_size"])
    w.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, dtype, x in tensors(folder / "model.safetensors"):
        target = names.get_name(name, try_suffixes=(".weight",))
        if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            # llama.cpp rotates neighbours in this architecture, Hugging Face the two halves of a head.
            n = heads if "q_proj" in name else kv_heads
            x = x.reshape(n, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        if dtype == "BF16" and x.ndim == 1:
            x = (x.astype(np.uint32) << 16).view(np.float32)
        x = np.ascontiguousarray(x)
        if x.dtype == np.uint16:
            w.add_tensor(target, x.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            w.add_tensor(target, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
