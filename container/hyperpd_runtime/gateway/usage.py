"""What a client is told of its prompt's tokens: what prefill said, which had them or not. Pure, on bytes.

Decode of vLLM 0.32 reports prefill's cached tokens as its own, but not those that prefill has newly cached, and
Anthropic's input_tokens leave those out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_DETAILS = {"prompt_tokens_details", "input_tokens_details", "cache_read_input_tokens", "cache_creation_input_tokens"}
_KEY = b'"usage":'  # no string of a document holds it: there the quotes are escaped
_decoder = json.JSONDecoder()


def of_prompt(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt's side of an answer's usage; empty where the engine gives no details."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return {}
    told = {key: _said(usage[key]) for key in _DETAILS if usage.get(key) is not None}
    if told and "prompt_tokens" not in usage and "input_tokens" in usage:
        told["input_tokens"] = usage["input_tokens"]
    return told


def correct(said: bytes, told: Mapping[str, Any]) -> bytes:
    """A document or an event, with the prompt's side of its usage as it was told."""
    if _KEY not in said:
        return said
    text, key = said.decode(), _KEY.decode()
    at = text.rfind(key)
    while at >= 0:
        start = at + len(key)
        start += text.startswith(" ", start)
        try:
            usage, end = _decoder.raw_decode(text, start)
        except ValueError:
            usage, end = {}, start
        if usage is None:  # not said yet
            break
        if isinstance(usage, dict) and usage.keys() & told.keys() & _DETAILS:
            usage = {**usage, **{name: _merged(usage.get(name), value) for name, value in told.items()}}
            return (text[:start] + json.dumps(usage, separators=(",", ":")) + text[end:]).encode()
        at = text.rfind(key, 0, at)  # a client's metadata may have such a key
    return said


def _said(value: Any) -> Any:
    """Without what is null: streams leave it out."""
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


def _merged(old: Any, told: Any) -> Any:
    return {**old, **told} if isinstance(old, dict) and isinstance(told, dict) else told


def correct_events(said: bytes, told: Mapping[str, Any]) -> bytes:
    """The same for whole events of a stream."""
    return b"\n\n".join(correct(event, told) for event in said.split(b"\n\n")) if _KEY in said else said
