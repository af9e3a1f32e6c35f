"""A worker that cannot start says why, at once, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.fleet import ANSWER_TIMEOUT_S, START_TIMEOUT_S, Fleet, alive, descendants

pytestmark = pytest.mark.real


def node(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hyperpd_runtime", "--role", "node", "--state-dir", str(folder), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S)


def test_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken, socket.socket() as also:
        taken.bind(("127.0.0.1", 11101))
        taken.listen()
        also.bind(("127.0.0.1", 11080))
        also.listen()
        ended = node(tmp_path, "--recipe", "tiny-cpu-1p1d", "--port-offset", "3000")
    assert ended.returncode == 4
    assert "decode-0 API port 11101 on 127.0.0.1: Address already in use" in ended.stderr
    assert "gateway API port 11080" in ended.stderr  # every one of them, at once
    assert "--port-offset" in ended.stderr


def test_model_path_that_does_not_exist(tmp_path: Path) -> None:
    ended = node(tmp_path, "--recipe", "tiny-cpu-1p1d", "--port-offset", "3000", "--model", str(tmp_path / "none"))
    assert ended.returncode == 4
    assert f"model path {tmp_path}/none: no config.json there" in ended.stderr


def test_five_mistakes_are_five_problems(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(
        "version: 1\nname: Bad Name\nmodell: {}\nmodel: {generated: tiny-llama, max_len_tokens: 1}\n"
        "prefill: {replica: 2}\ndecode: {engine: {port: 1}}\n"
    )
    ended = node(tmp_path, "--recipe", str(recipe))
    assert ended.returncode == 2
    assert "5 problems" in ended.stderr
    assert "did you mean replicas?" in ended.stderr
    assert "engine.port is set by hyperpd" in ended.stderr


def test_an_option_vllm_does_not_know(tmp_path: Path) -> None:
    recipe = tmp_path / "odd.yaml"
    recipe.write_text(
        "version: 1\nname: odd\naccelerator: cpu\nmodel: {generated: tiny-llama, dtype: float32}\n"
        "aggregated: {engine: {no-such-option: 1}}\n"
    )
    ended = node(tmp_path, "--recipe", str(recipe), "--port-offset", "3000")
    assert ended.returncode == 4
    assert "aggregated-0 ended with exit code 2 during start" in ended.stderr
    assert "vLLM does not know an option" in ended.stderr
    assert "--no-such-option" in ended.stderr


def test_a_killed_api_process_takes_its_engine_with_it(tmp_path: Path) -> None:
    fleet = Fleet("tiny-cpu-aggregated", tmp_path, port_offset=4000).wait()
    children = descendants(fleet.process.pid)
    os.kill(fleet.state()["workers"][0]["pid"], signal.SIGKILL)
    assert fleet.process.wait(timeout=ANSWER_TIMEOUT_S) == 4
    assert [pid for pid in children if alive(pid)] == []
    assert "aggregated-0 ended with exit code -9" in fleet.state()["error"]
