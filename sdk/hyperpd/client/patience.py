"""How long a client waits, and when it asks again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from hyperpd.errors import RequestError

T = TypeVar("T")
UNREACHABLE = "unreachable"  # the code of what was never sent
_GATEWAY_TIMEOUT = 504  # whatever was computed, it took too long; again it would, too


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. What runs over is ended upstream, and is an error.

    connect_s:     until there is a connection.
    first_token_s: from sending to a stream's first token: text, reasoning or a tool's call.
    idle_s:        the longest silence: between two reads of a stream, or before and in a whole answer.
    total_s:       everything, retries and their pauses included; None: as long as it goes on.
    """

    connect_s: float = 10
    first_token_s: float = 600
    idle_s: float = 600
    total_s: float | None = None


@dataclass(frozen=True, slots=True)
class Retries:
    """What is sent again: what never arrived, 503 and 429 with Retry-After, and 5xx but 504; all of it only as long as
    no answer began. A request whose tokens began to flow is never repeated.

    attempts: the first one included; 1: never again. Without Retry-After the pauses grow from `first_pause_s`, each
    twice the last and at random up to a half less. A Retry-After above `longest_pause_s` is not waited for.
    """

    attempts: int = 3
    first_pause_s: float = 0.5
    longest_pause_s: float = 30

    def pause_s(self, attempt: int, error: RequestError, answered: bool) -> float | None:
        """Seconds until the next attempt; None: there is none. answered: there was an answer, and it says `error`."""
        if attempt >= self.attempts:
            return None
        if answered and error.status in (429, 503) and error.retry_after_s is not None:
            return float(error.retry_after_s) if error.retry_after_s <= self.longest_pause_s else None
        again = error.status >= 500 and error.status != _GATEWAY_TIMEOUT if answered else error.code == UNREACHABLE
        grown_s = min(self.first_pause_s * 2.0 ** (attempt - 1), self.longest_pause_s)
        return grown_s * random.uniform(0.5, 1) if again else None


@dataclass(frozen=True, slots=True)
class Retry:
    """What `on_retry` is told before the pause: that `attempt` (1 is the first) ended with `error`."""

    attempt: int
    pause_s: float
    error: RequestError


class Deadline:
    """The time that one call has, with the question for the model's name that it may need first."""

    def __init__(self, timeouts: Timeouts, where: str, request_id: str) -> None:
        self.request_id = request_id
        self._timeouts, self._where = timeouts, where
        self._began_s = self._sent_s = time.monotonic()

    def sent(self) -> None:
        """An attempt begins now."""
        self._sent_s = time.monotonic()

    async def first_token(self, awaited: Awaitable[T]) -> T:
        """What comes before a stream's first token. Raises RequestError."""
        return await self._within(awaited, "first_token_s", self._timeouts.first_token_s, self._sent_s)

    async def next(self, awaited: Awaitable[T]) -> T:
        """What comes next. Raises RequestError."""
        return await self._within(awaited, "idle_s", self._timeouts.idle_s, time.monotonic())

    async def pause(self, pause_s: float) -> None:
        """Wait before the next attempt. Raises RequestError where the whole time is over first."""
        pause, total_s = asyncio.sleep(pause_s), self._timeouts.total_s
        await (pause if total_s is None else self._within(pause, "total_s", total_s, self._began_s))

    async def _within(self, awaited: Awaitable[T], name: str, limit_s: float, since_s: float) -> T:
        end_s, total_s = since_s + limit_s, self._timeouts.total_s
        if total_s is not None and self._began_s + total_s < end_s:
            name, limit_s, end_s = "total_s", total_s, self._began_s + total_s
        try:
            async with asyncio.timeout(end_s - time.monotonic()) as running:
                return await awaited
        except TimeoutError:
            if not running.expired():
                raise
            raise RequestError(
                f"{self._where}: took longer than {name}, {limit_s:g} s; it was ended and is not sent again"
                f" (request {self.request_id})\ntry: a longer {name}, or a shorter answer (max_tokens)",
                status=_GATEWAY_TIMEOUT,
                code="timeout",
                request_id=self.request_id,
            ) from None
