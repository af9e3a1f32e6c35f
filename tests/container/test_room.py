"""How many handoffs a decode worker has room for."""

from __future__ import annotations

import asyncio

import pytest

from hyperpd_runtime.gateway.room import Room
from hyperpd_runtime.gateway.telemetry import Record
from tests.container.stack import counted, running, tiny, until


async def test_first_come_first_served() -> None:
    room = Room(4)
    assert room.places == 5
    for _ in range(5):
        await room.take()
    came: list[int] = []

    async def come(number: int) -> None:
        await room.take()
        came.append(number)

    coming = [asyncio.create_task(come(number)) for number in range(3)]
    await until(lambda: room.waiting == 3)
    coming[1].cancel()  # one that left does not keep its turn
    await until(lambda: room.waiting == 2)
    room.leave()
    await until(lambda: came == [0])
    room.leave()
    await until(lambda: came == [0, 2])
    assert (room.taken, room.waiting) == (5, 0)


async def test_a_place_that_was_given_to_one_who_left_goes_on() -> None:
    room = Room(1)
    await room.take()
    await room.take()
    first, second = (asyncio.create_task(room.take()) for _ in range(2))
    await until(lambda: room.waiting == 2)
    room.leave()  # to the first, who leaves before it knows
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await second
    assert (room.taken, room.waiting) == (2, 0)


async def test_one_who_leaves_at_the_same_moment_takes_no_place_along() -> None:
    """Cancelled, but not yet told so, when its turn comes."""
    room = Room(1)
    await room.take()
    await room.take()
    first, second = (asyncio.create_task(room.take()) for _ in range(2))
    await until(lambda: room.waiting == 2)
    first.cancel()
    room.leave()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError, type(None)]
    assert (room.taken, room.waiting) == (2, 0)


def test_all_who_end_with_a_request_end() -> None:
    left: list[str] = []

    def breaks() -> None:
        raise RuntimeError("a defect")

    record = Record("r", on_end=[lambda: left.append("first"), breaks, lambda: left.append("last")])
    with pytest.raises(RuntimeError):
        record.end("ok")
    assert sorted(left) == ["first", "last"]


async def test_late_handoffs_take_places_away_and_timely_ones_give_them_back() -> None:
    room = Room(8)
    for places in (5, 2, 1, 1):
        room.late()
        assert room.places == places
    for _ in range(20):
        room.in_time()
    assert room.places == room.most == 10


async def test_no_more_is_prefilled_than_decode_takes() -> None:
    """Ten requests at a decode worker for four: five have a ticket, the others have cost prefill nothing."""
    async with running(tiny(), sequences=4) as stack:
        stack.decode.fault = "hang"
        asking = [asyncio.create_task(stack.ask()) for _ in range(10)]
        await until(lambda: len(stack.decode.bodies) == 5)
        assert (len(stack.prefill.bodies), counted("hyperpd_waiting_handoffs")) == (5, 5)
        stack.decode.proceed.set()
        assert {(await one).status_code for one in asking} == {200}
        assert len(stack.prefill.bodies) == 10
        assert counted("hyperpd_waiting_handoffs") == 0
        assert stack.pool.members[1].room.taken == 0
