"""One worker: vLLM as a child process group, started, watched and ended with nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
import uuid
from collections import deque
from pathlib import Path

import aiohttp

from hyperpd.engine import launch
from hyperpd.errors import NotReady
from hyperpd.placement import Worker
from hyperpd.recipe import RecipeFile

START_TIMEOUT_S = 900  # loading large weights takes minutes; a dead engine is reported at once
_LAST_LINES = 12
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_HINTS = {
    "address already in use": "the port is in use: stop what uses it, or use another --port-offset",
    "no available memory": "too little memory for the KV cache: lower kv-cache-memory-bytes",
    "out of memory": "too little memory: lower kv-cache-memory-bytes or max_len_tokens",
    "unrecognized arguments": "vLLM does not know an option of the recipe's engine: block",
    "does not appear to have a file": "the model path is not a Hugging Face model",
    "no module named 'vllm": "the engine is not installed: run make up",
}
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of every orphaned descendant, so that none can escape."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class WorkerProcess:
    """The engine of one worker. `state` is starting, ready, stopping, stopped or failed."""

    def __init__(self, recipe: RecipeFile, worker: Worker, model_path: str, log: Path) -> None:
        self.recipe = recipe
        self.worker = worker
        self.log = log
        self.state = "starting"
        self.elapsed_s = 0.0
        self._model_path = model_path
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Exec, and wait until the engine answers. Raises NotReady when it ends or does not answer."""
        try:
            began = time.monotonic()
            await self._exec()
            await self._wait_until_ready()
            self.elapsed_s = time.monotonic() - began
        except BaseException:
            self.state = "failed"
            raise
        self.state = "ready"

    async def _exec(self) -> None:
        command = launch(self.recipe.recipe, self.worker, model_path=self._model_path, start_id=uuid.uuid4().hex[:12])
        with self.log.open("wb") as log:
            log.write(f"# {self.worker.name} recipe_digest={self.recipe.digest}\n# {command.shell()}\n".encode())
            log.flush()
            self._process = await asyncio.create_subprocess_exec(
                *command.argv,
                env={**os.environ, **command.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def _wait_until_ready(self) -> None:
        ended = asyncio.create_task(self.ended())
        ready = asyncio.create_task(self._answers())
        done, pending = await asyncio.wait({ended, ready}, timeout=START_TIMEOUT_S, return_when="FIRST_COMPLETED")
        for task in pending:
            task.cancel()
        if ready in done:
            return
        what = f"ended with exit code {ended.result()}" if ended in done else f"not ready after {START_TIMEOUT_S} s"
        raise NotReady(f"{self.worker.name} {what} during start\n{self.explain()}")

    async def _answers(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.worker.url}/health") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.1)

    async def ended(self) -> int:
        """Wait for the engine's end; its exit code."""
        assert self._process is not None
        return await self._process.wait()

    def explain(self) -> str:
        """The last lines of the engine's log and what to try."""
        with self.log.open(errors="replace") as log:
            lines = deque((line.rstrip() for line in log if line.strip()), 200)
        text = "\n".join(lines).lower()
        hints = [f"try: {hint}" for sign, hint in _HINTS.items() if sign in text]
        return "\n".join([*hints, f"last lines of {self.log}:", *(f"  {line}" for line in list(lines)[-_LAST_LINES:])])

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, wait up to `grace_s` seconds, then kill the whole process group."""
        if self._process is None:
            self.state = "stopped"
            return
        self.state = "stopping"
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), grace_s)
        # The API process may be gone while its core and worker live on: end the group, not the process.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        _reap()
        self.state = "stopped"


def _reap() -> None:
    """Collect adopted children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
