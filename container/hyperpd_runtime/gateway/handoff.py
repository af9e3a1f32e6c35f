"""Client body → prefill body; prefill answer → ticket; ticket → decode body. Pure; no I/O.

The wire's field names stand here and nowhere else. Protocol: vLLM 0.32, connector `nixlv2`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from hyperpd.errors import HandoffFailed
from hyperpd_runtime.gateway import usage
from hyperpd_runtime.gateway.apis import CHAT, Api

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
# The seed because decode samples: a generator at prefill is of no use, and vLLM's CPU engine dies of one
# whose prompt it computes in chunks.
_NOT_FOR_PREFILL = ("stream", "stream_options", "min_tokens", "best_of", "seed")
_PROMPT_IDS = "prompt_token_ids"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What prefill returned, and when the prefill request was *sent* (monotonic seconds).

    usage: the prompt's side of it, as prefill counted.
    """

    params: Mapping[str, Any]
    sent_s: float
    usage: Mapping[str, Any] = field(default_factory=dict)

    def age_s(self, now_s: float) -> float:
        return now_s - self.sent_s


def prefill_body(body: Mapping[str, Any], api: Api) -> dict[str, Any]:
    """The body that computes the prompt's KV cache and pins it: one token, no stream."""
    short = {key: value for key, value in body.items() if key not in (*_NOT_FOR_PREFILL, *api.limits)}
    short |= {api.limits[-1]: 1, "stream": False, PARAMS: _ASK}
    if "n" in api.fields:
        short["n"] = 1
    if api is CHAT:
        short["return_token_ids"] = True  # see `ticket`
    return short


def ticket(answer: Mapping[str, Any], sent_s: float, url: str) -> Ticket:
    """The ticket of an answer of the prefill worker at `url`. Raises HandoffFailed when it is missing or of no use.

    A chat's prompt goes along as token ids: decode need not render it again, and cannot render another one,
    as it would where a template names the day and midnight is between the legs.
    """
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
    if answer.get(_PROMPT_IDS):
        params = {**params, _PROMPT_IDS: answer[_PROMPT_IDS]}
    return Ticket(params, sent_s, usage.of_prompt(answer))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def decode_body(body: Mapping[str, Any], held: Ticket | None, salt: str) -> dict[str, Any]:
    """The client's body with the ticket, if any. salt: the decode worker's, beside the client's own."""
    salts = [one for one in (body.get("cache_salt"), salt) if one]
    return {**body, **({PARAMS: held.params} if held else {}), **({"cache_salt": "-".join(salts)} if salts else {})}


def release_body(held: Ticket) -> dict[str, Any]:
    """A request that decode rejects at once, upon which it tells prefill to free the ticket's blocks."""
    params = {key: value for key, value in held.params.items() if key != _PROMPT_IDS}
    return {"model": "hyperpd-release", "prompt": "-", "max_tokens": 1, PARAMS: params}
