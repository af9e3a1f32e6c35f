"""llm-d's prefix-based-pd-decider.

Remote if the tokens that decode does not hold are more than `nonCachedTokens` (16 as shipped). There tokens are
estimated as characters / 4; here they are counted. Source: llm-d-router, its P/D guide.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperpd.routing.choice import Leg, Verdict
from hyperpd.routing.deciders import Decider, Offer
from hyperpd.routing.request import Request

_UNCACHED_TOKENS = 16


class LLMDDecider(Decider):
    """Nearly every request."""

    name = "llm_d_decider"

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """By uncached tokens."""
        remote = decode.uncached_tokens > _UNCACHED_TOKENS
        return Verdict(remote, "remote" if remote else "below_threshold")
