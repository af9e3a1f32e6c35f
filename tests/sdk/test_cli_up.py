"""hyperpd up with a node that is played: what is said, and where it ends before it is ready. tests/real starts
engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperpd.cli.fleet import LocalFleet

NAME = "tiny-cpu-1p1d"
# A node as far as fleet.json tells of one: it starts. argv: the file, and what ends it, or "nothing": it is ready.
NODE = """
import json, os, pathlib, signal, sys
file, ends = pathlib.Path(sys.argv[1]), sys.argv[2]
def said(phase, error=None):
    state = {"pid": os.getpid(), "phase": phase, "recipe": "r", "recipe_digest": "d", "admin_url": "a"}
    state["url"] = "http://127.0.0.1:9080"
    state |= {"model": "m", "drain_s": 0.0, "error": error, "exit_code": 3 if error else None, "workers": []}
    part = file.with_suffix(".part")
    part.write_text(json.dumps(state | {"steps": [{"name": "engines", "state": "running", "elapsed_s": 0.0}]}))
    part.replace(file)
    if error or phase == "stopped":
        sys.exit(3 if error else 0)
signal.signal(signal.SIGTERM, lambda *_: said("stopped"))
said("failed", "out of memory") if ends == "failure" else said("starting" if ends == "signal" else "ready")
while True: signal.pause()
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Callable[[LocalFleet], None]], None]]:
    """How the next node ends; what happens once `up` looks at it while it starts."""

    def plan(how: str, happens: Callable[[LocalFleet], None]) -> None:
        def start(fleet: LocalFleet, *_: object) -> subprocess.Popen[bytes]:
            fleet.folder.mkdir(parents=True)
            fleet.log.write_text("")
            file = fleet.folder / "fleet.json"
            node = subprocess.Popen([sys.executable, "-c", NODE, str(file), how, "hyperpd_runtime"])
            nodes.append(node)

            def look(seconds: float) -> None:
                if fleet.state().get("phase") == "starting":
                    monkeypatch.setattr(time, "sleep", pause)
                    happens(fleet)

            monkeypatch.setattr(time, "sleep", look)
            return node

        monkeypatch.setattr(LocalFleet, "start", start)

    pause, nodes = time.sleep, list[subprocess.Popen[bytes]]()
    yield plan
    for node in nodes:
        node.kill()
        node.wait()


@pytest.mark.parametrize(
    ("how", "happens", "code", "phase", "said"),
    [
        ("signal", lambda fleet: fleet.stop(), 4, "stopped", f"{NAME} was stopped by hyperpd down or a signal before"),
        ("signal", lambda fleet: os.kill(os.getpid(), signal.SIGINT), 130, "stopped", "stopping …\nstopped\n"),
        ("failure", lambda fleet: None, 3, "failed", "error: out of memory"),
    ],
    ids=["down", "ctrl-c", "failure"],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_up_that_ends_before_it_is_ready(
    how: str,
    happens: Callable[[LocalFleet], None],
    code: int,
    phase: str,
    said: str,
    as_json: bool,
    hyperpd: Run,
    ends: Callable[..., None],
    tmp_path: Path,
) -> None:
    ends(how, happens)
    got, out, err = hyperpd("up", "--recipe", NAME, *(["--json"] if as_json else []))
    assert (got, said in (err if as_json else out + err)) == (code, True), out + err
    if as_json:
        document = json.loads(out)
        assert (document["name"], document["phase"]) == (NAME, phase)


def test_a_fleet_of_other_ports_is_asked_there(hyperpd: Run, ends: Callable[..., None]) -> None:
    ends("nothing", lambda fleet: None)
    code, out, err = hyperpd("up", "--recipe", NAME, "--port-offset", 1000, "--detach")
    assert (code, "invoke 'Once upon a time' --stream --url http://127.0.0.1:9080\n" in out) == (0, True), out + err
    assert hyperpd("down")[0] == 0
