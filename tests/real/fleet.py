"""Real engines: nodes started exactly as a user's machine starts them, one set per test run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT_S = 300
ANSWER_TIMEOUT_S = 60  # of one that is there, on a machine that has much else to do
ROOT = Path(__file__).resolve().parents[2]


def until(seen: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for something another process does; fails when it does not."""
    end_s = time.monotonic() + timeout_s
    while not seen():
        assert time.monotonic() < end_s, f"did not happen within {timeout_s} s"
        threading.Event().wait(0.1)


def own_tmp(folder: Path) -> str:
    """Commands of a shell with mounts of its own: `folder` in place of /tmp, this checkout still to be seen."""
    if not ROOT.is_relative_to("/tmp"):
        return f"mount --bind {folder} /tmp; "
    seen = folder / ROOT.relative_to("/tmp")
    seen.mkdir(parents=True)
    return f"mount --bind {ROOT} {seen}; mount --rbind {folder} /tmp; "


def installed() -> dict[str, str]:
    """Variables by which a container's entry point finds what is installed here, or the checkout that is tested."""
    found = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if paths := os.environ.get("PYTHONPATH"):
        found["PYTHONPATH"] = ":".join(str(Path(path).resolve()) for path in paths.split(":"))
    return found


class Fleet:
    """One `python -m hyperpd_runtime` process; settings after the port offset win, `--role` too.

    host: the beginning of a command that runs on another host (tests/netns.py).
    """

    def __init__(self, recipe: str, folder: Path, port_offset: int, *settings: str, host: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = [
            "--role",
            "node",
            "--recipe",
            recipe,
            "--state-dir",
            str(folder),
            "--port-offset",
            str(port_offset),
            *settings,
        ]
        with (folder / "node.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*host, sys.executable, "-m", "hyperpd_runtime", *argv], stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> Fleet:
        """Return when it is ready; fail with the node's own words when it is not."""
        ended = threading.Event()
        threading.Thread(target=lambda: (self.process.wait(), ended.set()), daemon=True).start()
        for _ in range(START_TIMEOUT_S * 10):
            if self.state().get("phase") == "ready":
                return self
            if ended.wait(0.1):
                break
        raise AssertionError(f"fleet did not start:\n{(self.folder / 'node.log').read_text()}")

    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.folder / "fleet.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    @property
    def url(self) -> str:
        return str(self.state()["url"])

    def worker(self, name: str) -> str:
        """URL of one worker, past the gateway."""
        return next(str(worker["url"]) for worker in self.state()["workers"] if worker["name"] == name)

    def metric(self, url: str, name: str, labels: Mapping[str, str] | None = None) -> float:
        """Sum of the samples of a counter whose labels include `labels`."""
        total = 0.0
        for line in httpx.get(f"{url}/metrics", timeout=ANSWER_TIMEOUT_S).text.splitlines():
            if line.split("{")[0].split(" ")[0] == name and all(
                f'{k}="{v}"' in line for k, v in (labels or {}).items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


def descendants(pid: int) -> list[int]:
    """All live processes below `pid`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if stat[0] != "Z":
                parents[int(entry.name)] = int(stat[1])
    found = [pid]
    for parent in found:
        found += [child for child, above in parents.items() if above == parent]
    return found[1:]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:1]


def memory_gb(fleet: Fleet) -> float:
    """Proportional set size of all workers' processes together."""
    kib = 0
    for pid in descendants(fleet.process.pid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            kib += int(line.split()[1]) if line.startswith("Pss:") else 0
    return kib * 1024 / 1e9
