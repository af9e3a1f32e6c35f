"""Each guard taken out, one at a time: then the client does get wrong text, so the guard is what keeps it right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from hyperpd_runtime.gateway import app, flow, guard, legs
from hyperpd_runtime.gateway.guard import TABLE
from hyperpd_runtime.gateway.handoff import Ticket
from tests.container.stack import Stack, counted, running, tiny, until

Break = Callable[[], None]


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


async def _prompt_list(stack: Stack) -> list[str]:
    answer = await stack.ask(prompt=["three", "two"])
    return [choice["text"] for choice in answer.json()["choices"]]


async def test_a_list_of_prompts_forwarded_unsplit(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await _prompt_list(stack) == ["after three", "after two"]
    without = tuple(shape for shape in TABLE if shape.why != "prompt_list")
    monkeypatch.setattr(guard, "TABLE", without)
    # A body that prefill would refuse in the fake; the real one takes it, and so must this.
    monkeypatch.setattr("tests.fakes.engine_wire.Api.wrong_for_prefill", lambda *_: [])
    assert await _prompt_list(stack) == ["after three", "after freed blocks"]


async def _frozen(stack: Stack, *, stream: bool) -> str:
    """Decode takes a request, and goes on with it when the lease has ended."""
    stack.decode.fault = "frozen"
    stack.decode.arrived.clear()
    asking = asyncio.create_task(stack.ask(stream=stream))
    await stack.decode.arrived.wait()
    if flow._FIRST_EVENT < 1:  # the guard: a stream is asked for again; for a whole answer leases are counted
        await until(lambda: len(stack.decode.bodies) > 1 if stream else stack.prefill.metrics_read)
    stack.leases.forward(stack.leases.lease_s)
    stack.decode.proceed.set()
    return (await asking).text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("broken", [False, True])
async def test_no_deadline_for_decodes_first_event(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, stream: bool, broken: bool
) -> None:
    monkeypatch.setattr(flow, "_FIRST_EVENT", 1e9 if broken else 0.0)
    said = await _frozen(stack, stream=stream)
    assert ("freed" in said, "hello" in said) == (broken, not broken)
    # And what decode may have cached late is never found again.
    stack.decode.fault = ""
    assert ("freed" in (await stack.ask()).text) == broken


@pytest.mark.parametrize("broken", [False, True])
async def test_no_look_at_a_tickets_age(stack: Stack, monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    """The gateway stood still between the legs, for longer than a lease."""
    make = legs.handoff.ticket

    def long_ago(answer: object, sent_s: float, url: str) -> Ticket:
        stack.leases.forward(stack.leases.lease_s)
        return replace(make(answer, sent_s, url), sent_s=sent_s - 1000)  # type: ignore[arg-type]

    monkeypatch.setattr(legs.handoff, "ticket", long_ago)
    if broken:
        monkeypatch.setattr(flow, "_TICKET_AGE", 1e9)
        monkeypatch.setattr(flow, "_FIRST_EVENT", 1e9)
    dropped = counted("hyperpd_recomputed_requests_total", why="ticket_old")
    said = (await stack.ask()).text
    assert ("freed" in said, "hello" in said) == (broken, not broken)
    assert counted("hyperpd_recomputed_requests_total", why="ticket_old") == dropped + (not broken)


async def test_an_event_that_came_before_any_work_is_no_first_event(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Responses begin with two events that the engine says before it has loaded anything."""
    stack.decode.fault = "error_event"
    answer = await stack.http.post("/v1/responses", json={"input": "hello", "stream": True})
    assert "hello" in answer.text
    assert answer.text.rstrip().splitlines()[-2] == "event: response.completed"
    broken = replace(app.apis.RESPONSES, preamble=0)
    stack.pool.pairs[0].proven = True
    monkeypatch.setitem(app.apis.BY_PATH, broken.path, broken)
    headers = {"x-amzn-sagemaker-custom-attributes": f"route={broken.path}"}
    answer = await stack.http.post("/invocations", json={"input": "hello", "stream": True}, headers=headers)
    assert "hello" not in answer.text
    assert '"code": "stream_cut"' in answer.text
