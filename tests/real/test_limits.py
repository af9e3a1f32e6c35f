"""What vLLM's CPU engine cannot run, as the smallest thing that shows it. Red here means: it can now."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from hyperpd.engine import launch
from hyperpd.environment import model_path
from hyperpd.placement import Ports, place
from hyperpd.recipe import parse
from hyperpd_runtime import tiny_model
from tests.real.fleet import until

pytestmark = [pytest.mark.real, pytest.mark.nightly]


def test_expert_parallel_kills_the_engine_at_its_first_step(tmp_path: Path) -> None:
    """vLLM 0.32, model_executor/layers/fused_moe/experts/cpu_moe.py, `apply`: it is given the ids of all
    experts and an expert_map, hands the ids to `cpu_fused_moe` (line 303) and never uses the map; the
    kernel then reads beyond the experts that this rank has. This is why a recipe may not ask for it.
    """
    recipe = parse(
        {
            "version": 1,
            "name": "ep",
            "accelerator": "cpu",
            "model": {"generated": "tiny-moe", "max_len_tokens": 512, "dtype": "float32"},
            "aggregated": {
                "parallel": {"tensor": 2},
                "engine": {"enforce-eager": True, "kv-cache-memory-bytes": 64 << 20},
            },
        },
        "test",
    )
    folder = Path(model_path(recipe))
    if not folder.is_dir():
        tiny_model.generate("tiny-moe", folder)
    (worker,) = place(recipe, ports=Ports().shifted(20000)).workers
    command = launch(recipe, worker, model_path=str(folder))
    log = (tmp_path / "log").open("wb")
    with (
        log,
        subprocess.Popen(
            [*command.argv, "--enable-expert-parallel"],
            env={**os.environ, **command.env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as engine,
    ):
        try:
            until(lambda: _answers(worker.url), timeout_s=300)
            with pytest.raises((httpx.HTTPStatusError, httpx.TransportError)):
                httpx.post(f"{worker.url}/v1/completions", json={"prompt": "x" * 50}, timeout=60).raise_for_status()
            engine.wait(timeout=60)
        finally:
            if engine.poll() is None:
                os.killpg(engine.pid, signal.SIGKILL)
    assert "died unexpectedly" in (tmp_path / "log").read_text()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
