"""Clients that leave: whatever the moment, no ticket stays behind, no place and no connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from hyperpd_runtime.gateway import legs
from hyperpd_runtime.gateway.apis import BY_PATH
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.guard import admit
from hyperpd_runtime.gateway.telemetry import Record
from tests.container.stack import Stack, counted, running, tiny, until
from tests.fakes.engine import FakeEngine

REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "whole": ("/v1/completions", {"prompt": "hello"}),
    "stream": ("/v1/completions", {"prompt": "hello", "stream": True}),
    "list": ("/v1/completions", {"prompt": ["one", "two"]}),
    "list streamed": ("/v1/completions", {"prompt": ["one", "two"], "stream": True}),
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    "responses": ("/v1/responses", {"input": "hello", "stream": True}),
}


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


async def whole(stack: Stack, path: str, body: dict[str, Any], record: Record) -> bytes:
    """A request from its admission to its last byte, as the app treats it."""
    answer = await stack.flow.run(
        admit({"max_tokens": 4, **body} if path != "/v1/responses" else dict(body), BY_PATH[path], ["tiny-llama"]),
        record,
    )
    try:
        said = answer.body
        if answer.events:
            async for chunk in answer.events:
                said += chunk
        return said
    finally:
        answer.close()


@pytest.mark.parametrize("name", REQUESTS)
async def test_at_every_step_of_the_event_loop(stack: Stack, name: str) -> None:
    """The request is cancelled after its first step, after its second, and so on, until it ends before that."""
    stack.decode.pause_s = 0
    for steps in range(2000):
        record = Record("r")
        asking = asyncio.create_task(whole(stack, *REQUESTS[name], record))
        for _ in range(steps):
            await asyncio.sleep(0)
        ended = asking.done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        record.end("client_left")
        await stack.settled()
        # What was sent is let go of by decode, when it sees the connection close.
        await until(lambda: not stack.leases.pinned())
        assert stack.pool.members[1].room.taken == 0
        await until(lambda: not stack.flow.legs._session.connector._acquired)  # connections in use
        if ended:
            break
    assert ended
    assert steps > 10
    assert all(member.room.waiting == 0 for member in stack.pool.members)
    assert b"after" in asking.result()


async def test_a_prefill_that_takes_long_is_cancelled(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legs, "_GRACE_S", 0.05)
    stack.prefill.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    await stack.prefill.arrived.wait()
    asking.cancel()
    await asyncio.wait_for(stack.prefill.aborted.wait(), 10)
    assert stack.decode.bodies == []


async def test_the_ticket_of_a_prefill_that_was_nearly_done_is_given_back(stack: Stack) -> None:
    released = counted("hyperpd_released_tickets_total")
    stack.prefill.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    await stack.prefill.arrived.wait()
    asking.cancel()
    await until(lambda: stack.flow.legs._background)
    stack.prefill.proceed.set()
    await stack.settled()
    await until(lambda: counted("hyperpd_released_tickets_total") == released + 1)
    assert stack.leases == {}
    assert [body["model"] for body in stack.decode.bodies] == ["hyperpd-release"]


async def test_an_end_waits_for_what_follows_from_what_runs(stack: Stack) -> None:
    """A prefill that is let go of, and then its ticket's release, which begins meanwhile."""
    stack.prefill.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    await stack.prefill.arrived.wait()
    asking.cancel()
    await until(lambda: stack.flow.legs._background)
    closing = asyncio.create_task(stack.flow.close())
    await asyncio.sleep(0)
    stack.prefill.proceed.set()
    await closing
    assert stack.leases == {}


async def test_a_prefill_that_nobody_waits_for_has_its_place_until_it_ends(stack: Stack) -> None:
    stack.prefill.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    await stack.prefill.arrived.wait()
    asking.cancel()
    await until(lambda: stack.pool.in_flight == 0)
    assert stack.pool.members[1].room.taken == 1
    stack.prefill.proceed.set()
    await stack.settled()
    assert stack.pool.members[1].room.taken == 0


@pytest.mark.parametrize("others", [0, 1])
async def test_a_release_counts_only_when_it_was_refused_as_it_should(stack: Stack, others: int) -> None:
    """Else another decode worker is asked to do it."""
    other = FakeEngine(stack.leases)
    await other.start()
    try:
        if others:
            stack.pool.update([*(m.endpoint for m in stack.pool.members), Endpoint("decode", "decode-1", other.url)])
            stack.pool.members[2].healthy = True
        released = counted("hyperpd_released_tickets_total")
        stack.decode.fault = "busy"
        stack.prefill.fault = "hang"
        asking = asyncio.create_task(stack.ask())
        await stack.prefill.arrived.wait()
        asking.cancel()
        await until(lambda: stack.flow.legs._background)
        stack.prefill.proceed.set()
        await stack.settled()
        assert counted("hyperpd_released_tickets_total") == released + others
        assert len(stack.leases) == 1 - others
        assert len(stack.decode.bodies) == 2 - others
    finally:
        await other.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_decode_is_let_read_what_it_was_sent(stack: Stack, stream: bool) -> None:
    """An engine that is busy loses a body whose connection closes before it was read, and the ticket in it."""
    stack.decode.slow_to_read_s = 0.2
    asking = asyncio.create_task(stack.ask(stream=stream))
    await until(lambda: stack.leases)
    asking.cancel()
    await until(lambda: stack.pool.in_flight == 0)
    await stack.settled()
    await until(lambda: not stack.leases)


async def test_a_whole_answer_that_decode_has_worked_at_for_long_is_closed_at_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.decode.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    await stack.decode.arrived.wait()
    monkeypatch.setattr(legs, "_GRACE_S", 1000)
    monkeypatch.setattr(legs, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 2000))
    asking.cancel()
    await asyncio.wait_for(stack.decode.aborted.wait(), 20)
    await stack.settled()
    assert stack.leases == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_one_part_of_several_is_refused(stack: Stack, stream: bool) -> None:
    """The client is told why; the others' streams are closed, and what they hold is given back."""
    stack.decode.fault = "slow"
    stack.decode.refuses = "two"
    answer = await stack.ask(prompt=["one", "two", "three"], stream=stream)
    assert (answer.status_code, "refused by its content" in answer.text) == (400, True)
    await stack.settled()
    await until(lambda: not stack.decode.running)
    assert (stack.leases, stack.pool.in_flight, stack.pool.members[1].room.taken) == ({}, 0, 0)


async def test_one_part_of_several_fails(stack: Stack) -> None:
    stack.decode.fault = "slow"
    stack.decode.breaks = "two"
    answer = await stack.ask(prompt=["one", "two", "three"], stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "decode_failed")
    await stack.settled()
    await until(lambda: not stack.decode.running)
    assert (stack.leases, stack.pool.in_flight, stack.pool.members[1].room.taken) == ({}, 0, 0)


async def test_one_part_of_several_is_cut_in_the_middle(stack: Stack) -> None:
    """The whole stream ends there, with an error event and without [DONE]."""
    stack.decode.fault = "slow"
    body = {"prompt": ["one", "two"], "stream": True}
    async with stack.http.stream("POST", "/v1/completions", json=body) as answer:
        chunks = answer.aiter_text()
        said = await anext(chunks)
        stack.decode.fault = "late_error"
        stack.decode.proceed.set()
        said += "".join([chunk async for chunk in chunks])
    assert ("[DONE]" in said, "error" in said) == (False, True)
    await until(lambda: stack.pool.in_flight == 0)


async def test_a_client_leaves_a_joined_stream(stack: Stack) -> None:
    stack.decode.fault = "slow"
    body = {"prompt": ["one", "two"], "stream": True}
    async with stack.http.stream("POST", "/v1/completions", json=body) as answer:
        await anext(answer.aiter_text())
    await until(lambda: not stack.decode.running)
    await until(lambda: stack.pool.in_flight == 0)
    assert stack.pool.members[1].room.taken == 0
