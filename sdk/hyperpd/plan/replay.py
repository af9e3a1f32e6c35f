"""replay(...): one trace through one fleet under several rules, each seed once, and who is ahead.

A seed draws the slice's start, the times within a trace's buckets and the rules' own lots, the same for every rule,
so that rules are compared seed by seed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from hyperpd.errors import RecipeError
from hyperpd.plan import trace as traces
from hyperpd.plan.simulate import Fleet, Measures, Window, measure, simulate, worker_names
from hyperpd.plan.statistics import Estimate, difference
from hyperpd.plan.trace import BLOCK_TOKENS, Trace
from hyperpd.routing.calibration import Calibration
from hyperpd.routing.deciders import DECIDERS, Decider
from hyperpd.routing.knowledge import SLO, Knowledge
from hyperpd.routing.policies import POLICIES, Policy
from hyperpd.routing.router import Router

DEFAULT_POLICY = "marginal_slo_cost"
DEFAULT_DECIDER = "predicted_cost"


@dataclass(frozen=True, slots=True)
class Slice:
    """What of a trace is played: `length_s` are measured after `warm_up_s`, in simulated time. speed: how many times
    as fast as recorded; start_s: where in the trace the warm-up begins, None: the seed draws it."""

    length_s: float = 600.0
    warm_up_s: float = 180.0
    speed: float = 1.0
    start_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy and a decider by name."""

    policy: str = DEFAULT_POLICY
    decider: str = DEFAULT_DECIDER


@dataclass(frozen=True, slots=True)
class Played:
    """One run. real_time: simulated seconds for each second it took."""

    rules: Rules
    seed: int
    measures: Measures
    real_time: float


def play(fleet: Fleet, trace: Trace, rules: Rules, slo: SLO, part: Slice, seed: int) -> Played:
    """Serve a slice of `trace` with `fleet` under `rules`. Raises RecipeError with the rules there are."""
    router = _router(fleet, rules, slo, seed)
    total_s = part.warm_up_s + part.length_s
    start_s = part.start_s
    if start_s is None:
        start_s = random.Random(seed).uniform(0, max(0.0, trace.span_s - total_s * part.speed))
    requests = traces.slice_of(traces.spread(trace, seed), start_s, total_s, part.speed)
    began_s = time.process_time()
    outcome = simulate(fleet, requests, router, Window(part.warm_up_s, part.length_s))
    took_s = time.process_time() - began_s
    return Played(rules, seed, measure(outcome, slo), outcome.end_s / max(took_s, 1e-9))


def replay(
    fleet: Fleet, trace: Trace, contenders: Sequence[Rules], slo: SLO, part: Slice, seeds: int
) -> Iterator[Played]:
    """Every contender with every seed, as they are done."""
    for seed in range(seeds):
        for rules in contenders:
            yield play(fleet, trace, rules, slo, part, seed)


def ahead(played: Sequence[Played], rules: Rules) -> tuple[Rules, Estimate] | None:
    """The best of the others by mean goodput, and how far `rules` is ahead of it, paired by seed; None without others."""
    goodputs: dict[Rules, dict[int, float]] = {}
    for one in played:
        goodputs.setdefault(one.rules, {})[one.seed] = one.measures.goodput_per_s
    own = goodputs.pop(rules)
    if not goodputs:
        return None
    best = max(goodputs, key=lambda other: sum(goodputs[other].values()) / len(goodputs[other]))
    seeds = sorted(own)
    return best, difference([own[seed] for seed in seeds], [goodputs[best][seed] for seed in seeds])
