"""Draw two workers, take the less loaded.

argmin over two random workers of q_w + n_w, requests. Source: Mitzenmacher 2001; the default of many balancers.
"""

from __future__ import annotations

from hyperpd.routing.fleet import Field
from hyperpd.routing.policies import Policy
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker


class PowerOfTwo(Policy):
    """The less loaded of two."""

    name = "power_of_two"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """Requests in flight."""
        return worker.in_flight

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """One of two drawn."""
        workers = list(field.workers(field.mask))
        two = self.knowledge.random.sample(workers, min(2, len(workers)))
        return min(two, key=lambda worker: (worker.in_flight, worker.picked))
