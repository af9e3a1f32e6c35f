"""The fake engine does what a real one was seen to do (tests/real/test_recorded.py sees to the recording)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.container.stack import until
from tests.fakes.engine import FakeEngine
from tests.fakes.leases import Leases
from tests.fakes.observe import Observer

RECORDING = Path(__file__).parents[1] / "data" / "engine" / "vllm-0.32.json"
METRICS = RECORDING.with_name("metrics-two-ranks.txt")


@dataclass
class Workers:
    """A pair, its leases, and how to ask them."""

    leases: Leases
    prefill: FakeEngine
    decode: FakeEngine
    http: httpx.AsyncClient

    async def ticket(self, prompt: str, request_id: str = "1") -> dict[str, Any]:
        ask = {"do_remote_decode": True, "do_remote_prefill": False}
        body = {"model": "tiny-llama", "prompt": prompt, "max_tokens": 1, "n": 1, "kv_transfer_params": ask}
        answer = await self.http.post(
            f"{self.prefill.url}/v1/completions", json=body, headers={"x-request-id": request_id}
        )
        return dict(answer.json()["kv_transfer_params"])

    async def said(self, prompt: str, ticket: dict[str, Any] | None = None, **options: Any) -> str:
        body = {"model": "tiny-llama", "prompt": prompt, "max_tokens": 4, **options}
        body |= {"kv_transfer_params": ticket} if ticket else {}
        answer = await self.http.post(f"{self.decode.url}/v1/completions", json=body)
        assert answer.status_code == 200
        return str(answer.json()["choices"][0]["text"])

    async def expired(self) -> float:
        """What prefill counts once it has stepped."""
        await self.http.post(f"{self.prefill.url}/v1/completions", json={"model": "tiny-llama", "prompt": [1]})
        lines = (await self.http.get(f"{self.prefill.url}/metrics")).text.splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:nixl_num_kv_expired"))


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    leases = Leases()
    prefill, decode = FakeEngine(leases), FakeEngine(leases)
    await prefill.start()
    await decode.start()
    async with httpx.AsyncClient(headers={"x-request-id": "1"}) as http:
        yield Workers(leases, prefill, decode, http)
    await prefill.stop()
    await decode.stop()


async def test_metrics_have_the_real_ones_names_and_labels(workers: Workers) -> None:
    said, recorded = ((await workers.http.get(f"{workers.decode.url}/metrics")).text, METRICS.read_text())
    fakes, reals = (
        {sample.name: {*sample.labels} for family in text_string_to_metric_families(page) for sample in family.samples}
        for page in (said, recorded)
    )
    assert fakes.keys() <= reals.keys()
    config = "vllm:cache_config_info"
    assert fakes.pop(config) <= reals[config]
    assert fakes == {name: reals[name] for name in fakes}


async def test_fake_and_real_are_seen_alike(workers: Workers) -> None:
    with httpx.Client() as http:
        seen = await asyncio.to_thread(Observer(http, workers.prefill.url, workers.decode.url).observe)
    recorded = json.loads(RECORDING.read_text())["seen"]
    assert seen.keys() == recorded.keys()
    assert {what: seen[what] for what in seen} == recorded


@pytest.mark.parametrize("salt", ["", "new"])
@pytest.mark.parametrize("reused", ["", "others"])
async def test_a_late_read_is_wrong_and_stays(workers: Workers, salt: str, reused: str) -> None:
    """HTTP 200 with somebody else's text, again without a ticket, until the cache is salted, as the real one."""
    ticket = await workers.ticket("hello")
    workers.leases.forward(30)
    assert (workers.leases.pinned(), await workers.expired()) == (0, 1)
    if reused:
        await workers.ticket(reused)
    wrong = f"after {reused or 'freed blocks'}"
    assert await workers.said("hello", ticket) == wrong
    assert await workers.said("hello") == wrong
    assert await workers.said("hello", **({"cache_salt": salt} if salt else {})) == ("after hello" if salt else wrong)
    assert await workers.expired() == 1  # counted once


async def test_a_read_in_time_is_right(workers: Workers) -> None:
    ticket = await workers.ticket("hello")
    workers.leases.forward(29.9)
    assert await workers.said("hello", ticket) == "after hello"
    workers.leases.forward(30)
    assert (await workers.expired(), workers.leases) == (0, {})


@pytest.mark.parametrize(
    ("faults", "request_id", "left_out", "held"),
    [
        (["hang"], "1", "", True),
        (["frozen"], "1", "", False),  # the scheduler does not know of it
        (["hang", "frozen"], "1", "", False),  # it does, and sends nothing while it stands still
        (["hang"], "1,2", "", False),  # is taken for two ids, which prefill does not know
        (["hang"], "1", "tp_size", False),  # one of those without which decode renews nothing
    ],
)
async def test_heartbeats_hold_the_lease_of_a_request_that_waits_at_decode(
    workers: Workers, faults: list[str], request_id: str, left_out: str, held: bool
) -> None:
    ticket = await workers.ticket("hello", request_id)
    ticket = {key: value for key, value in ticket.items() if key != left_out}
    workers.decode.fault = faults[0]
    asking = asyncio.create_task(workers.said("hello", ticket))
    await workers.decode.arrived.wait()
    workers.decode.fault = faults[-1]
    workers.leases.forward(100)
    assert workers.leases.pinned() == held
    workers.decode.proceed.set()
    assert await asking == ("after hello" if held else "after freed blocks")
    assert await workers.expired() == (not held)


async def test_the_first_heartbeat_to_an_engine_only_shakes_hands(workers: Workers) -> None:
    """With 30 s: every 5 s, to 20 s from then, where that is more."""
    ticket = await workers.ticket("hello")
    (lease,) = workers.leases.values()
    workers.leases.forward(24)
    workers.decode.fault = "hang"
    asking = asyncio.create_task(workers.said("hello", ticket))
    await workers.decode.arrived.wait()
    assert (lease.ends_s, workers.decode.heart.due_s) == (30, 29)
    workers.leases.forward(5)
    assert lease.ends_s == 49
    workers.decode.proceed.set()
    assert await asking == "after hello"

    # It knows prefill now: another is renewed at once.
    ticket = await workers.ticket("again")
    (lease,) = workers.leases.values()
    workers.leases.forward(20)
    workers.decode.proceed.clear()
    workers.decode.arrived.clear()
    asking = asyncio.create_task(workers.said("again", ticket))
    await workers.decode.arrived.wait()
    assert lease.ends_s == 29 + 20 + 20
    workers.decode.proceed.set()
    assert await asking == "after again"
    assert workers.decode.heart.waiting == {}


@pytest.mark.parametrize(("fault", "frees"), [("hang", True), ("frozen", False)])
async def test_who_leaves_frees_the_blocks_as_soon_as_decode_sees_it(workers: Workers, fault: str, frees: bool) -> None:
    ticket = await workers.ticket("hello")
    workers.decode.fault = fault
    asking = asyncio.create_task(workers.said("hello", ticket))
    await workers.decode.arrived.wait()
    asking.cancel()
    await workers.decode.aborted.wait()
    assert workers.leases.pinned() == (not frees)
    workers.decode.proceed.set()
    await until(lambda: not workers.leases)
