"""The first event of a stream, and the bound that is lifted by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hyperpd_runtime.gateway.apis import COMPLETIONS, RESPONSES, Api
from hyperpd_runtime.gateway.relay import Answer, first_event, joined
from hyperpd_runtime.gateway.telemetry import Record
from tests.fakes.engine_wire import APIS, Usage


class Said:
    """A response whose body comes in these chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    @property
    def content(self) -> Said:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def events(api: Api) -> list[bytes]:
    wire = APIS[api.path]
    return [*wire.preamble(), *wire.events(["hello there"], Usage(3, 2), {})]


@pytest.mark.parametrize(("api", "lifted_by"), [(COMPLETIONS, 1), (RESPONSES, 3)])
async def test_the_bound_is_lifted_by_the_first_event_that_tells_of_work(api: Api, lifted_by: int) -> None:
    for said in range(1, lifted_by + 1):
        async with asyncio.timeout(60) as bound:
            response: Any = Said(*events(api)[:said])
            told: list[int] = []
            await first_event(response, api, bound, lambda: told.append(1))  # noqa: B023
            assert (bound.when() is None) == bool(told) == (said == lifted_by)


@pytest.mark.parametrize("passed", [False, True])
async def test_a_bound_that_is_over_cannot_be_lifted_and_that_is_no_defect(passed: bool) -> None:
    """The leg of a client that left, or whose bound passes with its first event, goes on until it is closed."""
    bound = asyncio.timeout(0 if passed else 60)
    with contextlib.suppress(TimeoutError):
        async with bound:
            await (asyncio.Event().wait() if passed else asyncio.sleep(0))
    assert bound.expired() == passed
    response: Any = Said(*events(COMPLETIONS))
    assert await first_event(response, COMPLETIONS, bound) == events(COMPLETIONS)[0]


@pytest.mark.parametrize(
    "said",
    [
        b"data: 1\n\n",
        b'data: {"id":"1"}\n\n',
        b'data: {"choices":[1]}\n\n',
        UnicodeDecodeError("utf-8", b"x", 0, 1, ""),
    ],
)
async def test_a_part_that_cannot_be_read_ends_the_joined_stream_with_an_error(said: bytes | Exception) -> None:
    async def part(odd: bool) -> AsyncIterator[bytes]:
        if odd and isinstance(said, Exception):
            raise said
        yield said if odd and isinstance(said, bytes) else events(COMPLETIONS)[0]
        await asyncio.Event().wait()

    closed: list[int] = []
    parts = [
        Answer(200, "text/event-stream", events=part(number == 1), close=lambda number=number: closed.append(number))  # type: ignore[misc]
        for number in range(2)
    ]
    record = Record("r")
    async with asyncio.timeout(10):
        told = b"".join([chunk async for chunk in joined(parts, 1, COMPLETIONS, record)])
    assert b'"code":"stream_broken"' in told.replace(b'": "', b'":"')
    assert sorted(closed) == [0, 1]
    assert record.ended


async def test_a_defect_in_a_part_ends_the_joined_stream() -> None:
    """It is raised, where it is logged, and nobody waits for that part."""

    async def part(broken: bool) -> AsyncIterator[bytes]:
        yield events(COMPLETIONS)[0]
        if broken:
            raise ZeroDivisionError
        await asyncio.Event().wait()

    closed: list[int] = []
    parts = [
        Answer(200, "text/event-stream", events=part(number == 1), close=lambda number=number: closed.append(number))  # type: ignore[misc]
        for number in range(2)
    ]

    async def read() -> list[bytes]:
        return [chunk async for chunk in joined(parts, 1, COMPLETIONS, Record("r"))]

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(read(), 10)
    assert sorted(closed) == [0, 1]
