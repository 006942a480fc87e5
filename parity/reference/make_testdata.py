"""Makes parity/testdata anew: models, dumps, contrastive and logistic data. Takes some minutes.

    python make_testdata.py [OUT_DIR]

The dumps come from Hugging Face alone. They are never adjusted to the engine under test.
"""

import argparse
from pathlib import Path

import contrastive
import dump
import logistic
import make_models

# name -> (steering cases, seed of prompts and directions)
DUMPS = {
    "llama-linear-f32": ("full", 11),
    "llama3-mqa-bf16-sharded": ("basic", 12),
    "qwen3-yarn-f32": ("basic", 13),
    "qwen3-tied-bf16": ("basic", 14),
}
CONTRASTIVE = {"llama-linear-f32": ["--shared", "0", "--seed", "21"], "qwen3-yarn-f32": ["--shared", "3", "--seed", "22"]}
LENGTHS = ["1", "11", "29", "89"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent.parent / "testdata", metavar="OUT_DIR")
    out = parser.parse_args().out
    make_models.main([str(out)])
    for name, (cases, seed) in DUMPS.items():
        folder = str(out / name)
        margins = ["--min-margin", "0.03", "--min-gate-margin", "0.03"]
        dump.main([folder, "--out", folder, "--steer", cases, "--seed", str(seed), "--lengths", *LENGTHS, *margins])
    for name, options in CONTRASTIVE.items():
        contrastive.main([str(out / name), "--out", str(out / name), *options])
    logistic.main(["--out", str(out / "logistic")])


if __name__ == "__main__":
    main()
