"""How many handoffs a decode worker has room for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.room import Room
from hyperpd_runtime.gateway.telemetry import Record
from tests.container.stack import Stack, counted, running, tiny, until
from tests.fakes.engine import FakeEngine


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


async def test_several_places_are_taken_at_once_and_in_turn() -> None:
    room = Room(4)
    await room.take(3)
    came: list[int] = []

    async def come(count: int) -> None:
        await room.take(count)
        came.append(count)

    coming = [asyncio.create_task(come(count)) for count in (4, 2, 1)]
    await until(lambda: room.waiting == 3)
    assert (room.taken, came) == (3, [])  # none is kept back for who waits, and nobody overtakes
    coming[0].cancel()
    await until(lambda: came == [2])
    for _ in range(5):
        room.leave()
    await until(lambda: came == [2, 1])
    assert (room.taken, room.waiting) == (1, 0)


async def test_who_needs_more_than_there_are_left_has_the_whole_room() -> None:
    """Places may go while it waits, and it would wait for ever."""
    room = Room(4)
    await room.take(2)
    coming = asyncio.create_task(room.take(4))
    await until(lambda: room.waiting == 1)
    room.late()
    assert room.places == 2
    room.leave()
    room.leave()
    await asyncio.wait_for(coming, 10)
    assert room.taken == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("answers", "mode"), [(4, "pd"), (8, "recomputed")])
async def test_several_requests_of_several_answers_wait_for_no_part_of_each_other(
    stream: bool, answers: int, mode: str
) -> None:
    """Five places. Four answers wait until they have four of them; eight never will, and need none."""
    async with running(tiny(), sequences=4) as stack:
        crowded = counted("hyperpd_recomputed_requests_total", why="no_room")
        ended = {"mode": mode, "why": "n", "outcome": "ok"}
        before = counted("hyperpd_requests_total", **ended)
        asking = [asyncio.create_task(stack.ask(n=answers, temperature=1, stream=stream)) for _ in range(3)]
        asking.append(asyncio.create_task(stack.ask()))
        async with asyncio.timeout(20):
            assert [(await one).status_code for one in asking] == [200] * 4
        assert counted("hyperpd_requests_total", **ended) == before + 3
        assert counted("hyperpd_recomputed_requests_total", why="no_room") == crowded + (24 if answers > 5 else 0)
        await until(lambda: stack.pool.in_flight == 0)
        assert (stack.pool.members[1].room.taken, stack.pool.members[1].room.waiting, stack.leases) == (0, 0, {})


async def test_a_part_that_has_ended_makes_room_for_others() -> None:
    async with running(tiny(), sequences=4) as stack:
        stack.decode.waits_for = "two"
        asking = asyncio.create_task(stack.ask(prompt=["one", "two", "three", "four", "five"]))
        await until(lambda: stack.pool.members[1].room.taken == 1)
        assert (await stack.ask()).status_code == 200
        stack.decode.proceed.set()
        assert (await asking).status_code == 200


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


@contextlib.asynccontextmanager
async def two_decode_workers(sequences: int = 32) -> AsyncIterator[tuple[Stack, FakeEngine]]:
    async with running(tiny(), sequences=sequences) as stack:
        other = FakeEngine(stack.leases)
        await other.start()
        try:
            stack.pool.update([*(m.endpoint for m in stack.pool.members), Endpoint("decode", "decode-1", other.url)])
            stack.pool.members[2].healthy = True
            stack.pool.pairs[1].proven = True
            yield stack, other
        finally:
            other.proceed.set()
            await other.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_go_to_all_decode_workers_and_the_answers_to_one_stay_together(stream: bool) -> None:
    async with two_decode_workers() as (stack, other):
        answer = await stack.ask(prompt=["one", "two", "three", "four"], n=2, temperature=1, stream=stream)
        assert answer.status_code == 200
        asked = [sorted(body["prompt"] for body in engine.bodies) for engine in (stack.decode, other)]
        assert sorted(asked) == [["four", "four", "two", "two"], ["one", "one", "three", "three"]]
        if not stream:
            texts = [choice["text"] for choice in answer.json()["choices"]]
            assert texts == [f"after {prompt}" for prompt in ("one", "two", "three", "four") for _ in range(2)]
        await until(lambda: stack.pool.in_flight == 0)
        assert [member.room.taken for member in stack.pool.members] == [0, 0, 0]


async def test_two_requests_do_not_wait_for_each_others_places() -> None:
    """Each worker has two. The one begins at the first worker, the other at the second, and both need three."""
    async with two_decode_workers(sequences=1) as (stack, other):
        rooms = [member.room for member in stack.pool.members[1:]]
        for room in rooms:
            await room.take(2)
        asking = []
        for waiting in (1, 2):
            asking.append(asyncio.create_task(stack.ask(prompt=["one", "two", "three"])))
            await until(lambda waiting=waiting: sum(room.waiting for room in rooms) == waiting)  # type: ignore[misc]
        for room in (*rooms, *rooms):
            room.leave()
        async with asyncio.timeout(20):
            assert [(await one).status_code for one in asking] == [200, 200]
        assert len(stack.decode.bodies) + len(other.bodies) == 6
        assert [room.taken for room in rooms] == [0, 0]


async def test_a_request_that_leaves_while_it_waits_for_the_second_worker_has_no_place_at_the_first() -> None:
    async with two_decode_workers(sequences=1) as (stack, _):
        first, second = (member.room for member in stack.pool.members[1:])
        await second.take(2)
        asking = asyncio.create_task(stack.ask(prompt=["one", "two", "three"]))
        await until(lambda: second.waiting == 1)
        assert first.taken
        asking.cancel()
        await until(lambda: stack.pool.in_flight == 0)
        assert (first.taken, second.taken, second.waiting) == (0, 2, 0)
        assert stack.prefill.bodies == []
