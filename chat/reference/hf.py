"""Renders conversations as transformers' apply_chat_template(tokenize=False) does, at a fixed time."""

import datetime
import logging

from transformers.utils import chat_template_utils

logging.getLogger("transformers").setLevel(logging.ERROR)

NOW = datetime.datetime(2026, 2, 3, 4, 5, 6, 789000)


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = FixedTime


def render(template, conversation, tokens):
    """Returns {"text": …} or {"error": …}. The steps before render_jinja_template are those of apply_chat_template."""
    messages = [{k: v for k, v in m.items() if v is not None} for m in conversation["messages"]]
    kwargs = {**tokens, **conversation.get("chat_template_kwargs", {})}
    if "documents" in conversation:
        kwargs["documents"] = conversation["documents"]
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            conversations=[messages],
            tools=conversation.get("tools"),
            chat_template=template,
            add_generation_prompt=conversation["add_generation_prompt"],
            **kwargs,
        )
        texts[0].encode()
        return {"text": texts[0]}
    except Exception as e:  # whatever a template raises
        return {"error": f"{type(e).__name__}: {e}"[:300]}
