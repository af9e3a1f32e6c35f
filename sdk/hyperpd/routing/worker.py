"""One worker's load, as booked by this router and corrected by what the engine says."""

from __future__ import annotations

from hyperpd.routing.estimates import Mean, Ratio


class Worker:
    """A candidate. Loads change at pick time, at the first token, at the end, and with every scrape.

    index: its bit in the fleet's masks. generates: not only prefills; only then its memory is what requests wait for.
    prefill_tokens: uncached prompt tokens whose prefill is not done (B);
    prefill_s: the seconds they take by the calibration. clear_s: when they will be done at its pace, on the router's
    clock; in the past for an idle worker. waiting: requests before their first token (q); running: requests that
    generate (n); both without `foreign_…`, which are those of other routers, known from scrapes; foreign_clear_s: when
    those that wait will be done. kv_tokens: tokens that its requests hold or will hold; kv_unbooked: what its engine
    holds beyond that, by the last scrape: longer answers than usual, other routers' requests; cache_tokens: of its KV
    cache. pace: seconds by the calibration that it gets done in a second, below 1 while it decodes as well. step:
    seconds of one decode step. picked: turn of its last pick, 0 for never.
    """

    __slots__ = (
        "bit",
        "cache_tokens",
        "clear_s",
        "foreign_clear_s",
        "foreign_running",
        "foreign_waiting",
        "freed_s",
        "generates",
        "index",
        "kv_tokens",
        "kv_unbooked",
        "name",
        "pace",
        "picked",
        "prefill_s",
        "prefill_tokens",
        "running",
        "step",
        "waiting",
    )

    def __init__(self, name: str, index: int, pace: Ratio, step: Mean, generates: bool) -> None:
        self.name = name
        self.index = index
        self.bit = 1 << index
        self.pace = pace
        self.step = step
        self.generates = generates
        self.prefill_tokens = 0
        self.prefill_s = 0.0
        self.clear_s = 0.0
        self.freed_s = 0.0  # when it last finished a prefill
        self.waiting = 0
        self.running = 0
        self.foreign_clear_s = 0.0
        self.foreign_running = 0
        self.foreign_waiting = 0
        self.kv_tokens = 0
        self.kv_unbooked = 0
        self.cache_tokens = 0
        self.picked = 0

    @property
    def decodes(self) -> int:
        """Requests that generate on it, other routers' included."""
        return self.running + self.foreign_running

    @property
    def queued(self) -> int:
        """Requests before their first token on it, other routers' included."""
        return self.waiting + self.foreign_waiting

    @property
    def in_flight(self) -> int:
        """Requests on it, other routers' included."""
        return self.queued + self.decodes

    @property
    def held_tokens(self) -> int:
        """Tokens in its KV cache, or soon to be, other routers' included."""
        return self.kv_tokens + self.kv_unbooked

    def backlog_s(self, now_s: float) -> float:
        """Seconds until a prefill that is sent now would begin. What is overdue is expected to take as long again."""
        foreign_s = max(0.0, self.foreign_clear_s - now_s)
        left_s = self.clear_s - now_s
        if left_s < 0:
            left_s = -left_s if self.prefill_tokens else 0.0
        return left_s + foreign_s
