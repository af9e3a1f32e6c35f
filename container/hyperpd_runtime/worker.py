"""One worker: its engine, from launch to the end of the last process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp

from hyperpd.engine import Launch
from hyperpd.errors import NotReady
from hyperpd.placement import Worker
from hyperpd.recipe import RecipeFile
from hyperpd_runtime import tls
from hyperpd_runtime.process import EngineProcess, Starter, explain

_HEALTH_TIMEOUT_S = 2
# Above zero while requests run, and while blocks are pinned; a prefix cache alone does not count.
_HELD = ("vllm:num_requests_running{", "vllm:num_requests_waiting{", "vllm:kv_cache_usage_perc{")


class WorkerProcess:
    """The engine of one worker. `state` is starting, ready, draining, stopping, stopped or failed."""

    def __init__(self, recipe: RecipeFile, worker: Worker, log: Path, cert_file: str = "") -> None:
        """cert_file: of the engine, where it speaks TLS; the other machines of a worker have the same."""
        self.recipe = recipe
        self.worker = worker
        self.log = log
        self.url = worker.url.replace("http", "https", 1) if cert_file else worker.url
        self._own = tls.Itself(cert_file) if cert_file else None
        self.state = "starting"
        self.elapsed_s = 0.0
        self._engine: EngineProcess | None = None

    @property
    def pid(self) -> int | None:
        return self._engine.pid if self._engine else None

    async def start(self, command: Launch, starter: Starter) -> None:
        """Return when the engine answers. Raises NotReady when it ends or does not answer."""
        began = time.monotonic()
        head = f"# {self.worker.name} recipe_digest={self.recipe.digest}\n# {command.shell()}\n"
        self.log.write_text(head)
        try:
            self._engine = await starter.start(command, self.log)
            if (
                not self.worker.rank
            ):  # the other machines of a worker have no API; they are there for as long as they run
                await self._wait_until_ready()
            self.elapsed_s = time.monotonic() - began
            self.state = "ready"
        finally:
            if self.state == "starting":
                self.state = "failed"

    async def _wait_until_ready(self) -> None:
        timeout_s = self.recipe.recipe.start_timeout_s
        ended = asyncio.create_task(self.ended())
        ready = asyncio.create_task(self._until_it_answers())
        try:
            done, _ = await asyncio.wait({ended, ready}, timeout=timeout_s, return_when="FIRST_COMPLETED")
        finally:
            for task in (ended, ready):
                task.cancel()
        if ready in done:
            return
        what = (
            f"ended with exit code {ended.result()}"
            if ended in done
            else f"not ready after {timeout_s} s (start_timeout_s)"
        )
        raise NotReady(f"{self.worker.name} {what} during start\n{explain(self.log)}")

    async def _until_it_answers(self) -> None:
        while not await self.answers():
            await asyncio.sleep(0.1)

    async def answers(self) -> bool:
        """Whether the engine says that it is well."""
        if self.worker.rank:
            return self.state == "ready"
        async with self._session() as session:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{self.url}/health") as answer:
                    return answer.status == 200
        return False

    async def until_read(self, timeout_s: float) -> bool:
        """Wait until no request runs and no finished prompt's KV cache is held for a decode worker, or the engine has
        ended: Slurm signals it, too, and what it held is gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (self._engine and self._engine.gone) and await self._busy():
                    await asyncio.sleep(0.2)
                return True
        return False

    async def until_leader_ends(self, timeout_s: float) -> None:
        """Have the worker's first machine drain, and stay until its engine is gone: it still sends requests here."""
        scheme, leader = "https" if self._own else "http", self.worker.leader
        async with self._session() as session:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    async with session.post(f"{scheme}://{leader}:{self.worker.admin_port}/drain"):
                        pass
                    while True:
                        async with session.get(f"{scheme}://{leader}:{self.worker.api_port}/health"):
                            await asyncio.sleep(0.5)

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self._own.trusted() if self._own else True)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S))

    async def _busy(self) -> bool:
        async with self._session() as session:
            try:
                async with session.get(f"{self.url}/metrics") as answer:
                    lines = (await answer.text()).splitlines()
            except (aiohttp.ClientError, TimeoutError):
                return True  # too busy to say
        values = [line.rsplit(" ", 1) for line in lines if line.startswith(_HELD)]
        return not values or any(float(value) for _, value in values)

    async def ended(self) -> int:
        """Wait for the engine's end; its exit code."""
        assert self._engine is not None
        return await self._engine.wait()

    async def watch(self) -> None:
        """Raise NotReady when the engine ends."""
        code = await self.ended()
        self.state = "failed"
        raise NotReady(f"{self.worker.name} ended with exit code {code}\n{explain(self.log)}")

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, wait up to `grace_s` seconds, then kill the whole process group."""
        if self._engine:
            self.state = "stopping"
            await self._engine.stop(grace_s)
        self.state = "stopped"
