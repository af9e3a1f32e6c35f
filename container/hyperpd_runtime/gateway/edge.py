"""HTTP at the gateway's door: what is not exact HTTP/1.1 is refused, what is slow is cut, one request at a time.

llhttp reads strictly (bare line feeds, folded headers, conflicting lengths and bad chunks are refused); here is what
it leaves open. Nothing that follows a request is read before that request is answered, so no bytes of one client can
pass for the beginning of another request.
"""

from __future__ import annotations

import asyncio
import functools
import http
import json
import logging
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hyperpd.errors import Rejected
from hyperpd_runtime.gateway import apis, head, telemetry
from hyperpd_runtime.gateway.reader import LINGER_S, Reader, count_all
from hyperpd_runtime.gateway.telemetry import Record

log = logging.getLogger("hyperpd.gateway")
Send = Callable[[dict[str, Any]], Awaitable[None]]

_HEADERS = 100
_FRAMING = 16  # bytes of chunk sizes and extensions per byte of body, beyond what the head may have


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may cost.

    header_bytes: of a request line and headers together.
    head_s:       from the first byte of a request to the end of the headers.
    keepalive_s:  before and between requests; beyond the 60 s of AWS's load balancers, which would use one that just
                  closed.
    stalled_s:    in which a client has to take 64 KiB of what waits for it, or all.
    """

    header_bytes: int = 32 << 10
    head_s: float = 10
    keepalive_s: int = 75
    stalled_s: float = 60


class _Early(Exception):
    """Bytes after a request that is not answered yet."""


def protocol(bounds: Bounds) -> Callable[..., asyncio.Protocol]:
    """What uvicorn makes of every connection."""
    return functools.partial(Edge, bounds=bounds)


class Edge(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, *args: Any, bounds: Bounds, **more: Any) -> None:
        super().__init__(*args, **more)
        self._bounds = bounds
        self.timeout_keep_alive = bounds.keepalive_s
        self.parser = httptools.HttpRequestParser(self)  # uvicorn's would take data after `connection: close`
        self.url = b""
        self._deaf = False  # what comes is dropped
        self._leaving = False  # all is said
        self._close_after = False  # the answer that is given
        self._ending = False  # the gateway is
        self._linger_s = LINGER_S
        self._head_timer: asyncio.TimerHandle | None = None
        self._expect()

    def _expect(self) -> None:
        """A request may begin."""
        self._in_head, self._head_began = True, False
        self._line: bytes | None = b""  # until it is whole
        self._taken_bytes = self._body_bytes = self._header_bytes = 0
        self._headers = self._hosts = 0
        self._upgrade: list[bytes] | None = None  # the head that frames its body, where that was asked to change

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        count_all(transport)
        self._reader = Reader(transport, self._bounds.stalled_s, self.loop.call_later, self._cut)
        self._head_timer = self.loop.call_later(self._bounds.keepalive_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.rest()
        if self._head_timer:
            self._head_timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """A client that closes its half is taken to have left."""
        running = self._running()
        began = self._head_began if self._in_head else running and running.more_body
        if began and not self._deaf:
            self._refuse(
                Rejected("the connection ended in the middle of a request; send all of it", code="request_cut")
            )

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        began = self._line != b"" or data.strip(b"\r\n")  # else line ends between requests, which say nothing
        if began:
            self._unset_keepalive_if_required()
            if self._in_head and not self._head_began:
                self._begin_head()
        try:
            self._taken_bytes += len(data)
            self._feed(self._after_line(data))
            self._weigh()
        except Rejected as rejected:
            self._refuse(rejected)
        except httptools.HttpParserError as error:
            cause, running = error.__context__, self._running()
            if running and not running.more_body:  # all of it came; these are bytes of another
                self._deaf = self._close_after = True
            elif isinstance(cause, Rejected):
                self._refuse(cause)
            else:
                self._refuse(Rejected(f"not HTTP/1.1: {error}", code="bad_http"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._leaving or self.transport.is_closing():
            self._reader.watch()
        else:
            self._reader.rest()

    def shutdown(self) -> None:
        """The gateway ends: no request after the one that runs. Whoever still sends has its time to see the answer."""
        if self._leaving:
            return
        self._ending = True
        if self._running():
            self._close_after = True
        else:
            self._linger_s = 0.0  # many a pooled connection is not looked at until it is used again
            self._leave()

    # What came

    def _begin_head(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        self._head_began = True
        self._head_timer = self.loop.call_later(self._bounds.head_s, self._head_is_late)

    def _after_line(self, data: bytes) -> bytes:
        """`data`, once the request line is whole: llhttp takes forms of it of other times and protocols."""
        if self._line is None:
            return data
        self._line = (self._line + data).lstrip(b"\r\n")
        line = head.first_line(self._line)
        if line is None:
            return b""
        self._header_bytes = len(line)
        data, self._line = self._line, None
        return data

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Ignored, as RFC 9110 allows; Java's own client asks for h2c with every first request. httptools has
            # dropped how the body is framed.
            assert self._upgrade is not None
            self._close_after = True
            self.parser = httptools.HttpRequestParser(_Body(self))
            self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *self._upgrade, b"", b""]))
            self.parser.feed_data(data[upgrade.args[0] :])

    def _weigh(self) -> None:
        """What llhttp has taken in without end: a header, chunk sizes with their extensions."""
        most = self._bounds.header_bytes
        if self._in_head and self._taken_bytes > most:
            raise self._too_many_headers()
        if self._taken_bytes > 2 * most + (1 + _FRAMING) * self._body_bytes:
            raise Rejected("more chunk sizes and extensions than body; send larger chunks", code="bad_chunks")

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._head_began:
            self._leave()
        elif not self._deaf:
            what = f"the headers did not arrive within {self._bounds.head_s:g} s; send them at once"
            self._refuse(Rejected(what, status=408, code="headers_timeout"))

    # What llhttp calls

    def on_message_begin(self) -> None:
        if self._running():
            raise _Early
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            raise Rejected("trailers are not accepted; send headers before the body", code="trailers")
        self._headers += 1
        self._header_bytes += len(name) + len(value) + 4
        if self._headers > _HEADERS or self._header_bytes > self._bounds.header_bytes:
            raise self._too_many_headers()
        self._hosts += name.lower() == b"host"
        head.check_header(name.lower(), value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        framing = [(name, value) for name, value in self.headers if name in (b"content-length", b"transfer-encoding")]
        coded = any(name == b"transfer-encoding" for name, _ in framing)
        head.check_together(version, self._hosts, coded=coded)
        if self.parser.should_upgrade():
            self._upgrade = [name + b": " + value for name, value in framing]
        if version == "1.0":
            self.expect_100_continue = False
        self._in_head = False
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not (self._upgrade is not None and self.parser.should_upgrade()):  # else the body is still to come
            super().on_message_complete()

    def _too_many_headers(self) -> Rejected:
        what = f"more than {_HEADERS} headers, or {self._bounds.header_bytes} bytes with the request line; send fewer"
        return Rejected(what, status=431, code="headers_too_large")

    # What goes back

    def _running(self) -> RequestResponseCycle | None:
        return self.cycle if self.cycle and not self.cycle.response_complete else None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, functools.partial(self._answer, cycle, app))

    async def _answer(self, cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Send) -> None:
        """The app's answer; it closes the connection where more of the request, or another, may be on its way."""
        if cycle.disconnected:  # refused in what came with the headers
            return

        async def sending(message: dict[str, Any]) -> None:
            starts = message["type"] == "http.response.start"
            if starts:
                self._close_after = self._close_after or cycle.more_body or not cycle.keep_alive
                names = {name.lower() for name, _ in message["headers"]}
                if self._close_after and b"connection" not in names:
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
                if scope["http_version"] == "1.0" and b"content-length" not in names:  # it knows no chunks
                    cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
            elif cycle.expected_content_length > sys.maxsize // 2 and not message.get("more_body"):
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)
            if starts and self._close_after:
                cycle.keep_alive = True  # or uvicorn closes at once; `_leave` does it

        await app(scope, receive, sending)

    def on_response_complete(self) -> None:
        if self._close_after and not self.transport.is_closing():
            self.server_state.total_requests += 1
            if self._ending and not self.cycle.more_body:
                self._linger_s = 0.0
            self._leave()
            return
        super().on_response_complete()
        if self.transport.is_closing():
            self._reader.watch()
        else:
            self._expect()

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self._leave()

    def _refuse(self, rejected: Rejected) -> None:
        """Answer in the API's words, and close."""
        running, self._deaf = self._running(), True
        if running and running.response_started:
            self._close_after = True
            return
        record = (running and running.scope["state"].get("record")) or Record(uuid.uuid4().hex)
        record.decide("refused", rejected.code)
        record.end(rejected.code)
        rejected.request_id = record.request_id
        api = apis.MESSAGES if self.url.startswith(apis.MESSAGES.path.encode()) else None
        body = json.dumps(apis.error_body(api, rejected)).encode()
        lines = (
            f"HTTP/1.1 {rejected.status} {http.HTTPStatus(rejected.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-hyperpd-request-id: {record.request_id}",
            "connection: close",
            *(("allow: GET, HEAD, POST",) if rejected.status == 405 else ()),
        )
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        if running:
            running.disconnected, running.waiting_for_100_continue = True, False
            running.message_event.set()
        self._leave()

    def _leave(self) -> None:
        """Close; what the client still sends is dropped until it has seen that."""
        self._deaf = self._leaving = True
        self.flow.resume_reading()
        if self._head_timer:
            self._head_timer.cancel()
        self._reader.leave(self._linger_s)

    def _cut(self, waits_bytes: int) -> None:
        """Drop a connection with all that waits for its client."""
        if waits_bytes:
            record = self.cycle and self.cycle.scope["state"].get("record")
            request_id = record.request_id if record else "-"
            telemetry.STALLED.inc()
            log.warning("event=reader_stalled request_id=%s waits_bytes=%d", request_id, waits_bytes)
            if record:
                record.end("reader_stalled")  # unless it has, as that of a whole answer
        self.transport.abort()


class _Body:
    """Reads the body of a request whose headers were read before."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.on_body = edge.on_body
        self._began = False

    def on_message_begin(self) -> None:
        if self._began:
            raise _Early
        self._began = True

    def on_message_complete(self) -> None:
        HttpToolsProtocol.on_message_complete(self._edge)
