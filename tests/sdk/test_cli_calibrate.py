"""`hyperpd calibrate` as a user types it, through a real gateway before engines that are not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpd.recipe import load, parse
from hyperpd_runtime.gateway import keys
from tests.container.stack import Stack, running, tiny

Hyperpd = Callable[..., tuple[int, str, str]]
OPERATOR = "sk-operator-0123456789"
FIGURES = {"prefill_tokens_per_s", "attention_s", "step_s", "kv_bytes_per_token", "pair_bytes_per_s", "handoff_s"}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tiny-cpu-1p1d for short prompts, in a folder of its own, its model beside it."""
    document = load("tiny-cpu-1p1d").recipe.model_dump(mode="json")
    document["model"]["max_len_tokens"] = 1024
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4, "hidden_size": 256}
    (tmp_path / "config.json").write_text(json.dumps({**shape, "head_dim": 64, "vocab_size": 320}))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as stack:
        stack.decode.pause_s = 0
        yield stack


async def calibrate(hyperpd: Hyperpd, recipe: Path, *argv: str) -> tuple[int, str, str]:
    """In a thread: the gateway answers in this one."""
    words = ("--recipe", str(recipe), "--model-folder", str(recipe.parent), "--rounds", "6", *argv)
    return await asyncio.to_thread(hyperpd, "calibrate", *words)


async def test_the_file_is_what_a_recipe_takes(stack: Stack, hyperpd: Hyperpd, recipe: Path) -> None:
    code, out, err = await calibrate(hyperpd, recipe, "--url", str(stack.http.base_url))
    assert code == 0, err
    assert "round 6 of 6: first token of 255 and 1,022 tokens after " in err
    assert "expected: about " in err
    lengths = [len(body["prompt"]) for body in stack.decode.bodies]
    assert (lengths.count(255), lengths.count(1022), lengths.count(32)) == (14, 14, 32)
    assert len(stack.prefill.bodies) == 14
    text = Path("tiny-cpu-1p1d.calibration.yaml").read_text()
    assert f"digest {load(recipe).digest}" in text
    assert "step_s: 8 streams at once" in text
    found = yaml.safe_load(text)
    assert found["gateway"]["calibration"].keys() <= FIGURES
    assert found["gateway"]["calibration"]["kv_bytes_per_token"] == 4096
    document: dict[str, Any] = yaml.safe_load(recipe.read_text())
    document["gateway"] |= found["gateway"]
    assert parse(document, "test").gateway.calibration
    assert "attention_s: not measurable here: the model takes no prompt of 4 chunks" in out
    assert out.splitlines()[-1] == "tiny-cpu-1p1d.calibration.yaml: take gateway.calibration into the recipe"


async def test_json_and_no_file_is_lost(stack: Stack, hyperpd: Hyperpd, recipe: Path) -> None:
    to = ("--url", str(stack.http.base_url), "--out", "kept.yaml")
    Path("kept.yaml").write_text("mine")
    code, _, err = await calibrate(hyperpd, recipe, *to)
    assert (code, "kept.yaml: 1 problem\n  - is there already; give --force" in err) == (2, True)
    code, _, err = await calibrate(hyperpd, recipe, "--url", "http://127.0.0.1:1", "--out", "nosuch/x.yaml")
    assert (code, "nosuch is no folder; make it first" in err) == (2, True)
    assert (Path("kept.yaml").read_text(), stack.decode.bodies) == ("mine", [])
    code, out, _ = await calibrate(hyperpd, recipe, *to, "--force", "--json")
    said = json.loads(out)
    assert (code, said["file"], said["short_tokens"], said["long_tokens"]) == (0, "kept.yaml", 255, 1022)
    assert said["figures"].keys() == FIGURES
    assert said["figures"]["prefill_tokens_per_s"]["samples"] == 6
    assert Path("kept.yaml").read_text() != "mine"


async def test_where_nothing_can_be_written_nothing_is_measured(
    stack: Stack, hyperpd: Hyperpd, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("kept.yaml").write_text("mine")
    Path("kept.yaml").chmod(0o444)
    Path("shut").mkdir(0o555)
    writable = 0o222  # by its mode, since root may write everything
    monkeypatch.setattr(os, "access", lambda at, how: not how & os.W_OK or bool(os.stat(at).st_mode & writable))
    for out, at in (("kept.yaml", "kept.yaml"), ("shut/x.yaml", "shut")):
        words = ("--url", str(stack.http.base_url), "--out", out, "--force")
        code, _, err = await calibrate(hyperpd, recipe, *words)
        assert (code, f"{out}: 1 problem\n  - {at} is not yours to write; give --out another" in err) == (2, True), err
    assert (Path("kept.yaml").read_text(), stack.decode.bodies, [*Path("shut").iterdir()]) == ("mine", [], [])


async def test_dry_run_sends_nothing(stack: Stack, hyperpd: Hyperpd, recipe: Path) -> None:
    code, out, _ = await calibrate(hyperpd, recipe, "--url", str(stack.http.base_url), "--dry-run")
    assert (code, stack.decode.bodies, list(Path().glob("*.calibration.yaml"))) == (0, [], [])
    assert "60 requests with 18,902 prompt tokens" in out
    assert "6 rounds of 255 and 1,022 tokens, prefilled where they decode, and elsewhere" in out


async def test_ctrl_c_ends_what_runs_and_writes_nothing(stack: Stack, recipe: Path) -> None:
    stack.decode.fault = "hang"
    words = ("--url", str(stack.http.base_url), "--recipe", recipe, "--model-folder", recipe.parent)
    environment = os.environ | {"PYTHONPATH": ":".join(str(Path(path).absolute()) for path in sys.path if path)}
    program = (sys.executable, "-c", "from hyperpd.cli.main import main; main()", "calibrate", *words)
    ran = await asyncio.create_subprocess_exec(*program, stderr=subprocess.PIPE, env=environment)
    async with asyncio.timeout(60):
        await stack.decode.arrived.wait()
        ran.send_signal(signal.SIGINT)
        _, err = await ran.communicate()
        await stack.decode.aborted.wait()
    assert (ran.returncode, err.decode()) == (
        130,
        "a first round, to warm up\ntiny-cpu-1p1d.calibration.yaml is not written\n\nerror: interrupted\n",
    )
    assert list(Path().glob("*.calibration.yaml")) == []


async def test_where_there_are_keys_it_takes_an_operators(hyperpd: Hyperpd, recipe: Path) -> None:
    entries = [
        {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "scope": scope, "concurrent_requests": None}
        for name, key, scope in (("o", OPERATOR, "operator"), ("u", "sk-user-0123456789", "user"))
    ]
    Path("keys.json").write_text(json.dumps(entries))
    file = tiny(gateway={"auth": "keys"})
    async with running(file, keys.of(file.recipe, "keys.json")) as stack:
        stack.decode.pause_s = 0
        to = ("--url", str(stack.http.base_url))
        code, _, err = await calibrate(hyperpd, recipe, *to)
        assert (code, "--key-file" in err) == (5, True)
        Path("user").write_text("sk-user-0123456789")
        code, _, err = await calibrate(hyperpd, recipe, *to, "--key-file", "user")
        assert (code, "needs a key of scope operator" in err) == (5, True)
        Path("operator").write_text(OPERATOR)
        code, _, err = await calibrate(hyperpd, recipe, *to, "--key-file", "operator")
        assert code == 0, err


async def test_the_fleet_that_runs_here(
    stack: Stack, hyperpd: Hyperpd, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = await calibrate(hyperpd, recipe)
    assert (code, "on this machine there run none" in err) == (2, True)
    state = {"pid": os.getpid(), "phase": "ready", "recipe": "tiny-cpu-1p1d", "url": str(stack.http.base_url)}
    folder = tmp_path / "state" / "hyperpd" / "tiny"
    folder.mkdir(parents=True)
    monkeypatch.setattr("hyperpd.cli.fleet._is_node", lambda pid: True)
    (folder / "fleet.json").write_text(json.dumps(state | {"recipe_digest": load(recipe).digest}))
    code, out, _ = await calibrate(hyperpd, recipe, "tiny", "--dry-run")
    assert (code, f"to {stack.http.base_url}: " in out) == (0, True)
    code, _, err = await calibrate(hyperpd, recipe, "other")
    assert (code, "there run tiny. For others give --url" in err) == (2, True)
    (folder / "fleet.json").write_text(json.dumps(state | {"recipe_digest": "f" * 64}))
    code, _, err = await calibrate(hyperpd, recipe)
    assert (code, "is not the recipe that this fleet runs (digest ffffffffffff); give that one" in err) == (2, True)
