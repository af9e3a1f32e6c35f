"""A clock for what a simulation drives."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Clock:
    """Calls what it was given, in order of time."""

    def __init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = 0

    def at(self, when_s: float, act: Callable[[float], None]) -> None:
        """As a simulation's."""
        self._order += 1
        heappush(self._events, (when_s, self._order, act))

    def run(self) -> None:
        """To the end."""
        while self._events:
            when_s, _, act = heappop(self._events)
            act(when_s)
