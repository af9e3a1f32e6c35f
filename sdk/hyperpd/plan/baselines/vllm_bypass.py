"""vLLM's router: prompts below 256 tokens bypass prefill.

Source: vllm-project/router.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperpd.routing.choice import Leg, Verdict
from hyperpd.routing.deciders import Decider, Offer
from hyperpd.routing.request import Request

_TOKENS = 256


class VLLMBypass(Decider):
    """By the prompt's length alone."""

    name = "vllm_bypass"

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """By tokens."""
        remote = request.tokens >= _TOKENS
        return Verdict(remote, "remote" if remote else "below_threshold")
