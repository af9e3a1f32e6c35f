"""Engines whose HTTP is not in order: no such answer reaches a client, and no such connection a next request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hyperpd_runtime.gateway import relay
from hyperpd_runtime.gateway.discovery import Endpoint
from tests.container.stack import Stack, running, tiny, until
from tests.fakes.hostile import OTHERS, REFUSED, SENT_AWAY, TAKEN, Hostile, Twist, chunks, head, right

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def doors(stack: Stack) -> AsyncIterator[dict[str, Hostile]]:
    """One before each engine, and a proven pair through both."""
    both = {"prefill": Hostile(stack.prefill), "decode": Hostile(stack.decode)}
    for door in both.values():
        await door.start()
    stack.pool.update([Endpoint(role, f"{role}-0", door.url) for role, door in both.items()])
    for member in stack.pool.members:
        member.healthy = True
    await stack.pool._prove(stack.pool.pairs[0], stack.flow.canary)
    assert stack.pool.pairs[0].proven
    yield both
    await stack.settled()
    for door in both.values():
        await door.stop()
    stack.leases.clear()


async def _check_next(stack: Stack, door: Hostile) -> None:
    """The next answer is the right one, by a connection on which nothing went wrong."""
    await stack.settled()
    door.twist, seen = None, len(door.came)
    for prompt in ("next", "after that"):
        answer = await stack.ask(prompt=prompt)
        assert (answer.status_code, answer.json()["choices"][0]["text"]) == (200, f"after {prompt}")
    assert door.came[seen:]
    assert not door.spoiled & set(door.came[seen:])


def _named(twists: tuple[Twist, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("twist", twists, ids=[twist.name for twist in twists])


@_named(REFUSED)
@pytest.mark.parametrize("stream", [False, True])
async def test_decode(stack: Stack, doors: dict[str, Hostile], twist: Twist, stream: bool) -> None:
    door = doors["decode"]
    door.twist = twist
    answer = await stack.ask(stream=stream)
    if answer.status_code == 200:  # what came first was in order, and has been passed on
        assert stream
        *_, last, end = answer.text.split("\n\n")
        assert (json.loads(last.removeprefix("data: "))["error"]["code"], end) == ("stream_cut", "")
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "decode_failed")
    assert "another's" not in answer.text
    await _check_next(stack, door)


@_named(REFUSED)
async def test_prefill(stack: Stack, doors: dict[str, Hostile], twist: Twist) -> None:
    """Decode computes the prompt instead."""
    door = doors["prefill"]
    door.twist = twist
    answer = await stack.ask()
    assert (answer.status_code, answer.json()["choices"][0]["text"]) == (200, "after hello")
    assert len(set(door.came[1:])) == len(door.came[1:]) == 2  # the canary's connection, and a fresh one
    await _check_next(stack, door)


@_named(TAKEN)
async def test_in_order(stack: Stack, doors: dict[str, Hostile], twist: Twist) -> None:
    for door in doors.values():
        door.twist = twist
    for prompt in ("one", "two", "three"):
        answer = await stack.ask(prompt=prompt)
        assert answer.json()["choices"][0]["text"] == f"after {prompt}"
    for door in doors.values():
        assert len(set(door.came)) == 1  # kept
        assert not any(b"\r\ncookie:" in asked.lower() for asked in door.asked)


@pytest.mark.parametrize("late", [right(b"application/json", OTHERS), b"HTTP/1.1 200", b"\r\n", b"x"])
async def test_what_nobody_asked_for(stack: Stack, doors: dict[str, Hostile], late: bytes) -> None:
    """After an answer, on a connection that is kept: whoever is next does not read it."""
    door = doors["decode"]
    door.late = late
    assert (await stack.ask(prompt="first")).json()["choices"][0]["text"] == "after first"
    door.said_late.set()
    door.late = b""
    await _check_next(stack, door)


async def test_what_came_and_was_not_looked_at(stack: Stack, doors: dict[str, Hostile]) -> None:
    """It lies in the kernel when the connection would be used again."""
    door = doors["decode"]
    await stack.ask()
    connector = stack.flow.legs._session.connector
    assert connector
    kept = [one for key, queue in connector._conns.items() for one, _ in queue if door.url.endswith(f":{key.port}")]
    assert [one.is_connected() for one in kept] == [True]
    door.writers[0].write(b"x")
    assert [one.is_connected() for one in kept] == [False]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nobody_is_sent_elsewhere(stack: Stack, doors: dict[str, Hostile], status: int) -> None:
    for door in doors.values():
        door.twist = Twist("away", lambda kind, _: head(kind, *SENT_AWAY, status=b"HTTP/1.1 %d Away" % status))
    answer = await stack.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "decode_failed")
    tokens = await stack.http.post("/tokenize", json={"prompt": "hello"})
    assert (tokens.status_code, tokens.json()["error"]["code"]) == (502, "decode_failed")
    assert not any(b"elsewhere" in asked for door in doors.values() for asked in door.asked)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_end(
    stack: Stack, doors: dict[str, Hostile], monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(relay, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(relay, "_EVENT_BYTES", 1000)
    door = doors["decode"]
    door.twist = Twist("long", lambda kind, _: head(kind, b"transfer-encoding: chunked") + chunks(b"x" * 1_000_000))
    answer = await stack.ask(stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "decode_failed")
    await until(lambda: stack.pool.in_flight == 0)
    await stack.settled()


async def test_an_event_without_end(stack: Stack, doors: dict[str, Hostile], monkeypatch: pytest.MonkeyPatch) -> None:
    """After others that were in order."""
    monkeypatch.setattr(relay, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(relay, "_EVENT_BYTES", 1000)

    def say(kind: bytes, body: bytes) -> bytes:
        first = body.partition(b"\n\n")[0] + b"\n\n"
        return head(kind, b"transfer-encoding: chunked") + chunks(first, b"x" * 1_000_000)

    doors["decode"].twist = Twist("long", say)
    answer = await stack.ask(stream=True)
    assert answer.status_code == 200
    assert "stream_cut" in answer.text
    await until(lambda: stack.pool.in_flight == 0)
    await stack.settled()
