"""What the examples say holds."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from hyperpd.placement import Ports
from hyperpd.recipe import load
from tests.real.fleet import Fleet

pytestmark = pytest.mark.real
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_several_models_behind_one_router(pd: Fleet, http: httpx.Client) -> None:
    """Every entry of the router's file is a gateway that the page starts, and the name of its model."""
    folder = EXAMPLES / "several-models"
    started = re.findall(
        r"hyperpd up --recipe (\S+)(?: --port-offset (\d+))? --detach", (folder / "README.md").read_text()
    )
    served = {
        Ports().shifted(int(offset or 0)).gateway_api: load(recipe).recipe.model.name for recipe, offset in started
    }
    entries = [entry["litellm_params"] for entry in yaml.safe_load((folder / "litellm.yaml").read_text())["model_list"]]
    assert {urlsplit(e["api_base"]).port: e["model"].removeprefix("hosted_vllm/") for e in entries} == served
    first, second = (entry["model"].removeprefix("hosted_vllm/") for entry in entries)
    path = urlsplit(entries[0]["api_base"]).path
    asked = {"prompt": "Once upon a time", "max_tokens": 2}
    assert http.post(f"{pd.url}{path}/completions", json={"model": first, **asked}).status_code == 200
    wrong = http.post(f"{pd.url}{path}/completions", json={"model": second, **asked})  # the router's mistake is seen
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "model_not_found")
