"""What was decided, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hyperpd.routing.worker import Worker

Reason = Literal[
    "remote",  # prefill goes to another worker
    "aggregated",  # there is no prefill role
    "rule",  # the decider never asks for a remote prefill
    "below_threshold",  # too few tokens for it
    "cost_local",  # prefilling where it decodes is predicted to be cheaper
    "no_prefill_worker",  # none may be picked
    "pair_open",  # prefill workers are there, but no proven pair leads to this decode worker
    "shape_guard",  # a request of this shape is never handed off
    "forced",  # an operator asked for it
    "decode_failed",  # another decode worker takes it over, and computes the prompt as well
]


@dataclass(frozen=True, slots=True)
class Leg:
    """One worker's part in a request. cached_tokens: of the prompt's tokens, those it holds; prefill_s: seconds to
    compute the others, by the calibration."""

    worker: Worker
    cached_tokens: int
    uncached_tokens: int
    prefill_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decider's word. local, remote: the predicted costs in units of the TTFT objective, where it predicts."""

    remote: bool
    reason: Reason
    local: float | None = None
    remote_cost: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Decode's worker, prefill's where it is another one, and why."""

    decode: Leg
    prefill: Leg | None
    verdict: Verdict

    @property
    def reason(self) -> Reason:
        """As exported: a metric's label, a header."""
        return self.verdict.reason


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that could have been picked. score: the policy's, lower is better. cached_tokens: of the prompt."""

    score: float
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every worker at the moment of a choice, by name: what it was worth, or why it was no candidate."""

    decode: Mapping[str, Candidate | str]
    prefill: Mapping[str, Candidate | str]
    choice: Choice
