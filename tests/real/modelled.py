"""What plan.simulate's model says of requests that were really served: the same arrivals, the same rules."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperpd import model
from hyperpd.environment import model_path
from hyperpd.model import Model
from hyperpd.plan.simulate import Fleet, Outcome, Window, simulate, worker_names
from hyperpd.plan.simulate.fleet import Role
from hyperpd.plan.simulate.sequence import Limits
from hyperpd.plan.steptime import StepTime
from hyperpd.plan.trace import BLOCK_TOKENS
from hyperpd.recipe import Recipe
from hyperpd.routing.calibration import Calibration
from hyperpd.routing.choice import Verdict
from hyperpd.routing.deciders import DECIDERS, Decider, UncachedTokens
from hyperpd.routing.flight import Flight
from hyperpd.routing.knowledge import SLO, Knowledge
from hyperpd.routing.policies import POLICIES
from hyperpd.routing.request import Request
from hyperpd.routing.router import Router
from tests.real.conversation import Answered, request

_ALL = Window(0.0, 1e9)
_NEAR = 0.1  # costs that are closer than this share of the larger are as good as equal
_LIMITS = ("max-num-batched-tokens", "max-num-seqs", "kv-cache-memory-bytes")
_NEAR_SCORE = 0.01  # of an objective: what a policy does not tell apart


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision, the model's or the gateway's. Costs and scores in units of the TTFT objective."""

    decode: str
    remote: bool
    reason: str
    local_cost: float | None
    remote_cost: float | None
    scores: Mapping[str, float]
    cached_tokens: Mapping[str, int]  # on each decode worker

    @classmethod
    def of_flight(cls, flight: Flight) -> Decided:
        """The model's."""
        choice, explanation = flight.choice, flight.explanation
        assert explanation
        found = {name: one for name, one in explanation.decode.items() if not isinstance(one, str)}
        return cls(
            choice.decode.worker.name,
            choice.prefill is not None,
            choice.reason,
            choice.verdict.local,
            choice.verdict.remote_cost,
            {name: one.score for name, one in found.items()},
            {name: one.cached_tokens for name, one in found.items()},
        )

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Decided:
        """The gateway's, as its admin port explains it."""
        (decision,) = document["decisions"]  # one that was taken back would be followed by another
        found = [one for one in decision["decode_candidates"] if one["why_not"] is None]
        return cls(
            decision["decode"]["worker"],
            decision["prefill"] is not None,
            decision["reason"],
            decision["local_cost"],
            decision["remote_cost"],
            {one["worker"]: one["score"] for one in found},
            {one["worker"]: one["cached_tokens"] for one in found},
        )

    def same(self, other: Decided) -> bool:
        """Whether the same workers do the same."""
        return (self.decode, self.remote) == (other.decode, other.remote)

    def near(self, other: Decided) -> bool:
        """Whether this one might as well have decided as `other` did: what differs was a near tie."""
        if self.decode != other.decode:
            ours, theirs = self.scores[self.decode], self.scores[other.decode]
            return _close(ours, theirs) or abs(ours - theirs) <= _NEAR_SCORE
        return (
            self.local_cost is not None and self.remote_cost is not None and _close(self.local_cost, self.remote_cost)
        )

    @property
    def follows(self) -> bool:
        """Whether it follows from its own figures, by the rules."""
        best = self.scores[self.decode] <= min(self.scores.values()) + _NEAR_SCORE
        if self.local_cost is None or self.remote_cost is None:
            return best
        return best and self.remote == (self.remote_cost <= self.local_cost)

    def __str__(self) -> str:
        costs = "".join(
            f" {name} {cost:.3f}"
            for name, cost in (("local", self.local_cost), ("remote", self.remote_cost))
            if cost is not None
        )
        scores = ", ".join(f"{name} {score:.3f}" for name, score in sorted(self.scores.items()))
        cached = ", ".join(f"{tokens}" for _, tokens in sorted(self.cached_tokens.items()))
        return f"{self.decode} {self.reason}{costs} (scores {scores}; cached {cached})"


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _NEAR * max(abs(one), abs(other))


@dataclass(frozen=True, slots=True)
class Modelled:
    """A run of the model, beside what was really decided and when its requests were under way."""

    outcome: Outcome
    decided: Sequence[Decided]
    real: Sequence[Decided]
    answers: Sequence[Answered]

    @property
    def hit_rate(self) -> float:
        """Of all prompts' tokens, those that whoever prefilled had."""
        served = self.outcome.served
        return sum(one.cached_tokens for one in served) / sum(one.request.input_tokens for one in served)

    @property
    def differing(self) -> list[int]:
        """Requests that not the same workers served in the same way."""
        pairs = enumerate(zip(self.decided, self.real, strict=True))
        return [number for number, (ours, theirs) in pairs if not ours.same(theirs)]

    @property
    def same(self) -> float:
        """The share of the others."""
        return 1 - len(self.differing) / len(self.real)

    @property
    def alike(self) -> list[int]:
        """Requests that met the same in the model as really: the same ones under way, as far on."""
        modelled, real = zip(*map(self.under_way, range(len(self.real))), strict=True)
        return [number for number, (ours, theirs) in enumerate(zip(modelled, real, strict=True)) if ours == theirs]

    @property
    def unexplained(self) -> list[int]:
        """Requests that were decided otherwise although they met the same, and it was no near tie."""
        return [number for number in self.differing if self.cause(number) not in ("near tie", "timing")]

    def cause(self, number: int) -> str:
        """Why the decisions of one request differ."""
        ours, theirs = self.decided[number], self.real[number]
        if ours.cached_tokens != theirs.cached_tokens:
            return "caches differ"  # by an earlier difference
        if ours.near(theirs) or theirs.near(ours):
            return "near tie"
        if self.under_way(number)[0] != self.under_way(number)[1]:
            return "timing"
        return "what was learnt differs"

    def under_way(self, number: int) -> tuple[dict[int, str], dict[int, str]]:
        """The requests before one that had not ended when it came, and how far they were: in the model, and really."""
        modelled = [(one.request.arrival_s, one.first_s, one.end_s) for one in self.outcome.served]
        real = [(one.sent_s, one.first_s, one.end_s) for one in self.answers]
        return _under_way(modelled, number), _under_way(real, number)

    def report(self) -> str:
        """In words."""
        pairs = list(zip(self.decided, self.real, strict=True))
        remote = sum(ours.remote for ours, _ in pairs) / len(pairs)
        ways = sum(ours.remote == theirs.remote for ours, theirs in pairs) / len(pairs)
        causes = dict(Counter(map(self.cause, self.differing)))
        lines = [
            f"hit rate {self.hit_rate:.1%}, remote {remote:.0%}, decided the same {self.same:.1%} {causes or ''}",
            f"  local or remote alike, wherever: {ways:.1%}; {len(self.alike)} met the same,"
            f" {len({*self.differing} & {*self.alike})} of them were decided otherwise",
        ]
        for number in self.differing:
            modelled, real = self.under_way(number)
            at_s = self.outcome.served[number].request.arrival_s
            lines += [
                f"  request {number} at {at_s:.2f} s: {self.cause(number)}",
                f"      model {self.decided[number]}; under way {modelled}",
                f"      real  {self.real[number]}; under way {real}",
            ]
        return "\n".join(lines)


def _under_way(times: Sequence[tuple[float, float, float]], number: int) -> dict[int, str]:
    now_s = times[number][0]
    return {
        other: "decode" if first_s <= now_s else "prefill"
        for other, (_, first_s, end_s) in enumerate(times[:number])
        if end_s > now_s
    }


def model_of(
    served: Recipe, measured: Calibration, answers: Sequence[Answered], real: Sequence[Decided]
) -> tuple[Modelled, Modelled]:
    """The model on its own, and led by what was decided. measured: the speeds of the real fleet."""
    began_s = answers[0].sent_s
    requests = [request(one.sent_s - began_s, one.prompt, len(one.output)) for one in answers]
    fleet = fleet_of(served, measured, model.load(Path(model_path(served)), served.model.dtype))

    def run(watch: type[Noted]) -> Modelled:
        decided: list[Decided] = []
        router = router_of(fleet, served, functools.partial(watch, decided, real))
        return Modelled(simulate(fleet, requests, [router], _ALL), decided, real, answers)

    return run(Noted), run(Led)


def fleet_of(recipe: Recipe, calibration: Calibration, kv: Model) -> Fleet:
    """The fleet of `recipe` as the model has it, its speeds those that were measured."""
    roles = []
    for name in ("prefill", "decode"):
        spec = recipe.role(name)
        chunk_tokens, sequences, cache_bytes = (int(str(spec.engine[key])) for key in _LIMITS)
        token_s = 1 / calibration.prefill_tokens_per_s - calibration.step_s / chunk_tokens
        step = StepTime(calibration.step_s, 0.0, 0.0, 0.0, token_s, 0.0, calibration.attention_s, 0.0)
        limits = Limits(chunk_tokens, sequences, cache_bytes // kv.kv_bytes_per_token)
        roles.append(Role(name, spec.replicas, step, limits, calibration.pair_bytes_per_s))
    return Fleet(
        recipe.name,
        tuple(roles),
        kv,
        recipe.kv_transfer.block_size_tokens,
        recipe.model.max_len_tokens,
        calibration.handoff_s,
    )


def router_of(fleet: Fleet, recipe: Recipe, make: Callable[..., Router]) -> Router:
    """A router that is set up as the recipe's gateway is, for the model's workers. make: Router's constructor."""
    rules, slo = recipe.gateway, recipe.slo
    assert rules.calibration
    assert slo.ttft_ms
    assert slo.itl_ms
    calibration = Calibration(**rules.calibration.model_dump())
    decider: Callable[[Knowledge], Decider] = DECIDERS[rules.decider]
    if rules.decider == UncachedTokens.name:
        decider = functools.partial(UncachedTokens, threshold_tokens=rules.threshold_tokens)
    knowledge = Knowledge(SLO(slo.ttft_ms / 1e3, slo.itl_ms / 1e3), calibration, BLOCK_TOKENS)
    router = make(knowledge, POLICIES[rules.policy], decider)
    names = worker_names(fleet)
    for role in fleet.roles:
        for name in names[role.name]:
            blocks = role.limits.cache_tokens // BLOCK_TOKENS
            router.join("prefill" if role.name == "prefill" else "decode", name, blocks)
    for prefill in names["prefill"]:
        for decode in names["decode"]:
            router.prove(prefill, decode)
    return router


class Noted(Router):
    """Notes what it decides."""

    def __init__(self, noted: list[Decided], done: Sequence[Decided], *rules: Any) -> None:
        """noted: takes them. done: what was really decided for each request, in the order in which they come."""
        super().__init__(*rules)
        self._note = noted.append
        self._done = iter(done)

    def choose(self, request: Request, now_s: float, **told: Any) -> Flight:
        """As any Router."""
        flight = super().choose(request, now_s, **{**told, "explain": True})
        self._note(Decided.of_flight(flight))
        return flight


class Led(Noted):
    """Notes what it would decide, and then does what was really done: no difference is an earlier one's child."""

    def choose(self, request: Request, now_s: float, **told: Any) -> Flight:
        """As was decided."""
        done = next(self._done)
        free = copy.deepcopy(self)  # what it notes, it notes here
        Noted.choose(free, request, now_s)
        verdict = Verdict(done.remote, "remote" if done.remote else "rule")
        return Router.choose(self, request, now_s, at=done.decode, settled=verdict)
