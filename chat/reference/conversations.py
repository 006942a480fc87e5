"""Conversations that reach the branches of published templates: each is (name, messages, tools, further fields)."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather <now> & \"here\", in °C.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "A city, e.g. 東京 or Zürich"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "integer", "minimum": 1},
            },
            "required": ["city"],
        },
        "strict": True,
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Searches.\nIn two lines.",
        "parameters": {
            "type": "object",
            "properties": {
                "queries": {"type": "array", "items": {"type": "string"}, "description": "What to look for"},
                "filter": {
                    "type": "object",
                    "properties": {"year": {"type": ["integer", "null"]}, "exact": {"type": "boolean"}},
                    "additionalProperties": False,
                },
                "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                "ratio": {"type": "number", "default": 1.0, "maximum": 1e20},
            },
            "required": ["queries"],
        },
        "return": {"type": "array"},
    },
}
PING = {"type": "function", "function": {"name": "ping", "description": "No arguments.", "parameters": {"type": "object", "properties": {}}}}
BARE = {"name": "bare_tool", "description": "Not wrapped.", "parameters": {"type": "object", "properties": {"x": {"type": "number"}}}}


def u(content):
    return {"role": "user", "content": content}


def a(content, **more):
    return {"role": "assistant", "content": content, **more}


def s(content):
    return {"role": "system", "content": content}


def call(name, arguments, id=None):
    c = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": id, **c} if id else c


def tool(content, **more):
    return {"role": "tool", "content": content, **more}


def parts(*texts, image=False):
    content = [{"type": "text", "text": t} for t in texts]
    if image:
        content.insert(0, {"type": "image"})
        content.append({"type": "image_url", "image_url": {"url": "x.png"}})
    return content


ID = "call_1a2b"
ID9 = "abcdef123"

CONVERSATIONS = [
    ("user", [u("Hello!")], None, {}),
    ("system", [s("You are terse."), u("What is 2+2?")], None, {}),
    ("turns", [s(" Be kind.\n"), u("Hi"), a("Hello"), u("  How are you?  \n"), a("Fine\n\n"), u("Good")], None, {}),
    ("assistant last", [u("Hi"), a("Hello there")], None, {}),
    ("think tags", [u("1+1?"), a("<think>\nIt is 2.\n</think>\n\n2"), u("2+2?")], None, {}),
    ("think tags last", [u("1+1?"), a("<think>It is 2.</think>2")], None, {}),
    ("reasoning_content", [u("1+1?"), a("2", reasoning_content="It is 2.\n"), u("2+2?"), a("4", reasoning_content="Four.")], None, {}),
    ("reasoning", [u("1+1?"), a("2", reasoning="It is 2."), u("And?")], None, {}),
    ("thinking", [u("1+1?"), a("2", thinking="It is 2."), u("And?"), a("", thinking="Hm")], None, {}),
    ("tools", [s("Use tools."), u("Weather in Bern?")], [WEATHER, SEARCH, PING], {}),
    ("tools no system", [u("Weather in Bern?")], [WEATHER], {}),
    ("empty tools", [u("Hi")], [], {}),
    ("bare tool", [u("Hi")], [BARE], {}),
    ("tool call", [u("Weather in Bern?"), a("", tool_calls=[call("get_weather", {"city": "Bern", "days": 2, "ratio": 1.5, "ok": True, "none": None}, ID9)]),
                   tool("{\"t\": 21}", name="get_weather", tool_call_id=ID9), a("It is 21 °C.")], [WEATHER], {}),
    ("tool call pending", [u("Weather?"), a(None, tool_calls=[call("get_weather", {"city": "Bern"}, ID9)]),
                           tool("21", name="get_weather", tool_call_id=ID9)], [WEATHER], {}),
    ("tool call string arguments", [u("Weather?"), a("Let me see.", tool_calls=[call("get_weather", "{\"city\": \"Bern\"}", ID9)]),
                                    tool("21", tool_call_id=ID9), u("Thanks")], [WEATHER], {}),
    ("parallel calls", [s("S"), u("Both?"), a("", tool_calls=[call("get_weather", {"city": "Bern"}, "abcdef123"), call("search", {"queries": ["a", "b<c>"], "filter": {"year": 1999}}, "abcdef456")]),
                        tool("21", name="get_weather", tool_call_id="abcdef123"), tool("[1, 2]", name="search", tool_call_id="abcdef456"),
                        a("Done", reasoning_content="Both are known."), u("More")], [WEATHER, SEARCH], {}),
    ("calls in a row", [u("Go"), a("", reasoning_content="First.", tool_calls=[call("ping", {}, ID9)]), tool("pong", tool_call_id=ID9, name="ping"),
                        a("", reasoning_content="Second.", tool_calls=[call("ping", {}, "abcdef456")]), tool("pong", tool_call_id="abcdef456", name="ping")], [PING], {}),
    ("call without tools", [u("Go"), a("", tool_calls=[call("ping", {}, ID9)]), tool({"a": [1, None, "é"]}, tool_call_id=ID9, name="ping")], None, {}),
    ("tool parts", [u("Go"), a("", tool_calls=[call("ping", {}, ID9)]), tool(parts("one", "two"), tool_call_id=ID9, name="ping")], [PING], {}),
    ("openai id", [u("Go"), a("", tool_calls=[call("ping", {}, ID)]), tool("pong", tool_call_id=ID)], [PING], {}),
    ("user parts", [s("S"), u(parts("One. ", "Two."))], None, {}),
    ("all parts", [{"role": "system", "content": parts("Sys")}, u(parts("Q")), a(parts("A")), u(parts("R"))], None, {}),
    ("image", [u(parts("What is this?", image=True))], None, {}),
    ("late system", [u("a"), s("late"), u("b")], None, {}),
    ("two users", [u("a"), u("b"), a("c"), a("d")], None, {}),
    ("developer", [{"role": "developer", "content": "Dev."}, u("a")], None, {}),
    ("unknown role", [{"role": "critic", "content": "x"}, u("a")], None, {}),
    ("empty", [s(""), u(""), a("")], None, {}),
    ("unicode", [u("Grüße 👩‍👩‍👧 é ﬁ \u2028 \x1f \"'\\ <|im_end|> {{ x }} {% if %}"), a("ÅΣΑΣ ß")], None, {}),
    ("documents", [u("What?")], None, {"documents": [{"title": "T", "text": "Some text", "doc_id": 1}, {"title": "U", "text": "More"}]}),
    ("options", [s("S"), u("Q")], [WEATHER], {"chat_template_kwargs": {
        "reasoning_effort": "high", "builtin_tools": ["browser", "python"], "date_string": "01 Jan 2026", "tools_in_user_message": False,
        "thinking": True, "thinking_budget": 512, "model_identity": "You are X.", "citations": "on", "xml_tools": [PING],
        "reasoning": True, "available_tools": [WEATHER], "length": "short", "controls": {"length": "short", "originality": "high"}}}),
    ("continue", [u("Q"), a("The answer is", prefix=True)], None, {}),
    ("weird values", [u("Q"), {"role": "assistant", "content": "x", "n": 12345678901234567890, "f": 1e16, "tool_calls": []}, u("R")], None, {}),
    ("no content", [u("Q"), {"role": "assistant"}, u("R")], None, {}),
    ("name", [{"role": "user", "name": "bob", "content": "Q"}], None, {}),
]

VARIANTS = [
    {"add_generation_prompt": False},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "enable_thinking": True},
    {"add_generation_prompt": True, "enable_thinking": False},
]


def all_conversations(variants=VARIANTS):
    for name, messages, tools, fields in CONVERSATIONS:
        for v in variants:
            c = {"messages": messages, **fields, "add_generation_prompt": v["add_generation_prompt"]}
            if tools is not None:
                c["tools"] = tools
            if "enable_thinking" in v:
                c["chat_template_kwargs"] = {**c.get("chat_template_kwargs", {}), "enable_thinking": v["enable_thinking"]}
            yield name, c
