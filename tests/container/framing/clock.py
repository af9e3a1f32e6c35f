"""The clock by which readers are judged, moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hyperpd_runtime.gateway import edge
from hyperpd_runtime.gateway.reader import Reader


class Clock:
    """Calls what was to be called later, once so much time has passed; at once what was to be called next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        """monkeypatch: with it, every new connection of a gateway goes by this clock."""
        self.now_s = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        if monkeypatch:
            monkeypatch.setattr(edge, "Reader", lambda transport, s, _, cut: Reader(transport, s, self.call_later, cut))

    def call_later(self, wait_s: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        if not wait_s:
            return loop.call_later(0, call, *args)
        self._timers.append(asyncio.TimerHandle(self.now_s + wait_s, call, args, loop))
        return self._timers[-1]

    def pass_(self, wait_s: float) -> None:
        end_s = self.now_s + wait_s
        while due := [timer for timer in self._timers if timer.when() <= end_s]:
            first = min(due, key=asyncio.TimerHandle.when)
            self._timers.remove(first)
            self.now_s = first.when()
            if not first.cancelled():
                first._run()
        self.now_s = end_s
