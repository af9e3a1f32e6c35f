"""Who sends slowly, and who does not read: cut after a stated time, with bounded bytes held until then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hyperpd.errors import RequestError
from hyperpd_runtime.gateway import edge, reader
from hyperpd_runtime.gateway.bodies import Bodies
from tests.container.certificates import Authority
from tests.container.framing.cases import BODY, CHUNKED, GOOD, HEAD, PING, SIZE
from tests.container.framing.clock import Clock
from tests.container.framing.test_incoming import error, one_answer, statuses
from tests.container.stack import Stack, counted, running, tiny, until
from tests.fakes.hostile import Endless

SOON = edge.Bounds(head_s=0.05, keepalive_s=1, stalled_s=0.05)


@pytest.fixture(params=["plain", "tls"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    return Authority(tmp_path) if request.param == "tls" else None


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    """A gateway whose patience is short."""
    async with running(tiny(), bounds=SOON) as started:
        yield started


@pytest.mark.parametrize("sent", [b"P", HEAD, HEAD + b"X-A: ", b"\r\nP"])
async def test_headers_that_do_not_end(stack: Stack, sent: bytes) -> None:
    said = await stack.raw(sent)
    assert (statuses(said), error(said)["code"]) == ((408,), "headers_timeout")


@pytest.mark.parametrize("sent", [b"", b"\r\n", PING, PING + b"\r\n"])
async def test_a_connection_on_which_nothing_comes(stack: Stack, sent: bytes) -> None:
    """It ends without a word, at once or between two requests."""
    assert statuses(await stack.raw(sent)) == ((200,) if PING in sent else ())


async def test_idle_connections_do_not_hold_up_the_end(
    authority: Authority | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that looks at its connection when it needs it again says nothing to its being closed."""
    async with running(tiny(), authority=authority) as stack:
        opened = await stack.connect()
        opened[1].write(PING)
        assert statuses(await one_answer(opened[0])) == (200,)
        opened[1].transport.pause_reading()
    assert "graceful shutdown" not in capsys.readouterr().err  # uvicorn's
    opened[1].transport.abort()
    await opened[1].wait_closed()


async def test_the_end_waits_for_the_answer_that_is_given_and_no_longer(
    authority: Authority | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)  # by which nobody's time to go is ever over
    async with running(tiny(), authority=authority) as stack:
        stack.decode.waits_for = "hello"
        reader_, writer = await stack.connect()
        writer.write(GOOD)
        await until(lambda: stack.decode.running)
        (one,) = _edges(stack)
        one.shutdown()
        stack.decode.proceed.set()
        assert statuses(said := await one_answer(reader_)) == (200,)
        assert b"connection: close\r\n" in said
        await until(lambda: not _edges(stack))
        writer.transport.abort()


async def test_a_next_request_that_begins_and_does_not_end(stack: Stack) -> None:
    async with running(tiny(), bounds=edge.Bounds(head_s=0.05)) as other:
        reader, writer = await asyncio.open_connection(other.http.base_url.host, other.http.base_url.port)
        writer.write(PING)
        assert statuses(await one_answer(reader)) == (200,)
        writer.write(b"P")
        assert statuses(await asyncio.wait_for(reader.read(), 20)) == (408,)
        writer.close()


@pytest.mark.parametrize(
    ("sent", "status", "ends"),
    [
        (b"GET\r\n", 400, "never"),
        (b"GET\r\n", 400, "after"),
        (GOOD[:-1], 408, "never"),
        (GOOD[:-1], 408, "before"),
        (GOOD[:-1], 408, "after"),
    ],
)
async def test_who_stays_after_a_refusal(
    authority: Authority | None, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: int, ends: str
) -> None:
    """It has a moment to go, also where the gateway ends before it is refused or after."""
    clock = Clock(monkeypatch)
    async with running(tiny(gateway={"limits": {"body_s": 0.5}}), authority=authority) as stack:
        reader_, writer = await stack.connect()
        writer.write(sent)
        if ends == "before":
            await until(lambda: _edges(stack) and _edges(stack)[0].cycle)
            _edges(stack)[0].shutdown()
        assert statuses(await one_answer(reader_)) == (status,)
        (one,) = _edges(stack)
        if ends == "after":
            one.shutdown()
        clock.pass_(reader.LINGER_S - 1)
        for _ in range(3):  # in which it would be cut
            await asyncio.sleep(0)
        assert _edges(stack) == [one]
        clock.pass_(1)
        await until(lambda: not _edges(stack))
        writer.close()


async def test_who_sends_on_after_a_refusal(authority: Authority | None) -> None:
    """It reads the answer when it has sent all it would, and then the end; it is not reset."""
    async with running(tiny(), authority=authority) as stack:
        where = (str(stack.http.base_url.host), stack.http.base_url.port or 0)

        def insist() -> bytes:
            with contextlib.ExitStack() as opened:
                one: socket.socket = opened.enter_context(socket.create_connection(where, 20))
                if stack.trusted:
                    one = opened.enter_context(stack.trusted.wrap_socket(one, server_hostname=where[0]))
                one.sendall(HEAD + b"Content-Length: 9000000000\r\n\r\n")
                for _ in range(64):
                    one.sendall(b"x" * 65536)
                return b"".join(iter(lambda: one.recv(65536), b""))

        assert statuses(await asyncio.to_thread(insist)) == (413,)


@pytest.mark.parametrize("sent", [GOOD[:-1], GOOD[: -len(BODY)], CHUNKED, CHUNKED + b"24\r\n{"])
async def test_a_body_that_does_not_end(sent: bytes) -> None:
    async with running(tiny(gateway={"limits": {"body_s": 0.05}})) as stack:
        said = await stack.raw(sent)
        assert (statuses(said), error(said)["code"]) == ((408,), "body_timeout")
        assert b"connection: close\r\n" in said
        assert stack.prefill.bodies == stack.decode.bodies == []


async def test_a_slow_body_holds_no_place() -> None:
    async with running(tiny(gateway={"limits": {"concurrent_requests": 1}})) as stack:
        opened = await asyncio.open_connection(stack.http.base_url.host, stack.http.base_url.port)
        reader, writer = opened
        writer.write(HEAD + b"Expect: 100-continue\r\n" + SIZE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")  # its body is waited for
        assert (await stack.ask()).status_code == 200
        stack.decode.fault = "slow"
        running_ = asyncio.create_task(stack.ask(stream=True))
        await until(lambda: stack.pool.in_flight)
        writer.write(BODY)  # now it would need the place that another has
        said = await one_answer(reader)
        assert (statuses(said), error(said)["code"]) == ((429,), "overloaded")
        stack.decode.proceed.set()
        await running_
        writer.close()


class _Sending:
    """A request whose body comes when the test says so."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, chunk: bytes) -> None:
        self._chunks.put_nowait(chunk)

    async def stream(self) -> AsyncIterator[bytes]:
        while chunk := await self._chunks.get():
            yield chunk


async def test_too_many_bodies_at_once() -> None:
    """The one that has taken longest goes; those that come quickly are not disturbed."""
    held = Bodies(1000, 60, held_bytes=2000)
    slow = [_Sending() for _ in range(4)]
    reading = [asyncio.create_task(held.read(sending)) for sending in slow]  # type: ignore[arg-type]
    for number, sending in enumerate(slow):
        sending.say(b"x" * 500)
        await until(lambda number=number: held.held_bytes == 500 * (number + 1))
    quick = _Sending()
    quick.say(b"y")
    quick.say(b"")
    assert await held.read(quick) == b"y"  # type: ignore[arg-type]
    with pytest.raises(RequestError) as failed:
        await reading[0]
    assert (failed.value.status, failed.value.code, failed.value.retry_after_s) == (429, "bodies_overloaded", 1)
    for sending in slow[1:]:
        sending.say(b"")
    assert [len(await one) for one in reading[1:]] == [500, 500, 500]
    assert held.held_bytes == 0


async def test_one_that_crowds_itself_out() -> None:
    held = Bodies(1000, 60, held_bytes=2000)
    first, second, third = (_Sending() for _ in range(3))
    reading = [asyncio.create_task(held.read(one)) for one in (first, second, third)]  # type: ignore[arg-type]
    for one in (second, third, first):
        one.say(b"x" * 999)
    one = await asyncio.gather(*reading[:1], return_exceptions=True)
    assert isinstance(one[0], RequestError)
    assert held.held_bytes == 2 * 999
    for task in reading[1:]:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    assert held.held_bytes == 0


async def _stalled(stack: Stack, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that asks, and reads nothing."""
    reader_, writer = await stack.connect(limit=1)
    body = json.dumps({"prompt": "hello", **options}).encode()
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return reader_, writer


def _edges(stack: Stack) -> list[edge.Edge]:
    return list(stack.listener._server.server_state.connections)  # type: ignore[arg-type]


async def test_a_reader_that_stalls(authority: Authority | None) -> None:
    """Its decode leg is closed, and it is counted by its own name."""
    ended = {"mode": "pd", "why": "plain", "outcome": "reader_stalled"}
    async with running(tiny(), bounds=edge.Bounds(stalled_s=0.05), engine=Endless, authority=authority) as stack:
        before = counted("hyperpd_requests_total", **ended)
        _, writer = await _stalled(stack, prompt=Endless.PROMPT, stream=True)
        await asyncio.wait_for(stack.decode.aborted.wait(), 20)
        await until(lambda: not _edges(stack))
        await stack.settled()
        assert counted("hyperpd_requests_total", **ended) == before + 1
        assert (stack.pool.in_flight, stack.leases, stack.pool.members[1].room.taken) == (0, {}, 0)
        assert (await stack.ask()).status_code == 200
        writer.close()


async def test_a_reader_that_stalls_in_a_joined_stream() -> None:
    async with running(tiny(), bounds=edge.Bounds(stalled_s=0.05), engine=Endless) as stack:
        _, writer = await _stalled(stack, prompt=[Endless.PROMPT, Endless.PROMPT], stream=True)
        await until(lambda: stack.decode.running == 2)
        await until(lambda: not stack.decode.running)
        await until(lambda: stack.pool.in_flight == 0)
        await stack.settled()
        assert (stack.leases, stack.pool.members[1].room.taken) == ({}, 0)
        writer.close()


async def test_a_whole_answer_that_is_not_read(authority: Authority | None, caplog: pytest.LogCaptureFixture) -> None:
    """Its line said ok when the answer was given; that it was cut is said and counted then."""
    caplog.set_level("INFO")
    bounds, before = edge.Bounds(stalled_s=0.05), counted("hyperpd_stalled_readers_total")
    async with running(tiny(), bounds=bounds, engine=Endless, authority=authority) as stack:
        _, writer = await _stalled(stack, prompt=Endless.PROMPT)
        await until(lambda: _edges(stack))
        await until(lambda: not _edges(stack))
        writer.close()
    assert counted("hyperpd_stalled_readers_total") == before + 1
    said = next(line for line in caplog.messages if line.startswith("event=request ") and "outcome=ok" in line)
    cut = next(line for line in caplog.messages if line.startswith("event=reader_stalled"))
    assert cut.split()[1] == said.split()[1]
    assert int(cut.rpartition("=")[2]) > Endless.LONG_BYTES // 2


_H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n"


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n", _H2C])
@pytest.mark.parametrize("next_one", [b"", PING])
async def test_a_reader_that_is_slow(
    authority: Authority | None, monkeypatch: pytest.MonkeyPatch, more: bytes, next_one: bytes
) -> None:
    """But does read: it gets all of it, however long that takes."""
    clock = Clock(monkeypatch)
    async with running(tiny(), engine=Endless, authority=authority) as stack:
        reader_, writer = await stack.connect(limit=1)
        body = json.dumps({"prompt": Endless.PROMPT}).encode()
        writer.write(HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body + next_one)
        await until(lambda: any(one.flow.write_paused for one in _edges(stack)))
        (one,) = _edges(stack)
        read = 0
        while waits_bytes := one.transport.get_write_buffer_size():
            most = waits_bytes - reader.STEP_BYTES
            while (left := one.transport.get_write_buffer_size()) and (left > most or left < reader.STEP_BYTES):
                chunk = await asyncio.wait_for(reader_.read(1 << 20), 20)
                assert chunk, f"cut after {read} bytes"
                read += len(chunk)
            clock.pass_(edge.Bounds().stalled_s)
        while read < Endless.LONG_BYTES:
            chunk = await asyncio.wait_for(reader_.read(1 << 20), 20)
            assert chunk, f"cut after {read} bytes"
            read += len(chunk)
        writer.close()


async def test_a_reader_that_is_slow_by_the_clock(tmp_path: Path) -> None:
    """As before, in real time, with the least that is taken."""
    bounds = edge.Bounds(stalled_s=1)
    async with running(tiny(), bounds=bounds, engine=Endless, authority=Authority(tmp_path)) as stack:
        reader_, writer = await _stalled(stack, prompt=Endless.PROMPT)
        await until(lambda: any(one.flow.write_paused for one in _edges(stack)))
        read = 0
        while read < Endless.LONG_BYTES:
            chunk = await reader_.read(65536)
            assert chunk, f"cut after {read} bytes"
            read += len(chunk)
            await asyncio.sleep(2.5 * len(chunk) / Endless.LONG_BYTES)  # a slow line
        writer.close()


# Of one client that does not read: what is taken before anyone says stop, and what had been read from its engine.
_WRITE_BYTES = 256 << 10
_READ_BYTES = 192 << 10
_MANY = 50


async def test_bytes_held_for_many_that_stall(authority: Authority | None) -> None:
    """Fifty readers, fifty senders of bodies and fifty of headers: so much for each and no more; others are served."""
    async with running(tiny(), engine=Endless, sequences=_MANY + 2, authority=authority) as stack:
        many = 5 if authority else _MANY  # handshakes take their time
        opened = [await _stalled(stack, prompt=Endless.PROMPT, stream=True) for _ in range(many)]
        for sent in (HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000, HEAD):
            for _ in range(many):
                opened.append(await stack.connect())
                opened[-1][1].write(sent)
        await until(lambda: sum(one.flow.write_paused for one in _edges(stack)) == many, 60)
        legs = [one for one in stack.flow.legs._session.connector._acquired if one._payload]  # type: ignore[union-attr]
        await until(lambda: all(leg._reading_paused for leg in legs), 60)
        assert len(legs) == many
        assert max(one.transport.get_write_buffer_size() for one in _edges(stack)) <= _WRITE_BYTES
        assert max(leg._payload._size for leg in legs) <= _READ_BYTES
        answers = [await stack.ask(prompt=f"number {number}") for number in range(10)]
        assert [answer.json()["choices"][0]["text"] for answer in answers] == [f"after number {n}" for n in range(10)]
        assert stack.pool.in_flight == many
        for _, writer in opened:
            writer.close()
        await until(lambda: stack.pool.in_flight == 0, 60)
