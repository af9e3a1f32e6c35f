"""The fake engine does what a real one was seen to do (tests/real/test_recorded.py sees to the recording)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from tests.fakes.engine import FakeEngine, Leases, expire
from tests.fakes.observe import Observer

RECORDING = Path(__file__).parents[1] / "data" / "engine" / "vllm-0.32.json"


async def test_fake_and_real_are_seen_alike() -> None:
    leases: Leases = {}
    prefill, decode = FakeEngine(leases), FakeEngine(leases)
    await prefill.start()
    await decode.start()
    try:
        with httpx.Client() as http:
            seen = await asyncio.to_thread(Observer(http, prefill.url, decode.url).observe)
    finally:
        await prefill.stop()
        await decode.stop()
    recorded = json.loads(RECORDING.read_text())["seen"]
    assert seen.keys() == recorded.keys()
    assert {what: seen[what] for what in seen} == recorded


@pytest.mark.parametrize("salt", ["", "new"])
async def test_a_late_read_is_wrong_and_stays(salt: str) -> None:
    """HTTP 200 with other text, and the same again without a ticket, until the cache is salted, as the real one."""
    leases: Leases = {}
    prefill, decode = FakeEngine(leases), FakeEngine(leases)
    await prefill.start()
    await decode.start()
    body = {"model": "tiny-llama", "prompt": "hello", "max_tokens": 4}
    async with httpx.AsyncClient(headers={"x-request-id": "1"}) as http:
        ask = {"do_remote_decode": True, "do_remote_prefill": False}
        first = {**body, "max_tokens": 1, "n": 1, "kv_transfer_params": ask}
        ticket = (await http.post(f"{prefill.url}/v1/completions", json=first)).json()["kv_transfer_params"]
        expire(leases)
        texts = []
        for options in ({"kv_transfer_params": ticket}, {}, {"cache_salt": salt} if salt else {}):
            answer = await http.post(f"{decode.url}/v1/completions", json={**body, **options})
            assert answer.status_code == 200
            texts.append(answer.json()["choices"][0]["text"])
    await prefill.stop()
    await decode.stop()
    assert texts == ["after freed blocks", "after freed blocks", "after hello" if salt else "after freed blocks"]
