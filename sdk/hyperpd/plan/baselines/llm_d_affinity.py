"""llm-d's affinity filter with its token load scorer.

Keep the workers that hold at least 80 % of the prompt, unless the best of them waits over 18 s longer than the best
of the others (B_w / R, R = 15,928 tokens/s as shipped, here the calibrated one); of those kept, the least B_w.
Source: llm-d-router's prefix-cache-affinity-filter, token-load-scorer; the prefill profile of its P/D guide.
"""

from __future__ import annotations

from hyperpd.routing.fleet import Field
from hyperpd.routing.policies import Policy
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker

_MATCH = 0.80
_MOST_S = 18.0


class LLMDAffinity(Policy):
    """Sticky, until it costs too much."""

    name = "llm_d_affinity"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """Uncached tokens in flight."""
        return worker.prefill_tokens

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """The least loaded of the warm ones, or of all."""
        warm: list[Worker] = []
        cold: list[Worker] = []
        for worker, cached in field.each():
            (warm if cached >= _MATCH * request.tokens else cold).append(worker)
        best = [
            min(group, key=lambda worker: (worker.prefill_tokens, worker.picked)) for group in (warm, cold) if group
        ]
        if len(best) == 1:
            return best[0]
        gap_s = (best[0].prefill_tokens - best[1].prefill_tokens) / self.knowledge.calibration.prefill_tokens_per_s
        return best[gap_s > _MOST_S]
