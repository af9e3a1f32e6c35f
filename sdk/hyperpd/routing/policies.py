"""Which worker takes a leg of a request. A policy sees candidates only: the filters have been applied."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from hyperpd.routing import costs
from hyperpd.routing.fleet import Field
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.order import Order
from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker

_CLASSES = 6  # of equal cached tokens that are looked at one by one, those with most; the others are one
_LOOKED_AT = 8  # workers of each
_AS_GOOD = 0.01  # of an objective: less than what is known of a worker, so that the same one is not always picked


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


class Ordered(Policy):
    """One that keeps its workers in order of a rank that says nothing of the request, and looks at the first ones."""

    def __init__(self, knowledge: Knowledge) -> None:
        super().__init__(knowledge)
        self._order = Order()

    def rank(self, worker: Worker) -> float:
        """Lower is better. Where it is the whole score, the first worker is the pick."""
        raise NotImplementedError

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
    """What placing the request costs it and the requests that are there (costs.local), and in_flight / 64.

    A decode worker is judged as if it had to prefill: looking ahead to a remote prefill changed nothing in replays.
    Scored are the least loaded workers of each class of equal cached tokens, all of them in a small fleet.
    """

    name = "marginal_slo_cost"

    def rank(self, worker: Worker) -> float:
        """About the score of a usual request: its backlog as a whole, since a rank stands still while time goes on."""
        known = self.knowledge
        taken = known.prefill_s.value / (known.output_tokens.value * known.slo.itl_s)
        backlog_s = worker.prefill_s / worker.pace.value
        return backlog_s / known.slo.ttft_s + worker.decodes * taken + worker.in_flight / costs.SPREAD

    def score(self, request: Request, worker: Worker, cached_tokens: int, now_s: float) -> float:
        """In units of the TTFT objective."""
        known = self.knowledge
        prefill_s = known.calibration.prefill_s(request.tokens - cached_tokens, cached_tokens)
        return costs.local(known, worker, prefill_s, now_s) + worker.in_flight / costs.SPREAD

    def pick(self, request: Request, field: Field, now_s: float) -> Worker:
        """The cheapest of those scored; of those that are as good and as warm, whoever was picked longest ago."""
        known = self.knowledge
        scored: list[tuple[float, int, int, Worker]] = []
        rest = field.mask
        for cached, mask in field.classes[:_CLASSES]:
            rest &= ~mask
            prefill_s = known.calibration.prefill_s(request.tokens - cached, cached)
            for worker in self._order.first(mask, _LOOKED_AT):
                cost = costs.local(known, worker, prefill_s, now_s) + worker.in_flight / costs.SPREAD
                scored.append((cost, cached, worker.picked, worker))
        for worker in self._order.first(rest, _LOOKED_AT):
            cached = field.cached_tokens(worker)
            scored.append((self.score(request, worker, cached, now_s), cached, worker.picked, worker))
        least, warm, _, _ = min(scored, key=itemgetter(0, 2))
        return min((one for one in scored if one[0] <= least + _AS_GOOD and one[1] == warm), key=itemgetter(2))[3]


POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in (RoundRobin, LeastTokens, MarginalSLOCost)}
