"""Connections to engines: an answer that is not exact HTTP/1.1 is none, and its connection is never used again.

aiohttp reads answers leniently (line feeds alone, folded headers, bodies that only the connection's end ends) and keeps
a connection on which more came than was asked for: a second answer would be taken for that to the next request.
So llhttp reads every answer strictly before aiohttp does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httptools
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import set_exception
from aiohttp.http_exceptions import HttpProcessingError

_HEAD_BYTES = 64 << 10  # of one answer
_INTERIM = 8  # answers that only say to wait
# What an engine says faster than a client reads waits in the engine: per stream at most this in the kernel, and twice
# the other with us.
_RECEIVE_BUFFER_BYTES = 64 << 10
_READ_BUFFER_BYTES = 32 << 10


class _Odd(Exception):
    """What is wrong with an answer."""


class Upstream(ResponseHandler):
    """One connection to an engine."""

    _strict: httptools.HttpResponseParser | None = None  # while an answer is owed

    def set_response_params(self, **params: Any) -> None:
        """Called when a request is about to be sent."""
        super().set_response_params(**params)
        self._strict = httptools.HttpResponseParser(self)
        self._in_head, self._framed, self._complete = True, False, False
        self._head_bytes = self._interim = 0

    def is_connected(self) -> bool:
        """Whether it can be used again: not when something came, or it ended, that nobody has looked at."""
        return super().is_connected() and not self._speaks()

    def _speaks(self) -> bool:
        assert self.transport is not None
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def data_received(self, data: bytes) -> None:
        try:
            if data:  # else aiohttp goes on with what it has
                self._read(data)
        except httptools.HttpParserError as error:
            self._spoil(str(error.__context__ if isinstance(error.__context__, _Odd) else error))
        except _Odd as odd:
            self._spoil(str(odd))
        else:
            super().data_received(data)

    def _read(self, data: bytes) -> None:
        if self._strict is None:
            raise _Odd("more than was asked for")
        self._strict.feed_data(data)
        if self._in_head:
            self._head_bytes += len(data)
        if self._head_bytes > _HEAD_BYTES:
            raise _Odd(f"more than {_HEAD_BYTES} bytes of headers")
        if self._complete:
            self._strict = None

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """As all that ends a connection; what aiohttp's parser alone refuses is of the same kind."""
        super().set_exception(_not_an_answer("too long") if isinstance(exc, HttpProcessingError) else exc, *cause)

    def _spoil(self, why: str) -> None:
        error = _not_an_answer(why)
        payload = self._payload
        self.abort()
        self.set_exception(error)  # closes it for good
        if payload is not None and not payload.is_eof():
            set_exception(payload, error)

    # What llhttp calls

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Odd("more than was asked for")
        self._in_head, self._framed = True, False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            raise _Odd("trailers")
        match name.lower():
            case b"transfer-encoding" if self._framed or value.lower() != b"chunked":
                raise _Odd("framed in a way of its own")
            case b"content-length" | b"transfer-encoding":
                self._framed = True
            case b"content-encoding" if value.lower() != b"identity":
                raise _Odd("a coding that was not asked for")

    def on_headers_complete(self) -> None:
        assert self._strict is not None
        status = self._strict.get_status_code()
        if self._strict.get_http_version() != "1.1":
            raise _Odd("another version")
        if status == 101 or self._strict.should_upgrade():
            raise _Odd("another protocol")
        if status < 200:
            self._interim += 1
            if self._interim > _INTERIM:
                raise _Odd(f"more than {_INTERIM} answers that only say to wait")
        elif not self._framed and status not in (204, 304):
            raise _Odd("no length")
        self._in_head, self._final = False, status >= 200

    def on_message_complete(self) -> None:
        self._complete = self._final


def _not_an_answer(why: str) -> aiohttp.ClientPayloadError:
    return aiohttp.ClientPayloadError(f"not an answer in HTTP/1.1: {why}")


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    return opened


@contextlib.asynccontextmanager
async def session(tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A client for engines. tls: whom to believe, where they speak it. options: as aiohttp's session takes them."""
    # Engines keep idle connections longer than we do.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30, socket_factory=_socket, ssl=tls or True)
    connector._factory = functools.partial(Upstream, loop=asyncio.get_running_loop())  # type: ignore[assignment]  # no other way
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
        read_bufsize=_READ_BUFFER_BYTES,
        **options,
    ) as opened:
        yield opened
