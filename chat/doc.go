// Package chat turns a conversation into the prompt that a model reads, by the model's own chat template: a Jinja
// program in the model folder. For what transformers' apply_chat_template renders, the text here is the same, byte for
// byte; what this package does not support is an error that names the line, never another text.
//
//	t, err := chat.Open("Qwen3-0.6B")
//	prompt, err := t.Render(chat.Conversation{
//		Messages:            []chat.Message{{Role: "user", Content: "Hello!"}},
//		AddGenerationPrompt: true,
//	})
//
// [Open] finds the template and the names of the special tokens, [New] takes a template as text. A [Template] is
// immutable and safe for concurrent use. Messages keep every field of their JSON and the order of the fields.
//
// # How a template is read and run
//
//	text ── tokens: white space around tags, strings, numbers    lex.go
//	     ── tree                                                 parse.go, ast.go
//	     ── where each variable lives                            scope.go
//	     ── run: statements, loops, macros, limits               run.go
//	        expressions                                          eval.go
//	        values: order, equality, text as Python has them     value.go, dict.go, strings.go, format.go
//	        filters, tests, functions                            filters.go, tests.go, builtins.go
//	        JSON in and out                                      json.go
//
// # Why an interpreter of its own
//
// The prompt is part of the model: one space or one key out of order, and it is another model. Chat templates are written
// against Python: slices with a negative step, methods of str, 1.0 against 1, the repr of a dict, the scope rules of
// jinja2's compiler. The Jinja libraries for Go work on Go's values by reflection, and differ in each of these:
// gonja v2.9.1 escapes HTML in tojson, drops the order of keys, wants a third argument of str.replace, and does
// not parse some published templates; and what a template could reach through reflection would have to be proved
// harmless. Here each rule is jinja2's, read from its source: the lexer's regular expressions, the parser's functions,
// the frames of the compiler. The tests compare with jinja2 itself, as transformers sets it up, on thousands of expressions
// and on conversations.
//
// # What is supported
//
// Statements: if, for (if, else, recursive, break, continue), set and set blocks, macro, call, filter, with, print, raw,
// generation (its text is printed like any other). All operators and tests. All filters but filesizeformat,
// forceescape, pprint, random, striptags, urlencode, urlize, wordwrap and xmlattr. Functions: range, dict,
// namespace, cycler, joiner, raise_exception, strftime_now. The methods of str but encode and a few for tables, those of
// dict and list that change nothing.
//
// Refused, because templates have no other files: block, extends, include, import; and autoescape. Refused where they are
// met: printing a function, generator or namespace, whose text is an address in Python; names that are not
// ASCII; a safe string (x|safe) in anything but output, + and comparison; powers with a fraction as exponent.
//
// # The sandbox
//
// A template comes with a model, from whoever made it, and is run on a server: llama-cpp-python (CVE-2024-34359) and SGLang
// (CVE-2026-5760) executed code from model files through Jinja. Here a template can compute with values and nothing else: there is no
// file, no reflection and no Go method in reach, attributes are a closed list for each type, and lists and
// dicts cannot be changed, as in jinja2's ImmutableSandboxedEnvironment. Steps, bytes allocated, bytes of output, the
// depth of calls, of values and of the syntax tree, the length of a range and the digits of a number are limited
// (see defaultLimits and the constants in run.go and value.go), so that every template ends, in bounded time and memory, if only in an
// error.
//
// A template is not checked for what it writes, and a user who writes <|im_end|> into a message writes a control token:
// see tokenizer.EncodeOptions for encoding text that is not trusted.
package chat
