"""The command line as a user meets it: plan, wrong words, nothing running."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path


def hyperpd(*argv: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"XDG_STATE_HOME": str(home)} if home else {})
    command = [sys.executable, "-c", "from hyperpd.cli.main import main; main()", *argv]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_plan_prints_what_a_worker_execs() -> None:
    document = json.loads(hyperpd("plan", "tiny-cpu-1p1d", "--launch", "--json").stdout)
    assert [worker["name"] for worker in document["workers"]] == ["prefill-0", "decode-0"]
    assert document["workers"][0]["env"]["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
    text = hyperpd("plan", "tiny-cpu-1p1d", "--launch").stdout
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        " ".join([*(f"{k}={shlex.quote(v)}" for k, v in w["env"].items()), *map(shlex.quote, w["argv"])])
        for w in document["workers"]
    ]
    assert document["recipe_digest"] in lines[0]


def test_two_starts_of_one_fleet(tmp_path: Path) -> None:
    folder = tmp_path / "hyperpd" / "tiny-cpu-1p1d"
    folder.mkdir(parents=True)
    with (folder / "node.log").open("wb") as held:  # as a node holds it that has not written fleet.json yet
        fcntl.flock(held, fcntl.LOCK_EX)
        second = hyperpd("up", home=tmp_path)
    assert (second.returncode, "tiny-cpu-1p1d is starting" in second.stderr) == (4, True)


def test_wrong_words(tmp_path: Path) -> None:
    wrong = hyperpd("plan", "tiny-cpu-1p1")
    assert (wrong.returncode, "did you mean tiny-cpu-1p1d?" in wrong.stderr) == (2, True)
    assert hyperpd("plan").returncode == 2
    assert hyperpd("nosuch").returncode == 2
    assert hyperpd("down", "nosuch", home=tmp_path).returncode == 2
    unreachable = hyperpd("invoke", "x", "--url", "http://127.0.0.1:9")
    assert (unreachable.returncode, "hyperpd status" in unreachable.stderr) == (5, True)


def test_nothing_runs(tmp_path: Path) -> None:
    assert "hyperpd up" in hyperpd("status", home=tmp_path).stdout
    assert json.loads(hyperpd("status", "--json", home=tmp_path).stdout) == {}
    assert "nothing runs" in hyperpd("down", home=tmp_path).stdout


def test_a_node_that_is_gone_is_shown_as_dead(tmp_path: Path) -> None:
    folder = tmp_path / "hyperpd" / "f"
    folder.mkdir(parents=True)
    state = {"pid": 1, "phase": "ready", "url": "u", "recipe_digest": "d", "workers": [], "error": None}
    (folder / "fleet.json").write_text(json.dumps(state))
    assert hyperpd("status", home=tmp_path).stdout.startswith("f: dead")
