"""Which worker takes a leg of a request. A policy sees candidates only: the filters have been applied."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.routing import costs
from hyperpd.routing.fleet import Field
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker


class Policy:
    """The least score wins; among equal ones the worker that was picked longest ago, which spreads cold requests.

    A subclass gives `score`; one that is stateful or fast overrides `pick` too, and then `changed` tells it of every
    load that changed. Each fleet has a policy object of its own.
    """

    name = ""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """The cost of `request` on `worker`; lower is better. Its unit is the policy's own."""
        raise NotImplementedError

    def scores(self, request: Request, field: Field, now_s: float) -> Iterator[tuple[Worker, float]]:
        """Every candidate's score, for explaining."""
        for worker, cached_tokens in field.each():
            yield worker, self.score(request, worker, cached_tokens, now_s)

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """One of the candidates, of which there is at least one. `now_s`: seconds on the router's clock."""
        return min(self.scores(request, field, now_s), key=lambda scored: (scored[1], scored[0].picked))[0]

    def changed(self, worker: Worker) -> None:
        """A worker's load changed, or it joined."""

    def left(self, worker: Worker) -> None:
        """A worker has left the fleet."""


class RoundRobin(Policy):
    """Each in turn: the one picked longest ago."""

    name = "round_robin"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """The turn of its last pick."""
        return worker.picked


class LeastTokens(Policy):
    """argmin B_w: uncached prompt tokens in flight, then requests in flight."""

    name = "least_tokens"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """Prompt tokens whose prefill is not done; a request weighs as much as a thousandth token."""
        return worker.prefill_tokens + worker.in_flight / 1000


class MarginalSLOCost(Policy):
    """What placing the request costs it and the requests that are there (costs.local), and in_flight / 64.

    A decode worker is judged as if it had to prefill: looking ahead to a remote prefill changed nothing in replays.
    """

    name = "marginal_slo_cost"

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """In units of the TTFT objective."""
        known = self.knowledge
        uncached = request.tokens - cached_tokens
        cost = costs.local(known, worker, known.calibration.prefill_s(uncached, cached_tokens), now_s)
        return cost + worker.in_flight / costs.SPREAD


POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in (RoundRobin, LeastTokens, MarginalSLOCost)}
