"""Does a remote prefill pay for this request? Asked once the decode worker is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from hyperpd.routing import costs
from hyperpd.routing.choice import Leg, Verdict
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.request import Request


@dataclass(frozen=True, slots=True)
class Offer:
    """The best prefill worker for a request, and what its way to the decode worker moves, in bytes per second."""

    leg: Leg
    bytes_per_s: float


class Decider(ABC):
    """The rule. `offer` looks for the prefill worker when it is called: a rule that needs none saves the search."""

    name = ""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge

    @abstractmethod
    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """Remote or not. Asked only where at least one prefill worker may be picked."""


class Always(Decider):
    """Every request."""

    name = "always"

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """Remote."""
        return Verdict(True, "remote")


class Never(Decider):
    """No request: the decode workers serve alone."""

    name = "never"

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """Local."""
        return Verdict(False, "rule")


class UncachedTokens(Decider):
    """Remote where the decode worker would have to compute at least `threshold_tokens`: what other stacks can set."""

    name = "uncached_tokens"

    def __init__(self, knowledge: Knowledge, threshold_tokens: int = 2048) -> None:
        super().__init__(knowledge)
        self.threshold_tokens = threshold_tokens

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """By the tokens that the decode worker does not hold."""
        if decode.uncached_tokens < self.threshold_tokens:
            return Verdict(False, "below_threshold")
        return Verdict(True, "remote")


class PredictedCost(Decider):
    """Remote if and only if it is predicted to cost no more: costs.remote <= costs.local, in units of the objectives.

    Where decode's memory is what they wait for, both wait alike, and what a prefill takes from others decides.
    """

    name = "predicted_cost"

    def decide(self, request: Request, decode: Leg, offer: Callable[[], Offer], now_s: float) -> Verdict:
        """By both paths' predicted costs."""
        known, tokens = self.knowledge, request.tokens
        local = costs.local(known, decode.worker, tokens, decode.prefill_s, now_s)
        best, moved_tokens = offer(), decode.uncached_tokens
        leg, speed = best.leg, best.bytes_per_s
        remote = costs.remote(known, decode.worker, leg.worker, tokens, leg.prefill_s, moved_tokens, speed, now_s)
        pays = remote <= local
        return Verdict(pays, "remote" if pays else "cost_local", local, remote)


DECIDERS: dict[str, type[Decider]] = {
    decider.name: decider for decider in (Always, Never, UncachedTokens, PredictedCost)
}
