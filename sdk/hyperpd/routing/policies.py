"""Which worker takes a leg of a request. A policy sees candidates only: the filters have been applied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import inf

from hyperpd.routing import costs
from hyperpd.routing.fleet import Field
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.order import Order
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker

_CLASSES = 6  # of equal cached tokens that are looked at one by one, those with most; the others are one
_LOOKED_AT = 8  # workers of each
_LATE_ONES = 2  # workers with most before them
_AS_GOOD = 0.01  # of an objective: less than what is known of a worker, so that the same one is not always picked


class Policy(ABC):
    """The least score wins; among equal ones the worker that was picked longest ago, which spreads cold requests.

    A subclass gives `score`; one that is stateful or fast overrides `pick` too, and then `changed` tells it of every
    load that changed. Each fleet has a policy object of its own.
    """

    name = ""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge

    @abstractmethod
    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """The cost of `request` on `worker`; lower is better. Its unit is the policy's own."""

    def scores(self, request: Request, field: Field, now_s: float) -> Iterator[tuple[Worker, float]]:
        """Every candidate's score, for explaining."""
        for worker, cached_tokens in field.each():
            yield worker, self.score(request, worker, cached_tokens, now_s)

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """One of the candidates, of which there is at least one. `now_s`: seconds on the router's clock."""
        return min(self.scores(request, field, now_s), key=lambda scored: (scored[1], scored[0].picked))[0]

    def changed(self, worker: Worker) -> None:  # noqa: B027  who keeps no state has nothing to do
        """A worker's load changed, or it joined."""

    def left(self, worker: Worker) -> None:  # noqa: B027
        """A worker has left the fleet."""


class Ordered(Policy):
    """One that keeps its workers in order of a rank that says nothing of the request, and looks at the first ones."""

    def __init__(self, knowledge: Knowledge) -> None:
        super().__init__(knowledge)
        self._order = Order()

    @abstractmethod
    def rank(self, worker: Worker) -> float:
        """Lower is better. Where it is the whole score, the first worker is the pick."""

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """The rank."""
        return self.rank(worker)

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """The first of the candidates."""
        return self._order.first(field.mask, 1)[0]

    def changed(self, worker: Worker) -> None:
        """Find its new place."""
        self._order.put(worker, self.rank(worker))

    def left(self, worker: Worker) -> None:
        """Its place is gone."""
        self._order.drop(worker)


class RoundRobin(Ordered):
    """Each in turn: the one picked longest ago."""

    name = "round_robin"

    def rank(self, worker: Worker) -> float:
        """The turn of its last pick."""
        return worker.picked


class LeastTokens(Ordered):
    """argmin B_w: uncached prompt tokens in flight, then requests in flight."""

    name = "least_tokens"

    def rank(self, worker: Worker) -> float:
        """Prompt tokens whose prefill is not done; a request weighs as much as a thousandth token."""
        return worker.prefill_tokens + worker.in_flight / 1000


class MarginalSLOCost(Ordered):
    """What placing the request costs it, those that are there and those to come.

    costs.local + costs.crowds + costs.spread.
    A decode worker is judged as if it had to prefill: looking ahead to a remote prefill changed nothing in replays.
    Scored are the least loaded workers of each class of equal cached tokens, all of them in a small fleet, and the most
    loaded ones where the best of those is dear.
    """

    name = "marginal_slo_cost"

    def rank(self, worker: Worker) -> float:
        """About the score of a usual request: its backlog as a whole, since a rank stands still while time goes on."""
        known = self.knowledge
        prefill_s = worker.prefill_s + worker.foreign_waiting * known.prefill_s.value
        short_s = costs.memory_s(known, worker, 0)
        waits_s = max(prefill_s / worker.pace.value, short_s)
        taken = costs.taken(known, worker, known.prefill_s.value, short_s)
        return waits_s / known.slo.ttft_s + taken + costs.spread(worker)

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """In units of the TTFT objective."""
        known = self.knowledge
        prefill_s = known.calibration.prefill_s(request.tokens - cached_tokens, cached_tokens)
        return self._cost(request, worker, prefill_s, now_s)

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """The cheapest of those scored; of those as good, the warmest, then whoever was picked longest ago."""
        known = self.knowledge
        best, least = None, (inf, 0, 0)
        rest = field.mask
        classes = field.classes[:_CLASSES]
        for cached, mask in classes:
            rest &= ~mask
            prefill_s = known.calibration.prefill_s(request.tokens - cached, cached)
            for worker in self._order.first(mask, _LOOKED_AT):
                cost = round(self._cost(request, worker, prefill_s, now_s) / _AS_GOOD)
                if (cost, -cached, worker.picked) < least:
                    best, least = worker, (cost, -cached, worker.picked)
        others = self._order.first(rest, _LOOKED_AT)
        costly = least[0] * _AS_GOOD > costs.MISSED
        if costly and field.mask.bit_count() > _LOOKED_AT:  # it may be cheaper to join the late ones
            others += self._order.last(field.mask, _LATE_ONES)
        for worker in others:
            cached = field.cached_tokens(worker)
            cost = round(self.score(request, worker, cached, now_s) / _AS_GOOD)
            if (cost, -cached, worker.picked) < least:
                best, least = worker, (cost, -cached, worker.picked)
        assert best
        return best

    def _cost(self, request: Request, worker: Worker, prefill_s: float, now_s: float) -> float:
        known, tokens = self.knowledge, request.tokens
        own = costs.local(known, worker, tokens, prefill_s, now_s)
        return own + costs.crowds(known, worker, tokens) + costs.spread(worker)


POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in (RoundRobin, LeastTokens, MarginalSLOCost)}
