"""Every line of the corpus as raw bytes at a real gateway: in one piece, and byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.container.framing.cases import BODY, CASES, GOOD, HEAD, PING, SIZE, Case
from tests.container.stack import Stack, counted, running, tiny, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


def statuses(said: bytes) -> tuple[int, ...]:
    """Of all answers, without those that only say to go on."""
    return tuple(status for status in map(int, _STATUS.findall(said)) if status != 100)


def error(said: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(said.rpartition(b"\r\n\r\n")[2])["error"]
    return found


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    """One answer, of a stated length."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head)
    assert found
    return head + await reader.readexactly(int(found[1]))


async def converse(stack: Stack, case: Case, size: int) -> bytes:
    """All that the gateway says to `case`, sent in pieces of this size, and to a next request where it stays."""
    reader, writer = await asyncio.open_connection(stack.http.base_url.host, stack.http.base_url.port)
    try:
        for place in range(0, len(case.sent), size):
            writer.write(case.sent[place : place + size])
            await asyncio.sleep(0)  # its turn to read that piece
        if case.halves:
            writer.write_eof()
        async with asyncio.timeout(20):
            if not case.stays:
                return await reader.read()
            said = await one_answer(reader)
            writer.write(PING.replace(b"/ping", b"/none"))
            assert b" 404 " in await one_answer(reader), "it is out of step"
            return said
    finally:
        writer.close()


def _parameters() -> list[object]:
    return [
        pytest.param(case, size, id=f"{case.name}, {'whole' if size > 1 else 'bytes'}")
        for case in CASES
        for size in (1 << 20, 1)
        if size > 1 or len(case.sent) < 10_000
    ]


async def test_names_are_of_one_case_each() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 100


@pytest.mark.parametrize(("case", "size"), _parameters())
async def test_case(stack: Stack, case: Case, size: int) -> None:
    stack.prefill.bodies.clear()
    stack.decode.bodies.clear()
    said = await converse(stack, case, size)
    assert statuses(said) == case.statuses, said
    if case.code:
        told = error(said)
        assert (told["code"], told["type"]) == (case.code, "invalid_request_error")
        assert told["message"]
    if not case.stays and case.statuses:
        assert b"connection: close\r\n" in said
    bodies = [*stack.prefill.bodies, *stack.decode.bodies]
    assert len(bodies) == (2 if case.reaches else 0)
    assert {body["prompt"] for body in bodies} <= {"hello"}
    await until(lambda: stack.pool.in_flight == 0)
    assert stack.leases == {}


async def test_refusals_are_counted_and_carry_their_id(stack: Stack) -> None:
    before = counted("hyperpd_requests_total", mode="-", why="trailers", outcome="trailers")
    case = next(case for case in CASES if case.name == "trailer")
    said = await converse(stack, case, 1 << 20)
    assert f"x-hyperpd-request-id: {error(said)['request_id']}\r\n".encode() in said
    assert counted("hyperpd_requests_total", mode="-", why="trailers", outcome="trailers") == before + 1


async def test_anthropics_words_for_who_asks_in_them(stack: Stack) -> None:
    said = await stack.raw(HEAD.replace(b"completions", b"messages") + b"X-A : b\r\n\r\n")
    body = json.loads(said.rpartition(b"\r\n\r\n")[2])
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")


@pytest.mark.parametrize("form", [GOOD, GOOD.replace(b"HTTP/1.1", b"HTTP/1.0")])
async def test_a_stream_in_either_version(stack: Stack, form: bytes) -> None:
    """HTTP/1.0 knows no chunks: its stream ends with the connection."""
    body = BODY.replace(b"}", b', "stream": true}')
    sent = form.replace(SIZE, b"Connection: close\r\nContent-Length: %d\r\n" % len(body)).replace(BODY, body)
    said = await stack.raw(sent)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert (b"transfer-encoding: chunked\r\n" in said) == (form == GOOD)
    assert said.endswith(b"data: [DONE]\n\n" if form != GOOD else b"0\r\n\r\n")


async def test_the_body_is_asked_for_only_where_it_may_come(stack: Stack) -> None:
    head = HEAD + b"Expect: 100-continue\r\n"
    assert (await stack.raw(head + b"Content-Length: 9000000000\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
    reader, writer = await asyncio.open_connection(stack.http.base_url.host, stack.http.base_url.port)
    writer.write(head + SIZE + b"\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    assert (await one_answer(reader)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_who_closes_a_half_has_left(stack: Stack) -> None:
    before = counted("hyperpd_requests_total", mode="pd", why="plain", outcome="client_left")
    stack.decode.fault = "hang"
    reader, writer = await asyncio.open_connection(stack.http.base_url.host, stack.http.base_url.port)
    writer.write(GOOD)
    stack.decode.arrived.clear()
    await stack.decode.arrived.wait()
    writer.write_eof()
    assert await reader.read() == b""
    await until(lambda: counted("hyperpd_requests_total", mode="pd", why="plain", outcome="client_left") > before)
    stack.decode.fault = ""
    stack.decode.proceed.set()
    await until(lambda: stack.leases == {})
    writer.close()
