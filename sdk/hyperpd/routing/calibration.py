"""What the estimators start from: the constants that a calibration measures through the serving path."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hyperpd.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Calibration:
    """One (model, accelerator, engine, TP, chunk).

    prefill_tokens_per_s: of one worker, chunk / median TTFT of prompts of one chunk (R). step_s: one decode step of a
    batch that is usually seen. handoff_s: what a remote prefill costs beside computing and moving: requests, ticket,
    first look at the blocks. pair_bytes_per_s: what a proven pair moves until it has been measured itself.
    kv_bytes_per_token: Model.kv_bytes_per_token. mean_output_tokens: of the traffic.
    """

    prefill_tokens_per_s: float
    step_s: float
    kv_bytes_per_token: int
    pair_bytes_per_s: float
    handoff_s: float = 0.005
    mean_output_tokens: float = 256.0

    def __post_init__(self) -> None:
        wrong = [
            f"{field.name}: {getattr(self, field.name)}; it must be above 0"
            for field in fields(self)
            if not getattr(self, field.name) > 0
        ]
        if wrong:
            raise RecipeError("calibration", wrong)
