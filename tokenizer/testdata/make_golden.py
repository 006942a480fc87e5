"""Trains the tiny tokenizers of testdata and records what Hugging Face's library does with them.

    pip install tokenizers==0.23.3 && python3 testdata/make_golden.py     (in the folder tokenizer/)

Writes testdata/<name>.json and testdata/<name>.golden.jsonl; stories260k.json is a published file (MIT) and only read.
"""

import json
import random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import AddedToken

CORPUS = """
The quick brown fox jumps over the lazy dog. She said "it's fine", and they'd agree; we'll see what I've done.
IT'S LOUD. Don't shout!  Two spaces, three   spaces,\ttabs\nand lines.\n\n\nThe end of 2024 was 1234567 days ago: 3.14159.
func main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.Println(i)\n\t}\n}\n
Zażółć gęślą jaźń. Größe, naïve, café, œuvre, ﬁne. Съешь ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα.
天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。いろはにほへと ちりぬるを。키스의 고유조건은 입술끼리 만나야 하고.
नमस्ते दुनिया। مرحبا بالعالم. שלום עולם. สวัสดีชาวโลก 😀 👍🏽 👨‍👩‍👧 🇩🇪
""".strip()

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")

PARTS = [
    "'s", "'S", "'\u017f", "'T", "'re", "'LL", "'d", "'", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n ", "\u3000", "\u00a0",
    "\u2028", "\u0085", "\u200b", "a", "hello", " world", "The", " quick", "é", "e\u0301", "ﬁ", "ß", "İ", "中文", "日本", "한국", "각",
    "\u1100\u1161\u11a8", "1", "12", "1234", "12345", "٣", "½", "Ⅷ", "!", "?!", "...", "_", "</s>", "<s>", "<unk>", "<think>", "</think>",
    "<|end|>", "<|start|>", "<|", "|>", "▁", "▁▁", "\0", "\x7f", "😀", "👨\u200d👩\u200d👧", "🇩🇪", "\ufffd", "\ufeff", "q\u0323\u0307",
    "q\u0307\u0323", "\u0344", "\u0958", "\U00011935\U00011930", "\u09c7\u09be", "\U00010d50", "\U0002ebf0", "<0x41>", "if (x) {\n\t",
    "12e-5", "a" * 40, "\u0301" * 32, " " * 20 + "x",
]


def special(*contents, **flags):
    return [AddedToken(c, special=True, normalized=False, **flags) for c in contents]


def train(tokenizer, size, alphabet):
    tokens = special("<unk>", "<s>", "</s>")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=tokens, initial_alphabet=alphabet, limit_alphabet=256, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS.split("\n\n") + CORPUS.split(), trainer)


def edit(tokenizer, change):
    data = json.loads(tokenizer.to_str())
    change(data)
    return Tokenizer.from_str(json.dumps(data))


def bos(tokenizer):
    return processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])


def llama3():
    """Like Llama-3: no normalizer, up to three digits, ignore_merges, <s> in front."""
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    t.decoder = decoders.ByteLevel()
    train(t, 460, pre_tokenizers.ByteLevel.alphabet())
    t.post_processor = processors.Sequence([processors.ByteLevel(), bos(t)])
    t.add_special_tokens(special("<|start|>", "<|end|>"))

    def break_merges(data):  # a token that only ignore_merges can reach
        data["model"]["vocab"]["quick"] = max(data["model"]["vocab"].values()) + 1
        for i, token in enumerate(data["added_tokens"][3:]):
            token["id"] = len(data["model"]["vocab"]) + i

    return edit(t, break_merges)


def qwen():
    """Like Qwen3: NFC, single digits, special and other added tokens, nothing added around a text."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    t.decoder = decoders.ByteLevel()
    train(t, 460, pre_tokenizers.ByteLevel.alphabet())
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens(special("<|start|>", "<|end|>"))
    t.add_tokens([AddedToken(c, normalized=False) for c in ("<think>", "</think>")])
    return t


def gpt2():
    """Like RoBERTa: GPT-2's pattern, a space in front, and added tokens with every flag."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    train(t, 420, pre_tokenizers.ByteLevel.alphabet())
    t.add_special_tokens(special("<|start|>", lstrip=True, rstrip=True) + special("<|end|>", lstrip=True))
    t.add_tokens(
        [AddedToken("hello", single_word=True), AddedToken("ﬁ", normalized=True), AddedToken("<|", rstrip=True, normalized=False)]
    )
    t.add_tokens([AddedToken("  ", normalized=False), AddedToken("1234", normalized=True, lstrip=True)])
    return t


def llama2():
    """Like Llama-2 without its old normalizer: Metaspace on the first word, byte fallback, the usual decoder."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    train(t, 300, [])

    def add_bytes(data):
        vocab = data["model"]["vocab"]
        for b in range(256):
            vocab.setdefault(f"<0x{b:02X}>", len(vocab))
        for i, token in enumerate(data["added_tokens"][3:]):
            token["id"] = len(vocab) + i

    t = edit(t, add_bytes)
    t.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    t.post_processor = bos(t)
    return t


def pieces():
    """Other components: Strip, Replace, Prepend, Digits, Split with its behaviors, Whitespace, Metaspace, unk without fallback."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    t.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.NFD(), normalizers.Replace(Regex(r"\p{M}+"), ""), normalizers.Replace("...", "…")]
    )
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split("_", "merged_with_previous"),
            pre_tokenizers.Split(Regex(r"[<(]"), "merged_with_next"),
            pre_tokenizers.Split(Regex(r" {2,}|\n"), "removed"),
            pre_tokenizers.Split(Regex(r"\p{L}+"), "contiguous", invert=True),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
        ]
    )
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    train(t, 300, [])
    return t


def texts(rng):
    yield from ["", " ", "\n", "Hello, world!", CORPUS]
    yield from PARTS
    for _ in range(48):
        yield "".join(rng.choice(PARTS) for _ in range(rng.choice([2, 3, 5, 9, 12])))


def write(name, tokenizer, rng):
    if name != "stories260k":
        with open(f"testdata/{name}.json", "w") as f:
            f.write(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    size = tokenizer.get_vocab_size()
    with open(f"testdata/{name}.golden.jsonl", "w") as f:

        def line(ids, **fields):
            """decoded is left out when it is the text, skip_special when it is decoded, flags when false."""
            fields = {k: v for k, v in fields.items() if v is not False}
            decoded, skipped = (tokenizer.decode(ids, skip_special_tokens=skip) for skip in (False, True))
            if decoded != fields.get("text"):
                fields["decoded"] = decoded
            if skipped != decoded:
                fields["skip_special"] = skipped
            f.write(json.dumps(dict(n=line.n, **fields, ids=ids), ensure_ascii=False, separators=(",", ":")) + "\n")
            line.n += 1

        line.n = 0
        for text in texts(rng):
            special = rng.random() < 0.5
            plain = rng.random() < 0.2
            tokenizer.encode_special_tokens = plain
            ids = tokenizer.encode(text, add_special_tokens=special).ids
            line(ids, text=text, add_special_tokens=special, special_as_text=plain)
        for _ in range(40):
            line([rng.randrange(size + 3) for _ in range(rng.choice([1, 2, 4, 12]))])


def main():
    for make in (llama3, qwen, gpt2, llama2, pieces):
        write(make.__name__, make(), random.Random(make.__name__))
    write("stories260k", Tokenizer.from_file("testdata/stories260k.json"), random.Random("stories260k"))


if __name__ == "__main__":
    main()
