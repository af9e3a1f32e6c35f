"""Bodies of requests on their way in: how long one may be and may take, and how much of all is held at once."""

from __future__ import annotations

import asyncio

from fastapi import Request

from hyperpd.errors import Overloaded, Rejected

_HELD_BYTES = 128 << 20  # of all bodies that have not arrived in full
_RETRY_AFTER_S = 1


class _Arriving:
    def __init__(self, deadline: asyncio.Timeout) -> None:
        self.deadline = deadline
        self.read = bytearray()
        self.crowded_out = False


class Bodies:
    """Those of one gateway. A body that is late, or has taken longest when too much is held, goes."""

    def __init__(self, most_bytes: int, most_s: float, held_bytes: int = _HELD_BYTES) -> None:
        """most_bytes, most_s: of one body. held_bytes: of all together, at least twice the largest."""
        self._most_bytes, self._most_s = most_bytes, most_s
        self._most_held_bytes = max(held_bytes, 2 * most_bytes)
        self._arriving: dict[_Arriving, None] = {}  # the oldest first
        self.held_bytes = 0

    async def read(self, request: Request) -> bytes:
        """A request's body. Raises Rejected (413, 408) or Overloaded, without reading what is beyond the limit."""
        if int(request.headers.get("content-length", 0)) > self._most_bytes:
            raise self._too_large()
        arriving = _Arriving(asyncio.timeout(self._most_s))
        self._arriving[arriving] = None
        try:
            async with arriving.deadline:
                async for chunk in request.stream():
                    if arriving.crowded_out:
                        raise TimeoutError
                    arriving.read += chunk
                    self.held_bytes += len(chunk)
                    if len(arriving.read) > self._most_bytes:
                        raise self._too_large()
                    if self.held_bytes > self._most_held_bytes:
                        self._crowd_out(next(iter(self._arriving)))
        except TimeoutError:
            if arriving.crowded_out:
                what = "too many bodies arrive at once, and this one took longest; try again"
                raise Overloaded(what, code="bodies_overloaded", retry_after_s=_RETRY_AFTER_S) from None
            what = f"the body did not arrive within {self._most_s:g} s (gateway.limits.body_s); send it faster"
            raise Rejected(what, status=408, code="body_timeout") from None
        finally:
            self._let_go(arriving)
        return bytes(arriving.read)

    def _crowd_out(self, oldest: _Arriving) -> None:
        if not oldest.deadline.expired():
            oldest.deadline.reschedule(asyncio.get_running_loop().time())
            oldest.crowded_out = True
        self._let_go(oldest)

    def _let_go(self, arriving: _Arriving) -> None:
        if arriving in self._arriving:
            del self._arriving[arriving]
            self.held_bytes -= len(arriving.read)

    def _too_large(self) -> Rejected:
        what = f"the body is larger than {self._most_bytes} bytes (gateway.limits.body_mib); send less"
        return Rejected(what, status=413, code="body_too_large")
