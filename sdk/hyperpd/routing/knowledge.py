"""What a router knows beside its workers' loads: the SLO, and what is learnt of the traffic."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hyperpd.errors import RecipeError
from hyperpd.routing.calibration import Calibration
from hyperpd.routing.estimates import Mean

_USUAL_PREFILL_S = 0.1
_USUAL_TOKENS = 2000.0
_SCARCITY_MEMORY = 50  # requests: a burst that is over is soon forgotten
_FULLNESS_MEMORY = 20  # requests, wherever they went: by each worker's own, they would leave the fullest and fill all


@dataclass(frozen=True, slots=True)
class SLO:
    """What a request should meet, in seconds."""

    ttft_s: float
    itl_s: float

    def __post_init__(self) -> None:
        wrong = [
            f"{name}: {value}; it must be above 0"
            for name, value in (("ttft_s", self.ttft_s), ("itl_s", self.itl_s))
            if not value > 0
        ]
        if wrong:
            raise RecipeError("slo", wrong)


class Knowledge:
    """Shared by the policies and deciders of one router; `random` is the only chance in them, seeded."""

    def __init__(self, slo: SLO, calibration: Calibration, block_tokens: int, seed: int = 0) -> None:
        self.slo = slo
        self.calibration = calibration
        self.block_tokens = block_tokens
        self.output_tokens = Mean(calibration.mean_output_tokens)
        # Of requests as they were placed: a prefill's seconds, by the calibration; tokens that one holds, or will hold;
        # what they wait for others' prefills (where that is no given-up worker's), and for memory, in objectives, none
        # more than one; and how full it is.
        self.prefill_s = Mean(_USUAL_PREFILL_S)
        self.held_tokens = Mean(_USUAL_TOKENS)
        self.prefill_pressure = Mean(0.0, _SCARCITY_MEMORY)
        self.memory_pressure = Mean(0.0)
        self.fullness = Mean(0.0, _FULLNESS_MEMORY)
        self.random = random.Random(seed)
