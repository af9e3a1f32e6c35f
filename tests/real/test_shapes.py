"""The published layouts in miniature: other models and other parallel sizes give what one aggregated worker gives."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hyperpd import model
from hyperpd.environment import model_path
from hyperpd.recipe import load
from tests.real.fleet import Fleet, memory_gb, until
from tests.real.prompts import LENGTHS, complete, differences, prompt

pytestmark = pytest.mark.real
ENGINE = {"enforce-eager": True, "kv-cache-memory-bytes": 128 << 20, "max-num-seqs": 32}


def recipe(folder: Path, name: str, generated: str, **roles: dict[str, Any]) -> str:
    """A recipe of a shape that is not shipped."""
    document = {
        "version": 1,
        "name": name,
        "accelerator": "cpu",
        "model": {"generated": generated, "max_len_tokens": 2048, "dtype": "float32"},
        "gateway": {} if "aggregated" in roles else {"decider": "always"},
        **{role: {"engine": ENGINE, **block} for role, block in roles.items()},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


@contextlib.contextmanager
def running(name: str, folder: Path, port_offset: int) -> Iterator[Fleet]:
    fleet = Fleet(name, folder, port_offset).wait()
    try:
        yield fleet
    finally:
        assert fleet.stop() == 0


@pytest.fixture(
    params=[pytest.param(LENGTHS[::4], id="few"), pytest.param(LENGTHS, id="all", marks=pytest.mark.nightly)]
)
def lengths(request: pytest.FixtureRequest) -> list[int]:
    return list(request.param)


def check(file: str, folder: Path, baseline: Fleet, http: httpx.Client, lengths: list[int]) -> None:
    """Prompts of these lengths through `file` equal the baseline's answers, each truly transferred, byte for byte."""
    began = time.monotonic()
    with running(file, folder, 7000) as fleet:
        started_s = time.monotonic() - began
        shape = load(file).recipe
        facts = model.load(Path(model_path(shape)), shape.model.dtype)
        decode, admin = fleet.worker("decode-0"), fleet.state()["admin_url"]
        ok = {"mode": "pd", "outcome": "ok"}
        # The gateway is ready with the first pair; a canary of another would be counted below.
        until(lambda: all(pair["proven"] for pair in http.get(f"{admin}/status").json()["pairs"]))
        before = (
            fleet.metric(decode, "vllm:nixl_bytes_transferred_sum"),
            fleet.metric(admin, "hyperpd_requests_total", ok),
        )
        texts = [prompt(tokens, seed) for seed, tokens in enumerate(lengths)]
        # At once: what takes long here is a step of all ranks on few cores, whatever is in it.
        with ThreadPoolExecutor(len(texts)) as pool:
            ours, theirs = (
                list(pool.map(partial(complete, http, url, logprobs=5, model=shape.model.name), texts))
                for url in (fleet.url, baseline.url)
            )
        for tokens, left, right in zip(lengths, ours, theirs, strict=True):
            assert differences(left, right) == [], f"{tokens} tokens"
        moved = fleet.metric(decode, "vllm:nixl_bytes_transferred_sum") - before[0]
        assert moved == sum(facts.kv_bytes(tokens, shape.kv_transfer.block_size_tokens) for tokens in lengths)
        assert fleet.metric(admin, "hyperpd_requests_total", ok) - before[1] == len(lengths)
        print(
            f"\n{shape.model.name} {shape.roles()['prefill'].replicas} x TP{shape.roles()['prefill'].parallel.tensor}"
            f" -> TP{shape.roles()['decode'].parallel.tensor}: equal {len(lengths)} of {len(lengths)},"
            f" {started_s:.0f} s to start, {memory_gb(fleet):.1f} GB, {moved / 1e6:.0f} MB moved"
        )


def test_mixture_of_experts_tp1_to_tp2(tmp_path: Path, http: httpx.Client, lengths: list[int]) -> None:
    baseline = recipe(tmp_path, "moe", "tiny-moe", aggregated={})
    with running(baseline, tmp_path / "baseline", 6500) as fleet:
        check("tiny-moe-1p1d", tmp_path / "pd", fleet, http, lengths)


@pytest.mark.nightly
@pytest.mark.parametrize("tensor", [1, 2])
def test_gpt_oss(tmp_path: Path, http: httpx.Client, tensor: int) -> None:
    file = recipe(tmp_path, "gpt-oss", "tiny-gpt-oss", prefill={}, decode={"parallel": {"tensor": tensor}})
    with running("tiny-gpt-oss-tp4", tmp_path / "baseline", 6000) as fleet:
        check(file, tmp_path / "pd", fleet, http, LENGTHS)


def test_the_headline_in_miniature(tmp_path: Path, http: httpx.Client, lengths: list[int]) -> None:
    baseline = recipe(tmp_path, "gpt-oss", "tiny-gpt-oss", aggregated={})  # of another TP size: rounding differs
    with running(baseline, tmp_path / "baseline", 6000) as fleet:
        check("tiny-gpt-oss-4p1d", tmp_path / "pd", fleet, http, lengths)


def test_a_prefix_that_left_memory_comes_back_from_disk(tmp_path: Path, http: httpx.Client) -> None:
    document = yaml.safe_load(load("tiny-cpu-tiered").path.read_text())
    document["prefill"]["kv_tiers"]["disk"] = str(tmp_path / "kv")
    file = tmp_path / "tiered.yaml"
    file.write_text(yaml.safe_dump(document))
    with running(str(file), tmp_path / "fleet", 7000) as fleet:
        prefill = fleet.worker("prefill-0")

        def cached(source: str) -> float:
            return fleet.metric(prefill, "vllm:prompt_tokens_cached_by_source_total", {"source": source})

        first = complete(http, fleet.url, prompt(1000, 1), logprobs=5)
        for seed in range(2, 8):  # the prefill worker's memory holds four of these
            complete(http, fleet.url, prompt(1000, seed))
        before = cached("external_unspecified"), cached("device")
        again = complete(http, fleet.url, prompt(1000, 1), logprobs=5)
        # 7 whole blocks of 128 tokens; vLLM 0.32 does not tell this connector's disk from other places.
        assert (cached("external_unspecified") - before[0], cached("device") - before[1]) == (896, 0)
        assert differences(first, again) == []
