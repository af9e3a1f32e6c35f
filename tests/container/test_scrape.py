"""Workers' metrics: what is read of a page, who is asked, and what becomes of those that cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from hyperpd.placement import Placement
from hyperpd_runtime import tls
from hyperpd_runtime.gateway import scrape
from hyperpd_runtime.gateway.discovery import Endpoint, Sources
from hyperpd_runtime.gateway.member import Member
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.gateway.scrape import Figures, Scrapes, Transfers, figures, samples
from hyperpd_runtime.gateway.server import Gateway
from hyperpd_runtime.tls import Certificate
from tests.container.certificates import Authority
from tests.container.stack import counted, free_port, running, tiny, until
from tests.fakes.engine import BLOCK_BYTES, BLOCK_MOVES_S, BLOCK_TOKENS, BLOCKS, FakeEngine
from tests.fakes.leases import Leases

PAGE = (Path(__file__).parents[1] / "data/engine/metrics-two-ranks.txt").read_bytes()
IDLE = b"vllm:num_requests_running 0.0\nvllm:num_requests_waiting 0.0\nvllm:kv_cache_usage_perc 0.0\n"
SAID = Figures(1, 2, 0.5, 100, 1000.0, 2.0)
Told = list[tuple[str, Figures | None]]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_EVERY_S", 0.01)
    monkeypatch.setattr(scrape, "_LOOK_EVERY_S", 0.01)


@contextlib.asynccontextmanager
async def watched(members: Pool, authority: str = "") -> AsyncIterator[Told]:
    """What is told meanwhile; a watch that ends by itself fails the test."""
    told: Told = []
    scrapes = Scrapes(members, lambda member, said: told.append((member.name, said)))
    watch = asyncio.create_task(scrapes.watch(tls.trusting(authority) if authority else None))
    try:
        yield told
        assert not watch.done(), watch.exception()
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


def pool(*urls: str) -> Pool:
    """Healthy workers."""
    workers = [Endpoint("decode", f"decode-{n}", url) for n, url in enumerate(urls)]
    members = Pool(workers, disaggregated=False, routing=Routing(tiny().recipe))
    for member in members.members:
        member.healthy = True
    return members


@contextlib.asynccontextmanager
async def engine(answer: Answer) -> AsyncIterator[str]:
    """One whose metrics are answered so; its URL."""
    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def test_a_real_page_is_read_as_a_parser_of_all_of_it_reads_it() -> None:
    said = figures(samples(PAGE))
    parsed: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(PAGE.decode()):
        for sample in family.samples:
            parsed.setdefault(sample.name.removeprefix("vllm:"), []).append(sample.value)
    assert said.running == sum(parsed["num_requests_running"]) == 5
    assert said.waiting == sum(parsed["num_requests_waiting"]) == 0
    assert said.kv_usage == sum(parsed["kv_cache_usage_perc"]) / 2 == pytest.approx(0.049, abs=1e-3)
    assert said.moved_bytes == sum(parsed["nixl_bytes_transferred_sum"]) == 10 << 20
    assert said.moving_s == sum(parsed["nixl_xfer_time_seconds_sum"]) == pytest.approx(0.278, abs=1e-3)
    assert (said.cache_blocks, said.block_tokens) == (512, 128)


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (b"", "does not say vllm:num_requests_running, vllm:num_requests_waiting, vllm:kv_cache_usage_perc"),
        (IDLE.replace(b"waiting 0.0", b"waiting NaN"), "does not say vllm:num_requests_waiting"),
        (IDLE.replace(b"running 0.0", b"running +Inf"), "does not say vllm:num_requests_running"),
        (IDLE.replace(b"running 0.0", b"running -1.0"), "does not say vllm:num_requests_running"),
        (IDLE.replace(b"running 0.0", b"running 1.0.0"), "does not say vllm:num_requests_running"),
        (IDLE.replace(b"running", b"running_by_moon"), "does not say vllm:num_requests_running"),
        (IDLE.replace(b"running 0.0", b"running 1e999"), "no number of requests"),
        (IDLE + b"vllm:nixl_bytes_transferred_sum 1e308\n" * 2, "no number of requests"),
    ],
)
def test_what_does_not_say_how_busy_it_is_is_refused(page: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        figures(samples(page))


def test_an_engine_without_a_connector_or_a_cache_yet() -> None:
    unknown = b'vllm:cache_config_info{hash_block_size="16",num_gpu_blocks="None",block_size="None"} 1.0\n'
    assert figures(samples(IDLE + unknown)) == Figures(0, 0, 0.0, None, 0.0, 0.0)
    assert figures(samples(IDLE.replace(b" 0.0", b" 0 1796025279741"))) == Figures(0, 0, 0.0, None, 0.0, 0.0)


def test_a_label_is_not_found_in_anothers_value() -> None:
    odd = rb'vllm:cache_config_info{why="x,num_gpu_blocks=\"7\" {,",num_gpu_blocks="9"} 1.0'
    assert figures(samples(IDLE + odd)).cache_blocks == 9


async def test_what_an_engine_does_is_told() -> None:
    async with running(tiny()) as stack, watched(stack.pool) as told:
        empty = Figures(0, 0, 0.0, BLOCKS, 0.0, 0.0, BLOCK_TOKENS)
        moved = 2 * BLOCK_BYTES  # by the canary
        idle = replace(empty, moved_bytes=moved, moving_s=2 * BLOCK_MOVES_S)
        await until(lambda: ("prefill-0", empty) in told and ("decode-0", idle) in told)
        stack.decode.fault = "hang"
        going = asyncio.create_task(stack.ask())
        await until(lambda: ("decode-0", replace(idle, waiting=1)) in told)
        await until(lambda: ("prefill-0", replace(empty, kv_usage=1 / BLOCKS)) in told)
        stack.decode.fault = "slow"
        stack.decode.proceed.set()
        await going
        stack.decode.proceed.clear()
        going = asyncio.create_task(stack.ask(stream=True))
        busy = replace(idle, running=1, kv_usage=1 / BLOCKS, moved_bytes=3 * moved, moving_s=6 * BLOCK_MOVES_S)
        await until(lambda: ("decode-0", busy) in told)
        stack.decode.proceed.set()
        assert (await going).status_code == 200


async def test_a_gateways_router_learns_of_it() -> None:
    leases = Leases()
    prefill, decode = FakeEngine(leases), FakeEngine(leases)
    await prefill.start()
    await decode.start()
    workers = [Endpoint("prefill", "prefill-0", prefill.url), Endpoint("decode", "decode-0", decode.url)]
    ports = Placement((), free_port(), free_port())
    gateway = Gateway(tiny(), Sources(tuple(workers)), "127.0.0.1", ports, lambda: None)
    await gateway.start()
    await gateway.until_ready(20)
    router = gateway.pool.routing.router
    ends = router.prefill.fleet.named["prefill-0"], router.decode.fleet.named["decode-0"]
    await until(lambda: {worker.cache_tokens for worker in ends} == {BLOCKS * BLOCK_TOKENS})

    def speed() -> float:
        return router.pairs.bytes_per_s(*ends, time.monotonic())

    before, body = speed(), {"model": "tiny-llama", "prompt": "hello", "max_tokens": 4}
    async with httpx.AsyncClient(headers={"x-request-id": "theirs"}) as http:
        await http.post(f"http://127.0.0.1:{ports.api_port}/v1/completions", json=body)
        await until(lambda: speed() != before)
        decode.fault = "hang"
        theirs = asyncio.create_task(http.post(f"{decode.url}/v1/completions", json=body))  # past this gateway
        await until(lambda: ends[1].foreign_waiting == 1)
        decode.proceed.set()
        assert (await theirs).status_code == 200
        await until(lambda: ends[1].foreign_waiting == 0)
    await gateway.stop()
    await prefill.stop()
    await decode.stop()


async def test_a_page_is_the_same_wherever_it_is_cut() -> None:
    async def in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(PAGE), 97):
            await response.write(PAGE[start : start + 97])
            await asyncio.sleep(0)
        return response

    async with engine(in_pieces) as url, watched(pool(url)) as told:
        await until(lambda: told)
    assert told[0] == ("decode-0", figures(samples(PAGE)))


async def _well(_: web.Request) -> web.StreamResponse:
    return web.Response(body=IDLE)


async def _hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def _fails(_: web.Request) -> web.StreamResponse:
    return web.Response(status=503, body=IDLE)


async def _sends_away(request: web.Request) -> web.StreamResponse:
    if request.query:
        return web.Response(body=IDLE)
    return web.Response(status=307, headers={"Location": "/metrics?again"})


async def _says_nothing(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"# nothing\n")


async def _is_cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100000"})
    await response.prepare(request)
    await response.write(IDLE)
    assert request.transport
    request.transport.close()
    return response


async def _never_ends(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(IDLE * 100)
    return response


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (_hangs, "TimeoutError"),
        (_fails, "/metrics answers 503"),
        (_sends_away, "/metrics answers 307"),
        (_says_nothing, "/metrics does not say"),
        (_is_cut, "ClientPayloadError"),
        (_never_ends, "/metrics says more than 65536 bytes"),
    ],
)
async def test_one_that_cannot_be_read_is_said_once_and_counted(
    broken: Answer, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if broken is _hangs:
        monkeypatch.setattr(scrape, "_TIMEOUT_S", 0.05)
        monkeypatch.setattr(scrape, "_EVERY_S", 0.2)  # as in earnest: it is asked again when it has failed
    monkeypatch.setattr(scrape, "_MOST_BYTES", 1 << 16)
    caplog.set_level(logging.INFO, "hyperpd.gateway")
    answer = broken

    async def changes(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    before = counted("hyperpd_scrape_failures_total")
    async with engine(changes) as url, engine(_well) as other, watched(pool(url, other)) as told:
        await until(lambda: counted("hyperpd_scrape_failures_total") >= before + 3)
        assert [said for name, said in told if name == "decode-0"] == [None]  # and that once
        (said,) = (record.getMessage() for record in caplog.records if "event=metrics" in record.getMessage())
        assert f"event=metrics_unread worker=decode-0 why='{why}" in said
        answer = _well
        await until(lambda: [name for name, _ in told].count("decode-0") > 2)
        assert caplog.text.count("event=metrics_read worker=decode-0") == 1


async def test_one_that_hangs_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_TIMEOUT_S", 600)
    async with engine(_hangs) as url, engine(_well) as other, watched(pool(url, other)) as told:
        await until(lambda: len(told) > 2)
    assert {name for name, _ in told} == {"decode-1"}


async def test_only_members_that_are_healthy_are_read() -> None:
    leases = Leases()
    first, second = FakeEngine(leases), FakeEngine(leases)
    await first.start()
    await second.start()
    members = pool(first.url, second.url)
    members.members[1].healthy = False
    async with watched(members) as told:
        await until(lambda: len(told) > 3)
        assert second.metrics_read == 0
        members.members[0].healthy, members.members[1].healthy = False, True
        await until(lambda: second.metrics_read > 3)
        members.members[1].healthy = False
        await until(lambda: told[-1][0] == "decode-1")
    await first.stop()
    await second.stop()


async def test_one_that_left_while_it_was_asked_is_not_told() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        asked.set()
        await go_on.wait()
        return web.Response(body=IDLE)

    async with engine(slow) as url, engine(_well) as other:
        members = pool(url)
        async with watched(members) as told:
            await asked.wait()
            members.update([Endpoint("decode", "decode-1", other)])
            go_on.set()
            members.members[0].healthy = True
            await until(lambda: len(told) > 3)
    assert {name for name, _ in told} == {"decode-1"}


async def test_only_who_shows_a_certificate_that_is_believed_is_read(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    believed, stranger = FakeEngine(Leases()), FakeEngine(Leases())
    await believed.start(tls=Certificate(*ours.issue("127.0.0.1")).context)
    await stranger.start(tls=Certificate(*theirs.issue("127.0.0.1")).context)
    before = counted("hyperpd_scrape_failures_total")
    async with watched(pool(believed.url, stranger.url), str(ours.file)) as told:
        await until(lambda: told and counted("hyperpd_scrape_failures_total") > before)
        assert {name for name, said in told if said} == {"decode-0"}
    await believed.stop()
    await stranger.stop()


def test_transfers_are_those_since_the_last_page() -> None:
    transfers = Transfers(ranks=4)
    first, second = (Member(Endpoint("decode", name, "http://x")) for name in ("a", "b"))
    assert transfers.since(first, SAID) == (0, 0)  # of its past nothing is known
    assert transfers.since(first, replace(SAID, moved_bytes=5000.0, moving_s=4.0)) == (4000, 0.5)
    assert transfers.since(second, SAID) == (0, 0)
    assert transfers.since(first, replace(SAID, moved_bytes=5000.0, moving_s=4.0)) == (0, 0)
    assert transfers.since(first, replace(SAID, moved_bytes=800.0, moving_s=1.0)) == (800, 0.25)  # restarted
    assert transfers.since(first, replace(SAID, moved_bytes=900.0, moving_s=3.0)) == (100, 0.5)


@pytest.mark.parametrize("said", [(6000.0, 1.0), (100.0, 5.0)])
def test_a_restart_shows_in_either_counter(said: tuple[float, float]) -> None:
    transfers, member = Transfers(ranks=1), Member(Endpoint("decode", "a", "http://x"))
    transfers.since(member, replace(SAID, moved_bytes=5000.0, moving_s=4.0))
    assert transfers.since(member, replace(SAID, moved_bytes=said[0], moving_s=said[1])) == said
