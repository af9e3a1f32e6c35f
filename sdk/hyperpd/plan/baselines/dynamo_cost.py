"""Dynamo's KV router.

argmin s * max(B_w + u_w(r), 0) / block + (KV blocks of requests on w), in blocks; s = 1, temperature 0, as by default.
Source: NVIDIA Dynamo's KV router. Its decode stage can turn the overlap's credit off.
"""

from __future__ import annotations

from hyperpd.routing.policies import Policy
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker


class DynamoCost(Policy):
    """Prefill blocks to compute plus blocks held."""

    name = "dynamo_cost"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """In blocks."""
        prefill_tokens = max(worker.prefill_tokens + request.tokens - cached_tokens, 0)
        return (prefill_tokens + worker.kv_tokens) / self.knowledge.block_tokens
