"""What may enter, and what must never be disaggregated. One table, each line with its reason."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hyperpd.errors import Rejected

How = Literal["disaggregate", "split", "decode_only"]

_COMMON = """
    model stream stream_options max_tokens min_tokens n best_of temperature top_p top_k min_p seed stop
    stop_token_ids presence_penalty frequency_penalty repetition_penalty length_penalty logit_bias logprobs user
    ignore_eos skip_special_tokens spaces_between_special_tokens include_stop_str_in_output use_beam_search
    prompt_logprobs response_format structured_outputs return_token_ids return_tokens_as_token_ids bad_words
    allowed_token_ids truncate_prompt_tokens add_special_tokens metadata
"""
_COMPLETIONS = "prompt echo suffix"
_CHAT = """
    messages max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls reasoning_effort
    add_generation_prompt continue_final_message chat_template_kwargs include_reasoning documents
"""
ALLOWED = {
    "completions": frozenset(f"{_COMMON} {_COMPLETIONS}".split()),
    "chat": frozenset(f"{_COMMON} {_CHAT}".split()),
}
# Refused by name: they choose hosts, blocks, scheduling or cache keys inside the engines.
FORBIDDEN = {
    "kv_transfer_params": "transfer parameters are made by the gateway",
    "ec_transfer_params": "transfer parameters are made by the gateway",
    "request_id": "request ids are made by the gateway; send X-Request-Id to have yours logged",
    "priority": "it would reorder other requests",
    "prompt_embeds": "it reaches engine memory",
    "vllm_xargs": "it reaches the connector",
    "cache_salt": "it is set per tenant by the gateway",
}


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may enter. `how` is decided by its shape, `why` is exported."""

    body: dict[str, Any]
    chat: bool
    how: How
    why: str
    threshold_tokens: int = 0

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))


def admit(
    raw: bytes, kind: Literal["completions", "chat", "any"], models: Sequence[str], threshold_tokens: int = 0
) -> Admitted:
    """Read a client's body once. models: what is served, the model itself before its adapters.

    Raises Rejected naming every field that may not enter.
    """
    if not raw.strip():
        raise Rejected("the body is empty; send a JSON object", code="empty_body")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Rejected("the body must be a JSON object", code="invalid_json")
    chat = "messages" in body if kind == "any" else kind == "chat"
    needed, allowed = ("messages", ALLOWED["chat"]) if chat else ("prompt", ALLOWED["completions"])
    wrong = [f"{key}: not accepted, {FORBIDDEN[key]}" for key in body if key in FORBIDDEN]
    wrong += [_unknown(key, allowed) for key in body if key not in allowed and key not in FORBIDDEN]
    if not isinstance(body.get("stream"), bool | None):
        wrong.append(f"stream: must be true or false (found {body['stream']!r})")
    if body.get(needed) in (None, "", []):
        wrong.append(f"{needed}: missing or empty")
    if wrong:
        raise Rejected("; ".join(wrong), code="invalid_field")
    if body.setdefault("model", models[0]) not in models:
        raise Rejected(
            f"model {body['model']!r} is not served here; this is {' and '.join(map(repr, models))}",
            status=404,
            code="model_not_found",
        )
    how, why = decide(body, threshold_tokens)
    return Admitted(body, chat, how, why, threshold_tokens)


def decide(body: dict[str, Any], threshold_tokens: int = 0) -> tuple[How, str]:
    """How a request of this shape is served, and the reason's name."""
    if (body.get("n") or 1) != 1 or (body.get("best_of") or 1) != 1:
        return "decode_only", "n"  # children share one ticket; the first frees what the others still read
    if body.get("use_beam_search"):
        return "decode_only", "beam_search"  # the same, per beam
    if body.get("prompt_logprobs") is not None or (body.get("echo") and body.get("logprobs") is not None):
        return "decode_only", "prompt_logprobs"  # decode skips every cache and recomputes
    limits = [body[key] for key in ("max_tokens", "max_completion_tokens") if body.get(key) is not None]
    if any(limit in (0, 1) for limit in limits):
        return "decode_only", "one_token"  # nothing is decoded that prefill did not compute
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        # vLLM returns the first prompt's ticket for all of them: wrong text, or a dead engine.
        return ("decode_only", "prompt_list_streamed") if body.get("stream") else ("split", "prompt_list")
    if threshold_tokens and estimated_tokens(body) < threshold_tokens:
        return "decode_only", "short_prompt"  # moving its KV would cost more than computing it where it is used
    return "disaggregate", "plain"


def estimated_tokens(body: dict[str, Any]) -> float:
    """Length of a prompt: exact for token ids, else characters / 4, rounded up; of a chat, of all message texts.

    Infinite where a message holds something else than text: an image says nothing of its tokens.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        return len(prompt)
    if prompt is not None:
        return math.ceil(len(str(prompt)) / 4)
    try:
        return math.ceil(sum(map(len, _texts(body["messages"]))) / 4)
    except (LookupError, TypeError, AttributeError):
        return math.inf


def _texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if content is None or isinstance(content, str):
            yield content or ""
        else:
            yield from (part["text"] for part in content)


def _unknown(key: str, allowed: frozenset[str]) -> str:
    near = difflib.get_close_matches(key, allowed, 1)
    return f"{key}: unknown" + (f", did you mean {near[0]}?" if near else "")
