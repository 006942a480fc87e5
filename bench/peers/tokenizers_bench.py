"""Measures Hugging Face tokenizers or tiktoken as bench/tokenizers does package tokenizer; bench/run_tokenizers runs it.

tokenizers_bench.py {tokenizers,tiktoken} --model DIR --corpora FILE. tiktoken reads DIR/ranks.tiktoken and takes the split pattern
from tokenizer.json; it knows neither NFC nor added tokens, so the corpora have nothing of either.
"""

import argparse
import gc
import hashlib
import json
import os
import pathlib
import statistics
import struct
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def resident():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def load_tokenizers(model):
    import tokenizers

    def load():
        t = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))

        def encode(texts):
            return t.encode_batch_fast(texts, add_special_tokens=False)

        return encode, lambda done: [e.ids for e in done], lambda ids: t.decode(ids, skip_special_tokens=False)

    return f"tokenizers {tokenizers.__version__}", load


def load_tiktoken(model):
    import tiktoken
    import tiktoken.load

    pattern = json.loads((model / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]

    def load():
        t = tiktoken.Encoding(
            "bench", pat_str=pattern, mergeable_ranks=tiktoken.load.load_tiktoken_bpe(str(model / "ranks.tiktoken")), special_tokens={}
        )
        return lambda texts: [t.encode_ordinary(s) for s in texts], lambda done: done, t.decode

    return f"tiktoken {tiktoken.__version__}", load


def median(rounds, f):
    took = []
    for _ in range(rounds):
        began = time.process_time()
        f()
        took.append(time.process_time() - began)
    return statistics.median(took)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=["tokenizers", "tiktoken"])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--corpora", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    name, load = (load_tokenizers if args.peer == "tokenizers" else load_tiktoken)(args.model)
    corpora = json.loads(args.corpora.read_text())
    gc.collect()
    before = resident()
    clock, began = time.time(), time.process_time()
    encode, ids_of, decode = load()
    load_s, load_wall_s = time.process_time() - began, time.time() - clock
    gc.collect()
    memory = resident() - before
    result = {}
    for corpus, texts in corpora.items():
        size = sum(len(t.encode()) for t in texts)
        ids = ids_of(encode(texts))
        digest = hashlib.sha256()
        for row in ids:
            digest.update(struct.pack(f"<{len(row)}i", *row))
        seconds = median(args.rounds, lambda texts=texts: encode(texts))
        decoding = median(args.rounds, lambda ids=ids: [decode(row) for row in ids])
        result[corpus] = {"mb_s": size / 1e6 / seconds, "texts_s": len(texts) / seconds, "decode_mb_s": size / 1e6 / decoding,
                          "sha256": digest.hexdigest()}
    print(json.dumps({"name": name, "load_s": load_s, "load_wall_s": load_wall_s, "memory_mb": memory, "corpora": result}))


if __name__ == "__main__":
    main()
