"""Records the offsets that Hugging Face's library gives for the tokenizers of testdata, and for variants of them.

    pip install tokenizers==0.23.3 && python3 testdata/make_offsets.py     (in the folder tokenizer/)

Writes testdata/offsets.golden.jsonl.gz: a line for each variant, which replaces some of the file's top-level keys.
Offsets are converted from characters to bytes.

    python3 testdata/make_offsets.py tokenizer.json texts.jsonl [seed [count]]

writes the same to standard output for a whole file and the "text" of each of the lines, or with a seed for random texts.
"""

import gzip
import itertools
import json
import random
import sys

from tokenizers import Tokenizer

from make_golden import LLAMA3, PARTS

COUNT = 16  # random texts for each variant
MORE = [
    "\u00e9", "e\u0301\u0323", "\u1e69", "s\u0307\u0323", "\u0f73", "\u0301\u0f73", "\u1100\u1161", "\u1161\u11a8", "\uac00\u11a8", "\ufb03", "\u33a5", "\u2460",
    "\u212b", "\u1fb7", "\u03b1\u0345\u0342", "a\u0315\u0300\u05ae\u0300", "\ufdfa", "\u200d", " \u0301", "\u0301 ", "aa", "\u00e9b", "b\u00e9\u00e9", "\u20ac\u00e9",
    "ab", "\u0390", "\u0344\u0344", "\U0001d15e", "x\u0338\u0301", "\u2260\u0301", "\ud55c\u1100", " hello ", "  <|end|>", "<|start|>\u3000 ", "\u3000<|start|>",
]  # fmt: skip


def byte_level(prefix=False, trim=True, regex=True):
    return dict(type="ByteLevel", add_prefix_space=prefix, trim_offsets=trim, use_regex=regex)


def sequence(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def replace(content, **pattern):
    return dict(type="Replace", pattern=pattern, content=content)


def strip(left, right):
    return dict(type="Strip", strip_left=left, strip_right=right)


def split(behavior, invert=False, **pattern):
    return dict(type="Split", pattern=pattern, behavior=behavior, invert=invert)


def metaspace(scheme, split):
    return dict(type="Metaspace", replacement="▁", prepend_scheme=scheme, split=split)


PREPEND = dict(type="Prepend", prepend="▁x")
BEGIN = dict(
    type="TemplateProcessing",
    single=[{"SpecialToken": {"id": "s", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "s", "type_id": 0}}],
    pair=[],
    special_tokens={"s": {"id": "s", "ids": [1, 2], "tokens": ["<s>", "</s>"]}},
)


def bpe(vocab, merges, **fields):
    vocab = {token: i for i, token in enumerate(vocab)}
    return dict(
        type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False,
        byte_fallback=False, ignore_merges=False,
    ) | fields | dict(vocab=vocab, merges=merges)  # fmt: skip


# é has bytes, € has not, and 'A' is spelled out as well: unk, fallback and spellings meet.
UNK = ["<unk>", "a", "b", "<0xC3>", "<0xA9>", "<0xC3><0xA9>", "<", "0", "x", "4", "1", ">", "<0", "<0x", "<0x4", "<0x41", "<0x41>", "a<unk>", "▁", "▁a"]
UNK_MERGES = [("<0xC3>", "<0xA9>"), ("<", "0"), ("<0", "x"), ("<0x", "4"), ("<0x4", "1"), ("<0x41", ">"), ("a", "<unk>"), ("▁", "a")]
FEW = ["Ġ", "a", "b", "Ã", "<unk>", "ab", "Ġa", "ÃĠ", "ĠĠ", "aĠĠ"]
FEW_MERGES = [("a", "b"), ("Ġ", "a"), ("Ã", "Ġ"), ("Ġ", "Ġ"), ("a", "ĠĠ")]


def variants():
    for name in ("llama3", "qwen", "gpt2", "llama2", "pieces", "stories260k"):
        yield name, {}
    for prefix, trim in itertools.product([False, True], repeat=2):
        yield "gpt2", dict(post_processor=byte_level(prefix, trim))
        yield "gpt2", dict(post_processor=byte_level(prefix, trim), pre_tokenizer=byte_level(not prefix))
    yield "qwen", dict(post_processor=sequence("processors", byte_level(True), byte_level(False)))
    yield "qwen", dict(post_processor=sequence("processors", BEGIN, byte_level(True)), normalizer=strip(True, True))
    yield "qwen", dict(post_processor=sequence("processors", byte_level(True), BEGIN), normalizer=strip(True, False))
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield "qwen", dict(normalizer=dict(type=form), post_processor=byte_level(True))
        yield "stories260k", dict(normalizer=sequence("normalizers", PREPEND, dict(type=form), replace("▁", String=" ")))
        yield "stories260k", dict(normalizer=sequence("normalizers", dict(type="NFKD"), dict(type=form), strip(False, True)))
    yield "gpt2", dict(normalizer=sequence("normalizers", strip(True, False), PREPEND), post_processor=byte_level(True))
    yield "gpt2", dict(normalizer=sequence("normalizers", strip(False, True), replace("", Regex="e|l+")), post_processor=byte_level())
    yield "gpt2", dict(normalizer=sequence("normalizers", replace("  ", String=" "), replace("éé", Regex=r"\p{L}{2,}")))
    yield "llama2", dict(normalizer=sequence("normalizers", dict(type="Prepend", prepend="▁"), replace("▁", String=" ")), pre_tokenizer=None)
    yield "llama2", dict(pre_tokenizer=metaspace("always", True))
    yield "llama2", dict(pre_tokenizer=metaspace("always", False), normalizer=dict(type="NFKC"))
    yield "llama2", dict(pre_tokenizer=metaspace("never", True), post_processor=byte_level(True))
    yield "llama2", dict(pre_tokenizer=dict(type="Whitespace"), normalizer=dict(type="NFD"))
    yield "llama2", dict(pre_tokenizer=sequence("pretokenizers", dict(type="WhitespaceSplit"), dict(type="Digits", individual_digits=True)))
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield "pieces", dict(pre_tokenizer=split(behavior, invert, Regex=r"\p{L}+"), normalizer=PREPEND)
    yield "llama3", dict(pre_tokenizer=sequence("pretokenizers", split("Removed", Regex=" +"), byte_level(True, regex=False)))
    yield "llama3", dict(pre_tokenizer=sequence("pretokenizers", split("Isolated", Regex=LLAMA3), byte_level(True, regex=False)))
    for fuse, fallback in itertools.product([False, True], repeat=2):
        model = bpe(UNK, UNK_MERGES, unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback)
        yield "pieces", dict(model=model, normalizer=None, pre_tokenizer=None, added_tokens=[])
        yield "pieces", dict(model=model, normalizer=dict(type="NFC"), pre_tokenizer=metaspace("first", False) | dict(prepend_scheme="always"), added_tokens=[])
        few = dict(model=bpe(FEW, FEW_MERGES, unk_token="<unk>", fuse_unk=fuse), added_tokens=[])
        yield "gpt2", few | dict(post_processor=byte_level(True), normalizer=PREPEND | dict(prepend="  ") if fallback else None)
        yield "gpt2", few | dict(post_processor=byte_level(False), pre_tokenizer=byte_level(regex=False), normalizer=replace("a  ", String="é"))


def case(tokenizer, text, special, plain):
    tokenizer.encode_special_tokens = plain
    encoding = tokenizer.encode(text, add_special_tokens=special)
    byte = [0]
    for char in text:
        byte.append(byte[-1] + len(char.encode()))
    offsets = [[byte[start], byte[end]] for start, end in encoding.offsets]
    flags = {k: True for k, v in dict(add_special_tokens=special, special_as_text=plain).items() if v}
    return dict(text=text, ids=encoding.ids, offsets=offsets) | flags


def cases(tokenizer, rng, texts):
    return [case(tokenizer, text, rng.random() < 0.5, rng.random() < 0.2) for text in texts]


def mixed(rng, count):
    parts = PARTS + MORE
    for _ in range(count):
        yield "".join(rng.choice(parts) for _ in range(rng.choice([1, 2, 3, 5, 9, 12])))


def dump(**line):
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def main():
    rng = random.Random("offsets")
    with gzip.GzipFile("testdata/offsets.golden.jsonl.gz", "wb", mtime=0) as f:
        for name, edit in variants():
            with open(f"testdata/{name}.json") as source:
                tokenizer = Tokenizer.from_str(json.dumps(json.load(source) | edit))
            some = [*PARTS, *MORE, *mixed(rng, 30)] if not edit else ["", " ", "é", *rng.sample(MORE, 9), *mixed(rng, COUNT)]
            f.write(dump(tokenizer=name, edit=edit, cases=cases(tokenizer, rng, some)).encode())


def stream(path, lines, seed=None, count=20000):
    tokenizer, rng = Tokenizer.from_file(path), random.Random(seed)
    if seed is not None:
        some = mixed(rng, int(count))
    else:
        with open(lines) as f:
            some = [json.loads(line)["text"] for line in f]
    both = [case(tokenizer, text, special, plain) for text in some for special, plain in ((False, False), (True, True))]
    sys.stdout.write(dump(cases=both))


if __name__ == "__main__":
    stream(*sys.argv[1:]) if sys.argv[1:] else main()
