"""AIBrix's prefill score.

argmin (100 - match %) * 0.1 + requests / max requests over the candidates; where loads differ by more than 16
requests, the least loaded.
Source: vllm-project/aibrix, prefix-cache-and-load routing of its P/D mode.
"""

from __future__ import annotations

from hyperpd.routing.fleet import Field
from hyperpd.routing.policies import Policy
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker

_SPREAD = 16


class AIBrix(Policy):
    """Match first, load to tell equals apart."""

    name = "aibrix"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """The match's term only: the load's depends on the other candidates."""
        return (100 - 100 * cached_tokens / request.tokens) * 0.1

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """By both terms, or by load where it is uneven."""
        scored = list(self.scores(request, field, now_s))
        loads = [worker.in_flight for worker, _ in scored]
        most = max(loads)
        if most - min(loads) > _SPREAD:
            return min((worker for worker, _ in scored), key=lambda worker: (worker.in_flight, worker.picked))
        return min(scored, key=lambda pair: (pair[1] + pair[0].in_flight / max(most, 1), pair[0].picked))[0]
