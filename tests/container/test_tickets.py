"""Tickets: how old one may be, until when decode must have answered, and that each is read or given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import pytest

from hyperpd.recipe import Parallel, load
from hyperpd_runtime.gateway import flow, legs, pool
from hyperpd_runtime.gateway.discovery import Endpoint
from tests.container.stack import Stack, counted, running, tiny, until
from tests.fakes.engine import FakeEngine


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


@pytest.mark.parametrize(("age", "used"), [(0.5, True), (0.65, False)])
async def test_a_ticket_is_old_from_sixty_per_cent_of_its_lease_on(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, age: float, used: bool
) -> None:
    make, lease_s = legs.handoff.ticket, stack.pool.pairs[0].lease_s

    def older(answer: Any, sent_s: float, url: str) -> Any:
        return replace(make(answer, sent_s, url), sent_s=sent_s - age * lease_s)

    monkeypatch.setattr(legs.handoff, "ticket", older)
    dropped = counted("hyperpd_recomputed_requests_total", why="ticket_old")
    assert (await stack.ask()).json()["choices"][0]["text"] == "after hello"
    assert counted("hyperpd_recomputed_requests_total", why="ticket_old") == dropped + (not used)


async def test_an_old_ticket_is_not_used(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_TICKET_AGE", 0.0)
    recomputed = counted("hyperpd_recomputed_requests_total", why="ticket_old")
    answer = await stack.ask()
    assert answer.json()["choices"][0]["text"] == "after hello"
    await stack.settled()
    released = [body for body in stack.decode.bodies if "kv_transfer_params" in body]
    assert {body["model"] for body in released} <= {"hyperpd-release"}
    assert counted("hyperpd_recomputed_requests_total", why="ticket_old") == recomputed + 1
    assert stack.leases == {}


async def test_decode_that_does_not_answer_within_the_lease_is_left(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_FIRST_EVENT", 0.0)
    late = counted("hyperpd_faults_total", kind="first_event_late")
    answer = await stack.ask(stream=True)
    assert "after" in answer.text
    assert counted("hyperpd_faults_total", kind="first_event_late") == late + 1
    await stack.settled()
    assert stack.leases == {}  # also of a leg that was closed before it was sent


@pytest.mark.parametrize("expired", [0, 1])
async def test_a_whole_answer_may_take_longer_than_a_lease_that_held(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, expired: int
) -> None:
    """In decode's queue heartbeats hold it, however long; while decode stands still it ends."""
    monkeypatch.setattr(flow, "_FIRST_EVENT", 0.0)
    recomputed = counted("hyperpd_recomputed_requests_total", why="handoff_failed")
    stack.decode.fault = "frozen" if expired else "hang"
    asking = asyncio.create_task(stack.ask())
    await until(lambda: stack.prefill.metrics_read)
    stack.leases.forward(3 * stack.leases.lease_s)
    stack.decode.proceed.set()
    answer = await asking
    assert answer.json()["choices"][0]["text"] == "after hello"
    assert counted("hyperpd_recomputed_requests_total", why="handoff_failed") == recomputed + expired
    stack.decode.fault = ""
    await stack.ask()
    # What a late read may have put into decode's prefix cache is never found again, also after it
    # seemed to be gone for a while.
    assert ("cache_salt" in stack.decode.bodies[-1]) == bool(expired)
    async with pool.session() as session:
        decode = stack.pool.members[1]
        decode.healthy = False
        await stack.pool._probe(session, decode)
        assert (decode.healthy, bool(decode.salt)) == (True, bool(expired))


@pytest.mark.parametrize(("ranks", "stepped"), [(1, [None]), (2, ["0", "1"])])
async def test_every_rank_of_prefill_is_given_a_step(
    monkeypatch: pytest.MonkeyPatch, ranks: int, stepped: list[str | None]
) -> None:
    """One that stands still would not have noticed that a lease of its own expired."""
    file = tiny()
    prefill = file.recipe.prefill
    assert prefill
    recipe = file.recipe.model_copy(update={"prefill": prefill.model_copy(update={"parallel": Parallel(data=ranks)})})
    async with running(replace(file, recipe=recipe)) as stack:
        monkeypatch.setattr(flow, "_FIRST_EVENT", 0.0)
        stack.decode.fault = "hang"
        asking = asyncio.create_task(stack.ask())
        while not stack.prefill.metrics_read:
            await asyncio.sleep(0.01)
        assert sorted(stack.prefill.stepped, key=str) == stepped
        stack.decode.proceed.set()
        assert (await asking).status_code == 200


async def test_whatever_fails_after_the_bound_was_late(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then decode may have read blocks of an expired lease, however it ended."""
    monkeypatch.setattr(flow, "_FIRST_EVENT", 0.0)
    late = counted("hyperpd_handoffs_total", outcome="late")
    stack.decode.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    while not stack.prefill.metrics_read:
        await asyncio.sleep(0.01)
    stack.decode.fault = "500"
    stack.decode.proceed.set()
    assert (await asking).status_code == 502
    decode = stack.pool.members[1]
    assert (bool(decode.salt), decode.room.places < decode.room.most) == (True, True)
    assert counted("hyperpd_handoffs_total", outcome="late") == late + 1


@pytest.mark.parametrize("fault", ["late_error", "cut"])
async def test_what_fails_after_its_first_event_gives_its_ticket_back(stack: Stack, fault: str) -> None:
    stack.decode.fault = fault
    stack.decode.proceed.set()
    assert "error" in (await stack.ask(stream=True)).text
    await stack.settled()
    assert [body["model"] for body in stack.decode.bodies] == ["tiny-llama", "hyperpd-release"]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/completions", {"prompt": "hello", "seed": "seven"}, "seed"),
        ("/v1/completions", {"prompt": ["a", "b"], "seed": "seven"}, "seed"),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hello"}]}, "max_tokens"),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hello"}], "stream": True}, "max_tokens"),
    ],
)
async def test_what_decode_alone_refuses_gives_its_ticket_back(
    stack: Stack, path: str, body: dict[str, Any], says: str
) -> None:
    """Prefill was not shown it. An engine that refuses a body by its form tells prefill nothing."""
    answer = await stack.http.post(path, json=body)
    assert (answer.status_code, says in answer.text) == (400, True)
    assert stack.prefill.bodies
    await stack.settled()
    assert (stack.pool.in_flight, stack.leases) == (0, {})


async def test_the_age_of_a_ticket_counts_in_the_prefill_workers_own_lease(stack: Stack) -> None:
    pair = stack.pool.pairs[0]
    assert pair.lease_s == 30  # a plain engine says nothing
    pair.prefill.fingerprint = replace(load("tiny-cpu-1p1d").recipe.fingerprint("prefill"), lease_s=7)
    assert pair.lease_s == 7


async def test_a_leg_that_was_never_sent_gives_its_ticket_back(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode's connection hung; decode knows nothing of the request, so it cannot tell prefill."""
    real = stack.flow.legs.decode

    async def hangs(request: Any, decode: Any, ticket: Any, *rest: Any) -> Any:
        if ticket:
            await asyncio.Event().wait()
        return await real(request, decode, ticket, *rest)

    monkeypatch.setattr(stack.flow.legs, "decode", hangs)
    monkeypatch.setattr(flow, "_FIRST_EVENT", 0.0)
    assert "after" in (await stack.ask(stream=True)).text
    await stack.settled()
    assert stack.leases == {}


@pytest.mark.parametrize("bound", ["_CANARY_TIMEOUT_S", "_FIRST_EVENT"])
async def test_a_canary_that_takes_too_long_gives_its_ticket_back(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """Too long is also what would be too long for a request: 90 % of a lease, which may be short."""
    monkeypatch.setattr(flow, bound, 0.2 if bound == "_CANARY_TIMEOUT_S" else 0.2 / stack.pool.pairs[0].lease_s)
    released = counted("hyperpd_released_tickets_total")
    stack.decode.waits_for = ANY
    trying = asyncio.create_task(stack.flow.canary(stack.pool.pairs[0]))
    assert (await asyncio.wait({trying}, timeout=20))[0]
    assert isinstance(trying.exception(), TimeoutError)
    await stack.settled()
    assert counted("hyperpd_released_tickets_total") == released + 1


async def test_a_late_decode_worker_is_not_asked_again_where_there_is_another(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FakeEngine(stack.leases)
    await other.start()
    try:
        stack.pool.update([*(m.endpoint for m in stack.pool.members), Endpoint("decode", "decode-1", other.url)])
        stack.pool.members[2].healthy = True
        monkeypatch.setattr(flow, "_FIRST_EVENT", 0.0)
        stack.decode.fault = "hang"
        assert "after" in (await stack.ask(stream=True)).text
        asked = [body for body in other.bodies if body["model"] == "tiny-llama"]
        assert ["kv_transfer_params" in body for body in asked] == [False]
        assert stack.pool.members[1].room.places < stack.pool.members[1].room.most
    finally:
        await other.stop()
