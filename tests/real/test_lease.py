"""Leases on the real engines: long answers, a decode worker frozen past a lease's end, a prefill worker replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from hyperpd.recipe import load
from tests.real.answers import read
from tests.real.fleet import Fleet, descendants, until
from tests.real.prompts import complete, prompt

pytestmark = pytest.mark.real
LEASE_S = 10
PORTS = {"prefill": 13000, "decode": 13010}


@dataclass
class Parts:
    """1P1D, every part a process of its own."""

    recipe: str
    folder: Path
    prefill: Fleet
    decode: Fleet
    gateway: Fleet

    @property
    def prefill_url(self) -> str:
        return self.prefill.worker("prefill-0")

    def settled(self, http: httpx.Client) -> None:
        """Return when all is as the recipe says."""
        admin = self.gateway.state()["admin_url"]
        until(lambda: http.get(f"{admin}/status").json()["not_as_planned"] is None, 120)

    @contextlib.contextmanager
    def decode_frozen(self) -> Iterator[None]:
        """Decode stands still: its API, its scheduler, its worker."""
        leader = self.decode.state()["workers"][0]["pid"]
        frozen = [leader, *descendants(leader)]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)

    def expired(self) -> float:
        return self.prefill.metric(self.prefill_url, "vllm:nixl_num_kv_expired_reqs_total")

    def pinned(self) -> float:
        return self.prefill.metric(self.prefill_url, "vllm:kv_cache_usage_perc")

    def restart_prefill(self) -> None:
        """A new engine with a new id at the old address; the old one had no time to say good-bye."""
        pids = [self.prefill.process.pid, *descendants(self.prefill.process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.prefill.process.wait(60)
        self.prefill = start(self.recipe, self.folder / "another", "prefill").wait()


def start(recipe: str, folder: Path, role: str) -> Fleet:
    return Fleet(recipe, folder, PORTS[role], "--role", role)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """The shortest lease, and so little prefill memory that freed blocks are soon used again."""
    folder = tmp_path_factory.mktemp("lease")
    document = yaml.safe_load(load("tiny-cpu-1p1d").path.read_text())
    document["kv_transfer"]["lease_s"] = LEASE_S
    document["prefill"]["engine"] = {**document["prefill"]["engine"], "kv-cache-memory-bytes": 16 << 20}
    file = str(folder / "short.yaml")
    Path(file).write_text(yaml.safe_dump(document))
    workers = [start(file, folder / role, role) for role in PORTS]
    sources = [word for role, by in PORTS.items() for word in (f"--{role}", f"http://127.0.0.1:{8100 + by}")]
    gateway = Fleet(file, folder / "gateway", 13500, "--role", "gateway", *sources)
    parts = Parts(file, folder, *(worker.wait() for worker in workers), gateway.wait())
    yield parts
    assert [part.stop() for part in (parts.gateway, parts.decode, parts.prefill)] == [0, 0, 0]


def counts(fleet: Fleet) -> dict[str, float]:
    admin = fleet.state()["admin_url"]
    return {
        mode: fleet.metric(admin, "hyperpd_requests_total", {"mode": mode, "outcome": "ok"})
        for mode in ("pd", "recomputed")
    }


def ask(http: httpx.Client, url: str, text: str, stream: bool) -> str:
    body = {"prompt": text, "max_tokens": 16, "temperature": 0, "stream": stream}
    return str(read(http.post(f"{url}/v1/completions", json=body))["choices"][0]["text"])


def test_a_whole_answer_that_takes_longer_than_the_lease(short: Parts, http: httpx.Client) -> None:
    before = counts(short.gateway)
    began = time.monotonic()
    answer = complete(http, short.gateway.url, prompt(100, 1), max_tokens=1900)
    took_s = time.monotonic() - began
    while took_s < LEASE_S:  # on a fast machine: more of them at once are slower
        with ThreadPoolExecutor(16) as pool:
            began = time.monotonic()
            asked = range(1, 17)
            answers = list(
                pool.map(lambda n: complete(http, short.gateway.url, prompt(100, n), max_tokens=1900), asked)
            )
            took_s = time.monotonic() - began
        assert answers[0]["choices"][0]["text"] == answer["choices"][0]["text"]
    assert counts(short.gateway)["recomputed"] == before["recomputed"]
    assert counts(short.gateway)["pd"] > before["pd"]


def test_a_decode_worker_frozen_past_the_lease(short: Parts, http: httpx.Client) -> None:
    """While it is frozen prefill gives the blocks to other prompts. No answer may be built from those.

    One has a whole answer; two have streams, and begin with five blocks that their leases hold together.
    """
    short.settled(http)
    texts = {prompt(900, 500): False, **{prompt(640, 600) + prompt(260, seed): True for seed in (601, 602)}}
    expired = short.expired()
    with ThreadPoolExecutor(len(texts)) as pool:
        with short.decode_frozen():
            asked = [pool.submit(ask, http, short.gateway.url, text, stream) for text, stream in texts.items()]

            def lease_ended() -> bool:
                # Other prompts make prefill step, notice the end of the leases, and use their blocks.
                complete(http, short.prefill_url, prompt(1000, time.monotonic_ns()), max_tokens=1)
                return short.expired() > expired

            until(lease_ended, timeout_s=60)
            for seed in range(6):
                complete(http, short.prefill_url, prompt(1000, 9000 + seed), max_tokens=1)
        answers = [future.result() for future in asked]
    # What prefill says without any transfer is right; asked again, decode must not have kept wrong blocks.
    right = [complete(http, short.prefill_url, text)["choices"][0]["text"] for text in texts]
    assert answers == right
    short.settled(http)
    assert [ask(http, short.gateway.url, text, stream) for text, stream in texts.items()] == right


def test_two_share_a_prefix_and_one_lease_ends(short: Parts, http: httpx.Client) -> None:
    """The blocks of the prefix stay for the one that holds on, and what came alone with the other goes."""
    short.settled(http)
    texts = [prompt(640, 70) + prompt(260, 70 + seed) for seed in range(1, 3)]
    expired = short.expired()
    with ThreadPoolExecutor(2) as pool:
        with short.decode_frozen():
            began = time.monotonic()
            first = pool.submit(ask, http, short.gateway.url, texts[0], True)
            until(lambda: short.pinned() > 0)
            pinned = short.pinned()
            until(lambda: time.monotonic() > began + 1.5)  # a frozen worker counts as lost after 3 s
            second = pool.submit(ask, http, short.gateway.url, texts[1], True)
            until(lambda: short.pinned() > pinned)
            until(lambda: short.expired() > expired or _step(http, short), timeout_s=60)
            assert short.pinned() > 0
            for seed in range(4):
                complete(http, short.prefill_url, prompt(600, 9100 + seed), max_tokens=1)
        answers = [first.result(), second.result()]
    right = [complete(http, short.prefill_url, text)["choices"][0]["text"] for text in texts]
    assert answers == right
    short.settled(http)
    assert [ask(http, short.gateway.url, text, True) for text in texts] == right


def _step(http: httpx.Client, short: Parts) -> bool:
    complete(http, short.prefill_url, prompt(300, time.monotonic_ns()), max_tokens=1)
    return False


def test_prefill_is_replaced_between_the_legs(short: Parts, http: httpx.Client) -> None:
    """The ticket is of an engine that is gone; another answers at its address, and other blocks have its numbers."""
    short.settled(http)
    stream = True
    text = prompt(900, 60 + stream)
    with ThreadPoolExecutor(1) as pool:
        with short.decode_frozen():
            asked = pool.submit(ask, http, short.gateway.url, text, stream)
            until(lambda: short.pinned() > 0)
            short.restart_prefill()
            for seed in range(3):
                complete(http, short.prefill_url, prompt(1000, 9200 + seed), max_tokens=1)
        answer = asked.result()
    assert answer == complete(http, short.prefill_url, text)["choices"][0]["text"]
    short.settled(http)
    before = counts(short.gateway)["pd"]
    assert ask(http, short.gateway.url, text, stream) == answer
    assert counts(short.gateway)["pd"] == before + 1
