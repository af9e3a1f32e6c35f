"""HyperPod's `routingThreshold`.

Remote if the prompt has at least 4,096 tokens, whatever of them is cached. Source: the HyperPod inference operator.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperpd.routing.choice import Leg, Verdict
from hyperpd.routing.deciders import Decider, Offer
from hyperpd.routing.request import Request

_TOKENS = 4096


class RawThreshold(Decider):
    """By the prompt's length alone."""

    name = "raw_threshold"

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """By tokens."""
        remote = request.tokens >= _TOKENS
        return Verdict(remote, "remote" if remote else "below_threshold")
