"""What it means that two answers to the same request are equal, whichever API they are of, streamed or whole."""

from __future__ import annotations

import json
from typing import Any

import httpx

from hyperpd.sse import Decoder
from tests.real.prompts import LOGPROB_TOLERANCE

# Made anew for every answer, or a matter of what was asked before.
_OWN = {
    *("id", "created", "created_at", "completed_at", "item_id", "call_id", "metrics", "system_fingerprint"),
    *("cached_tokens", "cache_read_input_tokens", "cached_tokens_per_turn", "kv_transfer_params", "sequence_number"),
    "signature",  # of reasoning, which vLLM makes up
    *("cache_write_tokens", "cache_creation_input_tokens"),  # fewer where another request has just written the same
    "created_cache_tokens",  # of n answers vLLM gives one's, the gateway their prompt's
}


def read(answer: httpx.Response) -> Any:
    """An answer as one document; of a stream, its events folded."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        payloads = Decoder().feed(answer.content)
        return fold([json.loads(payload) for payload in payloads if payload != "[DONE]"])
    return answer.json()


def fold(events: list[dict[str, Any]]) -> dict[str, Any]:
    """A stream's events as what they add up to: under load, events hold more than one token."""
    if any(str(event.get("type", "")).startswith("response.") for event in events):
        said = "".join(event["delta"] for event in events if event["type"].endswith(".delta"))
        return {"said": said, "last": events[-1]}
    if any(event.get("type") == "message_start" for event in events):
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        said = "".join(
            delta.get("text") or delta.get("thinking") or delta.get("partial_json") or "" for delta in deltas
        )
        ends = [event for event in events if event["type"] in ("message_delta", "message_stop", "error")]
        # What a block began with says which tool is called.
        return {"said": said, "began": [e["content_block"] for e in events if "content_block" in e], "ends": ends}
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        for choice in event.get("choices", []):
            _add(choices.setdefault(choice["index"], {}), choice)
    usage = [event["usage"] for event in events if event.get("usage") and not event["choices"]]
    return {"choices": [choices[index] for index in sorted(choices)], "usage": usage, "errors": _errors(events)}


def _errors(events: list[dict[str, Any]]) -> list[Any]:
    return [event for event in events if "error" in event]


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        old = whole.get(key)
        if value is None:
            continue
        if isinstance(value, dict):
            _add(whole.setdefault(key, {}), value)
        elif isinstance(value, list) and key == "tool_calls":
            calls = whole.setdefault(key, {})
            for call in value:
                _add(calls.setdefault(call["index"], {}), call)
        elif isinstance(value, list):
            whole[key] = [*(old or []), *value]
        elif isinstance(value, str) and key in ("text", "content", "reasoning", "reasoning_content", "arguments"):
            whole[key] = (old or "") + value
        else:
            whole[key] = value


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two documents differ: anything but ids and times; log-probabilities beyond the tolerance."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if where.endswith("top_logprobs") or (ours and all(isinstance(v, dict) and "rank" in v for v in ours.values())):
            return _tops(ours, theirs, where)
        keys = (ours.keys() | theirs.keys()) - _OWN
        absent = [
            f"{where}.{key}: {key in ours} != {key in theirs}" for key in keys if (key in ours) != (key in theirs)
        ]
        both = [key for key in sorted(map(str, keys)) if key in ours and key in theirs]
        return absent + [each for key in both for each in differences(ours[key], theirs[key], f"{where}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return [f"{where}: {len(ours)} != {len(theirs)}"]
        if where.endswith("top_logprobs") and ours and isinstance(ours[0], dict) and "token" in ours[0]:
            pairs = ({each["token"]: each["logprob"] for each in some} for some in (ours, theirs))
            return _tops(*pairs, where)
        same = enumerate(zip(ours, theirs, strict=True))
        return [
            each
            for place, (a, b) in same
            for each in differences(a, b, f"{where}[{place}]" if "top_logprobs" not in where else where)
        ]
    if isinstance(ours, float) and isinstance(theirs, float):
        return [] if abs(ours - theirs) <= LOGPROB_TOLERANCE else [f"{where}: {ours} != {theirs}"]
    return [] if ours == theirs else [f"{where}: {ours!r} != {theirs!r}"]


def _tops(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> list[str]:
    """The likeliest tokens of one position; the last may change places with the next."""
    common = ours.keys() & theirs.keys()
    if len(common) < min(len(ours), len(theirs)) - 1:
        return [f"{where}: {sorted(ours)} != {sorted(theirs)}"]
    value = lambda each: each["logprob"] if isinstance(each, dict) else each  # noqa: E731
    far = [key for key in common if abs(value(ours[key]) - value(theirs[key])) > LOGPROB_TOLERANCE]
    return [f"{where} {key!r}: {ours[key]} != {theirs[key]}" for key in far]
