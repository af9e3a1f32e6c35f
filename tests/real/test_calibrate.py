"""A calibration of real engines, and an explanation of what they served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from hyperpd.environment import model_path
from hyperpd.recipe import load
from tests.real.fleet import ROOT, Fleet

pytestmark = pytest.mark.real
MODEL = model_path(load("tiny-cpu-1p1d").recipe)


@pytest.mark.parametrize("name", ["tiny-cpu-1p1d", "tiny-cpu-aggregated"])
def test_a_fleet_is_calibrated_by_prompts_that_no_cache_holds(
    fleets: tuple[Fleet, Fleet], name: str, hyperpd: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """How fast a machine is that does much else at the same time is not judged."""
    fleet, out = fleets[name != "tiny-cpu-1p1d"], tmp_path / "out.yaml"
    workers = [str(worker["url"]) for worker in fleet.state()["workers"]]

    def counted(what: str) -> float:
        return sum(fleet.metric(url, f"vllm:{what}_total") for url in workers)

    before = counted("prefix_cache_hits"), counted("prompt_tokens")
    to = ("--url", fleet.url, "--recipe", ROOT / "recipes" / f"{name}.yaml", "--model-folder", MODEL)
    code, _, err = hyperpd("calibrate", *to, "--rounds", 6, "--out", out)
    assert code == 0, err
    assert counted("prompt_tokens") - before[1] > 6 * 2046
    assert counted("prefix_cache_hits") == before[0]
    found = yaml.safe_load(out.read_text())["gateway"]["calibration"]
    assert found.keys() >= {"prefill_tokens_per_s", "step_s", "kv_bytes_per_token"}
    assert all(value > 0 for value in found.values())
    assert name == "tiny-cpu-1p1d" or "pair_bytes_per_s: not measurable here: there is no prefill role" in (
        out.read_text()
    )


def test_an_answers_id_is_explained(
    pd: Fleet, http: httpx.Client, hyperpd: Callable[..., tuple[int, str, str]]
) -> None:
    answer = http.post(f"{pd.url}/v1/completions", json={"prompt": [5] * 300, "max_tokens": 4})
    code, out, err = hyperpd("explain", answer.headers["x-hyperpd-request-id"], "--url", str(pd.state()["admin_url"]))
    assert (code, err) == (0, "")
    assert "300 prompt tokens" in out.splitlines()[0]
    assert out.splitlines()[0].endswith(", served pd")
    assert out.splitlines()[-1].startswith("remote, prefill-0 prefills: ")
