"""Random requests of every shape: prefill → decode answers as one aggregated worker does."""

from __future__ import annotations

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.real.answers import differences, read
from tests.real.bodies import CHAT, INVOCATIONS, SHAPES, Bodies, Body, one_of_each
from tests.real.fleet import Fleet

pytestmark = pytest.mark.real
ROUNDS = 5
AT_ONCE = 8
SEED = int(os.environ.get("DIFFERENTIAL_SEED") or random.SystemRandom().randrange(2**32))


def ask(http: httpx.Client, url: str, path: str, body: Body) -> httpx.Response:
    headers = {"x-hyperpd-explain": "1"}
    if path == INVOCATIONS and "model" in body:  # the engine alone takes an adapter's name there from nowhere else
        headers["X-Amzn-SageMaker-Adapter-Identifier"] = body["model"]
    return http.post(url + path, json={"model": "tiny-llama", **body}, headers=headers)


def reasoned(answer: Any) -> bool:
    """Whether the first choice of a chat has reasoning, and something after it."""
    said = answer["choices"][0].get("message") or answer["choices"][0]["delta"]
    return bool(said.get("reasoning") and (said.get("content") or said.get("tool_calls")))


def prompt_tokens(fleet: Fleet) -> tuple[float, float]:
    """How many decode was given by prefill, and how many it computed."""
    name, decode = "vllm:prompt_tokens_by_source_total", fleet.worker("decode-0")
    return (
        fleet.metric(decode, name, {"source": "external_kv_transfer"}),
        fleet.metric(decode, name, {"source": "local_compute"}),
    )


def test_every_shape_as_an_aggregated_worker(pd: Fleet, aggregated: Fleet, http: httpx.Client) -> None:
    """Text, finish reason, usage and logprobs are equal; most were truly transferred, none recomputed."""
    print(f"\nDIFFERENTIAL_SEED={SEED}")
    asked: Counter[str] = Counter()
    served: Counter[str] = Counter()
    thought: Counter[str] = Counter()
    aggregated_worker = aggregated.worker("aggregated-0")
    before = prompt_tokens(pd)

    def compare(one: tuple[str, str, Body]) -> tuple[str, list[str]]:
        name, path, body = one
        ours = ask(http, pd.url, path, body)
        theirs = ask(http, aggregated_worker, path, body)
        served[ours.headers.get("x-hyperpd-decision", "-").rpartition("served=")[2]] += 1
        asked[name] += theirs.status_code == 200
        if ours.status_code != 200 or theirs.status_code != 200:
            return name, [f"{ours.status_code} {ours.text} != {theirs.status_code} {theirs.text}"]
        assert "remote_host" not in ours.text
        thought[name] += path == CHAT and reasoned(read(ours))
        return name, differences(read(ours), read(theirs))

    @seed(SEED)
    @settings(
        max_examples=ROUNDS,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies=one_of_each())
    def check(bodies: Bodies) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = [(name, what) for name, what in pool.map(compare, bodies) if what]
        assert found == [], "\n".join(f"{name}: {what}" for name, what in found)

    check()
    print(f"{sum(asked.values())} answers compared; served: {dict(served)}; reasoned: {dict(+thought)}")
    assert set(SHAPES) == set(asked)
    assert min(asked.values()) >= 5
    assert sum(asked.values()) >= 300
    assert served["recomputed"] == 0
    assert +thought  # the parser had both to tell apart
    assert served["pd"] >= 0.6 * sum(served.values())
    # What the gateway says of itself, by decode's own count.
    transferred, computed = (new - old for new, old in zip(prompt_tokens(pd), before, strict=True))
    print(f"decode had {transferred:.0f} prompt tokens from prefill, and computed {computed:.0f}")
    assert transferred >= 0.5 * (transferred + computed)


@pytest.mark.parametrize("prompt", [[[65, 66, 67], [68.0]], [[65, 66, 67], ["68"]], [["65", "66"], ["67"]]])
def test_a_list_that_the_engine_alone_can_read(pd: Fleet, aggregated: Fleet, http: httpx.Client, prompt: Any) -> None:
    """It makes two prompts of each of these; with one ticket for both of them its text would be wrong."""
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0}
    ours = ask(http, pd.url, "/v1/completions", body)
    theirs = ask(http, aggregated.worker("aggregated-0"), "/v1/completions", body)
    assert (
        ours.headers["x-hyperpd-decision"]
        == "decode_only; reason=prompt_mixed; routing=shape_guard; served=decode_only"
    )
    assert len(theirs.json()["choices"]) == 2
    assert differences(read(ours), read(theirs)) == []
