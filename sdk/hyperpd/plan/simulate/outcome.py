"""What came out of a simulated run, and the figures it is judged by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hyperpd.plan.simulate.engine import ITL_BINS
from hyperpd.plan.trace import Request
from hyperpd.routing.knowledge import SLO

PERCENTILES = (50, 95, 99)


@dataclass(slots=True)
class Served:
    """One request's story; times in seconds of the run. `cached_tokens`: of its prompt, not computed anew by whoever
    prefilled it."""

    request: Request
    reason: str
    remote: bool
    first_s: float = math.nan
    end_s: float = math.nan
    cached_tokens: int = 0

    @property
    def ttft_s(self) -> float:
        """From its arrival to its first token."""
        return self.first_s - self.request.arrival_s

    @property
    def tpot_s(self) -> float:
        """Mean time between two of its tokens; 0 where there is only one."""
        gaps = self.request.output_tokens - 1
        return (self.end_s - self.first_s) / gaps if gaps else 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run. `served`: requests that arrived within the window, which took `length_s`; `itl`: gaps between tokens in it
    by bin (engine.ITL_BINS); `events`: what was simulated; `end_s`: when the last request ended."""

    served: Sequence[Served]
    length_s: float
    itl: Counter[int]
    preemptions: int
    moved_bytes: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Measures:
    """Figures of a run. goodput_per_s: requests that met the TTFT and, as their mean over their tokens (TPOT), the ITL
    objective. Percentiles by name, p50, p95 and p99, in milliseconds. itl: over all gaps of all requests."""

    requests: int
    goodput_per_s: float
    attained: float
    ttft_attained: float
    tpot_attained: float
    ttft_ms: dict[str, float]
    tpot_ms: dict[str, float]
    itl_ms: dict[str, float]
    e2e_ms: dict[str, float]
    hit_rate: float
    remote_share: float
    output_tokens_per_s: float
    preemptions: int
    moved_gb: float


def measure(outcome: Outcome, slo: SLO) -> Measures:
    """The figures of `outcome` under `slo`."""
    served, length_s = outcome.served, outcome.length_s
    count = max(1, len(served))
    fast = [one.ttft_s <= slo.ttft_s for one in served]
    steady = [one.tpot_s <= slo.itl_s for one in served]
    good = sum(a and b for a, b in zip(fast, steady, strict=True))
    inputs = sum(one.request.input_tokens for one in served)
    return Measures(
        requests=len(served),
        goodput_per_s=good / length_s,
        attained=good / count,
        ttft_attained=sum(fast) / count,
        tpot_attained=sum(steady) / count,
        ttft_ms=_percentiles_ms([one.ttft_s for one in served]),
        tpot_ms=_percentiles_ms([one.tpot_s for one in served if one.request.output_tokens > 1]),
        itl_ms=_histogram_ms(outcome.itl),
        e2e_ms=_percentiles_ms([one.end_s - one.request.arrival_s for one in served]),
        hit_rate=sum(one.cached_tokens for one in served) / max(1, inputs),
        remote_share=sum(one.remote for one in served) / count,
        output_tokens_per_s=sum(one.request.output_tokens for one in served) / length_s,
        preemptions=outcome.preemptions,
        moved_gb=outcome.moved_bytes / 1e9,
    )


def _percentiles_ms(values_s: list[float]) -> dict[str, float]:
    """Nearest rank."""
    ordered = sorted(values_s) or [0.0]
    return {f"p{p}": 1e3 * ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)] for p in PERCENTILES}


def _histogram_ms(bins: Counter[int]) -> dict[str, float]:
    found: dict[str, Any] = {}
    total, passed = sum(bins.values()), 0
    for position, amount in sorted(bins.items()):
        passed += amount
        for p in PERCENTILES:
            if passed >= p / 100 * total:
                found.setdefault(f"p{p}", 1e3 * math.exp(position / ITL_BINS))
    return found or {f"p{p}": 0.0 for p in PERCENTILES}
