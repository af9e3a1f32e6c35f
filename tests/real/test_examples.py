"""What the examples say holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from hyperpd.placement import Ports
from hyperpd.recipe import load
from tests.documents import held
from tests.netns import hosts, needs_two_hosts
from tests.real.fleet import ROOT, Fleet

pytestmark = pytest.mark.real
EXAMPLES = ROOT / "examples"


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


@needs_two_hosts
def test_the_local_walk(tmp_path: Path) -> None:
    """As it is written, on a host of its own, where its ports are free."""
    command = tmp_path / "bin" / "hyperpd"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom hyperpd.cli.main import main\nmain()\n")
    command.chmod(0o755)
    env = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "XDG_STATE_HOME": str(tmp_path / "state")}
    env["TMPDIR"] = str(tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    env["PYTHONPATH"] = os.pathsep.join(str(Path(one or ".").resolve()) for one in sys.path)
    walk = EXAMPLES / "local" / "walk.sh"
    with hosts(1) as (host,):
        ran = subprocess.run([*host, "bash", str(walk)], capture_output=True, env=env, timeout=300)
    out, err = (said.decode(errors="replace") for said in (ran.stdout, ran.stderr))
    assert ran.returncode == 0, err
    files = sorted((tmp_path / "tmp").glob("tmp.*/*.json"))
    started = [held("up", json.loads(file.read_text()))["name"] for file in files]
    assert started == ["tiny-cpu-1p1d", "tiny-cpu-aggregated+1000"]
    apart, together = (re.search(f"^{name}: (.*?)$", out, re.M | re.S) for name in ("apart", "together"))
    assert apart
    assert together
    assert apart[1] == together[1] != ""
    moved = re.search(r"^vllm:nixl_bytes_transferred_sum{.*} (\S+)$", out, re.M)
    assert moved
    assert float(moved[1]) > 0
    assert 'hyperpd_decisions_total{decision="disaggregated",why="plain"} 1.0' in out
    assert [line for line in out.splitlines() if line.endswith(": stopped")] == [f"{one}: stopped" for one in started]
