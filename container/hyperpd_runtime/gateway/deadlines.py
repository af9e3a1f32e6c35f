"""How long a request may take: to its first event, silent within its stream, and in all. What runs over is ended
upstream as if its client had left, and told as an error of its API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

from hyperpd.errors import TimedOut
from hyperpd.recipe import Limits
from hyperpd_runtime.gateway.apis import Api
from hyperpd_runtime.gateway.relay import Answer
from hyperpd_runtime.gateway.telemetry import Record

_LOOK_AGAIN_S = 1.0


class Deadlines:
    """The recipe's, for every request of one gateway. All but the silence count from a request's arrival."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def answer(self, answering: Awaitable[Answer], record: Record, *, stream: bool) -> Answer:
        """What `answering` brings: a whole answer, or a stream whose first event is there. Raises TimedOut.

        Once decode has begun to work only the total counts: its first text may be held back long, by a tool parser.
        """
        total_s, first_token_s = self._limits.total_s, self._limits.first_token_s
        limit = "first_token_s" if stream and first_token_s < total_s else "total_s"
        try:
            async with asyncio.timeout(self._left_s(limit, record)) as deadline:

                def begun() -> None:
                    nonlocal limit
                    if limit != "total_s" and not deadline.expired():
                        limit = "total_s"
                        deadline.reschedule(asyncio.get_running_loop().time() + self._left_s(limit, record))

                record.at_work = begun
                return await answering
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._late(limit) from None

    def within(self, answer: Answer, api: Api, record: Record) -> Answer:
        """The same stream; it ends with an error event where it is silent, or goes on, for too long."""
        assert answer.events is not None
        return replace(answer, events=self._events(answer.events, answer, api, record))

    async def _events(
        self, events: AsyncIterator[bytes], answer: Answer, api: Api, record: Record
    ) -> AsyncIterator[bytes]:
        watch = _Watch(self._limits, record)
        try:
            while (event := await watch.next(events)) is not None:
                record.hear(event)
                yield event
        finally:
            watch.stop()
        if watch.passed:
            late = self._late(watch.passed)
            record.end(late.code)
            answer.close()
            yield b"\n\n" + api.error_event(late)  # ends whatever event was begun

    def _left_s(self, limit: str, record: Record) -> float:
        return float(getattr(self._limits, limit)) - (time.monotonic() - record.began_s)

    def _late(self, limit: str) -> TimedOut:
        what = {
            "first_token_s": "nothing was said",
            "idle_s": "decode was silent",
            "total_s": "the request ran",
        }[limit]
        allowed_s = getattr(self._limits, limit)
        return TimedOut(
            f"{what} for {allowed_s:g} s, as long as gateway.limits.{limit} allows; ask for less, or when less runs",
            code=limit.replace("_s", "_timeout"),
        )


class _Watch:
    """The silence and the end of one stream, by one timer: to set one for every event would cost 30 µs each.

    passed: the limit that was.
    """

    def __init__(self, limits: Limits, record: Record) -> None:
        self.passed = ""
        self._idle_s, self._end_s = limits.idle_s, record.began_s + limits.total_s
        self._waiting: asyncio.Task[Any] | None = None  # for an event; while a slow client reads, nobody does
        self._since_s = 0.0
        self._look()

    async def next(self, events: AsyncIterator[bytes]) -> bytes | None:
        """The next event; None when there is none, or a limit was passed."""
        waiting = self._waiting = asyncio.current_task()
        self._since_s = time.monotonic()
        try:
            return await anext(events, None)
        except asyncio.CancelledError:
            if self.passed and waiting and not waiting.uncancel():  # by this watch alone
                return None
            raise
        finally:
            self._waiting = None

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now_s = time.monotonic()
        idle_s = self._since_s + self._idle_s - now_s if self._waiting else self._idle_s
        left_s = min(idle_s, self._end_s - now_s)
        if self._waiting and left_s <= 0:
            self.passed = "idle_s" if left_s == idle_s else "total_s"
            self._waiting.cancel()
        else:
            self._timer = asyncio.get_running_loop().call_later(left_s if left_s > 0 else _LOOK_AGAIN_S, self._look)
