"""What a request costs by each path, in units of the objectives: its own first token, and what it takes from others."""

from __future__ import annotations

from math import inf

from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.worker import Worker

MISSED = 2.0  # a first token that is late, however little
LATE = 0.05  # what a second beyond the objective weighs more, of one before it
SPREAD = 64  # requests in flight that weigh as much as a whole objective


def ttft(known: Knowledge, seconds: float) -> float:
    """A first token after `seconds`: 1 is the objective.

    To be late costs as much again: a worker that is in time may take more from others for it. Where all would be late,
    how late matters little, so that a prompt too long for its objective does not take the idle worker that the next
    short one needs. Some weight stays, so that it is not left to wait for ever.
    """
    late = seconds / known.slo.ttft_s
    return late if late <= 1 else MISSED + LATE * (late - 1)


def local(known: Knowledge, worker: Worker, prefill_s: float, now_s: float) -> float:
    """Prefill where it decodes. prefill_s: by the calibration.

    TTFT = backlog + prefill + step; and the prefill stands in the way of the decodes that run there, spread
    over what they generate on average: prefill * decodes / (mean_output * SLO_itl).
    """
    own_s = prefill_s / worker.pace.value
    first_s = worker.backlog_s(now_s) + own_s + worker.step.value
    taken = own_s * worker.decodes / (known.output_tokens.value * known.slo.itl_s)
    return ttft(known, first_s) + taken


def remote(known: Knowledge, worker: Worker, ready_s: float, moved_tokens: int, bytes_per_s: float) -> float:
    """Prefill elsewhere, done `ready_s` from now, and move `moved_tokens` of KV to the worker that decodes.

    TTFT = ready + moved * kv_bytes / bandwidth + handoff + step. A pair that is not proven has no bandwidth.
    """
    if not bytes_per_s:
        return inf
    start = known.calibration
    moved_s = moved_tokens * start.kv_bytes_per_token / bytes_per_s
    return ttft(known, ready_s + moved_s + start.handoff_s + worker.step.value)
