"""SGLang's and vLLM's routers: the longest match, unless loads are too far apart.

When max - min > 64 requests in flight and max > 1.5 x min: the shortest queue. Else the worker with the best match, if
it is over 30 % of the prompt; else the worker with the smallest tree, here the fewest new prompt tokens sent so far.
Source: sgl-project/sglang sgl-router, vllm-project/router, their defaults; matches are in characters there.
"""

from __future__ import annotations

from hyperpd.routing.fleet import Field
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.policies import Policy
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker

_MATCH = 0.3
_ABSOLUTE = 64
_RELATIVE = 1.5


class CacheAware(Policy):
    """Affinity until the queues differ too much."""

    name = "cache_aware"

    def __init__(self, knowledge: Knowledge) -> None:
        super().__init__(knowledge)
        self._tree_tokens: dict[Worker, int] = {}

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """Of the part that decides for this prompt when queues are even: minus the match, 0 to 1."""
        return -cached_tokens / request.tokens

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """By match, tree or queue."""
        workers = dict(field.each())
        loads = [worker.in_flight for worker in workers]
        most = max(workers.values())
        if max(loads) - min(loads) > _ABSOLUTE and max(loads) > _RELATIVE * min(loads):
            worker = min(workers, key=lambda worker: (worker.in_flight, worker.picked))
        elif most / request.tokens > _MATCH:
            best = [worker for worker, cached in workers.items() if cached == most]
            worker = min(best, key=lambda worker: worker.picked)
        else:
            worker = min(workers, key=lambda worker: (self._tree_tokens.get(worker, 0), worker.picked))
        self._tree_tokens[worker] = self._tree_tokens.get(worker, 0) + request.tokens - workers[worker]
        return worker
