"""The model of plan.simulate against real engines: one workload, the same rules, the same decisions and cache hits."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hyperpd.plan import calibrate
from hyperpd.plan.probe import Probe
from hyperpd.recipe import Recipe, load
from hyperpd.routing.calibration import Calibration
from tests.real.conversation import MOST_TOKENS, Answered, Script, ask, play, script
from tests.real.fleet import ANSWER_TIMEOUT_S, Fleet
from tests.real.modelled import Decided, model_of

pytestmark = pytest.mark.real
ENGINE = {
    "enforce-eager": True,
    "kv-cache-memory-bytes": 256 << 20,  # 65,536 tokens of 4 KiB: a long run does not fit
    "max-num-seqs": 32,
    "max-num-batched-tokens": 1024,
    "enable-prompt-tokens-details": True,
}
# What the rules go by, here and in the model: about what this fleet does on an idle machine, but stated, so that they
# decide alike on a busy one, and with wide margins: a handoff is held to take longer than it does, so that an idle
# worker computes for itself, and tokens are to come faster than any do, so that one that answers others does not.
CALIBRATION = {
    "prefill_tokens_per_s": 12_000,
    "attention_s": 3e-8,
    "step_s": 0.005,
    "pair_bytes_per_s": 100_000_000,
    "handoff_s": 0.2,
    "mean_output_tokens": 180,
    "kv_bytes_per_token": 4096,
}
SLO_MS = {"ttft_ms": 2000, "itl_ms": 0.2}
RULES: dict[str, dict[str, Any]] = {
    "uncached_tokens": {"threshold_tokens": 1024},  # between what turns say anew
    "predicted_cost": {},
}
MOVED = ("vllm:nixl_bytes_transferred_sum", "vllm:nixl_xfer_time_seconds_sum")  # by decode's own count


def recipe(folder: Path, decode_workers: int, decider: str) -> str:
    """1P and so many D, under these rules."""
    document = {
        "version": 1,
        "name": f"reality-1p{decode_workers}d",
        "accelerator": "cpu",
        "model": {"generated": "tiny-llama", "max_len_tokens": MOST_TOKENS, "dtype": "float32"},
        "prefill": {"engine": ENGINE},
        "decode": {"engine": ENGINE, "replicas": decode_workers},
        "gateway": {"decider": decider, **RULES.get(decider, {}), "calibration": CALIBRATION},
        "slo": SLO_MS,
    }
    file = folder / f"{decider}.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


@contextlib.contextmanager
def running(*args: Any) -> Iterator[Fleet]:
    """A node, until then."""
    fleet = Fleet(*args).wait()
    try:
        yield fleet
    finally:
        assert fleet.stop() == 0


def measure(fleet: Fleet, served: Recipe) -> Calibration:
    """The speeds of the fleet as it is now, through its gateway."""
    planned = replace(calibrate.plan(served, rounds=5), streams=2)
    probe = Probe(fleet.url, planned.vocabulary)

    async def run() -> tuple[list[calibrate.Round], list[float]]:
        try:
            await probe.check(served.model.name, planned.long_tokens)
            return await calibrate.measure(planned, probe.ask, print, time.monotonic)
        finally:
            await probe.close()

    rounds, gaps_s = asyncio.run(run())
    found = {name: figure.value for name, figure in calibrate.fit(planned, rounds, gaps_s).items()}
    kv_bytes = planned.kv_bytes_per_token
    if not found["pair_bytes_per_s"]:  # lost in the noise of a machine that does much else: by decode's own count, then
        moved_bytes, moving_s = (fleet.metric(fleet.worker("decode-0"), name) for name in MOVED)
        print(f"the pair's speed is not measurable here; decode says {moved_bytes / moving_s:.3g} bytes/s")
        found["pair_bytes_per_s"] = moved_bytes / moving_s
        handed_s = statistics.median(one.remote_short_s - one.local_short_s for one in rounds)
        found["handoff_s"] = handed_s - planned.short_tokens * kv_bytes * moving_s / moved_bytes
    assert found["prefill_tokens_per_s"]
    assert found["step_s"]
    assert found["pair_bytes_per_s"]
    return Calibration(
        prefill_tokens_per_s=found["prefill_tokens_per_s"],
        attention_s=found["attention_s"] or 0.0,
        step_s=found["step_s"],
        kv_bytes_per_token=kv_bytes,
        pair_bytes_per_s=found["pair_bytes_per_s"],
        # The model's decode takes a step of its own for the first token.
        handoff_s=max(0.001, (found["handoff_s"] or 0.0) - found["step_s"]),
    )


def serve(url: str, admin_url: str, told: Script) -> tuple[list[Answered], list[Decided]]:
    """Play a script through a gateway, and let it explain each decision."""

    async def run() -> tuple[list[Answered], list[Decided]]:
        async with httpx.AsyncClient(timeout=ANSWER_TIMEOUT_S) as http:
            answers = await play(told, functools.partial(ask, http, url))
            documents = [await http.get(f"{admin_url}/explain/{one.request_id}") for one in answers]
            return answers, [Decided.of_document(one.raise_for_status().json()) for one in documents]

    return asyncio.run(run())


def computed(fleet: Fleet) -> float:
    """Prompt tokens that the engines computed themselves."""
    return sum(
        fleet.metric(worker["url"], "vllm:prompt_tokens_by_source_total", {"source": "local_compute"})
        for worker in fleet.state()["workers"]
    )


@pytest.mark.parametrize(
    ("decode_workers", "waves"),
    [
        pytest.param(1, 6, id="1p1d"),
        pytest.param(1, 20, id="1p1d-long", marks=pytest.mark.nightly),
        pytest.param(2, 20, id="1p2d-long", marks=pytest.mark.nightly),
    ],
)
def test_the_model_decides_as_the_gateway_does(tmp_path: Path, decode_workers: int, waves: int) -> None:
    """And its prompts find as much in the caches, by the engines' own count."""
    with running(recipe(tmp_path, decode_workers, "always"), tmp_path / "always", 9000) as fleet:
        measured = measure(fleet, load(tmp_path / "always.yaml").recipe)
        print(f"\n{measured}")
        peers = [
            part
            for role in ("prefill", "decode")
            for part in (f"--{role}", ",".join(one["url"] for one in fleet.state()["workers"] if one["role"] == role))
        ]
        for seed, decider in enumerate(RULES):
            file = recipe(tmp_path, decode_workers, decider)
            computed_before = computed(fleet)
            with running(file, tmp_path / decider, 9500, "--role", "gateway", *peers) as gateway:
                told = script(seed, waves, decode_workers)
                answers, real = serve(gateway.url, gateway.state()["admin_url"], told)
            prompts = sum(len(one.prompt) for one in answers)
            engines = 1 - (computed(fleet) - computed_before) / prompts
            usage = sum(one.cached_tokens for one in answers) / prompts
            remote = sum(one.remote for one in real) / len(real)
            alone, led = model_of(load(Path(file)).recipe, measured, answers, real)
            print(f"{decider}: {len(answers)} requests, {prompts} tokens, remote {remote:.0%}")
            print(f"  hit rate by the engines {engines:.1%}, by usage {usage:.1%}")
            print(f"  model alone: {alone.report()}\n  model led: {led.report()}")
            assert {one.remote for one in real} == {True, False}
            assert [one for one in real if not one.follows] == []
            # What a busy machine's pace has no part in: of the model on its own, the figures above tell.
            assert abs(engines - led.hit_rate) <= 0.05
            assert len(led.alike) >= len(real) / 2
            assert len(led.unexplained) <= 0.05 * len(real)
