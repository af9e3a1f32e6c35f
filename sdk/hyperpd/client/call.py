"""One call of boto3, which blocks, in a thread of its own, seen from an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hyperpd.client.way import Opened
from hyperpd.errors import RequestError


@dataclass(frozen=True, slots=True)
class Sent:
    """What a call of boto3 gave. body: has `close`."""

    status: int
    headers: Mapping[str, str]
    parts: Iterable[bytes]
    body: Any = None


class Call:
    """send: calls boto3, and raises what it raises. Who leaves early wakes the thread, which hangs up."""

    def __init__(self, send: Callable[[], Sent]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[Sent] = self._loop.create_future()
        self._said: asyncio.Queue[bytes | RequestError] = asyncio.Queue()  # b"": the end
        self._sent: Sent | None = None
        self._left = False

    async def opened(self) -> Opened:
        threading.Thread(target=self._run, name="hyperpd-invoke", daemon=True).start()
        try:
            sent = await self._begun
        except asyncio.CancelledError:
            self._leave()
            raise
        return Opened(sent.status, sent.headers, self._parts(), self._close)

    async def _parts(self) -> AsyncIterator[bytes]:
        while said := await self._said.get():
            if isinstance(said, RequestError):
                raise said
            yield said

    async def _close(self) -> None:
        self._leave()

    def _leave(self) -> None:
        self._left = True
        if self._sent and self._sent.body:
            # boto3 has nothing that wakes who reads; urllib3 has, from 2.3 on. Without it the next part does.
            raw = getattr(self._sent.body, "_raw_stream", None)
            with contextlib.suppress(AttributeError, ValueError, RuntimeError, OSError):
                raw.shutdown()  # type: ignore[union-attr]

    def _run(self) -> None:
        try:
            self._sent = sent = self._send()
        except Exception as error:  # whatever it is, it is for who waits
            self._tell(self._fail, error)
            return
        self._tell(self._begin, sent)
        end: bytes | RequestError = b""
        try:
            for part in sent.parts:
                if self._left:
                    break
                if part:
                    self._tell(self._said.put_nowait, part)
        except RequestError as error:
            end = error
        finally:
            if sent.body:
                sent.body.close()
        self._tell(self._said.put_nowait, end)

    def _begin(self, sent: Sent) -> None:
        if not self._begun.done():
            self._begun.set_result(sent)

    def _fail(self, error: Exception) -> None:
        if not self._begun.done():
            self._begun.set_exception(error)

    def _tell(self, what: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
            self._loop.call_soon_threadsafe(what, value)
