"""replay(...): one trace through one fleet under several rules, each seed once, and who is ahead.

A seed draws the slice's start, the times within a trace's buckets and the rules' own lots, the same for every rule,
so that rules are compared seed by seed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from statistics import fmean

from hyperpd.errors import RecipeError
from hyperpd.plan import trace as traces
from hyperpd.plan.baselines import DECIDERS, POLICIES
from hyperpd.plan.simulate import Fleet, Measures, Window, measure, simulate, worker_names
from hyperpd.plan.statistics import Estimate, difference, estimate
from hyperpd.plan.trace import BLOCK_TOKENS, Trace
from hyperpd.routing.calibration import Calibration
from hyperpd.routing.knowledge import SLO, Knowledge
from hyperpd.routing.router import Router

DEFAULT_POLICY = "marginal_slo_cost"
DEFAULT_DECIDER = "predicted_cost"
# A decode step to start learning from.
_USUAL_DECODES = 16
_USUAL_CONTEXT_TOKENS = 4096
_APART = 1_000_003  # between the lots of two gateways


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


@dataclass(frozen=True, slots=True)
class Ahead:
    """How far a contender's goodput is ahead of the best other's, in requests/s, seed by seed; below 0: behind."""

    of: Rules
    by: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """A contender's simulate.Measures over its seeds. real_time: simulated seconds for each second it took."""

    rules: Rules
    seeds: int
    ahead: Ahead | None
    goodput_per_s: Estimate
    attained: Estimate
    ttft_ms: dict[str, Estimate]
    tpot_ms: dict[str, Estimate]
    itl_ms: dict[str, Estimate]
    e2e_ms: dict[str, Estimate]
    hit_rate: Estimate
    remote_share: Estimate
    output_tokens_per_s: Estimate
    preemptions: Estimate
    real_time: float


def known(*contenders: Rules) -> None:
    """Raises RecipeError with every name that is none, and the nearest that is."""
    problems = []
    for kind, names, there in (
        ("policy", [rules.policy for rules in contenders], list(POLICIES)),
        ("decider", [rules.decider for rules in contenders], list(DECIDERS)),
    ):
        for name in dict.fromkeys(names):
            if name not in there:
                near = get_close_matches(name, there, 1)
                hint = f"did you mean {near[0]}? " if near else ""
                problems.append(f"no {kind} {name!r}; {hint}there are {', '.join(there)}")
    if problems:
        raise RecipeError("rules", problems)


def play(fleet: Fleet, trace: Trace, rules: Rules, slo: SLO, part: Slice, seed: int, gateways: int = 1) -> Played:
    """Serve a slice of `trace` with `fleet` under `rules`. Raises RecipeError with the rules there are."""
    routers = [router_of(fleet, rules, slo, seed + _APART * number) for number in range(gateways)]
    total_s = part.warm_up_s + part.length_s
    start_s = part.start_s
    if start_s is None:
        left_s = trace.span_s - total_s * part.speed
        start_s = random.Random(seed).uniform(0, left_s if left_s > 0 else trace.span_s)  # a short one begins again
    requests = traces.slice_of(traces.spread(trace, seed), start_s, total_s, part.speed)
    began_s = time.process_time()
    outcome = simulate(fleet, requests, routers, Window(part.warm_up_s, part.length_s))
    took_s = time.process_time() - began_s
    return Played(rules, seed, measure(outcome, slo), outcome.end_s / max(took_s, 1e-9))


def replay(
    fleet: Fleet, trace: Trace, contenders: Sequence[Rules], slo: SLO, part: Slice, seeds: int, gateways: int = 1
) -> Iterator[Played]:
    """Every contender with every seed, as they are done."""
    for seed in range(seeds):
        for rules in contenders:
            yield play(fleet, trace, rules, slo, part, seed, gateways)


def summarize(played: Sequence[Played]) -> list[Summary]:
    """Each contender's figures over its seeds, the one with the best mean goodput first."""
    runs: dict[Rules, list[Measures]] = {}
    speeds: dict[Rules, list[float]] = {}
    for one in sorted(played, key=lambda one: one.seed):
        runs.setdefault(one.rules, []).append(one.measures)
        speeds.setdefault(one.rules, []).append(one.real_time)
    goodput = {rules: [one.goodput_per_s for one in found] for rules, found in runs.items()}
    ranked = sorted(runs, key=lambda rules: -fmean(goodput[rules]))
    summaries = []
    for rules in ranked:
        found = runs[rules]
        best = next((other for other in ranked if other != rules), None)
        summaries.append(
            Summary(
                rules=rules,
                seeds=len(found),
                ahead=Ahead(best, difference(goodput[rules], goodput[best])) if best else None,
                goodput_per_s=estimate(goodput[rules]),
                attained=estimate([one.attained for one in found]),
                ttft_ms=_each([one.ttft_ms for one in found]),
                tpot_ms=_each([one.tpot_ms for one in found]),
                itl_ms=_each([one.itl_ms for one in found]),
                e2e_ms=_each([one.e2e_ms for one in found]),
                hit_rate=estimate([one.hit_rate for one in found]),
                remote_share=estimate([one.remote_share for one in found]),
                output_tokens_per_s=estimate([one.output_tokens_per_s for one in found]),
                preemptions=estimate([one.preemptions for one in found]),
                real_time=fmean(speeds[rules]),
            )
        )
    return summaries


def _each(found: Sequence[dict[str, float]]) -> dict[str, Estimate]:
    return {name: estimate([one[name] for one in found]) for name in found[0]}


def router_of(fleet: Fleet, rules: Rules, slo: SLO, seed: int) -> Router:
    """A router that knows the fleet's workers, each pair proven, calibrated by the step times they are simulated with.

    Raises RecipeError with the rules there are.
    """
    known(rules)
    decode = fleet.role("decode") or fleet.role("aggregated")
    assert decode
    first = fleet.role("prefill") or decode
    chunk_tokens = first.limits.chunk_tokens
    calibration = Calibration(
        prefill_tokens_per_s=chunk_tokens / first.step.tokens_s(chunk_tokens),
        attention_s=first.step.attention_s,
        step_s=decode.step.decode_s(_USUAL_DECODES, _USUAL_DECODES * _USUAL_CONTEXT_TOKENS),
        kv_bytes_per_token=fleet.kv.kv_bytes_per_token,
        pair_bytes_per_s=min(first.link_bytes_s, decode.link_bytes_s),
        handoff_s=fleet.handoff_s,
    )
    knowledge = Knowledge(slo, calibration, BLOCK_TOKENS, seed)
    router = Router(knowledge, POLICIES[rules.policy], DECIDERS[rules.decider])
    names = worker_names(fleet)
    for role in fleet.roles:
        for name in names[role.name]:
            blocks = role.limits.cache_tokens // BLOCK_TOKENS
            router.join("prefill" if role.name == "prefill" else "decode", name, blocks)
    for prefill in names.get("prefill", ()):
        for name in names["decode"]:
            router.prove(prefill, name)
    return router
