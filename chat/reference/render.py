"""Renders conversations.py with templates, and writes a line for each: template, conversation, text or error.

    python render.py FILE.jinja… > cases.jsonl

Templates come first, each once: {"name", "template", "tokens"}. Go reads the result with

    go test ./chat -run TestGolden -cases cases.jsonl
"""

import json
import pathlib
import sys

import conversations
import hf

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def main():
    paths = [pathlib.Path(p) for p in sys.argv[1:]]
    for path in paths:
        template = path.read_text(encoding="utf-8")
        print(json.dumps({"name": path.stem, "template": template, "tokens": TOKENS}))
        for name, conversation in conversations.all_conversations():
            answer = hf.render(template, conversation, TOKENS)
            print(json.dumps({"template": path.stem, "case": name, "conversation": conversation, **answer}))


main()
