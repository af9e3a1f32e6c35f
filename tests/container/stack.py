"""A gateway between two fake engines, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx

from hyperpd.errors import NoWorkerAvailable
from hyperpd.recipe import RecipeFile, load, parse
from hyperpd.routing.request import Request
from hyperpd_runtime import tls
from hyperpd_runtime.gateway import app, edge, flow, pool, telemetry
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.keys import Keys
from hyperpd_runtime.gateway.routing import Passage, Routing
from hyperpd_runtime.gateway.telemetry import Record
from hyperpd_runtime.listen import Listener
from tests.container.certificates import Authority
from tests.fakes.engine import FakeEngine
from tests.fakes.leases import Leases

_BOUNDS = edge.Bounds()


@dataclass
class Stack:
    """A gateway between two fakes."""

    http: httpx.AsyncClient
    prefill: FakeEngine
    decode: FakeEngine
    pool: pool.Pool
    flow: flow.Flow
    leases: Leases
    listener: Listener
    trusted: ssl.SSLContext | None = None  # with which it is reached, where it speaks TLS

    async def ask(self, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        body = {"prompt": "hello", "max_tokens": 4, **options}
        return await self.http.post("/v1/completions", json=body, headers=headers)

    async def explain(self, path: str, body: dict[str, Any], **headers: str) -> str:
        """Decision and reason of a request."""
        answer = await self.http.post(path, json=body, headers={"x-hyperpd-explain": "1", **headers})
        return answer.headers["x-hyperpd-decision"]

    async def settled(self) -> None:
        """Return when nothing runs in the background."""
        while self.flow.legs._background:
            await asyncio.gather(*self.flow.legs._background)

    async def connect(self, limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to it; what is not read of it beyond `limit` stays in the kernel."""
        where = self.http.base_url
        return await asyncio.open_connection(where.host, where.port, limit=limit, ssl=self.trusted)

    async def raw(self, sent: bytes) -> bytes:
        """What the gateway answers to `sent`, up to its closing the connection."""
        reader, writer = await self.connect()
        try:
            writer.write(sent)
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


def tiny(**blocks: dict[str, Any]) -> RecipeFile:
    """tiny-cpu-1p1d with some of its blocks changed."""
    file = load("tiny-cpu-1p1d")
    document = file.recipe.model_dump()
    for name, block in blocks.items():
        document[name] |= block
    return replace(file, recipe=parse(document, "test"))


def routed(members: pool.Pool) -> tuple[str, str | None]:
    """Who would decode and prefill a request of now. Raises NoWorkerAvailable."""
    members.check_warm()
    record = Record("r")
    try:
        way = Passage(members.routing, Request(1), record)
    except NoWorkerAvailable:
        raise members.none_available() from None
    record.end("ok")
    return way.decode.name, way.prefill.name if way.prefill else None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def until(seen: Callable[[], object], timeout_s: float = 20) -> None:
    """Wait for something that happens beside the test; fails when it does not."""
    async with asyncio.timeout(timeout_s):
        while not seen():
            await asyncio.sleep(0.01)


def counted(name: str, **labels: str) -> float:
    return telemetry.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def running(
    file: RecipeFile,
    keys: Keys | None = None,
    sequences: int = 32,
    bounds: edge.Bounds = _BOUNDS,
    engine: type[FakeEngine] = FakeEngine,
    authority: Authority | None = None,
) -> AsyncIterator[Stack]:
    """The stack, proven and asked for nothing yet. authority: signs its certificate; none is plain HTTP."""
    leases = Leases()
    models = [file.recipe.model.name, *(adapter.name for adapter in file.recipe.model.adapters)]
    prefill, decode = engine(leases, *models), engine(leases, *models)
    await prefill.start()
    await decode.start()
    workers = [Endpoint("prefill", "prefill-0", prefill.url), Endpoint("decode", "decode-0", decode.url)]
    members = pool.Pool(workers, disaggregated=True, routing=Routing(file.recipe), sequences=sequences)
    port = free_port()
    trusted = tls.trusting(str(authority.file)) if authority else None
    served = tls.Certificate(*authority.issue("127.0.0.1")).context if authority else None
    url = f"{'https' if authority else 'http'}://127.0.0.1:{port}"
    async with pool.session() as session, httpx.AsyncClient(base_url=url, verify=trusted or True) as http:
        way = flow.Flow(session, members, file.recipe)
        api = app.api(way, members, file, keys)
        listener = Listener(api, "127.0.0.1", port, protocol=edge.protocol(bounds), tls=served)
        await listener.start()
        for member in members.members:
            member.healthy = True
        for pair in members.pairs:
            await members._prove(pair, way.canary)
        assert members.not_ready() is None
        for engine in (prefill, decode):
            engine.bodies.clear()
            engine.arrived.clear()
        yield Stack(http, prefill, decode, members, way, leases, listener, trusted)
        for engine in (prefill, decode):
            engine.proceed.set()
        await listener.stop()
    await prefill.stop()
    await decode.stop()
