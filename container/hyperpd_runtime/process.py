"""Operating-system processes of engines: started by exec or by fork, waited for, ended as a group."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hyperpd.engine import CPU_MODULE, Launch
from hyperpd.errors import NotReady

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of every orphaned descendant, so that none can escape."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class EngineProcess:
    """The leader of one engine's process group, a child of this process, its own or adopted."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        self._exit.set_result(os.waitstatus_to_exitcode(status))

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._exit.done()

    async def wait(self) -> int:
        """Exit code, negative for a signal."""
        return await asyncio.shield(self._exit)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, wait up to `grace_s` seconds, then kill the whole group and collect it."""
        if not self._exit.done():
            os.kill(self.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), grace_s)
        if not self._exit.done():  # it may not lead its group yet
            os.kill(self.pid, signal.SIGKILL)
        # The API process may be gone while its core and workers live on: end the group, not the process.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.wait()
        # All of the group are orphans by now, that is, ours.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-self.pid, 0)  # noqa: ASYNC222  killed processes end at once


class Starter(Protocol):
    """A way to start an engine."""

    async def start(self, command: Launch, log: Path) -> EngineProcess:
        """Start `command`, its output appended to `log`. Raises NotReady."""


class Exec:
    """Starts an engine as what `hyperpd plan --launch` prints."""

    async def start(self, command: Launch, log: Path) -> EngineProcess:
        def prepare() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if command.cpus:
                os.sched_setaffinity(0, command.cpus)

        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: ASYNC220  returns as soon as it is executed
                command.argv,
                env={**os.environ, **command.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=prepare,
            )
        process.returncode = 0  # EngineProcess waits for it
        return EngineProcess(process.pid)


class Warm:
    """Forks CPU engines from one process that has imported vLLM. An async context; what it started outlives it.

    env: what all engines share. It has to be there before the interpreter starts (PYTHONHASHSEED).
    """

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self._env = env
        self._log = log
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Warm:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", CPU_MODULE),
                env={**os.environ, **self._env},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()

    async def start(self, command: Launch, log: Path) -> EngineProcess:
        order = {
            "argv": command.argv[command.argv.index(CPU_MODULE) + 1 :],
            "env": dict(command.env),
            "cpus": command.cpus,
            "log": str(log),
        }
        placing = asyncio.create_task(self._place(json.dumps(order).encode() + b"\n"))
        try:
            pid = await asyncio.shield(placing)
        except asyncio.CancelledError:
            if pid := await placing:  # the engine is there already, and nobody else would know of it
                await EngineProcess(pid).stop(grace_s=0)
            raise
        if not pid:
            raise NotReady(f"the process that imports vLLM could not start an engine\n{explain(self._log)}")
        return EngineProcess(pid)

    async def _place(self, order: bytes) -> int:
        """The pid of the engine that was ordered, or 0."""
        assert self._process.stdin
        assert self._process.stdout
        async with self._turn:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(order)
                await self._process.stdin.drain()
            return int(await self._process.stdout.readline() or 0)


_LAST_LINES = 12
_CAUSE = re.compile(r"\b\w+(Error|Exception): \S")
_NOISE = ("nanobind: ", " - leaked ", " - ... skipped")  # Triton's farewell in every ending process
_HINTS = {
    "address already in use": "the port is in use: stop what uses it, or use another --port-offset",
    "no available memory": "too little memory for the KV cache: lower kv-cache-memory-bytes",
    "out of memory": "too little memory: lower kv-cache-memory-bytes or max_len_tokens",
    "less than desired": "too little memory: lower kv-cache-memory-bytes under engine: in the recipe",
    "unrecognized arguments": "vLLM does not know an option that stands under `engine:` in the recipe",
    "does not appear to have a file": "the model path is not a Hugging Face model",
    "no module named 'vllm": "the engine is not installed; run: make up",
    "no module named 'nixl": "NIXL is not installed; run: make up",
}


def explain(log: Path) -> str:
    """The last lines of an engine's log and what to try."""
    with log.open(errors="replace") as file:
        lines = deque((line.rstrip() for line in file if line.strip() and not line.startswith(_NOISE)), 200)
    text = "\n".join(lines).lower()
    hints = [f"try: {hint}" for sign, hint in _HINTS.items() if sign in text]
    causes = [line for line in lines if _CAUSE.search(line)][:1]  # those that follow only pass it on
    return "\n".join([*causes, *hints, f"last lines of {log}:", *(f"  {line}" for line in list(lines)[-_LAST_LINES:])])


def shared(environments: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all of `environments` say."""
    return dict(set(environments[0].items()).intersection(*(environment.items() for environment in environments)))
