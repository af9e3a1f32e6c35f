"""Leases on the real engines: an answer that takes longer than one, and a decode worker frozen past its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from hyperpd.recipe import load
from tests.real.fleet import Fleet, descendants, until
from tests.real.prompts import complete, prompt

pytestmark = pytest.mark.real
LEASE_S = 10


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """1P1D with the shortest lease, and so little prefill memory that freed blocks are soon used again."""
    folder = tmp_path_factory.mktemp("lease")
    document = yaml.safe_load(load("tiny-cpu-1p1d").path.read_text())
    document["kv_transfer"]["lease_s"] = LEASE_S
    document["prefill"]["engine"] = {**document["prefill"]["engine"], "kv-cache-memory-bytes": 16 << 20}
    file = folder / "short.yaml"
    file.write_text(yaml.safe_dump(document))
    fleet = Fleet(str(file), folder / "fleet", 13000).wait()
    yield fleet
    assert fleet.stop() == 0


def counts(fleet: Fleet) -> dict[str, float]:
    admin = fleet.state()["admin_url"]
    return {
        mode: fleet.metric(admin, "hyperpd_requests_total", {"mode": mode, "outcome": "ok"})
        for mode in ("pd", "recomputed")
    }


def test_a_whole_answer_that_takes_longer_than_the_lease(short: Fleet, http: httpx.Client) -> None:
    before = counts(short)
    began = time.monotonic()
    answer = complete(http, short.url, prompt(100, 1), max_tokens=1900)
    took_s = time.monotonic() - began
    while took_s < LEASE_S:  # on a fast machine: more of them at once are slower
        with ThreadPoolExecutor(16) as pool:
            began = time.monotonic()
            answers = list(pool.map(lambda n: complete(http, short.url, prompt(100, n), max_tokens=1900), range(1, 17)))
            took_s = time.monotonic() - began
        assert answers[0]["choices"][0]["text"] == answer["choices"][0]["text"]
    assert counts(short)["recomputed"] == before["recomputed"]
    assert counts(short)["pd"] > before["pd"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_decode_worker_frozen_past_the_lease(short: Fleet, http: httpx.Client, stream: bool) -> None:
    """While it is frozen prefill gives the blocks to other prompts. No answer may be built from those."""
    until(lambda: http.get(f"{short.state()['admin_url']}/status").json()["not_as_planned"] is None)
    texts = [prompt(900, 500 + seed + 10 * stream) for seed in range(3)]
    prefill = short.worker("prefill-0")
    leader = next(w["pid"] for w in short.state()["workers"] if w["name"] == "decode-0")
    frozen = [leader, *descendants(leader)]

    def ask(text: str) -> str:
        if not stream:
            return str(complete(http, short.url, text)["choices"][0]["text"])
        body = {"prompt": text, "max_tokens": 16, "temperature": 0, "stream": True}
        pieces = http.post(f"{short.url}/v1/completions", json=body).text.splitlines()
        events = [yaml.safe_load(line[6:]) for line in pieces if line.startswith("data: {")]
        return "".join(event["choices"][0]["text"] for event in events)

    expired = short.metric(prefill, "vllm:nixl_num_kv_expired_reqs_total")
    with ThreadPoolExecutor(len(texts)) as pool:
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            asked = [pool.submit(ask, text) for text in texts]

            def lease_ended() -> bool:
                # Other prompts make prefill step, notice the end of the leases, and use their blocks.
                complete(http, prefill, prompt(1000, time.monotonic_ns()), max_tokens=1)
                return short.metric(prefill, "vllm:nixl_num_kv_expired_reqs_total") > expired

            until(lease_ended, timeout_s=60)
            for seed in range(6):
                complete(http, prefill, prompt(1000, 9000 + seed), max_tokens=1)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        answers = [future.result() for future in asked]
    # What prefill says without any transfer is right; asked again, decode must not have kept wrong blocks.
    right = [complete(http, prefill, text)["choices"][0]["text"] for text in texts]
    assert answers == right
    until(lambda: http.get(f"{short.state()['admin_url']}/status").json()["not_as_planned"] is None)
    assert [ask(text) for text in texts] == right
