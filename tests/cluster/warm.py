"""Real processes of the command line, started fast: forked from one that has imported everything.

python -m tests.cluster.warm     reads a JSON list of arguments a line; answers with the child's process id, and
                                 with its exit status when it has ended
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


class Warm:
    """Starts commands in an environment; `out` has what the last one printed."""

    def __init__(self, environment: dict[str, str], out: Path) -> None:
        self.out = out
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.warm", str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self._pid: int | None = None
        self._started = threading.Condition()

    def run(self, *argv: str) -> int:
        """Its exit status; -9 where it was killed."""
        assert self._process.stdin
        assert self._process.stdout
        with self._started:
            self._pid = None
        self._process.stdin.write(json.dumps(argv) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        with self._started:
            self._pid = pid
            self._started.notify_all()
        return int(self._process.stdout.readline())

    def kill(self) -> None:
        """kill -9 of the command that runs."""
        with self._started:
            assert self._started.wait_for(lambda: self._pid is not None, timeout=60)
            assert self._pid
            os.kill(self._pid, 9)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
        if self._process.stdout:
            self._process.stdout.close()


def _serve(out: str) -> None:
    import boto3

    from hyperpd.cli.cluster import create, delete, show  # noqa: F401
    from hyperpd.cli.main import main
    from hyperpd.cluster import Cluster, Plan  # noqa: F401

    for service in ("sts", "sagemaker", "iam", "s3"):
        boto3.client(service)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _child(json.loads(line), out, main)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _child(argv: list[str], out: str, main: Any) -> None:
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(0)
    sys.argv = ["hyperpd", *argv]
    code = 0
    try:
        main()
    except SystemExit as done:
        code = int(done.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
