"""Clients that leave, on the real engines: afterwards no block is pinned, no socket open, and no memory gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.real.bodies import Body, one_of_each
from tests.real.fleet import ANSWER_TIMEOUT_S, Fleet, descendants, until
from tests.real.prompts import prompt

pytestmark = pytest.mark.real
AT_ONCE = 16
FREED_S = 30  # at most; a lease of these engines lasts 120 s


def usage(fleet: Fleet) -> dict[str, float]:
    workers = {name: fleet.worker(name) for name in ("prefill-0", "decode-0")}
    return {name: fleet.metric(url, "vllm:kv_cache_usage_perc") for name, url in workers.items()}


def at_baseline(fleet: Fleet) -> bool:
    return not any(usage(fleet).values())


def in_flight(fleet: Fleet) -> float:
    return fleet.metric(fleet.state()["admin_url"], "hyperpd_in_flight_requests")


def send(fleet: Fleet, body: Body, part: float = 1.0) -> socket.socket:
    """A connection on which so much of a request was sent."""
    url = httpx.URL(fleet.url)
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode()
    connection = socket.create_connection((url.host, url.port), timeout=ANSWER_TIMEOUT_S)
    connection.sendall(head + content[: int(len(content) * part)])
    return connection


def await_bytes(connection: socket.socket, wanted: bytes) -> None:
    """Read until `wanted` has come: the head of an answer and its first event may come apart."""
    found = b""
    while wanted not in found:
        more = connection.recv(1 << 16)
        assert more, found
        found += more


@contextlib.contextmanager
def frozen(fleet: Fleet, name: str) -> Iterator[None]:
    """One worker stands still: its API, its scheduler, its worker. For less than 3 s, or it counts as lost."""
    leader = next(worker["pid"] for worker in fleet.state()["workers"] if worker["name"] == name)
    pids = [leader, *descendants(leader)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("moment", ["before", "in prefill", "between the legs", "in decode"])
def test_blocks_are_freed_whenever_a_client_leaves(pd: Fleet, moment: str, stream: bool) -> None:
    until(lambda: at_baseline(pd), FREED_S)
    body = {"prompt": prompt(600, random.randrange(1 << 30)), "max_tokens": 800, "temperature": 0, "stream": stream}
    if moment == "before":
        send(pd, body, part=0.5).close()
    elif moment == "in prefill":
        with frozen(pd, "prefill-0"):
            connection = send(pd, body)
            until(lambda: in_flight(pd) == 1)
            connection.close()
            until(lambda: in_flight(pd) == 0)
    elif moment == "between the legs":
        with frozen(pd, "decode-0"):
            connection = send(pd, body)
            until(lambda: _pinned(pd))
            connection.close()
            until(lambda: in_flight(pd) == 0)
    else:
        with send(pd, body) as connection:
            if stream:
                await_bytes(connection, b"data: ")
            until(lambda: usage(pd)["decode-0"] > 0)
    until(lambda: at_baseline(pd), FREED_S)


def _pinned(fleet: Fleet) -> bool:
    prefill = fleet.worker("prefill-0")
    busy = fleet.metric(prefill, "vllm:num_requests_running")
    return busy == 0 and fleet.metric(prefill, "vllm:kv_cache_usage_perc") > 0


def mixed(count: int, number: int) -> list[tuple[str, Body]]:
    """Requests of all shapes, in random order."""
    found: list[tuple[str, Body]] = []

    @seed(number)
    @settings(
        max_examples=count // 40 + 1,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies=one_of_each())
    def make(bodies: list[tuple[str, str, Body]]) -> None:
        found.extend((path, body) for _, path, body in bodies)

    make()
    random.Random(number).shuffle(found)
    return found[:count]


async def storm(url: str, requests: list[tuple[str, Body]], number: int) -> Counter[str]:
    """Ask all of them; two thirds of the clients leave, at random moments."""
    dice, ended = random.Random(number), Counter[str]()
    turns = asyncio.Semaphore(AT_ONCE)
    patience = [dice.choice((None, dice.uniform(0, 0.1), dice.uniform(0, 1.5))) for _ in requests]
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client(path: str, body: Body, waits_s: float | None) -> None:
            async with turns:
                try:
                    async with asyncio.timeout(waits_s):
                        async with session.post(url + path, json={"model": "tiny-llama", **body}) as answer:
                            await answer.read()
                            ended[str(answer.status)] += 1
                except TimeoutError:
                    ended["left"] += 1

        await asyncio.gather(*(client(*each, waits_s) for each, waits_s in zip(requests, patience, strict=True)))
    return ended


def sockets(fleet: Fleet) -> Counter[str]:
    """The gateway's TCP connections by what they are: to clients, or to workers; and those the peer has closed."""
    port = httpx.URL(fleet.url).port
    inodes = set()
    for descriptor in Path(f"/proc/{fleet.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    found: Counter[str] = Counter()
    for line in Path(f"/proc/{fleet.process.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, state, inode = int(fields[1].partition(":")[2], 16), fields[3], fields[9]
        if inode in inodes and state != "0A":  # listening
            found["client" if local == port else "worker"] += 1
            found["closed by its peer"] += state == "08"
    return found


def resident_mib(fleet: Fleet) -> float:
    pages = int(Path(f"/proc/{fleet.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def check(pd: Fleet, count: int) -> None:
    number = random.SystemRandom().randrange(2**32)
    print(f"\nseed {number}")
    until(lambda: at_baseline(pd), FREED_S)
    admin = pd.state()["admin_url"]
    released = pd.metric(admin, "hyperpd_released_tickets_total")
    memory, ended = [], Counter[str]()
    requests = mixed(count, number)
    for part in range(4):
        ended += asyncio.run(storm(pd.url, requests[part::4], number + part))
        until(lambda: in_flight(pd) == 0, FREED_S)
        memory.append(resident_mib(pd))
    with contextlib.suppress(AssertionError):
        until(lambda: at_baseline(pd), FREED_S)
    assert usage(pd) == {"prefill-0": 0, "decode-0": 0}
    until(lambda: not (sockets(pd)["client"] or sockets(pd)["closed by its peer"]), FREED_S)
    left = sockets(pd)
    released = pd.metric(admin, "hyperpd_released_tickets_total") - released
    print(
        f"{dict(ended)}; {released:.0f} tickets given back; memory {[round(mib) for mib in memory]} MiB; {dict(left)}"
    )
    assert sum(ended.values()) == count
    assert ended.keys() <= {"200", "left"}
    assert ended["left"] > count / 4
    assert ended["200"] > count / 4
    assert memory[3] < memory[1] + 8


def test_clients_that_leave_at_random(pd: Fleet) -> None:
    check(pd, 120)


@pytest.mark.nightly
def test_two_thousand_clients_that_leave_at_random(pd: Fleet) -> None:
    check(pd, 2000)
    # Idle connections to workers end after 30 s to 60 s; probes have their own, and leave none open.
    until(lambda: sockets(pd)["worker"] < AT_ONCE, 90)
