"""LMetric: new prefill tokens times batch size; no weights.

argmin (B_w + u_w(r)) * (q_w + n_w + 1), tokens x requests. Source: arXiv 2603.15202.
"""

from __future__ import annotations

from hyperpd.routing.policies import Policy
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker


class LMetric(Policy):
    """The published rule to beat."""

    name = "lmetric"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """Tokens times requests."""
        return (worker.prefill_tokens + request.tokens - cached_tokens) * (worker.in_flight + 1)
