"""llm-d's routing sidecar, played, in front of real workers: answers are those of one aggregated engine.

The workers are those that hyperpd's own gateway serves at the same time.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hyperpd import model
from hyperpd.environment import model_path
from hyperpd.recipe import load
from tests.fakes.routing_sidecar import PREFILLER, RoutingSidecar
from tests.real.fleet import Fleet
from tests.real.prompts import complete, differences, prompt

pytestmark = pytest.mark.real
SOURCES = "vllm:prompt_tokens_by_source_total"


def beside(decode: str) -> Iterator[RoutingSidecar]:
    """A sidecar of the decode worker at this URL, in a thread of its own."""
    sidecar, loop = RoutingSidecar(httpx.URL(decode).port or 0), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(sidecar.start(), loop).result(10)
        yield sidecar
        asyncio.run_coroutine_threadsafe(sidecar.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def sidecar(pd: Fleet) -> Iterator[RoutingSidecar]:
    yield from beside(pd.worker("decode-0"))


@pytest.fixture
def routed(pd: Fleet) -> Iterator[httpx.Client]:
    """A client whose requests have their prefill done remotely, as llm-d's endpoint picker says it."""
    prefill = httpx.URL(pd.worker("prefill-0"))
    with httpx.Client(timeout=120, headers={PREFILLER: f"{prefill.host}:{prefill.port}"}) as client:
        yield client


def test_completions_equal_the_aggregated_workers_and_their_kv_is_moved(
    pd: Fleet, aggregated: Fleet, sidecar: RoutingSidecar, routed: httpx.Client, http: httpx.Client
) -> None:
    file = load("tiny-cpu-1p1d")
    facts = model.load(Path(model_path(file.recipe)), file.recipe.model.dtype)
    decode, moved = pd.worker("decode-0"), 0
    before = pd.metric(decode, "vllm:nixl_bytes_transferred_sum")
    for seed, tokens in enumerate((130, 700, 1500)):
        text = prompt(tokens, 7000 + seed)
        ours = complete(routed, sidecar.url, text, logprobs=5)
        assert differences(ours, complete(http, aggregated.url, text, logprobs=5)) == [], f"{tokens} tokens"
        moved += facts.kv_bytes(tokens, file.recipe.kv_transfer.block_size_tokens)
    assert pd.metric(decode, "vllm:nixl_bytes_transferred_sum") - before == moved
    assert [leg for leg, _, _ in sidecar.legs] == ["prefill", "decode"] * 3


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_chat_and_streams_equal_the_aggregated_workers(
    path: str, aggregated: Fleet, sidecar: RoutingSidecar, routed: httpx.Client, http: httpx.Client
) -> None:
    text = prompt(400, 7100)
    asked = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
    body = {"model": "tiny-llama", "max_tokens": 24, "temperature": 0, **asked}
    right = http.post(aggregated.url + path, json=body).json()
    whole = routed.post(sidecar.url + path, json=body).json()
    assert said(whole["choices"][0]) == said(right["choices"][0])
    assert whole["usage"]["completion_tokens"] == right["usage"]["completion_tokens"] == 24
    options = {"stream": True, "stream_options": {"include_usage": True}}
    with routed.stream("POST", sidecar.url + path, json={**body, **options}) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    assert "".join(said(choice) for event in events for choice in event["choices"]) == said(right["choices"][0])
    assert events[-1]["usage"]["completion_tokens"] == 24
    assert len(events) > 4  # as they come; several tokens may share one


def said(choice: dict[str, Any]) -> str:
    """The text of a choice, whole or a piece of it."""
    return str((choice.get("message") or choice.get("delta") or {}).get("content") or choice.get("text") or "")


def test_both_fronts_serve_the_same_workers(
    pd: Fleet, aggregated: Fleet, sidecar: RoutingSidecar, routed: httpx.Client, http: httpx.Client
) -> None:
    """To llm-d and back: the same processes answer through either, and without the header decode computes alone."""
    before, decode = pd.state()["workers"], pd.worker("decode-0")
    for seed in range(3):
        text = prompt(300, 7200 + seed)
        right = complete(http, aggregated.url, text)["choices"][0]["text"]
        fronts = [(http, pd.url), (routed, sidecar.url), (http, pd.url)]
        assert [complete(client, url, text)["choices"][0]["text"] for client, url in fronts] == [right] * 3
    local = pd.metric(decode, SOURCES, {"source": "local_compute"})
    text = prompt(300, 7300)
    alone = complete(http, sidecar.url, text)  # as the endpoint picker's decider may have it
    assert alone["choices"][0]["text"] == complete(http, aggregated.url, text)["choices"][0]["text"]
    assert pd.metric(decode, SOURCES, {"source": "local_compute"}) - local == 300
    assert pd.state()["workers"] == before
    assert http.get(f"{sidecar.url}/v1/models").json()["data"][0]["id"] == "tiny-llama"


def test_errors_of_prefill_come_as_they_are(sidecar: RoutingSidecar, routed: httpx.Client) -> None:
    answer = routed.post(f"{sidecar.url}/v1/completions", json={"model": "other", "prompt": "x"})
    assert answer.status_code == 404
    assert [leg for leg, _, _ in sidecar.legs] == ["prefill"]


@pytest.mark.nightly
def test_a_decode_worker_with_another_address_is_reached_at_localhost(tmp_path: Path, http: httpx.Client) -> None:
    """As in a pod: peers know it by the pod's address, the sidecar as localhost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))  # sends nothing
        address = outward.getsockname()[0]
    settings = ("--role", "decode", "--address", address, "--api-address", "0.0.0.0")
    fleet = Fleet("tiny-cpu-1p1d", tmp_path, 3000, *settings)
    try:
        (worker,) = fleet.wait().state()["workers"]
        assert worker["url"] == f"http://{address}:11100"
        for sidecar in beside(worker["url"]):
            assert complete(http, sidecar.url, prompt(60, 7400))["choices"][0]["text"]
    finally:
        assert fleet.stop() == 0
