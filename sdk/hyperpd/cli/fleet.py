"""A fleet on this machine, as its state folder tells it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hyperpd.errors import NotReady

USUAL_URL = "http://127.0.0.1:8080"  # of a fleet without an offset
_POLL_S = 0.1
_STOP_TIMEOUT_S = 60  # beside what the gateway, decode and prefill each may take to drain


def state_home() -> Path:
    """Where every fleet of this user has its folder."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "hyperpd"


class LocalFleet:
    """One node process and its folder; it may be running or not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = state_home() / name

    def state(self) -> dict[str, Any]:
        """fleet.json; its phase is `dead` when the process is gone without having said so. {} if there is none."""
        try:
            state: dict[str, Any] = json.loads((self.folder / "fleet.json").read_text())
        except FileNotFoundError:
            return {}
        if state["phase"] not in ("stopped", "failed") and not _is_node(state["pid"]):
            state["phase"] = "dead"
        return state

    def running(self) -> bool:
        return self.state().get("phase") in ("starting", "warming", "ready", "stopping")

    def start(self, recipe: Path, port_offset: int, model: str | None) -> subprocess.Popen[bytes]:
        """Start the node in a session of its own, so that Ctrl-C reaches this process only.

        Raises NotReady when one runs already. The node inherits a lock on the log: while it lives,
        nobody else can start a second one, whatever fleet.json says.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "role": "node",
            "recipe": str(recipe),
            "state-dir": str(self.folder),
            "port-offset": str(port_offset),
        }
        if model:
            settings["model"] = model
        argv = [
            sys.executable,
            "-m",
            "hyperpd_runtime",
            *(part for key in settings for part in (f"--{key}", settings[key])),
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HYPERPD_")}
        with self.log.open("ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                phase = self.state().get("phase", "starting")
                raise NotReady(f"{self.name} is {phase}; try: hyperpd status, hyperpd down {self.name}") from None
            log.truncate(0)
            (self.folder / "fleet.json").unlink(missing_ok=True)
            return subprocess.Popen(argv, stdout=log, stderr=log, env=environment, start_new_session=True)

    def stop(self) -> None:
        """Ask the node to end and wait for it. Raises NotReady when it does not."""
        state = self.state()
        pid, timeout_s = state["pid"], 3 * state["drain_s"] + _STOP_TIMEOUT_S
        os.kill(pid, signal.SIGTERM)
        deadline_s = time.monotonic() + timeout_s
        while _is_node(pid):
            if time.monotonic() > deadline_s:
                raise NotReady(f"{self.name}: process {pid} did not end within {timeout_s} s; see {self.log}")
            time.sleep(_POLL_S)

    @property
    def log(self) -> Path:
        return self.folder / "node.log"


def fleets() -> list[LocalFleet]:
    """Every fleet that has a folder, by name."""
    home = state_home()
    return [LocalFleet(path.parent.name) for path in sorted(home.glob("*/fleet.json"))]


def _is_node(pid: int) -> bool:
    """Whether `pid` is a live node: a number may have been given to another process since."""
    try:
        return b"hyperpd_runtime" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
