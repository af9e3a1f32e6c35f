"""Tokens: what prefill said of the prompt's, which had them or not; what an answer says of all. Pure, on bytes.

Decode of vLLM 0.32 reports prefill's cached tokens as its own, but not those that prefill has newly cached, and
Anthropic's input_tokens leave those out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
    text = said.decode()
    for start, end, usage in _usages(text):
        if usage is None:  # not said yet
            break
        if isinstance(usage, dict) and usage.keys() & told.keys() & _DETAILS:
            usage = {**usage, **{name: _merged(usage.get(name), value) for name, value in told.items()}}
            return (text[:start] + json.dumps(usage, separators=(",", ":")) + text[end:]).encode()
    return said


def tokens(said: bytes) -> dict[str, int]:
    """What the end of an answer, document or stream, says of tokens: `prompt`, `cached` of it, `output`; or nothing."""
    if _KEY not in said:
        return {}
    for _, _, usage in _usages(said.decode(errors="replace")):
        if not isinstance(usage, dict):
            continue
        prompt, output = (
            _count(usage, f"{old}_tokens", f"{new}_tokens")
            for old, new in (("prompt", "input"), ("completion", "output"))
        )
        if prompt is None or output is None:
            continue
        read, created = (_count(usage, f"cache_{how}_input_tokens") for how in ("read", "creation"))
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        cached = read if read is not None else _count(details, "cached_tokens")
        counts = {"prompt": prompt + (read or 0) + (created or 0), "cached": cached, "output": output}
        return {kind: count for kind, count in counts.items() if count is not None}
    return {}


def _count(usage: Any, *names: str) -> int | None:
    """The first of these that is a number; engines are not trusted to say one."""
    found = [usage.get(name) for name in names] if isinstance(usage, dict) else []
    return next((count for count in found if isinstance(count, int)), None)


def _usages(text: str) -> Iterator[tuple[int, int, Any]]:
    """Where each `usage` stands, and what it says, from the last on: a client's metadata may have such a key."""
    key = _KEY.decode()
    at = text.rfind(key)
    while at >= 0:
        start = at + len(key)
        start += text.startswith(" ", start)
        try:
            usage, end = _decoder.raw_decode(text, start)
        except ValueError:
            usage, end = {}, start
        yield start, end, usage
        at = text.rfind(key, 0, at)


def _said(value: Any) -> Any:
    """Without what is null: streams leave it out."""
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


def _merged(old: Any, told: Any) -> Any:
    return {**old, **told} if isinstance(old, dict) and isinstance(told, dict) else told


def correct_events(said: bytes, told: Mapping[str, Any]) -> bytes:
    """The same for whole events of a stream."""
    return b"\n\n".join(correct(event, told) for event in said.split(b"\n\n")) if _KEY in said else said
