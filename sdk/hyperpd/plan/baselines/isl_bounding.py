"""Dynamo's isl_bounding, its default.

Local if decode would compute fewer than 2,048 tokens and these are less than 0.7 of the prompt; else remote.
Source: NVIDIA Dynamo's conditional disaggregation.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperpd.routing.choice import Leg, Verdict
from hyperpd.routing.deciders import Decider, Offer
from hyperpd.routing.request import Request

_TOKENS = 2048
_RATIO = 0.7


class ISLBounding(Decider):
    """Short and mostly cached stays."""

    name = "isl_bounding"

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """By uncached tokens and their share."""
        uncached = decode.uncached_tokens
        local = uncached < _TOKENS and uncached / request.tokens < _RATIO
        return Verdict(not local, "below_threshold" if local else "remote")
