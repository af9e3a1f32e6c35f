"""Whether a client takes what waits for it: one that takes too little in a stated time is cut."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import cast

log = logging.getLogger("hyperpd.gateway")
STEP_BYTES = 64 << 10
LINGER_S = 5.0  # a client that still sends would, without, see a reset instead of its answer
_TLS_BYTES = 128 << 10  # before TLS says stop: more than the 64 KiB of the socket below, or nobody would say go on


class Reader:
    """One connection's client, as far as it reads.

    stalled_s: in which it has to take STEP_BYTES of what waits for it, or all: whoever drips holds a MiB for 16 times
    as long. cut: is called once when it has not, with the bytes that wait; with none, when it has all, was left, and
    stays nevertheless.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        stalled_s: float,
        call_later: Callable[..., asyncio.TimerHandle],
        cut: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._stalled_s = stalled_s
        self._call_later = call_later
        self._cut = cut
        self._linger_s: float | None = None  # while more may be said
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look from now on at what waits, until all is taken; nothing may be added meanwhile."""
        self._look(math.inf)

    def leave(self, linger_s: float) -> None:
        """End what is said to the client, which has `linger_s` to go when it has taken all of it."""
        self._linger_s = linger_s
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._call_later(0, self._end_tls)  # when what was held back of the client is read
        self.watch()

    def rest(self) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _end_tls(self) -> None:
        """Say that nothing follows, and no more: asyncio's close cuts after 30 s, and whoever still sends at once."""
        if not self._transport.is_closing():
            with contextlib.suppress(ssl.SSLError):  # it would wait for the client to say the same
                self._transport.get_extra_info("ssl_object").unwrap()
            self._transport.writelines(())  # sends what that left to be sent

    def _look(self, waited_bytes: float) -> None:
        """waited_bytes: how much did at the last look."""
        self.rest()
        waits_bytes = self._transport.get_write_buffer_size()
        if waits_bytes and waits_bytes > waited_bytes - STEP_BYTES:
            self._cut(waits_bytes)
        elif waits_bytes:
            self._timer = self._call_later(self._stalled_s, self._look, waits_bytes)
        elif self._linger_s is not None:
            self._timer = self._call_later(self._linger_s, self._cut, 0)


class _Counting(sslproto.SSLProtocol):
    def _get_write_buffer_size(self) -> int:
        below = cast(asyncio.Transport | None, self._transport)  # none when the connection is lost
        own: int = super()._get_write_buffer_size()  # type: ignore[misc]  # which typeshed does not have
        return own + (below.get_write_buffer_size() if below else 0)


def count_all(transport: asyncio.Transport) -> None:
    """Make a TLS transport count what it has handed to the socket below it, too, and say stop for that.

    asyncio's, on whose own loop every node runs, counts what it holds itself alone, and hands over the whole of an
    answer at once. It has no other way to be asked, so what is not its class as we know it is said in the log.
    """
    if not transport.get_extra_info("ssl_object"):
        return
    secured = getattr(transport, "_ssl_protocol", None)
    if type(secured) is sslproto.SSLProtocol and hasattr(secured, "_get_write_buffer_size"):
        secured.__class__ = _Counting  # a wrapped method would make a cycle, and keep its 256 KiB after its end
        transport.set_write_buffer_limits(_TLS_BYTES)
    else:
        _say_blind(type(transport).__name__)


@functools.cache
def _say_blind(kind: str) -> None:
    log.error("event=defect what='readers that stall are not seen over TLS: %s is not a transport we know'", kind)
