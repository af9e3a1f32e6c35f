"""Every role as one supervised process: its workers, its gateway, or both on one machine.

prefill and decode are one worker; aggregated is one worker and the gateway; gateway is the
gateway; node is all workers of the recipe and the gateway. `fleet.json` in the state folder says
at any moment what is going on; it is replaced atomically.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperpd.environment import Environment, model_path
from hyperpd.errors import FabricError, HyperpdError, NotReady
from hyperpd.placement import Placement, Ports, place
from hyperpd.recipe import RecipeFile, load
from hyperpd_runtime import admin, preflight
from hyperpd_runtime.gateway import discovery
from hyperpd_runtime.gateway.server import Gateway
from hyperpd_runtime.listen import Listener
from hyperpd_runtime.worker import WorkerProcess, adopt_orphans


class Node:
    """The workers and the gateway of one process, from start to the last child's end."""

    def __init__(self, settings: Environment) -> None:
        self.settings = settings
        self.file: RecipeFile = load(settings.recipe)
        if settings.model:
            source = self.file.recipe.model.model_copy(
                update={"generated": None, "huggingface": None, "path": settings.model}
            )
            self.file = replace(self.file, recipe=self.file.recipe.model_copy(update={"model": source}))
        self.placement = self._placement()
        self.folder = Path(settings.state_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model_path = model_path(self.file.recipe)
        self.workers = [
            WorkerProcess(self.file, worker, self.model_path, self.folder / f"{worker.name}.log")
            for worker in self.placement.workers
        ]
        self.admins = [
            Listener(admin.app(process), process.worker.address, process.worker.admin_port) for process in self.workers
        ]
        self.gateway: Gateway | None = None
        self.phase = "starting"
        self.steps: list[dict[str, Any]] = []
        self.error: HyperpdError | None = None

    def _placement(self) -> Placement:
        settings, recipe = self.settings, self.file.recipe
        whole = place(recipe, (settings.address,), Ports().shifted(settings.port_offset))
        if settings.role == "node":
            return whole
        if settings.role == "gateway":
            return replace(whole, workers=())
        wanted = [worker for worker in whole.of(settings.role) if worker.ordinal == settings.ordinal]
        if not wanted:
            raise FabricError(f"recipe {recipe.name} has no worker {settings.role}-{settings.ordinal}")
        return replace(whole, workers=tuple(wanted))

    async def run(self) -> int:
        """Start, serve until SIGTERM or SIGINT, stop. Returns the exit code."""
        adopt_orphans()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        serving = asyncio.create_task(self._serve())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when="FIRST_COMPLETED")
        if serving.done() and isinstance(error := serving.exception(), HyperpdError):
            self.error = error
            print(error, file=sys.stderr, flush=True)
        self._phase("failed" if self.error else "stopping")
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError, HyperpdError):
            await serving
        await self._stop()
        self._phase("failed" if self.error else "stopped")
        return self.error.exit_code if self.error else 0

    async def _serve(self) -> None:
        await self._model()
        preflight.check(self.settings.address, self._listens(), self.model_path if self.workers else None)
        async with self._step("engines"):
            await _all(*(self._start(*started) for started in zip(self.workers, self.admins, strict=True)))
            self.write()
        if self._has_gateway:
            self._phase("warming")
            async with self._step("gateway and first handoff"):
                self.gateway = Gateway(
                    self.file, discovery.static(self.settings, self.placement), self.settings.address, self.placement
                )
                await self.gateway.start()
                await self.gateway.until_ready()
                print(f"event=gateway_ready recipe={self.file.recipe.name} url={self._url()}", flush=True)
        self._phase("ready")
        ends = [asyncio.create_task(worker.ended()) for worker in self.workers]
        await asyncio.wait(ends or [asyncio.create_task(asyncio.Event().wait())], return_when="FIRST_COMPLETED")
        for worker, end in zip(self.workers, ends, strict=True):
            if end.done():
                worker.state = "failed"
                raise NotReady(f"{worker.worker.name} ended with exit code {end.result()}\n{worker.explain()}")

    @property
    def _has_gateway(self) -> bool:
        return self.settings.role not in ("prefill", "decode")

    def _listens(self) -> dict[str, int]:
        """Every port this process and its engines are about to take, by what it is for."""
        ports: dict[str, int] = {}
        if self._has_gateway:
            ports |= {"gateway API": self.placement.api_port, "gateway admin": self.placement.admin_port}
        for worker in self.placement.workers:
            ports |= {f"{worker.name} API": worker.api_port, f"{worker.name} admin": worker.admin_port}
            if worker.role != "aggregated":
                ports[f"{worker.name} NIXL side channel"] = worker.side_channel_port
        return ports

    @staticmethod
    async def _start(process: WorkerProcess, listener: Listener) -> None:
        await listener.start()
        await process.start()

    async def _model(self) -> None:
        path = Path(self.model_path)
        if not self.file.recipe.model.generated or (path / "config.json").is_file():
            return
        async with self._step("tiny model"):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hyperpd_runtime.tiny_model", str(path), stderr=asyncio.subprocess.PIPE
            )
            _, stderr = await process.communicate()
            if process.returncode:
                raise NotReady(f"generating {path} failed: {stderr.decode().strip().splitlines()[-1]}")

    async def _stop(self) -> None:
        if self.gateway:
            await self.gateway.stop()
        grace_s = self.file.recipe.drain_s + 5
        # Decode first: what it still reads from prefill stays there until then.
        decode_first = sorted(self.workers, key=lambda worker: worker.worker.role == "prefill")
        for worker in decode_first:
            await worker.stop(grace_s)
        await asyncio.gather(*(listener.stop() for listener in self.admins))

    @contextlib.asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[None]:
        began = time.monotonic()
        step: dict[str, Any] = {"name": name, "state": "running", "elapsed_s": 0.0}
        self.steps.append(step)
        self.write()
        try:
            yield
            step["state"] = "done"
        except BaseException:
            step["state"] = "failed"
            raise
        finally:
            step["elapsed_s"] = round(time.monotonic() - began, 1)
            self.write()

    def _phase(self, phase: str) -> None:
        self.phase = phase
        self.write()

    def _url(self) -> str:
        return f"http://{self.settings.address}:{self.placement.api_port}"

    def write(self) -> None:
        """Replace fleet.json."""
        document = {
            "pid": os.getpid(),
            "phase": self.phase,
            "recipe": self.file.recipe.name,
            "recipe_digest": self.file.digest,
            "url": self._url(),
            "admin_url": f"http://{self.settings.address}:{self.placement.admin_port}",
            "model": self.file.recipe.model.name,
            "error": str(self.error) if self.error else None,
            "exit_code": self.error.exit_code if self.error else None,
            "workers": [
                {
                    "name": process.worker.name,
                    "role": process.worker.role,
                    "state": process.state,
                    "pid": process.pid,
                    "url": process.worker.url,
                    "log": str(process.log),
                    "elapsed_s": round(process.elapsed_s, 1),
                }
                for process in self.workers
            ],
            "steps": self.steps,
        }
        part = self.folder / "fleet.json.part"
        part.write_text(json.dumps(document, indent=2))
        part.replace(self.folder / "fleet.json")


async def _all(*starts: Any) -> None:
    """Await all; the first failure cancels the rest and is raised as itself."""
    tasks = [asyncio.create_task(start) for start in starts]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
