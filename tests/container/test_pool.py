"""A pool whose members come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from hyperpd import pairing
from hyperpd.errors import NoWorkerAvailable
from hyperpd.placement import Placement
from hyperpd.recipe import load
from hyperpd_runtime.gateway import pool
from hyperpd_runtime.gateway.discovery import Endpoint, Sources
from hyperpd_runtime.gateway.member import Member, Pair
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.gateway.server import Gateway
from tests.container.stack import Stack, routed, running, tiny, until
from tests.fakes.engine import FakeEngine

P0, P1, D0, D1 = (
    Endpoint(role, f"{role}-{n}", f"http://127.0.0.1:{n}") for role in ("prefill", "decode") for n in (0, 1)
)
RECIPE = load("tiny-cpu-1p1d").recipe


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


@contextlib.asynccontextmanager
async def watched(members: Pool, canary: pool.Canary) -> AsyncIterator[None]:
    watching = asyncio.create_task(members.watch(canary))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def passes(_: Pair) -> None:
    """A canary that comes through."""


def test_who_stays_keeps_what_is_known_and_gone_pairs_vanish() -> None:
    members = Pool([P0, D0, D1], disaggregated=True, routing=Routing(RECIPE))
    prefill, decode, _ = members.members
    kept = members.pairs[0]
    kept.proven = True
    prefill.healthy = decode.healthy = True
    members.update([D0, P0, P1, P1])
    assert [member.name for member in members.members] == ["decode-0", "prefill-0", "prefill-1"]
    assert members.members[:2] == [decode, prefill]
    assert [(pair.prefill.name, pair.decode.name) for pair in members.pairs] == [
        ("prefill-0", "decode-0"),
        ("prefill-1", "decode-0"),
    ]
    assert members.pairs[0] is kept
    assert routed(members) == ("decode-0", "prefill-0")
    assert members.pair(prefill, decode) is kept
    kept.proven = False
    assert members.pair(prefill, decode) is None
    kept.proven, prefill.healthy = True, False
    assert members.pair(prefill, decode) is None
    prefill.healthy = True
    members.update([P0, D1])
    assert members.pair(prefill, decode) is None
    with pytest.raises(NoWorkerAvailable, match="no worker can decode: prefill-0: not probed yet; decode-1: not"):
        routed(members)


def test_a_decode_worker_that_joins_is_tried_before_it_is_used() -> None:
    members = Pool([P0, D0, D1], disaggregated=True, routing=Routing(RECIPE))
    for member in members.members:
        member.healthy = True
    first, second = members.pairs
    first.proven = True
    assert {routed(members)[0] for _ in range(4)} == {"decode-0"}
    second.proven = True
    assert {routed(members)[0] for _ in range(4)} == {"decode-0", "decode-1"}
    first.proven = second.proven = False
    members._was_ready = True  # there were pairs: decode answers alone, counted
    assert {routed(members)[0] for _ in range(4)} == {"decode-0", "decode-1"}


@pytest.mark.parametrize(("planned_s", "taken_s"), [(10, 10), (120, 30)])
def test_a_prefill_worker_that_has_not_said_its_lease(planned_s: int, taken_s: int) -> None:
    """One that has just come back, or a plain engine: the shorter of the recipe's and vLLM's own."""
    file = tiny(kv_transfer={"lease_s": planned_s})
    sources = Sources((P0, D0))
    members = Gateway(file, sources, "127.0.0.1", Placement((), 1, 2), lambda: None).pool
    members.update(sources.fixed)
    assert members.pairs[0].lease_s == taken_s
    members.identify(members.members[0], replace(RECIPE.fingerprint("prefill"), lease_s=7))
    assert members.pairs[0].lease_s == 7


def test_who_is_asked_what_all_know() -> None:
    members = Pool([P0, D0, P1, D1], disaggregated=True, routing=Routing(RECIPE))
    for member in members.members[:3]:
        member.healthy = True
    assert {members.any_decode().name for _ in range(4)} == {"decode-0"}
    members.members[3].healthy = True
    assert [members.any_decode().name for _ in range(4)] == ["decode-0", "decode-1"] * 2  # whoever stands between
    members.update([])
    with pytest.raises(NoWorkerAvailable):
        members.any_decode()


def test_nobody_is_there() -> None:
    members = Pool(disaggregated=True, routing=Routing(RECIPE))
    assert members.unavailable() == "no worker can decode: there is none"
    members.update([], {"dns://decode:8100": "Name or service not known"})
    assert members.unavailable() == "no worker can decode: dns://decode:8100: Name or service not known"
    assert members.status()["unresolved"] == {"dns://decode:8100": "Name or service not known"}
    members.update([D0])
    members.members[0].healthy = True
    members._was_ready = True
    assert members.not_ready() == "no pair proven: there is none"  # decode alone is not what was planned
    members.update([replace(D0, name=f"decode-{n}") for n in range(1, 21)])
    assert str(members.not_ready()).endswith("decode-8: not probed yet; and 12 more")


def test_fingerprints_are_compared_when_a_worker_says_them_and_for_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compatible = pairing.compatible

    def counting(left: pairing.Fingerprint, right: pairing.Fingerprint) -> list[str]:
        compared.append(1)
        return compatible(left, right)

    monkeypatch.setattr(pairing, "compatible", counting)
    members = Pool([P0, P1, D0], disaggregated=True, routing=Routing(RECIPE))
    prefill, other, decode = members.members
    for member in members.members:
        member.healthy = True
        members.identify(member, RECIPE.fingerprint("decode" if member is decode else "prefill"))
    members.pairs[0].proven = members._was_ready = True
    assert len(compared) == 2
    for _ in range(3):
        routed(members)
        members.not_ready()
    assert len(compared) == 2

    # With every change it is looked at again: here decode fits the second prefill worker alone, then none.
    members.identify(prefill, RECIPE.fingerprint("prefill", model_path="/other"))
    assert routed(members)[0] == decode.name
    assert members.pairs[0].why.startswith("engine_digest: model is '/other' on prefill")
    assert not members.pairs[0].proven
    members.update([P0, D0])
    with pytest.raises(NoWorkerAvailable):
        routed(members)
    members.identify(prefill, None)  # restarted, and has not said anything yet
    assert routed(members)[0] == decode.name
    assert other not in members.members


def test_a_salt_outlives_absence() -> None:
    """DNS may leave out for a moment a worker whose prefix cache holds wrong blocks."""
    members = Pool([P0, D0, D1], disaggregated=True, routing=Routing(RECIPE))
    _, salted, plain = members.members
    salted.salt = "s"
    members.update([P0])
    members.update([P0])
    members.update([P0, D0, D1])
    assert members.members[1] is salted
    assert members.members[2] is not plain


async def test_a_request_on_a_worker_that_left_is_not_cut(stack: Stack) -> None:
    stack.decode.fault = "slow"
    asking = stack.http.stream("POST", "/v1/completions", json={"prompt": "hello", "stream": True})
    async with asking as answer, watched(stack.pool, stack.flow.canary):
        stack.pool.update([])
        assert stack.pool.pairs == []
        stack.decode.proceed.set()
        assert (await answer.aread()).endswith(b"data: [DONE]\n\n")
        # It is still probed, for requests that wait for it; and no longer once it is gone.
        probed = stack.decode.probed
        await until(lambda: stack.decode.probed > probed)
        stack.decode.well = False
        left = next(member for member in stack.pool._left if member.role == "decode")
        await until(lambda: not left.healthy)
        await until(lambda: f"decode {stack.decode.url}" not in probing(stack.pool))
    assert (await stack.ask()).status_code == 503


async def test_a_request_that_waits_in_prefill_ends_well_although_both_left(stack: Stack) -> None:
    stack.prefill.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    await stack.prefill.arrived.wait()
    stack.pool.update([])
    stack.prefill.proceed.set()
    assert (await asking).json()["choices"][0]["text"] == "after hello"
    assert "kv_transfer_params" in stack.decode.bodies[0]


async def test_members_that_come_later_are_probed_and_their_pairs_proven(stack: Stack) -> None:
    other = FakeEngine(stack.leases)
    await other.start()
    try:
        async with watched(stack.pool, stack.flow.canary):
            stack.pool.update([*(m.endpoint for m in stack.pool.members), Endpoint("decode", "decode-1", other.url)])
            await until(lambda: stack.pool.pairs[1].proven)
            assert stack.pool.pairs[1].decode.name == "decode-1"
            served = {(await stack.ask()).status_code for _ in range(4)}
        assert served == {200}
        assert [body["prompt"] for body in other.bodies[1:]] == ["hello", "hello"]
    finally:
        await other.stop()


async def test_a_probe_keeps_no_connection(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """In turn, probes would keep alive whatever connections a busy hour left, and none would ever grow old."""
    monkeypatch.setattr(pool, "_PROBE_EVERY_S", 0.01)
    async with watched(stack.pool, stack.flow.canary):
        await until(lambda: stack.decode.probed > 5)
        assert stack.decode.probes_kept == 0


async def test_one_that_hangs_holds_up_no_other(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PROBE_EVERY_S", 0.01)
    heard = asyncio.Event()

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        writer.close()

    deaf = await asyncio.start_server(never, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{deaf.sockets[0].getsockname()[1]}"

    async def canary(pair: Pair) -> None:
        if pair.prefill.name == "prefill-0":
            await asyncio.Event().wait()

    good = stack.prefill.url
    members = Pool(
        [Endpoint("decode", "deaf", url), Endpoint("prefill", "prefill-0", good)],
        disaggregated=True,
        routing=Routing(RECIPE),
    )
    async with deaf, watched(members, canary):
        await heard.wait()
        members.update([*(m.endpoint for m in members.members), Endpoint("prefill", "prefill-1", good)])
        members.update([*(m.endpoint for m in members.members), Endpoint("decode", "decode-0", stack.decode.url)])
        await until(lambda: any(pair.proven for pair in members.pairs))
        assert [(p.prefill.name, p.decode.name) for p in members.pairs if p.proven] == [("prefill-1", "decode-0")]


@pytest.mark.parametrize("becomes", ["restarted", "of another model"])
async def test_a_canary_proves_nothing_of_what_the_workers_became_meanwhile(becomes: str) -> None:
    members = Pool([P0, D0], disaggregated=True, routing=Routing(RECIPE))
    (pair,) = members.pairs
    for member in members.members:
        member.healthy = True
        members.identify(member, RECIPE.fingerprint("prefill" if member.role == "prefill" else "decode"))

    async def canary(tried: Pair) -> None:
        if becomes == "restarted":
            members.identify(tried.prefill, None)
        else:
            members.identify(tried.prefill, RECIPE.fingerprint("prefill", model_path="/other"))

    await members._prove(pair, canary)
    assert not pair.proven
    if becomes == "restarted":
        await members._prove(pair, passes)  # at once: nothing failed
    assert pair.proven == (becomes == "restarted")


async def test_the_canary_of_a_pair_that_vanished_is_given_up(stack: Stack) -> None:
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def canary(_: Pair) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    members = Pool([member.endpoint for member in stack.pool.members], disaggregated=True, routing=Routing(RECIPE))
    async with watched(members, canary):
        await begun.wait()
        members.update([members.members[0].endpoint])
        await asyncio.wait_for(given_up.wait(), 10)


@pytest.mark.parametrize(
    ("says", "why"),
    [({"state": "draining"}, "draining"), ([], "TypeError at {}/health"), ({}, "KeyError at {}/health")],
)
async def test_what_a_supervisor_says(stack: Stack, says: object, why: str) -> None:
    """An answer that is none of ours stops no probe."""
    stack.decode.ready = says
    member = Member(Endpoint("decode", "decode-0", stack.decode.url))
    member.admin_url = stack.decode.url
    member.fingerprint = RECIPE.fingerprint("decode")
    async with pool.session() as session:
        await stack.pool._probe(session, member)
    assert (member.healthy, member.why) == (False, why.format(stack.decode.url))


def probing(members: Pool) -> set[str]:
    """Who is to be probed still, as "role url"."""
    return {f"{m.role} {m.url}" for m in (*members.members, *(m for m in members._left if m.healthy))}
