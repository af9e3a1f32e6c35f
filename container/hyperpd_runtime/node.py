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
import traceback
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperpd.engine import Launch, launch
from hyperpd.environment import model_path, this_machine
from hyperpd.errors import HyperpdError, NotReady, RecipeError
from hyperpd.placement import Placement, Ports, place, place_one
from hyperpd.recipe import RecipeFile, load
from hyperpd_runtime import admin, preflight, process, transport
from hyperpd_runtime.gateway import discovery
from hyperpd_runtime.gateway.server import Gateway
from hyperpd_runtime.listen import Listener
from hyperpd_runtime.process import Starter, adopt_orphans
from hyperpd_runtime.settings import Settings
from hyperpd_runtime.tls import Certificate
from hyperpd_runtime.worker import WorkerProcess

_NOTICE_S = 2.0  # gateways ask every 0.5 s whether a worker is ready
_KILL_S = 5  # beyond its own drain, which it is given to end


class Node:
    """The workers and the gateway of one process, from start to the last child's end."""

    def __init__(self, told: Settings) -> None:
        self.settings = settings = told.environment
        self.api_port = told.api_port
        self.file: RecipeFile = (
            load(settings.recipe).serving(settings.model, settings.served_as).with_options(told.options)
        )
        self.placement = self._placement()
        self._ended = asyncio.Event()
        self.folder = Path(settings.state_dir)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError("settings", [f"state-dir: {self.folder} cannot be made: {error.strerror}"]) from None
        self.model_path = model_path(self.file.recipe)
        self.certificate = (
            Certificate(settings.tls_cert_file, settings.tls_key_file) if settings.tls_cert_file else None
        )
        # With a gateway in front of them, on the same machine, workers are nobody else's.
        cert_file = "" if self._has_gateway else settings.tls_cert_file
        self.workers = [
            WorkerProcess(self.file, worker, self.folder / f"{worker.name}.log", cert_file)
            for worker in self.placement.workers
        ]
        context = self.certificate.context if self.certificate and cert_file else None
        self.admins = [
            Listener(
                admin.app(worker, self.model_path, self._ended.set),
                worker.worker.address,
                worker.worker.admin_port,
                tls=context,
            )
            for worker in self.workers
        ]
        self.gateway: Gateway | None = None
        self.phase = "starting"
        self.steps: list[dict[str, Any]] = []
        self.error: HyperpdError | None = None

    def _placement(self) -> Placement:
        settings, recipe = self.settings, self.file.recipe
        machine, ports = this_machine(settings.address), Ports().shifted(settings.port_offset)
        if self.api_port:
            ports = replace(ports, gateway_api=self.api_port)
        if settings.role == "node":
            return place(recipe, (machine,), ports)
        if settings.role == "gateway":
            return Placement((), ports.gateway_api, ports.gateway_admin)
        return place_one(
            recipe,
            settings.role,
            settings.ordinal,
            machine,
            ports,
            rank=settings.node_rank,
            leader=settings.leader,
            local_index=settings.local_index,
        )

    async def run(self) -> int:
        """Start, serve until SIGTERM or SIGINT, stop. Returns the exit code."""
        adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ended.set)
        serving = asyncio.create_task(self._serve())
        stopping = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when="FIRST_COMPLETED")
            if serving.done():
                serving.result()
        except HyperpdError as error:
            self.error = error
            print(error, file=sys.stderr, flush=True)
        except Exception as error:
            traceback.print_exc()
            self.error = NotReady(f"a defect in hyperpd: {type(error).__name__}: {error}; see the traceback in the log")
        finally:
            self._phase("stopping")
            if not self.error:
                await self._drain()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await self._stop()
            self._phase("failed" if self.error else "stopped")
        return self.error.exit_code if self.error else 0

    async def _serve(self) -> None:
        await self._model()
        preflight.check(self._listens(), self.model_path if self.workers else None)
        if self._has_gateway:  # before the engines: /ping says from the first second why it is not ready
            self.gateway = Gateway(
                self.file,
                discovery.sources(self.settings, self.placement),
                self.settings.address,
                self.placement,
                self._ended.set,
                keys_file=self.settings.keys_file,
                api_address=self.settings.api_address,
                certificate=self.certificate,
                workers_ca_file=self.settings.workers_ca_file,
            )
            await self.gateway.start()
        if self.workers:
            await self._leader()
            commands = self._commands()
            async with self._step("engines"), self._starter(commands) as starter:
                ready = zip(self.workers, self.admins, commands, strict=True)
                await _all(*(self._start(*one, starter) for one in ready))
        watched = [worker.watch() for worker in self.workers]
        if self.certificate and not self.gateway:
            watched.append(self.certificate.watch())
        await _all(self._front(), *watched)

    async def _leader(self) -> None:
        """Wait for the first machine of this worker: vLLM gives up after 5 minutes, and an image may be slower."""
        for one in self.workers:
            name, timeout_s = one.worker.leader, self.file.recipe.start_timeout_s
            if not name:
                continue
            async with self._step(f"first machine {name}"):
                try:
                    async with asyncio.timeout(timeout_s):
                        one.worker = replace(one.worker, leader=await _reached(name, one.worker.data_parallel_port))
                except TimeoutError:
                    where = f"{name}:{one.worker.data_parallel_port}"
                    raise NotReady(f"{where} (leader) not reached after {timeout_s} s (start_timeout_s)") from None

    def _commands(self) -> list[Launch]:
        recipe = self.file.recipe
        decision = None
        preflight.engine(recipe.accelerator, self.settings.unknown_engine)
        if any(recipe.on_fabric(role) for role in recipe.roles()):
            decision = transport.decide(recipe, self.settings)
            print(decision.block(), flush=True)
        told = self.settings
        by_tls = told.tls_cert_file and not self._has_gateway
        certificate = (told.tls_cert_file, told.tls_key_file) if by_tls else None
        return [
            launch(
                recipe,
                worker.worker,
                model_path=self.model_path,
                start_id=uuid.uuid4().hex[:12],
                decision=decision,
                node_address=self.settings.node_address or self.settings.address,
                api_address="" if self._has_gateway else self.settings.api_address,
                certificate=certificate,
            )
            for worker in self.workers
        ]

    @contextlib.asynccontextmanager
    async def _starter(self, commands: Sequence[Launch]) -> AsyncIterator[Starter]:
        """Several CPU engines share one import of vLLM; one engine, or one with GPUs, is plainly executed."""
        if self.file.recipe.accelerator == "cpu" and len(self.workers) > 1:
            shared = process.shared([command.env for command in commands])
            async with process.Warm(shared, self.folder / "warm.log") as warm:
                yield warm
        else:
            yield process.Exec()

    async def _front(self) -> None:
        if self.gateway:
            self._phase("warming")
            async with self._step("first handoff"):
                lone = not self.workers  # workers elsewhere may load for half an hour, or be replaced
                await (self.gateway.until_ready(None) if lone else self.gateway.until_ready())
            print(f"event=gateway_ready recipe={self.file.recipe.name} url={self._url()}", flush=True)
        for worker in self.workers:
            print(f"event=worker_ready worker={worker.worker.name} url={worker.url}", flush=True)
        self._phase("ready")
        await asyncio.Event().wait()

    @property
    def _has_gateway(self) -> bool:
        if self.settings.role == "aggregated":
            return self.settings.front and not self.settings.node_rank
        return self.settings.role not in ("prefill", "decode")

    def _listens(self) -> dict[str, tuple[str, int]]:
        """Every address and port this process and its engines are about to take, by what it is for."""
        ports: dict[str, int] = {}
        recipe = self.file.recipe
        if self._has_gateway:
            ports |= {"gateway API": self.placement.api_port, "gateway admin": self.placement.admin_port}
        for worker in self.placement.workers:
            parallel = recipe.role(worker.role).parallel
            ports[f"{worker.name} admin"] = worker.admin_port
            if not worker.rank:
                ports[f"{worker.name} API"] = worker.api_port
            for rank in range(parallel.data // parallel.nodes if worker.role != "aggregated" else 0):
                first = parallel.data // parallel.nodes * worker.rank
                ports[f"{worker.name} NIXL side channel" + f" {rank}" * (rank > 0)] = (
                    worker.side_channel_port + first + rank
                )
            if recipe.gateway.prefix_view == "exact":
                ports[f"{worker.name} KV events"] = worker.kv_events_port
                ports[f"{worker.name} KV events' replay"] = worker.kv_replay_port
        at = {meaning: (self.settings.address, port) for meaning, port in ports.items()}
        shown = "gateway API" if self._has_gateway else f"{self.placement.workers[0].name} API"
        if self.settings.api_address and shown in at:
            at[shown] = (self.settings.api_address, at[shown][1])
        return at

    @staticmethod
    async def _start(worker: WorkerProcess, listener: Listener, command: Launch, starter: Starter) -> None:
        await listener.start()
        await worker.start(command, starter)

    async def _model(self) -> None:
        path = Path(self.model_path)
        if not self.workers or not self.file.recipe.model.generated or (path / "config.json").is_file():
            return
        async with self._step("tiny model"):
            generator = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hyperpd_runtime.tiny_model", path.name, str(path), stderr=asyncio.subprocess.PIPE
            )
            try:
                _, stderr = await generator.communicate()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    generator.kill()
            if generator.returncode:
                lines = stderr.decode().strip().splitlines() or [f"exit code {generator.returncode}"]
                raise NotReady(f"generating {path} failed: {lines[-1]}")

    async def _drain(self) -> None:
        """Say on every way that asks that no more may come, and finish what runs; engines drain by themselves."""
        if self.gateway:
            await self.gateway.drain()
        ready = [worker for worker in self.workers if worker.state == "ready"]
        for worker in ready:
            worker.state = "draining"
        if parts := [worker for worker in ready if worker.worker.rank]:  # no gateway knows these: the whole worker ends
            await asyncio.gather(*(part.until_leader_ends(self._longest_end_s()) for part in parts))
        elif ready and self.settings.role != "node":  # gateways elsewhere may have this worker, too
            await asyncio.sleep(_NOTICE_S)
            await asyncio.gather(*(self._until_read(worker) for worker in ready if worker.worker.role == "prefill"))

    def _longest_end_s(self) -> float:
        """Seconds that another machine's worker takes to end: its notice, unread KV cache, running requests."""
        recipe = self.file.recipe
        return _NOTICE_S + recipe.kv_transfer.lease_s + recipe.drain_s + _KILL_S

    async def _until_read(self, prefill: WorkerProcess) -> None:
        """vLLM's own drain does not wait for decode to read what prefill computed: stay, a lease at most."""
        lease_s = self.file.recipe.kv_transfer.lease_s
        if not await prefill.until_read(lease_s):
            print(f"event=kv_unread worker={prefill.worker.name} waited_s={lease_s}", flush=True)

    async def _stop(self) -> None:
        if self.gateway:
            await self.gateway.stop()
        grace_s = self.file.recipe.drain_s + _KILL_S
        # Decode first: what it still reads from prefill stays there until then.
        for prefill in (False, True):
            ending = [worker for worker in self.workers if (worker.worker.role == "prefill") == prefill]
            await asyncio.gather(*(worker.stop(grace_s) for worker in ending))
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
        finally:
            if step["state"] == "running":
                step["state"] = "failed"
            step["elapsed_s"] = round(time.monotonic() - began, 1)
            self.write()

    def _phase(self, phase: str) -> None:
        self.phase = phase
        self.write()

    @property
    def _scheme(self) -> str:
        return "https" if self.certificate else "http"

    def _url(self) -> str:
        return f"{self._scheme}://{self.settings.address}:{self.placement.api_port}"

    def write(self) -> None:
        """Replace fleet.json."""
        document = {
            "pid": os.getpid(),
            "phase": self.phase,
            "recipe": self.file.recipe.name,
            "recipe_digest": self.file.digest,
            "url": self._url(),
            "admin_url": f"{self._scheme}://{self.settings.address}:{self.placement.admin_port}",
            "model": self.file.recipe.model.name,
            "drain_s": self.file.recipe.drain_s,
            "error": str(self.error) if self.error else None,
            "exit_code": self.error.exit_code if self.error else None,
            "workers": [
                {
                    "name": worker.worker.name,
                    "role": worker.worker.role,
                    "state": worker.state,
                    "pid": worker.pid,
                    "url": worker.url,
                    "log": str(worker.log),
                    "elapsed_s": round(worker.elapsed_s, 1),
                }
                for worker in self.workers
            ],
            "steps": self.steps,
        }
        part = self.folder / "fleet.json.part"
        part.write_text(json.dumps(document, indent=2))
        part.replace(self.folder / "fleet.json")


async def _reached(name: str, port: int) -> str:
    """The IP address behind `name`, once something listens at `port` there."""
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                _, writer = await asyncio.open_connection(name, port)
            address = str(writer.get_extra_info("peername")[0])
            writer.close()
            return address
        await asyncio.sleep(1)


async def _all(*starts: Coroutine[Any, Any, None]) -> None:
    """Await all; the first failure cancels the rest and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for start in starts:
                tasks.create_task(start)
    except* HyperpdError as failed:
        raise failed.exceptions[0] from None
