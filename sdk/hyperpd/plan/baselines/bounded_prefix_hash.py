"""Consistent hashing of the prompt's beginning with bounded loads.

hash(first 256 tokens) on a ring of 100 points per worker; the first worker on it whose requests in flight are at most
c = 1.25 times the mean. Source: Mirrokni, Thorup, Zadimoghaddam 2017; KubeAI's PrefixHash (CHWBL), c 1.25 there too.
"""

from __future__ import annotations

from bisect import bisect_left

from hyperpd.routing.fleet import Field
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.policies import Policy
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker

_TOKENS = 256
_BOUND = 1.25
_POINTS = 100
_RING = 1 << 61


class BoundedPrefixHash(Policy):
    """Same beginning, same worker, unless it is too full."""

    name = "bounded_prefix_hash"

    def __init__(self, knowledge: Knowledge) -> None:
        super().__init__(knowledge)
        self._points: dict[int, list[int]] = {}  # of a worker on the ring, in order

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """How far along the ring it is from the prompt's point, 0 to 1."""
        blocks = request.blocks[: max(1, _TOKENS // self.knowledge.block_tokens)]
        start = hash(blocks[-1]) % _RING if blocks else 0  # all that is below a block begins alike
        points = self._points.get(worker.index)
        if points is None:
            points = sorted(hash((worker.index, point)) % _RING for point in range(_POINTS))
            self._points[worker.index] = points
        return (points[bisect_left(points, start) % _POINTS] - start) % _RING / _RING

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """The first on the ring with room."""
        scored = sorted(self.scores(request, field, now_s), key=lambda pair: pair[1])
        bound = _BOUND * (sum(worker.in_flight for worker, _ in scored) + 1) / len(scored)
        return next((worker for worker, _ in scored if worker.in_flight + 1 <= bound), scored[0][0])
