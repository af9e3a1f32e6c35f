from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from hyperpd.engine import Launch
from hyperpd.placement import Machine, place_one
from hyperpd.recipe import load
from hyperpd_runtime.process import Exec
from hyperpd_runtime.worker import WorkerProcess
from tests.container.stack import free_port

_HERE = Machine()
BUSY = 'vllm:num_requests_running{engine="0"} 0.0\nvllm:kv_cache_usage_perc{engine="0"} 0.25\n'
IDLE = BUSY.replace("0.25", "0.0")


@contextlib.asynccontextmanager
async def worker(metrics: list[str]) -> AsyncIterator[WorkerProcess]:
    """A prefill worker whose engine shows `metrics` one after the other, and the last of them for ever."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=metrics.pop(0) if len(metrics) > 1 else metrics[0])

    app = web.Application()
    app.router.add_get("/metrics", show)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    file = load("tiny-cpu-1p1d")
    (placed,) = place_one(file.recipe, "prefill", 0, _HERE).workers
    try:
        yield WorkerProcess(file, replace(placed, api_port=port), Path("log"))
    finally:
        await runner.cleanup()


async def test_a_drained_prefill_worker_waits_until_its_blocks_are_free() -> None:
    shown = [BUSY, BUSY, IDLE]
    async with worker(shown) as prefill:
        assert await prefill.until_read(20)
        assert shown == [IDLE]


async def test_it_waits_no_longer_than_it_is_told() -> None:
    async with worker([BUSY]) as prefill:
        assert not await prefill.until_read(0.3)


async def test_an_engine_that_says_nothing_may_hold_blocks() -> None:
    async with worker(["# nothing\n"]) as prefill:
        assert not await prefill.until_read(0.3)


async def test_what_an_engine_held_is_gone_with_it(tmp_path: Path) -> None:
    """Slurm signals every process of a step, the engine's, too."""
    async with worker([BUSY]) as prefill:
        prefill._engine = await Exec().start(Launch(("true",), {}), tmp_path / "log")
        assert await prefill.until_read(20)


async def test_a_part_has_its_first_machine_drain_and_stays_until_that_has_ended() -> None:
    asked: list[str] = []
    gone = asyncio.Event()

    async def health(request: web.Request) -> web.Response:
        asked.append("health")
        if asked.count("health") == 2:
            gone.set()
        return web.Response()

    async def drain(request: web.Request) -> web.Response:
        asked.append("drain")
        return web.Response(status=202)

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_post("/drain", drain)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    file = load("tiny-cpu-1p1d")
    (placed,) = place_one(file.recipe, "decode", 0, _HERE).workers
    part = replace(placed, rank=1, leader="127.0.0.1", api_port=port, admin_port=port)
    waiting = asyncio.create_task(WorkerProcess(file, part, Path("log")).until_leader_ends(60))
    await asyncio.wait_for(gone.wait(), 20)
    assert not waiting.done()
    await runner.cleanup()
    await asyncio.wait_for(waiting, 20)
    assert asked[:2] == ["drain", "health"]
