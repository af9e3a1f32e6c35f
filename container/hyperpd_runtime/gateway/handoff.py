"""Client body → prefill body; prefill answer → ticket; ticket → decode body. Pure; no I/O.

The wire's field names stand here and nowhere else. Protocol: vLLM 0.32, connector `nixlv2`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hyperpd.errors import HandoffFailed

PARAMS = "kv_transfer_params"
_IDENTITY = ("remote_engine_id", "remote_request_id", "remote_block_ids", "remote_host", "remote_port", "tp_size")
_ASK = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
_OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens")
_NOT_FOR_PREFILL = ("stream", "stream_options", "min_tokens", *_OUTPUT_LIMITS)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What prefill returned, verbatim, and when the prefill request was *sent* (monotonic seconds)."""

    params: Mapping[str, Any]
    sent_s: float

    def age_s(self, now_s: float) -> float:
        return now_s - self.sent_s


def prefill_body(body: Mapping[str, Any], *, chat: bool) -> dict[str, Any]:
    """The body that computes the prompt's KV cache and pins it: one token, no stream."""
    short = {key: value for key, value in body.items() if key not in _NOT_FOR_PREFILL}
    limit = "max_completion_tokens" if chat else "max_tokens"
    return {**short, limit: 1, "n": 1, "stream": False, PARAMS: _ASK}


def ticket(answer: Mapping[str, Any], sent_s: float, url: str) -> Ticket:
    """The ticket of an answer of the prefill worker at `url`. Raises HandoffFailed when it is missing or of no use."""
    params = answer.get(PARAMS)
    if not isinstance(params, dict):
        raise HandoffFailed("prefill answered without a ticket", code="ticket_missing")
    missing = [field for field in _IDENTITY if params.get(field) is None]
    if missing or not params.get("do_remote_prefill"):
        raise HandoffFailed(f"prefill's ticket lacks {', '.join(missing) or 'do_remote_prefill'}", code="ticket_broken")
    if _loopback(str(params["remote_host"])) and not _loopback(urlsplit(url).hostname or ""):
        raise HandoffFailed(
            f"prefill at {url} says it is at {params['remote_host']}, which decode takes for itself;"
            " set HYPERPD_ADDRESS there",
            code="ticket_loopback",
        )
    return Ticket(params, sent_s)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def decode_body(body: Mapping[str, Any], held: Ticket | None, salt: str) -> dict[str, Any]:
    """The client's body, with the ticket and the cache salt where there are any."""
    return {**body, **({PARAMS: held.params} if held else {}), **({"cache_salt": salt} if salt else {})}


def release_body(held: Ticket) -> dict[str, Any]:
    """A request that decode rejects at once, upon which it tells prefill to free the ticket's blocks."""
    return {"model": "hyperpd-release", "prompt": "-", "max_tokens": 1, PARAMS: held.params}
