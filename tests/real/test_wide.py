"""A decode worker of two data-parallel ranks on two hosts behind one API: each reads KV from a third host."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.netns import hosts, needs_two_hosts
from tests.real.fleet import Fleet
from tests.real.prompts import LENGTHS, complete, differences, prompt
from tests.real.test_shapes import recipe

pytestmark = pytest.mark.real
PREFILL, FIRST, SECOND, GATEWAY = (f"10.77.0.{number}" for number in (1, 2, 3, 4))


@contextlib.contextmanager
def running(file: str, folder: Path) -> Iterator[list[Fleet]]:
    """Four machines: prefill, both parts of decode, the gateway."""
    part = ("--node-rank", "1", "--leader", FIRST)
    peers = ("--prefill", f"http://{PREFILL}:8100", "--decode", f"http://{FIRST}:8100")
    told = [("prefill", PREFILL, ()), ("decode", FIRST, ()), ("decode", SECOND, part), ("gateway", GATEWAY, peers)]
    with hosts(len(told)) as machines:
        started = [
            Fleet(file, folder / address, 0, "--role", role, "--address", address, *settings, host=tuple(host))
            for host, (role, address, settings) in zip(machines, told, strict=True)
        ]
        try:
            yield [machine.wait() for machine in started]
        finally:
            codes = [machine.stop() for machine in reversed(started)]
        assert codes == [0] * len(told)


@needs_two_hosts
def test_two_ranks_on_two_hosts_answer_as_one_worker(tmp_path: Path, aggregated: Fleet, http: httpx.Client) -> None:
    file = recipe(tmp_path, "wide", "tiny-llama", prefill={}, decode={"parallel": {"data": 2, "nodes": 2}})
    with running(file, tmp_path) as (*_, gateway):
        texts = [prompt(length, seed) for seed, length in enumerate(LENGTHS[::2])]
        with ThreadPoolExecutor(len(texts)) as pool:  # at once, so that both ranks have work
            ours, theirs = (
                list(pool.map(partial(complete, http, url, logprobs=5), texts)) for url in (gateway.url, aggregated.url)
            )
        assert [differences(left, right) for left, right in zip(ours, theirs, strict=True)] == [[]] * len(texts)
        metrics = http.get(f"http://{FIRST}:8100/metrics").text
        served = http.get(f"http://{GATEWAY}:8081/metrics").text
        tokens = dict(re.findall(r'by_source_total\{engine="(\d)",.*source="external_kv_transfer"} (\S+)', metrics))
        print(f"\ntokens of KV read by rank: {tokens}")
        assert [float(tokens[rank]) > 0 for rank in ("0", "1")] == [True, True]
        assert f'hyperpd_requests_total{{mode="pd",outcome="ok",why="plain"}} {len(texts)}.0' in served
