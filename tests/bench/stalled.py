"""What readers that stall and senders that dribble cost a gateway: its memory, and others' time to the first token.

python tests/bench/stalled.py [--readers 500] [--senders 500] [--requests 300]

A real gateway process between two fake engines in a process of their own. Measured three times in one run: before,
while they are there, and after. Fails where the gateway holds more memory than is stated here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from hyperpd_runtime import __main__
from hyperpd_runtime.gateway import bodies, edge
from tests.container.stack import free_port, tiny
from tests.fakes.hostile import Endless
from tests.fakes.leases import Leases

MIB = 1 << 20
# What is held at most. For a reader what was written, what is about to be, and what was read from the engine: see
# tests/container/framing/test_slow.py. For all senders what gateway/bodies.py lets them have, in arrays that grow.
READER_BYTES = (256 + 192 + 192) << 10
BODIES_BYTES = bodies._HELD_BYTES * 9 // 8
CONNECTION_BYTES = 64 << 10  # both sides of it, with its task
AT_ONCE = 4
SENT_BYTES = 600 << 10  # of a body that then dribbles


async def engines() -> None:
    """Two fakes, until standard input ends."""
    leases = Leases()
    both = [Endless(leases), Endless(leases)]
    for engine in both:
        await engine.start()
    print(json.dumps([engine.url for engine in both]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for engine in both:
        await engine.stop()


def gateway_process() -> int:
    """The gateway as it is, but that it cuts nobody while it is measured."""
    as_it_is = edge.protocol
    edge.protocol = lambda bounds: as_it_is(replace(bounds, stalled_s=3600))
    sys.argv.remove("--gateway")
    return __main__.main()


class Gateway:
    """The process, and what it holds."""

    def __init__(self, api: int, admin: int, process_id: int) -> None:
        self.url = httpx.URL(f"http://127.0.0.1:{api}")
        self._metrics = f"http://127.0.0.1:{admin}/metrics"
        self._status = Path(f"/proc/{process_id}/status")

    def held_bytes(self, most: bool = False) -> int:
        """Resident memory now, or at most so far."""
        name = "VmHWM:" if most else "VmRSS:"
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

    async def until(self, metric: str, value: float) -> None:
        """Return when a metric says so."""
        async with asyncio.timeout(300), httpx.AsyncClient(timeout=60) as http:
            while True:
                lines = (await http.get(self._metrics)).text.splitlines()
                if sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric)) == value:
                    return
                await asyncio.sleep(0.5)


@asynccontextmanager
async def stack(folder: Path, places: int) -> AsyncIterator[Gateway]:
    """A gateway that answers."""
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    fakes = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--engines", stdin=PIPE, stdout=PIPE, env=here
    )
    assert fakes.stdin
    assert fakes.stdout
    prefill, decode = json.loads(await fakes.stdout.readline())
    document = tiny().recipe.model_dump(mode="json", exclude_none=True)
    document["decode"]["engine"]["max-num-seqs"] = places
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(document))
    api, admin = free_port(), free_port()
    words = ["--role", "gateway", "--recipe", str(recipe), "--prefill", prefill, "--decode", decode]
    words += ["--state-dir", str(folder), "--port-offset", str(admin - 8081)]
    here["SAGEMAKER_BIND_TO_PORT"] = str(api)
    command = (sys.executable, __file__, "--gateway", *words)
    gateway = await asyncio.create_subprocess_exec(*command, env=here, stderr=DEVNULL)
    try:
        url = httpx.URL(f"http://127.0.0.1:{api}")
        async with httpx.AsyncClient(base_url=url) as http:
            for _ in range(600):
                try:
                    if (await http.get("/ping")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
            else:
                raise SystemExit("the gateway did not become ready")
        yield Gateway(api, admin, gateway.pid)
    finally:
        gateway.terminate()
        await gateway.wait()
        fakes.stdin.close()
        await fakes.wait()


async def first_tokens_ms(gateway: Gateway, requests: int) -> list[float]:
    """Of streams that are read, a few at once."""
    found: list[float] = []

    async def ask(numbers: range) -> None:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
            for number in numbers:
                began = time.perf_counter()
                body: dict[str, Any] = {"prompt": f"number {number}", "stream": True}
                async with http.stream("POST", "/v1/completions", json=body) as answer:
                    if answer.status_code != 200:
                        raise SystemExit(f"{answer.status_code}: {await answer.aread()!r}")
                    chunks = answer.aiter_bytes()
                    await anext(chunks)
                    found.append((time.perf_counter() - began) * 1000)
                    async for _ in chunks:
                        pass

    await asyncio.gather(*(ask(range(first, requests, AT_ONCE)) for first in range(AT_ONCE)))
    return found


async def misbehave(gateway: Gateway, gate: asyncio.Semaphore, body: bytes, size: int) -> None:
    """One client that reads no more than a byte, and dribbles what is missing of its body."""
    async with gate:  # what many cost as they come is another question
        reader, writer = await asyncio.open_connection(gateway.url.host, gateway.url.port, limit=1)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % size + body)
        await writer.drain()
        if len(body) == size:
            await reader.read(1)
    try:
        while not writer.transport.is_closing():
            if len(body) < size:
                writer.write(b"x")
            await asyncio.sleep(5)
    finally:
        writer.transport.abort()


def told(name: str, times: list[float], gateway: Gateway) -> tuple[float, float]:
    """p50 and p95, said."""
    p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[18]
    held = gateway.held_bytes() / MIB
    print(f"{name:7} TTFT p50 {p50:6.1f} ms, p95 {p95:6.1f} ms ({len(times)} requests); RSS {held:.0f} MiB", flush=True)
    return p50, p95


async def measure(readers: int, senders: int, requests: int) -> bool:
    """Whether the bound was held."""
    with tempfile.TemporaryDirectory() as folder:
        async with stack(Path(folder), readers + AT_ONCE) as gateway:
            await first_tokens_ms(gateway, requests)  # warm
            before = told("before", await first_tokens_ms(gateway, requests), gateway)
            base_bytes = gateway.held_bytes(most=True)
            gate = asyncio.Semaphore(AT_ONCE)
            endless = json.dumps({"prompt": Endless.PROMPT, "stream": True}).encode()
            clients = [asyncio.create_task(misbehave(gateway, gate, endless, len(endless))) for _ in range(readers)]
            await gateway.until("hyperpd_in_flight_requests", readers)
            part = b"x" * SENT_BYTES
            clients += [asyncio.create_task(misbehave(gateway, gate, part, 4 * MIB)) for _ in range(senders)]
            while gate.locked():
                await asyncio.sleep(0.1)
            during = told("during", await first_tokens_ms(gateway, requests), gateway)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            await gateway.until("hyperpd_in_flight_requests", 0)
            told("after", await first_tokens_ms(gateway, requests), gateway)
            bound = readers * READER_BYTES + BODIES_BYTES + (readers + senders) * CONNECTION_BYTES
            held = gateway.held_bytes(most=True) - base_bytes
            print(f"ratio   p50 {during[0] / before[0]:.2f}, p95 {during[1] / before[1]:.2f}")
            print(f"held    {held / MIB:.0f} MiB at most beyond {base_bytes / MIB:.0f}, allowed {bound / MIB:.0f}")
            return held <= bound


def main() -> int:
    if "--gateway" in sys.argv:
        return gateway_process()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--readers", type=int, default=500)
    parser.add_argument("--senders", type=int, default=500)
    parser.add_argument("--requests", type=int, default=300)
    told_ = parser.parse_args()
    if told_.engines:
        asyncio.run(engines())
        return 0
    return 0 if asyncio.run(measure(told_.readers, told_.senders, told_.requests)) else 1


if __name__ == "__main__":
    sys.exit(main())
