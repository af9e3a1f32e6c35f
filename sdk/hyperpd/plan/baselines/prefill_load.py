"""Dynamo's prefill_load: remote unless the prefill worker is busy.

Local if the chosen prefill worker has more uncached tokens in flight than `prefill_busy_threshold`, here what it
computes within the TTFT objective: the source names no default. Source: NVIDIA Dynamo's conditional disaggregation.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperpd.routing.choice import Leg, Verdict
from hyperpd.routing.deciders import Decider, Offer
from hyperpd.routing.request import Request


class PrefillLoad(Decider):
    """By the prefill worker's backlog."""

    name = "prefill_load"

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """Remote while the backlog is below the objective."""
        prefill = offer().leg.worker
        known = self.knowledge
        busy = prefill.prefill_tokens > known.slo.ttft_s * known.calibration.prefill_tokens_per_s
        return Verdict(not busy, "cost_local" if busy else "remote")
