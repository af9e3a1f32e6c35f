from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from hyperpd_runtime.process import EngineProcess
from tests.real.fleet import until

_SLOW_ENGINE = """
import os
from hyperpd_runtime import cpu_engine

def serve(argv):
    print("serving", *argv, "in its own session" if os.getsid(0) == os.getpid() else "", flush=True)

plain, forked = os.fork, []
def fork():
    forked.append(os.getpid())
    pid = plain()
    if pid == 0 and len(forked) == 2:  # the engine: it runs only when the process between is gone
        while os.getppid() == forked[1]:
            pass
    return pid

os.fork, cpu_engine._serve, cpu_engine._WARM = fork, serve, ()
cpu_engine._take_orders()
"""


def test_an_engine_that_runs_only_after_its_parents_end_serves(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    order = {"argv": ["--model", "tiny"], "env": {}, "cpus": [], "log": str(log)}
    run = subprocess.run(
        [sys.executable, "-c", _SLOW_ENGINE],
        input=json.dumps(order) + "\n",
        stdout=subprocess.PIPE,  # read to its end: whoever still holds it is waited for
        timeout=60,
        text=True,
        check=True,
    )
    assert int(run.stdout) > 0
    until(lambda: log.exists() and log.read_text() == "serving --model tiny in its own session\n", timeout_s=20)


async def test_stop_ends_a_process_that_does_not_lead_its_group() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(write, b"x")
        while True:
            signal.pause()
    os.read(read, 1)
    engine = EngineProcess(pid)
    await engine.stop(grace_s=0.1)
    assert await engine.wait() == -signal.SIGKILL
