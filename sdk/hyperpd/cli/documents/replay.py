"""A trace replayed under several rules."""

from __future__ import annotations

from typing_extensions import TypedDict

from hyperpd.plan.replay import Slice, Summary


class Trace(TypedDict):
    """The file. `bucket_s`: its times were rounded to it, and spread evenly by the seed; 0: exact. `capped`: requests
    whose prompts were cut to the model's context. `rate_per_s`: of requests, as recorded."""

    name: str
    requests: int
    rate_per_s: float
    bucket_s: float
    capped: int
    shares_prefixes: bool


class Role(TypedDict):
    """Workers of a role, with vLLM's max-num-batched-tokens and the tokens its KV cache holds."""

    role: str
    workers: int
    chunk_tokens: int
    cache_tokens: int


class SLO(TypedDict):
    """What counts as good: time to the first token, and a request's mean time between two tokens."""

    ttft_ms: float
    itl_ms: float


class Replayed(TypedDict):
    """Every contender over all seeds, the best first. `slice`.speed: times as fast as recorded."""

    trace: Trace
    fleet: str
    roles: list[Role]
    slo: SLO
    gateways: int
    slice: Slice
    contenders: list[Summary]
