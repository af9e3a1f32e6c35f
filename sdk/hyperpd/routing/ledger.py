"""Both roles' books, and what is learnt from requests as they go on."""

from __future__ import annotations

from dataclasses import dataclass

from hyperpd.routing import costs
from hyperpd.routing.choice import Choice
from hyperpd.routing.knowledge import Knowledge
from hyperpd.routing.pairs import Pairs
from hyperpd.routing.request import Request
from hyperpd.routing.sessions import Sessions
from hyperpd.routing.side import Side
from hyperpd.routing.worker import Worker


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a flight writes to."""

    knowledge: Knowledge
    decode: Side
    prefill: Side
    pairs: Pairs
    sessions: Sessions

    def sent(self, decode: Worker, request: Request) -> None:
        """Learn how scarce and how full memory is, before this request is booked."""
        known = self.knowledge
        known.memory_pressure.observe(min(1.0, costs.memory_s(known, decode, request.tokens) / known.slo.ttft_s))
        known.fullness.observe(costs.fullness(decode))
        known.held_tokens.observe(request.tokens + known.output_tokens.value)

    def moved(self, choice: Choice, tokens: int, seconds: float, now_s: float) -> None:
        """Learn a pair's bandwidth from the time between a prefill's answer and decode's first token.

        Only where nobody was before it in decode's queue: what it waits there says nothing of the way. Of a pair that
        is no more nothing is kept.
        """
        known, prefill, decode = self.knowledge.calibration, choice.prefill, choice.decode
        moving_s = seconds - known.handoff_s - decode.worker.step.value
        if not prefill or not (self.prefill.fleet.has(prefill.worker) and self.decode.fleet.has(decode.worker)):
            return
        if moving_s > 0:
            moved_bytes = tokens * known.kv_bytes_per_token
            self.pairs.moved(prefill.worker, decode.worker, moved_bytes, moving_s, now_s)

    def ended(
        self, request: Request, worker: Worker, output_tokens: int, decoded_s: float | None, now_s: float
    ) -> None:
        """Learn from a whole answer. decoded_s: what it took after its first token, where that was seen."""
        if output_tokens:
            self.knowledge.output_tokens.observe(output_tokens)
        if output_tokens > 1 and decoded_s is not None:
            worker.step.observe(decoded_s / (output_tokens - 1))
        self.sessions.ended(request, worker, output_tokens, now_s)
