"""Bad input, and what is said to it: a table. test_refusals.py sends it."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

SECRET = "tulips-at-noon"  # stands for what people write: never in an answer, nor in a log
LIMITS = {"body_mib": 1 / 16, "json_depth": 16, "prompt_tokens": 1000, "output_tokens": 512, "choices": 8}
COMPLETIONS, CHAT, RESPONSES, MESSAGES, INVOCATIONS = (
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/invocations",
)
_SAID = [{"role": "user", "content": SECRET}]
_GOOD: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": SECRET},
    CHAT: {"messages": _SAID},
    RESPONSES: {"input": SECRET},
    MESSAGES: {"messages": _SAID, "max_tokens": 9},
    INVOCATIONS: {"prompt": SECRET},
}


@dataclass(frozen=True)
class Refusal:
    """One request that is refused. words: of the message, all of them."""

    name: str
    status: int
    code: str
    words: str
    path: str = COMPLETIONS
    body: bytes = b""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    param: str | None = None


def raw(name: str, body: bytes, code: str, words: str, status: int = 400, **more: Any) -> Refusal:
    return Refusal(name, status, code, words, body=body, **more)


def said(name: str, fields: dict[str, Any], code: str, words: str, path: str = COMPLETIONS, **more: Any) -> Refusal:
    """A good body of that path, with these fields."""
    body = {key: value for key, value in (_GOOD.get(path, {}) | fields).items() if value is not ...}
    return raw(name, json.dumps(body).encode(), code, words, path=path, **more)


def field_of(path: str, name: str, value: Any, words: str) -> Refusal:
    """A field that may not be, or not hold that."""
    title = f"{path} {name} {json.dumps(value)[:20]}"
    return said(title, {name: value}, "invalid_field", f"{name}: {words}", path, param=name)


def _nested(depth: int) -> bytes:
    return b'{"prompt": "x", "metadata": ' + b'{"a":' * depth + b"1" + b"}" * (depth + 1)


BODIES = [
    raw("nothing", b"", "empty_body", "is empty; send a JSON object"),
    raw("white space", b" \r\n\t ", "empty_body", "is empty; send a JSON object"),
    raw("words", b"hello", "invalid_json", "Expecting value: line 1 column 1"),
    raw("a form", b"prompt=hello&max_tokens=4", "invalid_json", "Expecting value"),
    raw("cut", b'{"prompt": "x"', "invalid_json", "Expecting ',' delimiter"),
    raw("cut inside a text", b'{"prompt": "x', "invalid_json", "Unterminated string"),
    raw("two documents", b'{"prompt": "x"}{"prompt": "y"}', "invalid_json", "Extra data: send one JSON object"),
    raw("trailing comma", b'{"prompt": "x",}', "invalid_json", "Expecting property name"),
    raw("single quotes", b"{'prompt': 'x'}", "invalid_json", "Expecting property name"),
    raw("a comment", b'{"prompt": "x" /* y */}', "invalid_json", "Expecting ',' delimiter"),
    raw("a raw line break", b'{"prompt": "x\ny"}', "invalid_json", "Invalid control character"),
    raw("a bad escape", b'{"prompt": "\\x41"}', "invalid_json", "Invalid \\escape"),
    raw("a list", b"[1, 2]", "invalid_json", "must be a JSON object (found: array)"),
    raw("a text", b'"hello"', "invalid_json", "must be a JSON object (found: string)"),
    raw("null", b"null", "invalid_json", "must be a JSON object (found: null)"),
    raw("true", b"true", "invalid_json", "must be a JSON object (found: boolean)"),
    raw("a number", b"7", "invalid_json", "must be a JSON object (found: integer)"),
    raw("NaN", b'{"prompt": "x", "temperature": NaN}', "invalid_json", "NaN is no JSON number"),
    raw("Infinity", b'{"prompt": "x", "temperature": Infinity}', "invalid_json", "Infinity is no JSON number"),
    raw("-Infinity", b'{"prompt": "x", "logit_bias": {"1": -Infinity}}', "invalid_json", "-Infinity is no JSON"),
    raw("a float beyond", b'{"prompt": "x", "temperature": 1e999}', "invalid_json", "too large for a double"),
    raw(
        "an endless integer",
        b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
        "invalid_json",
        "4300 digits; send a smaller one",
    ),
    raw("a key twice", b'{"model": "a", "model": "tiny-llama", "prompt": "x"}', "duplicate_key", "same key twice"),
    raw("a key twice, within", b'{"prompt": "x", "metadata": {"a": 1, "a": 1}}', "duplicate_key", "same key twice"),
    raw("Latin-1", '{"prompt": "é"}'.encode("latin-1"), "invalid_encoding", "byte 12 is not UTF-8"),
    raw("UTF-16", '{"prompt": "x"}'.encode("utf-16"), "invalid_encoding", "byte 0 is not UTF-8"),
    raw("UTF-32", '{"prompt": "x"}'.encode("utf-32-be"), "invalid_json", "Expecting value"),
    raw("overlong UTF-8", b'{"prompt": "\xc0\xaf"}', "invalid_encoding", "byte 12 is not UTF-8"),
    raw("a surrogate as bytes", b'{"prompt": "\xed\xa0\x80"}', "invalid_encoding", "byte 12 is not UTF-8"),
    raw("half a pair", b'{"prompt": "\\ud83d"}', "invalid_encoding", "surrogate pair"),
    raw("the other half", b'{"prompt": "x\\uDE00"}', "invalid_encoding", "surrogate pair"),
    raw("the other half, in small letters", b'{"prompt": "\\udc00"}', "invalid_encoding", "surrogate pair"),
    raw("half a pair as a key", b'{"prompt": "x", "\\ud800": 1}', "invalid_encoding", "surrogate pair"),
    raw("nested", _nested(16), "nested_too_deep", "deeper than 16 (gateway.limits.json_depth)"),
    raw("nested beyond the parser", _nested(5000), "nested_too_deep", "deeper than 16"),
    raw("lists without end", b"[" * 60000, "nested_too_deep", "deeper than 16"),
    raw("gzip", gzip.compress(b'{"prompt": "x"}'), "invalid_encoding", "byte 1 is not UTF-8"),
]
FORMS = [
    raw(f"Content-{name}: {value}", b'{"prompt": "x"}', "unsupported_media_type", f"Content-{name}: {words}", 415,
        headers={f"content-{name.lower()}": value})
    for name, value, words in (
        ("Encoding", "gzip", "compressed bodies are not taken; send it as it is"),
        ("Encoding", "br", "compressed bodies are not taken"),
        ("Encoding", "identity, gzip", "compressed bodies are not taken"),
        ("Type", "text/plain", "only JSON is taken; send Content-Type: application/json"),
        ("Type", "application/x-www-form-urlencoded", "only JSON is taken"),
        ("Type", "multipart/form-data; boundary=x", "only JSON is taken"),
        ("Type", "text/csv", "only JSON is taken"),
        ("Type", "application/jsonp", "only JSON is taken"),
        ("Type", "application/json; charset=utf-16", "only UTF-8 is taken; send it without a charset"),
        ("Type", 'application/json; x=y; charset="latin1"', "only UTF-8 is taken"),
    )
]  # fmt: skip
FIELDS = [
    field_of(COMPLETIONS, "kv_transfer_params", {"do_remote_prefill": True}, "not accepted, transfer parameters"),
    field_of(COMPLETIONS, "ec_transfer_params", None, "not accepted"),
    field_of(COMPLETIONS, "request_id", "x,y", "not accepted, request ids are made by the gateway; send X-Request-Id"),
    field_of(CHAT, "session_id", "x", "not accepted, it chooses a worker (leave it out)"),
    field_of(CHAT, "priority", -1, "not accepted, it would reorder other requests"),
    field_of(COMPLETIONS, "prompt_embeds", "x", "not accepted, it reaches engine memory"),
    field_of(RESPONSES, "vllm_xargs", {}, "not accepted, it reaches the connector"),
    field_of(MESSAGES, "cache_salt", "x", "not accepted, cache keys are the gateway's"),
    field_of(COMPLETIONS, "colour", "red", "unknown (leave it out)"),
    field_of(COMPLETIONS, "max_token", 7, "unknown, did you mean max_tokens?"),
    field_of(CHAT, "prompt", SECRET, "unknown"),
    field_of(MESSAGES, "presence_penalty", 1, "unknown"),
    field_of(CHAT, "chat_template", "{{ 7 * 7 }}", "unknown"),
    field_of("/tokenize", "kv_transfer_params", {}, "not accepted"),
    field_of("/v1/embeddings", "priority", 1, "not accepted"),
    said("a name of 9,000 letters", {"x" * 9000: 1}, "invalid_field", f"{'x' * 64}…: unknown", param="x" * 64 + "…"),
    said("many unknown names", {f"x{n}": n for n in range(200)}, "invalid_field", "x7: unknown and: 192 more",
         param="x0"),
    said("several at once", {"priority": 1, "colour": 1, "n": 0}, "invalid_field",
         "priority: not accepted colour: unknown n: must be at least 1", param="priority"),
    field_of(COMPLETIONS, "stream", "yes", "must be true or false (found a string)"),
    field_of(COMPLETIONS, "stream", 1, "must be true or false (found an integer)"),
    field_of(COMPLETIONS, "stream_options", [SECRET], "must be an object (found an array)"),
    field_of(COMPLETIONS, "prompt", {"text": SECRET}, "must be a string or an array (found an object)"),
    field_of(COMPLETIONS, "prompt", 7, "must be a string or an array (found an integer)"),
    field_of(COMPLETIONS, "prompt", "", "missing or empty"),
    field_of(COMPLETIONS, "prompt", [], "missing or empty"),
    field_of(COMPLETIONS, "prompt", None, "missing or empty (give it)"),
    said("no prompt", {"prompt": ...}, "invalid_field", "prompt: missing or empty (give it)", param="prompt"),
    said("no messages", {"messages": ...}, "invalid_field", "messages: missing", CHAT, param="messages"),
    field_of(CHAT, "messages", SECRET, "must be an array (found a string)"),
    field_of(MESSAGES, "messages", {"role": "user"}, "must be an array (found an object)"),
    field_of(RESPONSES, "input", True, "must be a string or an array (found a boolean)"),
    field_of(COMPLETIONS, "model", 7, "must be a string (found an integer)"),
    field_of(COMPLETIONS, "n", 0, "must be at least 1"),
    field_of(COMPLETIONS, "n", -1, "must be at least 1"),
    field_of(CHAT, "n", "2", "must be an integer (found a string)"),
    field_of(CHAT, "n", 1.5, "must be an integer (found a number)"),
    field_of(CHAT, "n", True, "must be an integer (found a boolean)"),
    field_of(COMPLETIONS, "max_tokens", "99999", "must be an integer (found a string)"),
    field_of(CHAT, "max_completion_tokens", 4.5, "must be an integer (found a number)"),
    field_of(RESPONSES, "max_output_tokens", [9], "must be an integer (found an array)"),
    field_of(RESPONSES, "tools", {"type": "function"}, "must be an array (found an object)"),
    field_of(COMPLETIONS, "echo", "false", "must be true or false (found a string)"),
    field_of(COMPLETIONS, "use_beam_search", 1, "must be true or false (found an integer)"),
    said("stored", {"store": True}, "invalid_field", "answers are not kept here; send the whole input", RESPONSES),
    said("in the background", {"background": True}, "invalid_field", "answers are not kept here", RESPONSES),
    said("an answer before", {"previous_response_id": "r"}, "invalid_field", "send the whole input", RESPONSES),
    said("best of", {"best_of": 3}, "invalid_field", "best_of: the engine has no such choice; ask for n answers"),
    said("another model", {"model": "gpt-5"}, "model_not_found", "model 'gpt-5' is not served here; this is",
         status=404, param="model"),
    said("a model of 9,000 letters", {"model": SECRET * 700}, "model_not_found", "is not served here", CHAT, status=404,
         param="model"),
    said("another model, Anthropic's", {"model": "claude"}, "model_not_found", "model 'claude'", MESSAGES, status=404,
         param="model"),
    said("another model, invoked", {"model": "x"}, "model_not_found", "model 'x'", INVOCATIONS, status=404,
         param="model"),
    said("another model to tokenize", {"model": "x"}, "model_not_found", "model 'x'", "/tokenize", status=404,
         param="model"),
]  # fmt: skip
TOO_MUCH = [
    raw("a body too long", b'{"prompt": "' + b"x" * 66_000 + b'"}', "body_too_large",
        "larger than 65536 bytes (gateway.limits.body_mib); send less", 413),
    said("a prompt of 1001 ids", {"prompt": [7] * 1001}, "context_length_exceeded",
         "prompt: 1001 tokens, 1000 are allowed (gateway.limits.prompt_tokens); shorten it", param="prompt"),
    said("one of two", {"prompt": ["x", "x" * 4001]}, "context_length_exceeded",
         "prompt: 1001 tokens (estimated: characters / 4), 1000 are allowed", param="prompt"),
    said("a long chat", {"messages": [{"role": "user", "content": "x" * 3000}] * 2}, "context_length_exceeded",
         "messages: 1502 tokens (estimated", CHAT, param="messages"),
    said("long tools", {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 5000}}]},
         "context_length_exceeded", "tokens (estimated", CHAT, param="messages"),
    said("a long system", {"system": "x" * 5000}, "context_length_exceeded", "are allowed", MESSAGES, param="messages"),
    said("long instructions", {"instructions": "x" * 5000}, "context_length_exceeded", "are allowed", RESPONSES,
         param="input"),
    said("513 tokens", {"max_tokens": 513}, "invalid_value",
         "max_tokens is too large: 513; at most 512 output tokens are allowed (gateway.limits.output_tokens)",
         param="max_tokens"),
    said("513 tokens, hidden", {"max_tokens": 9, "max_completion_tokens": 513}, "invalid_value",
         "max_completion_tokens is too large: 513; at most 512", CHAT, param="max_completion_tokens"),
    said("513 tokens, Anthropic's", {"max_tokens": 513}, "invalid_value", "at most 512", MESSAGES, param="max_tokens"),
    said("513 tokens, of responses", {"max_output_tokens": 513}, "invalid_value", "at most 512", RESPONSES,
         param="max_output_tokens"),
    said("10**400 tokens", {"max_tokens": 10**400}, "invalid_value", "more than 18 digits", param="max_tokens"),
    said("nine answers", {"n": 9}, "integer_above_max_value",
         "9 answers are asked for (prompts times n), 8 are allowed (gateway.limits.choices); send them as several",
         param="n"),
    said("nine answers of a chat", {"n": 9}, "integer_above_max_value", "8 are allowed", CHAT, param="n"),
    said("nine prompts", {"prompt": ["x"] * 9}, "array_above_max_length", "9 answers", param="prompt"),
    said("three times three", {"prompt": ["x"] * 3, "n": 3}, "array_above_max_length", "9 answers", param="prompt"),
    said("nine beams", {"n": 9, "use_beam_search": True}, "integer_above_max_value", "9 answers", param="n"),
    said("10**30 answers", {"n": 10**30}, "integer_above_max_value", "8 are allowed", param="n"),
]  # fmt: skip
ROUTES = [
    Refusal("no such route", 404, "not_found",
            "POST /v2/x: Not Found; known here: /v1/completions", "/v2/x"),
    Refusal("nearly", 404, "not_found", "did you mean /v1/chat/completions?", "/v1/chat/completion"),
    Refusal("a slash more", 404, "not_found", "Not Found; did you mean /v1/completions?", "/v1/completions/"),
    Refusal("an engine's route", 404, "not_found", "Not Found", "/metrics", method="GET"),
    Refusal("a kept answer", 404, "not_found", "Not Found", "/v1/responses/resp_1", method="GET"),
    Refusal("a long one", 404, "not_found", "Not Found", f"/{'x' * 5000}"),
    Refusal("an Anthropic batch", 404, "not_found", "Not Found", "/v1/messages/batches"),
    Refusal("GET", 405, "method_not_allowed", "GET /v1/completions: Method Not Allowed; send POST", method="GET"),
    Refusal("PUT", 405, "method_not_allowed", "send POST", CHAT, method="PUT"),
    Refusal("DELETE", 405, "method_not_allowed", "send POST", MESSAGES, method="DELETE"),
    Refusal("POST to models", 405, "method_not_allowed", "send GET", "/v1/models"),
    Refusal("POST to ping", 405, "method_not_allowed", "send GET", "/ping"),
    Refusal("GET invocations", 405, "method_not_allowed", "send POST", INVOCATIONS, method="GET"),
    Refusal("a new adapter", 403, "adapters_are_fixed", "Name them in the recipe", "/v1/load_lora_adapter"),
    said("SageMaker: no such route", {}, "invalid_request", "route '/metrics' is not served; try /v1/completions",
         INVOCATIONS, headers={"x-amzn-sagemaker-custom-attributes": "route=/metrics"}),
    said("SageMaker: a session", {}, "no_sessions", "sessions are not kept; send every request whole", INVOCATIONS,
         headers={"x-amzn-sagemaker-session-id": "NEW_SESSION"}),
    *(
        said(f"a session of {what}", {}, "invalid_session", f"(found {len(name)}", headers={"x-hyperpd-session": name})
        for what, name in (("nothing", ""), ("129", "s" * 129), ("words", "a b"))
    ),
    said("SageMaker: no such adapter", {}, "model_not_found", "model 'tax' is not served here", INVOCATIONS, status=404,
         param="model", headers={"x-amzn-sagemaker-adapter-identifier": "tax"}),
    said("SageMaker: Anthropic's", {"messages": _SAID, "prompt": ..., "n": 2}, "invalid_field", "n: unknown",
         INVOCATIONS, param="n", headers={"x-amzn-sagemaker-custom-attributes": "route=/v1/messages"}),
]  # fmt: skip
ALL = [*BODIES, *FORMS, *FIELDS, *TOO_MUCH, *ROUTES]
