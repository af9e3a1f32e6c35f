"""What the estimators start from: the constants that a calibration measures through the serving path."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hyperpd.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Calibration:
    """One (model, accelerator, engine, TP, chunk).

    prefill_tokens_per_s: of one worker, chunk / median TTFT of prompts of one chunk (R). attention_s: what each token
    costs more for each token before it, which long prompts show. step_s: one decode step of a batch usually seen.
    handoff_s: what a remote prefill costs beside computing and moving: requests, ticket, first look at the blocks.
    pair_bytes_per_s: what a proven pair moves until it has been measured itself. kv_bytes_per_token:
    Model.kv_bytes_per_token. mean_output_tokens: of the traffic.
    """

    prefill_tokens_per_s: float
    step_s: float
    kv_bytes_per_token: int
    pair_bytes_per_s: float
    handoff_s: float = 0.005
    mean_output_tokens: float = 256.0
    attention_s: float = 0.0

    def __post_init__(self) -> None:
        wrong = [
            f"{field.name}: {getattr(self, field.name)}; it must be above 0"
            for field in fields(self)
            if field.name != "attention_s" and not getattr(self, field.name) > 0
        ]
        if not self.attention_s >= 0:
            wrong.append(f"attention_s: {self.attention_s}; it must not be below 0")
        if wrong:
            raise RecipeError("calibration", wrong)

    def prefill_s(self, uncached_tokens: int, cached_tokens: int) -> float:
        """Seconds that a worker takes for a prompt of which it holds `cached_tokens`."""
        looked_at = cached_tokens + uncached_tokens / 2
        return uncached_tokens * (1 / self.prefill_tokens_per_s + self.attention_s * looked_at)
