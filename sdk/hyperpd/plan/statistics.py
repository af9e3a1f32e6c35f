"""Means with confidence intervals over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom; beyond, the normal's.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean; with 95 % confidence the true one is no further away than `within`. None: one value tells no spread."""

    mean: float
    within: float | None

    @property
    def low(self) -> float:
        """The lower bound."""
        return self.mean - (self.within or 0.0)

    @property
    def high(self) -> float:
        """The upper bound."""
        return self.mean + (self.within or 0.0)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of at least one value, with its confidence interval by Student's t."""
    mean = statistics.fmean(values)
    degrees = len(values) - 1
    if not degrees:
        return Estimate(mean, None)
    t = _T95[degrees - 1] if degrees <= len(_T95) else 1.96
    return Estimate(mean, t * statistics.stdev(values) / math.sqrt(len(values)))


def difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """values - others, paired by place: what both met alike does not count as noise."""
    return estimate([one - other for one, other in zip(values, others, strict=True)])
