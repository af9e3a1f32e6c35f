"""What a request's headers may steer: nothing but what its key allows, and no worker at all.

No header of a client ever reaches an engine. Those by which other routers and engines choose workers, transfers,
sessions or priorities are refused all the same (gateway.steering: refuse), because who sends one expects something of
it; strip drops them, and forbidden fields of the body with them.

x-hyperpd-session may come with any key, and chooses no worker either: it says that a prompt goes on where the session's
last one ended. Routing believes it where the prompt does begin with that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from starlette.datastructures import Headers

from hyperpd.errors import Rejected
from hyperpd.recipe import GatewaySpec
from hyperpd_runtime.gateway import sagemaker, telemetry
from hyperpd_runtime.gateway.apis import CHAT, COMPLETIONS, RESPONSES, Api
from hyperpd_runtime.gateway.guard import FORBIDDEN, Admitted, Refused, Shape
from hyperpd_runtime.gateway.keys import Key

Mode = Literal["pd", "aggregated"]
EXPLAIN, MODE, SESSION, OPERATORS_ONLY = "x-hyperpd-explain", "x-hyperpd-mode", "x-hyperpd-session", "operators_only"
SESSION_NAME = "[!-~]{1,128}"
_OURS = "x-hyperpd-"
_FRONT = "x-hyperpd-front"  # chooses between two fronts (target llm_d), before the gateway
_KNOWN = (EXPLAIN, MODE, SESSION, _FRONT)

# What headers begin with, or are, → what they would choose where somebody reads them.
STEERING = {
    # vLLM 0.32: entrypoints/generate/base/serving.py
    "x-data-parallel-": "a rank of an engine, or its host",
    "x-vllm-priority": "whose request is computed first",
    "x-session-id": "a worker",
    # llm-d v0.10.0: its routing sidecar, coordinator and endpoint picker; the Gateway API's inference extension
    "x-prefiller-host-port": "the host that prefills",
    "x-encoder-hosts-ports": "the hosts that encode",
    "x-kv-cache-source-host-port": "the host that KV cache is read from",
    "x-session-token": "a worker",
    "epp-profile": "a phase and its worker",
    "x-gateway-": "an endpoint, a model or an objective",
    "x-llm-d-": "an endpoint, a model or an objective",
    # Dynamo: lib/llm, nvext
    "x-worker-instance-id": "a worker",
    "x-prefill-instance-id": "a prefill worker",
    "x-dp-rank": "a rank of an engine",
    "x-prefill-dp-rank": "a rank of a prefill worker",
    "x-enable-local-updates": "what a router knows of its workers",
    "x-dynamo-": "workers and how they are chosen",
    # SageMaker writes these at /invocations, where they are read (sagemaker.py) or mean nothing.
    "x-amzn-sagemaker-session-id": "a worker",
    "x-amzn-sagemaker-closed-session-id": "a worker",
    "x-amzn-sagemaker-adapter-identifier": "an adapter; ask for it as the model",
    "x-amzn-sagemaker-target-model": "a model; ask for it in the body",
}
_OF_SAGEMAKER = "x-amzn-sagemaker-"
# Forbidden fields that a key may be allowed, and the APIs whose engine reads them.
_ALLOWABLE = {"priority": (COMPLETIONS, CHAT, RESPONSES), "prompt_embeds": (COMPLETIONS,)}
_FORCED = Shape("decode_only", "forced", lambda _: False, f"an operator asked for it by {MODE}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as it changes how a request is served.

    operator: may see the fleet. allow: forbidden fields that may be sent all the same. strips: all others are
    dropped, and not refused. session: a conversation's name, of this key's alone; "" where none was said.
    """

    operator: bool = True
    explain: bool = False
    mode: Mode | None = None
    allow: frozenset[str] = frozenset()
    cache_salt: str = ""
    strips: bool = False
    session: str = ""

    def may_send(self, api: Api) -> frozenset[str]:
        """Forbidden fields that a body for `api` may have."""
        return frozenset(field for field in self.allow if api in _ALLOWABLE[field])

    def strip(self, body: dict[str, Any]) -> None:
        """Drop forbidden fields, where that is the recipe's wish: counted, not refused."""
        for field in FORBIDDEN.keys() & body.keys() - self.allow if self.strips else ():
            del body[field]
            telemetry.STRIPPED.labels("field", field).inc()

    def steer(self, request: Admitted, *, disaggregated: bool) -> Admitted:
        """The request as this caller's key has it. Raises Refused where it cannot be served in the mode asked for."""
        if self.cache_salt:
            request = replace(request, body=request.body | {"cache_salt": self.cache_salt})
        request = replace(request, session=self.session, forced=self.mode == "pd")
        if self.mode == "aggregated":
            return replace(request, shape=_FORCED)
        if self.mode == "pd" and not (disaggregated and request.shape.how in ("disaggregated", "split")):
            why = request.shape.because if disaggregated else "there are no prefill workers here"
            raise Refused(f"{MODE}: pd is not for this request ({why}); leave it out", "forced", code="mode_impossible")
        return request


def caller(headers: Headers, path: str, key: Key | None, gateway: GatewaySpec) -> Caller:
    """What a request's headers ask for. Without keys, whoever reaches the API is its operator.

    Raises Refused (400) naming every header that steers, or a session that is no name; Rejected (403) where a key of
    scope operator is needed.
    """
    strips = gateway.steering == "strip"
    found = list(_steering(headers, path))
    if found and not strips:
        what = "; ".join(f"{name}: not accepted, {why}" for name, why in found)
        raise Refused(f"{what}. Leave out what is named here", "steering_header", code="steering_header")
    if not strips and path == sagemaker.PATH:
        sagemaker.check(headers)
    for name, _ in found:
        telemetry.STRIPPED.labels("header", _entry(name) or _OURS).inc()
    explain, mode = headers.get(EXPLAIN) == "1", headers.get(MODE)
    operator = not key or key.scope == "operator"
    if not operator and (explain or mode):
        if not strips:
            asked = EXPLAIN if explain else MODE
            raise Rejected(f"{asked}: needs a key of scope operator", status=403, code=OPERATORS_ONLY)
        telemetry.STRIPPED.labels("header", _OURS).inc()
        explain, mode = False, None
    if mode not in (None, "pd", "aggregated"):
        raise Refused(f"{MODE}: must be pd or aggregated", "invalid_mode", code="invalid_mode")
    salt = key.cache_salt if key and gateway.isolate_prefix_cache else ""
    allow = key.allow if key else frozenset()
    return Caller(operator, explain, cast(Mode | None, mode), allow, salt, strips, _session(headers, key))


def _session(headers: Headers, key: Key | None) -> str:
    """Names of two keys never meet: a key's name has no slash."""
    name = headers.get(SESSION)
    if name is None:
        return ""
    if not re.fullmatch(SESSION_NAME, name):
        what = f"{SESSION}: must be 1 to 128 printable ASCII characters without spaces (found {len(name)} characters)"
        raise Refused(f"{what}; send the conversation's id", "invalid_session", code="invalid_session")
    return f"{key.name if key else ''}/{name}"


def _steering(headers: Headers, path: str) -> Iterator[tuple[str, str]]:
    """Every header that steers, with the reason."""
    for name in sorted(set(headers.keys())):
        if name.startswith(_OURS):
            if name not in _KNOWN:
                yield name, f"unknown; there are {EXPLAIN}, {MODE} and {SESSION}"
        elif name.startswith(_OF_SAGEMAKER) and path == sagemaker.PATH:
            continue
        elif entry := _entry(name):
            yield name, f"it would choose {STEERING[entry]}"


def _entry(name: str) -> str | None:
    if name in STEERING:
        return name
    return next((entry for entry in STEERING if entry.endswith("-") and name.startswith(entry)), None)
