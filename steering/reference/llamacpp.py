"""What llama.cpp does with a control vector that Steerage wrote: testdata/llamacpp.safetensors. `make llamacpp` runs all of this:

    pip install --require-hashes -r steering/reference/requirements.txt    # compiles llama.cpp
    go test ./steering -run '^TestGGUFForLlamaCpp$' -update                # writes steering/testdata/llamacpp.gguf
    python steering/reference/llamacpp.py cmd/steerage/demo/stories260k steering/testdata/llamacpp.{gguf,safetensors}
    go test ./engine -run '^TestLlamaCpp$'                                 # compares Steerage with it

The model's weights are rewritten as a GGUF file in float32. The vector is read twice, by the gguf package and by llama.cpp's own
reader. Every sequence is run without it and with it, at all positions; the file gets, for sequence i of T tokens,

    ids.i         I32 [T]
    unsteered.i   F32 [T, vocab_size]  logits
    steered.i     F32 [T, vocab_size]  with the whole vector

and for the last sequence, to tell the layers apart, the logits after its last token with one layer of the vector at a time:

    layers        I32 [K]              N of the file's direction.N
    alone         F32 [K, vocab_size]
"""

import argparse
import ctypes
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file, save_file

LENGTHS = [1, 16, 24]


def write_model(folder: Path, out: Path) -> dict:
    """Writes a Hugging Face llama model as GGUF, all of it float32 and without a tokenizer. Returns its config."""
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads, hidden = (config[k] for k in ("num_attention_heads", "num_key_value_heads", "hidden_size"))
    unusual = {"model_type": "llama", "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "hidden_act": "silu"}
    for key, plain in unusual.items():
        if config[key] != plain:
            raise ValueError(f"{folder}: {key} is {config[key]!r}; this writer knows only {plain!r}")

    w = gguf.GGUFWriter(str(out), "llama")
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(hidden)
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_rope_dimension_count(hidden // heads)
    w.add_rope_freq_base(config["rope_theta"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_vocab_size(config["vocab_size"])
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_tokenizer_model("none")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, x in load_file(folder / "model.safetensors").items():
        x = x.astype(np.float32)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            # llama.cpp rotates neighbours, Hugging Face the two halves of a head.
            n = heads if "q_proj" in name else kv_heads
            x = x.reshape(n, 2, -1, hidden).swapaxes(1, 2).reshape(-1, hidden)
        w.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(x))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return config


def read_with_package(path: Path) -> dict[int, np.ndarray]:
    """The directions by layer, as the gguf package reads them."""
    reader = gguf.GGUFReader(str(path))

    def field(key: str, kind: gguf.GGUFValueType):
        f = reader.fields[key]
        assert f.types == [kind], f"{path}: {key} has types {f.types}, want {kind}"
        return f.contents()

    assert field("GGUF.version", gguf.GGUFValueType.UINT32) == 3
    assert field("general.architecture", gguf.GGUFValueType.STRING) == "controlvector"
    assert field("controlvector.model_hint", gguf.GGUFValueType.STRING)
    assert field("controlvector.layer_count", gguf.GGUFValueType.UINT32) == len(reader.tensors)
    directions = {}
    for t in reader.tensors:
        assert t.tensor_type == gguf.GGMLQuantizationType.F32 and len(t.shape) == 1, f"{path}: {t.name} {t.tensor_type} {t.shape}"
        assert np.isfinite(t.data).all(), f"{path}: {t.name} is not finite"
        directions[int(t.name.removeprefix("direction."))] = np.array(t.data)
    return directions


def read_with_llamacpp(path: Path) -> dict[int, np.ndarray]:
    """The directions by layer, as common_control_vector_load of llama.cpp reads them, with the same calls."""
    # The functions of libggml and of the libraries that it is linked with.
    from llama_cpp._ggml import libggml as lib

    def function(name: str, result, *arguments):
        f = lib[name]
        f.restype, f.argtypes = result, arguments
        return f

    class Params(ctypes.Structure):
        _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p))]

    data = ctypes.c_void_p()
    file = function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, Params)(
        str(path).encode(), Params(no_alloc=False, ctx=ctypes.pointer(data))
    )
    assert file, f"llama.cpp does not read {path}"
    tensor_name = function("gguf_get_tensor_name", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)
    tensor_type = function("gguf_get_tensor_type", ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
    get_tensor = function("ggml_get_tensor", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    dimensions = function("ggml_n_dims", ctypes.c_int, ctypes.c_void_p)
    elements = function("ggml_nelements", ctypes.c_int64, ctypes.c_void_p)
    floats = function("ggml_get_data_f32", ctypes.POINTER(ctypes.c_float), ctypes.c_void_p)
    directions = {}
    for i in range(function("gguf_get_n_tensors", ctypes.c_int64, ctypes.c_void_p)(file)):
        name = tensor_name(file, i)
        layer = int(name.removeprefix(b"direction."))
        assert layer > 0, f"{path}: llama.cpp takes no direction.{layer}"
        assert tensor_type(file, i) == llama_cpp.GGML_TYPE_F32
        t = get_tensor(data, name)
        assert dimensions(t) == 1
        directions[layer] = np.ctypeslib.as_array(floats(t), (elements(t),)).copy()
    function("ggml_free", None, ctypes.c_void_p)(data)
    function("gguf_free", None, ctypes.c_void_p)(file)
    return directions


@llama_cpp.llama_log_callback
def log(level: int, text: bytes, _) -> None:
    """Lets llama.cpp speak of errors only."""
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        print(text.decode(errors="replace"), end="", file=sys.stderr)


class Model:
    """A GGUF model on the CPU, float32 throughout: weights, key/value cache, plain attention."""

    def __init__(self, path: Path):
        llama_cpp.llama_log_set(log, None)
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = False  # no repacked weights
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp does not load {path}"
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 256
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32  # default: F16
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        assert self.context, "llama.cpp makes no context"
        self.layers = llama_cpp.llama_model_n_layer(self.model)
        self.hidden = llama_cpp.llama_model_n_embd(self.model)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def steer(self, directions: dict[int, np.ndarray] | None) -> None:
        """Sets the context's control vector as llama.cpp's own tools do: all layers in one buffer that begins at layer 1."""
        if directions is None:
            result = llama_cpp.llama_set_adapter_cvec(self.context, None, 0, self.hidden, -1, -1)
        else:
            data = np.zeros((self.layers - 1, self.hidden), np.float32)
            for layer, direction in directions.items():
                data[layer - 1] = direction
            pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            result = llama_cpp.llama_set_adapter_cvec(self.context, pointer, data.size, self.hidden, 1, self.layers)
        assert result == 0, f"llama_set_adapter_cvec returned {result}"

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """[T, vocab_size]"""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = int(token), i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        result = llama_cpp.llama_decode(self.context, batch)
        assert result == 0, f"llama_decode returned {result}"
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), (len(ids), self.vocab)).copy()
        llama_cpp.llama_batch_free(batch)
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a Hugging Face llama model")
    parser.add_argument("vector", type=Path, help="control vector, GGUF")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    directions = read_with_package(args.vector)
    again = read_with_llamacpp(args.vector)
    assert directions.keys() == again.keys() and all((directions[n] == again[n]).all() for n in directions)
    print(f"{args.vector}: lengths by layer", {n: float(np.linalg.norm(d)) for n, d in directions.items()})

    rng = np.random.default_rng(4)
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        config = write_model(args.model, path)
        model = Model(path)
    for i, length in enumerate(LENGTHS):
        ids = rng.integers(0, config["vocab_size"], length).astype(np.int32)
        ids[0] = config["bos_token_id"]
        model.steer(None)
        unsteered = model.logits(ids)
        model.steer(directions)
        steered = model.logits(ids)
        model.steer(None)
        assert (model.logits(ids) == unsteered).all(), "without its vector llama.cpp does not do what it did before"
        print(f"{length} tokens: logits to {np.abs(unsteered).max():.3g}, shifted by {np.abs(steered - unsteered).max():.3g} at most")
        out |= {f"ids.{i}": ids, f"unsteered.{i}": unsteered, f"steered.{i}": steered}
    alone = []
    for layer, direction in directions.items():
        model.steer({layer: direction})
        alone.append(model.logits(ids)[-1])
    out |= {"layers": np.array(list(directions), np.int32), "alone": np.stack(alone)}
    # One key: safetensors writes several in any order, and the file would never be the same twice.
    versions = ", ".join(f"{name} {version(name)}" for name in ("gguf", "llama-cpp-python", "numpy"))
    save_file(out, args.out, metadata={"made_with": versions})


if __name__ == "__main__":
    main()
