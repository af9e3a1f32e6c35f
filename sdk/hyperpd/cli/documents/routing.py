"""What a gateway decided, and the figures that it predicts by."""

from __future__ import annotations

from typing_extensions import TypedDict


class Candidate(TypedDict):
    """A worker; the best is first. `score`: the policy's, lower is better. `why_not`: it could not be picked."""

    worker: str
    score: float | None
    cached_tokens: int | None
    why_not: str | None


class Leg(TypedDict):
    """A worker's part. `prefill_ms`: to compute the tokens it has not cached, by the calibration."""

    worker: str
    cached_tokens: int
    uncached_tokens: int
    prefill_ms: float


class Decision(TypedDict):
    """`reason`: as the gateway's metrics name it. Costs: in units of the TTFT objective, where the decider predicts.
    `prefill`: null where decode's worker prefills. `prefill_candidates`: empty where none was looked for."""

    at: str
    prompt_tokens: int
    reason: str
    local_cost: float | None
    remote_cost: float | None
    decode: Leg
    prefill: Leg | None
    decode_candidates: list[Candidate]
    prefill_candidates: list[Candidate]


class Explained(TypedDict):
    """A request: what was decided for it, retries too, and how it was served (null: it is not over)."""

    request_id: str
    mode: str | None
    ttft_objective_ms: float
    decisions: list[Decision]
    decisions_left_out: int


class Figure(TypedDict):
    """A median, with 95 % confidence between low and high. `value` null: `why` it was not measurable."""

    value: float | None
    low: float | None
    high: float | None
    samples: int
    why: str


class Calibrated(TypedDict):
    """`figures`: by their names in the recipe's gateway.calibration, in its units. `file`: it has them."""

    recipe: str
    recipe_digest: str
    url: str
    measured_at: str
    short_tokens: int
    long_tokens: int
    streams: int
    figures: dict[str, Figure]
    file: str


class CalibrationPlanned(TypedDict):
    """With --dry-run: what would be sent."""

    recipe: str
    recipe_digest: str
    url: str
    short_tokens: int
    long_tokens: int
    streams: int
    requests: int
    prompt_tokens: int
    file: str
