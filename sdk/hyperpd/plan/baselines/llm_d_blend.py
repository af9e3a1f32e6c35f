"""llm-d's default profile: a weighted sum of three normalised scores.

argmax 3 * prefix + 2 * (1 - queue) + 2 * (1 - k): prefix is the matched part of the prompt, queue the waiting requests
between the candidates' least (0) and most (1), k the KV cache's usage. Source: llm-d-router's default chart profile.
"""

from __future__ import annotations

from hyperpd.routing.fleet import Field
from hyperpd.routing.policies import Policy
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker


class LLMDBlend(Policy):
    """Prefix, queue, KV cache."""

    name = "llm_d_blend"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """Without the queue's term, which depends on the other candidates; minus, so that lower is better."""
        usage = min(1.0, worker.kv_tokens / worker.cache_tokens)
        return -(3 * cached_tokens / request.tokens + 2 * (1 - usage))

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """The greatest sum; equal ones are shuffled, as max-score-picker does."""
        scored = list(self.scores(request, field, now_s))
        queues = [worker.waiting + worker.foreign_waiting for worker, _ in scored]
        least, width = min(queues), max(queues) - min(queues)
        draw = self.knowledge.random.random
        sums = [
            (score - 2 * (1 - ((queue - least) / width if width else 0.0)), draw(), worker.index, worker)
            for (worker, score), queue in zip(scored, queues, strict=True)
        ]
        return min(sums)[3]
