"""Where workers come from: settings, and DNS names whose answers change."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace

import httpx
import pytest

from hyperpd.environment import Environment
from hyperpd.errors import NotReady, RecipeError
from hyperpd.placement import Placement, place
from hyperpd.recipe import load
from hyperpd_runtime.gateway import discovery, server
from hyperpd_runtime.gateway.discovery import Discovery, Endpoint, Name, Sources
from hyperpd_runtime.gateway.server import Gateway
from tests.container.stack import counted, free_port, tiny, until
from tests.fakes.engine import FakeEngine
from tests.fakes.leases import Leases

PREFILL = Name("prefill", "prefill.default.svc", 8100)
DECODE = Name("decode", "decode.default.svc", 8101)
NOWHERE = Placement((), 8080, 8081)


class Dns:
    """Answers as it is told: addresses, an error, or never."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str] | OSError] = {}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answer = self.addresses.get(host)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, OSError):
            raise answer
        assert answer is not None
        return answer


class Told:
    """What a pool would be told."""

    def __init__(self) -> None:
        self.times = 0
        self.names: list[str] = []
        self.unresolved: Mapping[str, str] = {}

    def __call__(self, endpoints: Sequence[Endpoint], unresolved: Mapping[str, str]) -> None:
        self.times += 1
        self.names, self.unresolved = [endpoint.name for endpoint in endpoints], unresolved


def gateway_settings(**told: str) -> Environment:
    return Environment(role="gateway", recipe="r", **told)


def test_what_a_gateway_is_told() -> None:
    settings = gateway_settings(
        prefill="http://10.0.0.1:8100/, dns://prefill.default.svc:8100,http://10.0.0.2:8100,dns://prefill.default.svc:8100",
        decode="dns://decode.default.svc:8101",
    )
    told = discovery.sources(settings, NOWHERE)
    assert [(e.name, e.url) for e in told.fixed] == [
        ("prefill-0", "http://10.0.0.1:8100"),
        ("prefill-2", "http://10.0.0.2:8100"),
    ]
    assert told.followed == (PREFILL, DECODE)
    assert told.roles == {"prefill", "decode"}


@pytest.mark.parametrize("told", [{}, {"prefill": "dns://p:1"}, {"decode": "dns://d:1", "aggregated": "http://a:1"}])
def test_a_gateway_that_is_told_half(told: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="give HYPERPD_PREFILL and HYPERPD_DECODE, or HYPERPD_AGGREGATED"):
        discovery.sources(gateway_settings(**told), NOWHERE)


@pytest.mark.parametrize("source", ["dns://prefill", "dns://:8100", "dns://prefill:8100/x", "tcp://a:1", "dns://p:x"])
def test_sources_that_are_none(source: str) -> None:
    with pytest.raises(ValueError, match=r"prefill\n.*(is not like http://10\.0\.0\.1:8100 or dns://|Port could not)"):
        gateway_settings(prefill=source)


def test_the_workers_of_this_machine() -> None:
    file = load("tiny-cpu-1p1d")
    told = discovery.sources(Environment(role="node", recipe="r"), place(file.recipe))
    assert ([e.name for e in told.fixed], told.followed) == (["prefill-0", "decode-0"], ())
    placed = place(file.recipe)
    part = replace(placed.workers[1], rank=1)  # of a worker over several machines: it has no API
    told = discovery.sources(Environment(role="node", recipe="r"), replace(placed, workers=(*placed.workers, part)))
    assert [e.name for e in told.fixed] == ["prefill-0", "decode-0"]


def test_names_are_stable_and_no_two_workers_share_one() -> None:
    ways = [PREFILL, Name("prefill", "other", 8100), Name("prefill", "other", 8102), DECODE]
    found = [name.endpoint(address) for name in ways for address in ("10.0.0.7", "fd00::7")]
    assert [endpoint.name for endpoint in found] == [
        *("prefill-10.0.0.7", "prefill-fd00::7"),
        *("prefill-10.0.0.7", "prefill-fd00::7"),  # of two names, but the same worker
        *("prefill-10.0.0.7:8102", "prefill-fd00::7:8102"),
        *("decode-10.0.0.7:8101", "decode-fd00::7:8101"),
    ]
    assert found[0] == found[2]
    assert (found[1].url, found[1].admin_url) == ("http://[fd00::7]:8100", "http://[fd00::7]:8300")


async def test_membership_follows_the_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    dns, told = Dns(), Told()
    found = Discovery(Sources((Endpoint("decode", "decode-0", "http://d:1"),), (PREFILL,)), told, dns)
    assert told.names == ["decode-0"]
    assert told.unresolved == {"dns://prefill.default.svc:8100": "not resolved yet"}
    for addresses in (["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.2"]):
        dns.addresses[PREFILL.host] = list(addresses)
        await found.look(PREFILL)
        assert told.names == ["decode-0", *(f"prefill-{address}" for address in addresses)]
        assert told.unresolved == {}
        assert counted("hyperpd_resolved_workers", source=str(PREFILL)) == len(addresses)
    times = told.times
    await found.look(PREFILL)
    assert told.times == times  # nothing changed


async def test_a_failure_keeps_the_workers_and_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    dns, told = Dns(), Told()
    found = Discovery(Sources((), (PREFILL,)), told, dns)
    dns.addresses[PREFILL.host] = ["10.0.0.1"]
    await found.look(PREFILL)
    failures = counted("hyperpd_resolution_failures_total", source=str(PREFILL))
    dns.addresses[PREFILL.host] = socket.gaierror(-3, "Temporary failure in name resolution")
    for _ in range(3):
        await found.look(PREFILL)
    assert told.names == ["prefill-10.0.0.1"]
    assert told.unresolved == {str(PREFILL): "Temporary failure in name resolution"}
    assert counted("hyperpd_resolution_failures_total", source=str(PREFILL)) == failures + 3
    said = [line for line in caplog.messages if line.startswith("event=unresolved ")]
    assert said == [f"event=unresolved source={PREFILL} keeps_workers=1 why='Temporary failure in name resolution'"]
    dns.addresses[PREFILL.host] = ["10.0.0.1"]
    await found.look(PREFILL)
    assert told.unresolved == {}
    assert caplog.messages[-1] == f"event=resolved source={PREFILL} workers=1"


async def test_a_name_that_hangs_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_RESOLVE_EVERY_S", 0.01)
    dns, told = Dns(), Told()
    dns.addresses[DECODE.host] = ["10.0.0.1"]
    watching = asyncio.create_task(Discovery(Sources((), (PREFILL, DECODE)), told, dns).watch())
    await until(lambda: dns.asked.count(DECODE.host) >= 3)
    assert told.names == ["decode-10.0.0.1:8101"]
    assert told.unresolved == {str(PREFILL): "not resolved yet"}
    watching.cancel()


async def test_the_systems_resolver() -> None:
    told = Told()
    # The last one is no name at all.
    names = [Name("decode", host, 8100) for host in ("localhost", "no-such-name.invalid", "x" * 64 + ".invalid")]
    found = Discovery(Sources((), tuple(names)), told)
    for name in names:
        await found.look(name)
    assert "decode-127.0.0.1" in told.names
    assert len(set(told.names)) == len(told.names)
    assert [told.unresolved[str(name)] != "not resolved yet" for name in names[1:]] == [True, True]


async def test_a_lone_gateway_waits_for_workers_that_come_go_and_come_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two Services; their names cannot be resolved at first. Then one worker each, then others."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(discovery, "_RESOLVE_EVERY_S", 0.01)
    monkeypatch.setattr(server, "_SAY_EVERY_S", 0.05)
    leases = Leases()
    engines = {address: (FakeEngine(leases), FakeEngine(leases)) for address in ("127.0.0.1", "127.0.0.2")}
    ports = [0, 0]
    for address, pair in engines.items():
        for index, engine in enumerate(pair):
            await engine.start(address, ports[index])
            ports[index] = engine.port
    prefill, decode = Name("prefill", "prefill", ports[0]), Name("decode", "decode", ports[1])
    dns = Dns()
    unknown = socket.gaierror(-2, "Name or service not known")
    dns.addresses = {"prefill": unknown, "decode": unknown}
    placement = Placement((), free_port(), free_port())
    sources = Sources((), (prefill, decode))
    gateway = Gateway(tiny(), sources, "127.0.0.1", placement, lambda: None, resolve=dns)
    await gateway.start()
    waiting = asyncio.create_task(gateway.until_ready(None))
    base = f"http://127.0.0.1:{placement.api_port}"
    try:
        async with httpx.AsyncClient(base_url=base) as http:
            with pytest.raises(NotReady, match=r"not ready after 0\.1 s: no worker can decode"):
                await gateway.until_ready(0.1)
            await until(lambda: "event=waiting " in caplog.text)
            ping = await http.get("/ping")
            assert ping.status_code == 503
            assert f"{decode}: Name or service not known" in ping.json()["reason"]
            assert not waiting.done()

            dns.addresses["decode"] = ["127.0.0.1"]  # without prefill it serves nothing: that was not planned
            await until(lambda: any(member.healthy for member in gateway.pool.members))
            assert f"{prefill}: Name or service not known" in (await http.get("/ping")).json()["reason"]

            dns.addresses["prefill"] = ["127.0.0.1"]
            await asyncio.wait_for(waiting, 20)
            assert (await http.get("/ping")).status_code == 200
            answer = await http.post("/v1/completions", json={"prompt": "hello"})
            assert answer.json()["choices"][0]["text"] == "after hello"

            dns.addresses = {"prefill": ["127.0.0.2"], "decode": ["127.0.0.2"]}
            await until(lambda: any(p.proven and "127.0.0.2" in p.decode.name for p in gateway.pool.pairs))
            before = [len(engine.bodies) for engine in engines["127.0.0.1"]]
            answer = await http.post("/v1/completions", json={"prompt": "hello"})
            assert answer.json()["choices"][0]["text"] == "after hello"
            assert [len(engine.bodies) for engine in engines["127.0.0.1"]] == before
            status = (await http.get(f"http://127.0.0.1:{placement.admin_port}/status")).json()
            assert [w["name"] for w in status["workers"]] == [
                f"prefill-127.0.0.2:{ports[0]}",
                f"decode-127.0.0.2:{ports[1]}",
            ]
            assert status["unresolved"] == {}
    finally:
        waiting.cancel()
        await gateway.stop()
        for pair in engines.values():
            for engine in pair:
                await engine.stop()


def test_a_gateway_refuses_keys_that_cannot_be_used() -> None:
    with pytest.raises(RecipeError, match="keys-file: missing"):
        Gateway(tiny(gateway={"auth": "keys"}), Sources(()), "127.0.0.1", NOWHERE, lambda: None)


async def test_a_gateway_ends_when_it_can_no_longer_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    async def defect(_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(discovery.Discovery, "watch", defect)
    ended = asyncio.Event()
    gateway = Gateway(tiny(), Sources(()), "127.0.0.1", Placement((), free_port(), free_port()), ended.set)
    await gateway.start()
    try:
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        await gateway.stop()
