"""`hyperpd up` and the commands beside it, as a user runs them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.real.fleet import ANSWER_TIMEOUT_S, alive, descendants

pytestmark = pytest.mark.real
COMMAND = [sys.executable, "-c", "from hyperpd.cli.main import main; main()"]


def hyperpd(home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"XDG_STATE_HOME": str(home)}
    return subprocess.run([*COMMAND, *argv], capture_output=True, text=True, env=environment, timeout=300)


@contextlib.contextmanager
def in_the_foreground(home: Path) -> Iterator[subprocess.Popen[str]]:
    """`hyperpd up`, whose output is read line by line; a test that fails leaves nothing running."""
    environment = os.environ | {"XDG_STATE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    argv = [*COMMAND, "up", "--recipe", "tiny-cpu-aggregated", "--port-offset", "8000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as up:
        try:
            yield up
        finally:
            if up.poll() is None:
                up.terminate()


def test_up_in_the_background(tmp_path: Path) -> None:
    up = hyperpd(tmp_path, "up", "--recipe", "tiny-cpu-aggregated", "--port-offset", "8000", "--detach")
    assert up.returncode == 0, up.stderr
    url = "http://127.0.0.1:16080"
    assert f"ready: {url}" in up.stdout
    assert f"invoke 'Once upon a time' --stream --url {url}\n" in up.stdout
    assert [line.split(" … ")[0] for line in up.stdout.splitlines() if line.startswith("engines done")]
    second = hyperpd(tmp_path, "up", "--recipe", "tiny-cpu-aggregated", "--port-offset", "8000")
    assert (second.returncode, "tiny-cpu-aggregated+8000 is ready" in second.stderr) == (4, True)

    (state,) = json.loads(hyperpd(tmp_path, "status", "--json").stdout).values()
    assert state["phase"] == "ready"
    processes = [state["pid"], *descendants(state["pid"])]
    whole = json.loads(hyperpd(tmp_path, "invoke", "Once upon", "--json", "--url", url).stdout)
    plain = hyperpd(tmp_path, "invoke", "Once upon").stdout  # it finds the fleet that runs
    streamed = hyperpd(tmp_path, "invoke", "Once upon", "--stream", "--url", url).stdout
    assert whole["choices"][0]["text"] + "\n" == plain == streamed
    refused = hyperpd(tmp_path, "invoke", "x" * 3000, "--url", url)
    assert (refused.returncode, "2048" in refused.stderr) == (5, True)

    assert hyperpd(tmp_path, "down").returncode == 0
    assert [pid for pid in processes if alive(pid)] == []
    assert "nothing runs" in hyperpd(tmp_path, "status").stdout
    assert "stopped" in hyperpd(tmp_path, "status", "--all").stdout


@pytest.mark.parametrize(("number", "when"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGHUP, "engines …")])
def test_ctrl_c_and_a_closed_terminal_stop_everything(tmp_path: Path, number: signal.Signals, when: str) -> None:
    """when: what was said last, when it runs or in the middle of its start."""
    with in_the_foreground(tmp_path) as up:
        assert up.stdout
        seen = []
        for line in up.stdout:
            seen.append(line)
            if when in line:
                break
        processes = descendants(up.pid)
        assert len(processes) >= (4 if when == "Ctrl-C" else 1), seen
        for _ in range(3):  # a terminal and make both send it, a user may press twice
            up.send_signal(number)
        running = when == "Ctrl-C"
        assert up.stdout.read() == "stopping …\nstopped\n" + ("" if running else "error: interrupted\n")
        assert up.wait() == (0 if running else 130)
    assert [pid for pid in processes if alive(pid)] == []


def test_stopped_from_elsewhere(tmp_path: Path) -> None:
    with in_the_foreground(tmp_path) as up:
        assert up.stdout
        for line in up.stdout:
            if line.startswith("engines …"):  # in the middle of the start
                break
        ping = httpx.get("http://127.0.0.1:16080/ping", timeout=ANSWER_TIMEOUT_S)
        assert (ping.status_code, "aggregated-0" in ping.json()["reason"]) == (503, True)
        assert hyperpd(tmp_path, "down").returncode == 0
        rest = up.stdout.read()
        assert (up.wait(), "stopped by hyperpd down or a signal before it was ready" in rest) == (4, True)
