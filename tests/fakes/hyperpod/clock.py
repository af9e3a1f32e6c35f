"""Time that passes when the stand-in is asked, and never by itself: what is due happens in order, at its own moment."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


class Clock:
    """Seconds since the epoch, and what is still to happen."""

    def __init__(self, now_s: float | None = None) -> None:
        self.now_s = float(int(time.time())) if now_s is None else now_s
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, delay_s: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now_s + delay_s, next(self._order), happens))

    def advance(self, seconds: float) -> None:
        until = self.now_s + seconds
        while self._due and self._due[0][0] <= until:
            self.now_s, _, happens = heapq.heappop(self._due)
            happens()
        self.now_s = until
