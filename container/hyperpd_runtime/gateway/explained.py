"""The last decisions of this gateway process, by request id: who could have been picked, and why these were."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hyperpd.errors import Rejected
from hyperpd.routing.choice import Candidate, Explanation, Leg
from hyperpd.routing.flight import Flight
from hyperpd_runtime.gateway import guard

REQUESTS = 1024
_DECISIONS = 8  # of one request: its retries, or the first parts of a split one
_CANDIDATES = 1 << 17  # of all together; with fewer than 128 of each request, `REQUESTS` is what bounds it


@dataclass(slots=True)
class _Decision:
    at_s: float  # Unix time
    tokens: int
    explanation: Explanation

    @property
    def candidates(self) -> int:
        return len(self.explanation.decode) + len(self.explanation.prefill)


@dataclass(slots=True)
class _Request:
    decisions: list[_Decision] = field(default_factory=list)
    left_out: int = 0
    mode: str | None = None


class Explained:
    """A ring: the oldest request goes when it is full. Nothing of a prompt is in it, but its length.

    Memory: at most 1,024 requests, and 131,072 candidates of all their decisions, the oldest going first. That is
    below 24 MiB (measured: 110 bytes a candidate, and 0.7 KiB a decision). What is put in is kept as it is, and made a
    document when somebody asks.
    """

    def __init__(self, ttft_s: float) -> None:
        """ttft_s: the objective that costs are units of."""
        self._ttft_s = ttft_s
        self._requests: OrderedDict[str, _Request] = OrderedDict()
        self._candidates = 0

    def put(self, request_id: str, flight: Flight) -> None:
        """A decision was made. Where it was made without an explanation, nothing is kept of it."""
        if not flight.explanation:
            return
        request = self._requests.setdefault(request_id, _Request())
        if len(request.decisions) == _DECISIONS:
            request.left_out += 1
            return
        request.decisions.append(_Decision(time.time(), flight.request.tokens, flight.explanation))
        self._candidates += request.decisions[-1].candidates
        while len(self._requests) > REQUESTS or (self._candidates > _CANDIDATES and len(self._requests) > 1):
            _, oldest = self._requests.popitem(last=False)
            self._candidates -= sum(decision.candidates for decision in oldest.decisions)

    def serve(self, request_id: str, mode: str) -> None:
        """A request is over: how it was served in the end."""
        if request := self._requests.get(request_id):
            request.mode = mode

    def explain(self, request_id: str) -> dict[str, Any]:
        """What is known of a request, as plain JSON. Raises Rejected, 404, where that is nothing."""
        request = self._requests.get(request_id)
        if not request:
            raise Rejected(
                f"{guard.short(request_id)}: no decision is known of this request id; decisions are kept for the last"
                f" {REQUESTS:,} requests of this gateway process, in a large fleet of those alone that were sent with"
                " x-hyperpd-explain: 1. The id is the one in the answer's header x-hyperpd-request-id",
                status=404,
                code="request_unknown",
            )
        return {
            "request_id": request_id,
            "mode": request.mode,
            "ttft_objective_ms": self._ttft_s * 1000,
            "decisions": [_document(decision) for decision in request.decisions],
            "decisions_left_out": request.left_out,
        }


def _document(decision: _Decision) -> dict[str, Any]:
    explanation, choice = decision.explanation, decision.explanation.choice
    return {
        "at": datetime.fromtimestamp(decision.at_s, UTC).isoformat(timespec="milliseconds"),
        "prompt_tokens": decision.tokens,
        "reason": choice.reason,
        "local_cost": _finite(choice.verdict.local),
        "remote_cost": _finite(choice.verdict.remote_cost),
        "decode": _leg(choice.decode),
        "prefill": _leg(choice.prefill) if choice.prefill else None,
        "decode_candidates": _candidates(explanation.decode),
        "prefill_candidates": _candidates(explanation.prefill),
    }


def _leg(leg: Leg) -> dict[str, Any]:
    return {
        "worker": leg.worker.name,
        "cached_tokens": leg.cached_tokens,
        "uncached_tokens": leg.uncached_tokens,
        "prefill_ms": leg.prefill_s * 1000,
    }


def _candidates(found: Mapping[str, Candidate | str]) -> list[dict[str, Any]]:
    """The best first; then those that were none."""
    scored = sorted(
        ((name, one) for name, one in found.items() if isinstance(one, Candidate)), key=lambda pair: pair[1].score
    )
    return [
        {"worker": name, "score": _finite(one.score), "cached_tokens": one.cached_tokens, "why_not": None}
        for name, one in scored
    ] + [
        {"worker": name, "score": None, "cached_tokens": None, "why_not": why}
        for name, why in found.items()
        if isinstance(why, str)
    ]


def _finite(number: float | None) -> float | None:
    """JSON has no infinity."""
    return number if number is not None and math.isfinite(number) else None
