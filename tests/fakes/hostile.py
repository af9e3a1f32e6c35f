"""A fake engine behind a door that twists its HTTP. What it should have said is right, so who takes it shows."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.fakes import engine_wire as wire
from tests.fakes.engine import FakeEngine


@dataclass(frozen=True, slots=True)
class Twist:
    """What goes out instead of an answer, of its content type and body; and whether the connection ends with it."""

    name: str
    say: Callable[[bytes, bytes], bytes]
    ends: bool = False


def head(kind: bytes, *lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, b"content-type: " + kind, *lines, b"", b""])


def length(body: bytes) -> bytes:
    return b"content-length: %d" % len(body)


def right(kind: bytes, body: bytes) -> bytes:
    return head(kind, length(body)) + body


def chunks(*bodies: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies)


_CHUNKED = b"transfer-encoding: chunked"
_END = b"0\r\n\r\n"
_WAIT = b"HTTP/1.1 103 Early Hints\r\n\r\n"
SENT_AWAY = (b"location: /elsewhere", b"content-length: 0")
OTHERS = b'{"id":"another\'s","choices":[{"index":0,"text":"another\'s answer","finish_reason":"stop"}]}'


def _lines(name: str, *lines: bytes, ends: bool = False) -> Twist:
    """Headers that are wrong, and chunks, if they are what is read."""
    framed = any(_CHUNKED[:17] in line.lower() for line in lines)
    return Twist(name, lambda kind, body: head(kind, *lines) + (chunks(body) + _END if framed else body), ends)


def _chunk(name: str, change: Callable[[bytes], bytes], *, ends: bool = False) -> Twist:
    return Twist(name, lambda kind, body: head(kind, _CHUNKED) + change(chunks(body) + _END), ends)


# Nobody takes an answer like these.
REFUSED = (
    Twist("two lengths that differ", lambda kind, body: head(kind, length(body), b"content-length: 3") + body),
    Twist("two lengths that agree", lambda kind, body: head(kind, length(body), length(body)) + body),
    Twist("length with a sign", lambda kind, body: head(kind, b"content-length: +%d" % len(body)) + body),
    Twist("list of lengths", lambda kind, body: head(kind, b"content-length: %d, %d" % (2 * (len(body),))) + body),
    _lines("length, then chunks", b"content-length: 3", _CHUNKED),
    _lines("chunks, then length", _CHUNKED, b"content-length: 3"),
    _lines("a coding like chunked", b"transfer-encoding: xchunked", ends=True),
    _lines("gzip, then chunked", b"transfer-encoding: gzip, chunked"),
    _lines("chunks twice", _CHUNKED, _CHUNKED),
    _lines("no length", ends=True),
    _chunk("negative size", lambda sent: b"-" + sent),
    _chunk("size with a prefix", lambda sent: b"0x" + sent),
    _chunk("size with a space", lambda sent: sent.replace(b"\r", b" \r", 1)),
    _chunk("size ended by a line feed", lambda sent: sent.replace(b"\r\n", b"\n", 1)),
    _chunk("size beyond 64 bits", lambda sent: b"f" * 17 + b"\r\n" + sent),
    _chunk("chunk longer than its size", lambda sent: sent[:-7] + b"x\r\n" + _END),
    _chunk("chunk ended by a line feed", lambda sent: sent[:-7] + b"\n" + _END),
    _chunk("trailer", lambda sent: sent[:-2] + b"x-key: a\r\n\r\n"),
    _chunk("cut in a chunk", lambda sent: sent[:-9], ends=True),
    _chunk("cut before the last chunk", lambda sent: sent[: -len(_END)], ends=True),
    Twist("cut in the headers", lambda kind, body: head(kind, length(body))[:-4], ends=True),
    Twist("cut in the body", lambda kind, body: head(kind, length(body)) + body[:-3], ends=True),
    Twist("cut before anything", lambda kind, body: b"", ends=True),
    Twist("folded header", lambda kind, body: head(kind, b"x-a: a", b" b", length(body)) + body),
    Twist("folded coding", lambda kind, body: head(kind, b"transfer-encoding:", b" chunked") + chunks(body) + _END),
    Twist("space before the colon", lambda kind, body: head(kind, b"x-a : b", length(body)) + body),
    Twist("null in a value", lambda kind, body: head(kind, b"x-a: a\0b", length(body)) + body),
    Twist("carriage return alone", lambda kind, body: head(kind, b"x-a: a\rx-b: b", length(body)) + body),
    Twist("line feeds alone", lambda kind, body: head(kind, length(body)).replace(b"\r", b"") + body),
    Twist("HTTP/1.0", lambda kind, body: head(kind, length(body), status=b"HTTP/1.0 200 OK") + body),
    Twist("HTTP/0.9", lambda kind, body: body, ends=True),
    Twist("HTTP/2", lambda kind, body: b"\0\0\x12\4\0\0\0\0\0\0\3\0\0\0\x80\0\4\0\1\0\0\0\5\0\xff\xff\xff"),
    Twist("another protocol", lambda kind, body: head(kind, b"connection: upgrade", b"upgrade: websocket",
          status=b"HTTP/1.1 101 Switching Protocols") + right(kind, body)),
    Twist("asked to wait again and again", lambda kind, body: _WAIT * 100 + right(kind, body)),
    Twist("header without end", lambda kind, body: head(kind, b"x-a: " + b"a" * 300_000, length(body)) + body),
    Twist("headers without end", lambda kind, body: head(kind, *[b"x-a: a"] * 20_000, length(body)) + body),
    Twist("gzip", lambda kind, body: head(kind, b"content-encoding: gzip", length(gzip.compress(body)))
          + gzip.compress(body)),
    Twist("more than its length", lambda kind, body: right(kind, body) + b"x"),
    Twist("part of a second answer", lambda kind, body: right(kind, body) + right(kind, OTHERS)[:40]),
    Twist("a second answer", lambda kind, body: right(kind, body) + right(kind, OTHERS)),
    Twist("a status of two digits", lambda kind, body: head(kind, length(body), status=b"HTTP/1.1 20 OK") + body),
)  # fmt: skip
# These are in order.
TAKEN = (
    Twist("as it should be", right),
    _chunk("chunks", lambda sent: sent),
    _chunk("chunk with an extension", lambda sent: sent.replace(b"\r\n", b";a=b\r\n", 1)),
    Twist("asked to wait twice", lambda kind, body: 2 * _WAIT + right(kind, body)),
    Twist("a cookie", lambda kind, body: head(kind, b"set-cookie: a=b; path=/", length(body)) + body),
)


class Hostile:
    """A door before `engine`. Every answer goes out by `twist`; `late` is said some time after one, unasked."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.twist: Twist | None = None
        self.late = b""
        self.came: list[int] = []  # the connections of all requests, by number
        self.spoiled: set[int] = set()  # on which something went out that was not in order
        self.asked: list[bytes] = []  # the heads of requests
        self.said_late = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []  # of the connections
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        self.writers.append(writer)
        number = len(self.writers)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer, number):
                """The next request on this connection."""
        self._open.discard(task)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        asked = await reader.readuntil(b"\r\n\r\n")
        size = next((int(line[15:]) for line in asked.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
        body = await reader.readexactly(size)
        self.came.append(number)
        self.asked.append(asked)
        kind, answer = await self._honest(asked, body)
        twist, late = self.twist, self.late
        if twist in REFUSED or late:
            self.spoiled.add(number)
        writer.write(twist.say(kind, answer) if twist else right(kind, answer))
        await writer.drain()
        if late:
            await self.said_late.wait()
            writer.write(late)
            await writer.drain()
        return not (twist and twist.ends)

    async def _honest(self, asked: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Content type and body of what the engine says, which comes in whole or in chunks."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._engine.port)
        writer.write(asked.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
        said = await reader.read()
        writer.close()
        lines, _, answer = said.partition(b"\r\n\r\n")
        headers = dict(line.split(b": ", 1) for line in lines.lower().split(b"\r\n")[1:])
        if headers.get(b"transfer-encoding") == b"chunked":
            rest, answer = answer, b""
            while rest and (number := int(rest.partition(b"\r\n")[0], 16)):
                rest = rest.partition(b"\r\n")[2]
                answer, rest = answer + rest[:number], rest[number + 2 :]
        return headers[b"content-type"], answer


class Endless(FakeEngine):
    """One whose streams never end, where PROMPT is asked: it says as much as is taken from it. Else that is long."""

    PROMPT = "endless"
    LONG_BYTES = 8 << 20

    async def _decode(
        self, request: web.Request, api: wire.Api, body: dict[str, Any], params: Any
    ) -> web.StreamResponse:
        if body.get("prompt") != self.PROMPT:
            return await super()._decode(request, api, body, params)
        self._text(body, self.PROMPT, params)  # the ticket is read
        if not body.get("stream"):
            return web.json_response(api.whole(["x" * self.LONG_BYTES], wire.Usage(1, 1, 0)))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        event = b'data: {"id":"1","created":7,"choices":[{"index":0,"text":"%s"}]}\n\n' % (b"x" * 1000)
        try:
            while True:
                await response.write(event)
        except (asyncio.CancelledError, ConnectionError):
            self.aborted.set()
            raise
