"""place(recipe) → Placement: which worker runs where. Every port number of hyperpd is on this page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyperpd.recipe import Recipe, Role


@dataclass(frozen=True, slots=True)
class Ports:
    """First port of each kind; worker n of a machine adds n. `shifted` moves a whole fleet aside."""

    gateway_api: int = 8080  # SageMaker expects the container's API here
    gateway_admin: int = 8081
    worker_api: int = 8100
    worker_admin: int = 8300
    side_channel: int = 5600  # vLLM's own default for NIXL; it adds the data-parallel index
    kv_events: int = 5557  # vLLM's own default

    def shifted(self, by: int) -> Ports:
        """The same ports, each `by` higher: for a second fleet on one machine."""
        return Ports(
            *(
                port + by
                for port in (
                    self.gateway_api,
                    self.gateway_admin,
                    self.worker_api,
                    self.worker_admin,
                    self.side_channel,
                    self.kv_events,
                )
            )
        )


@dataclass(frozen=True, slots=True)
class Worker:
    """One vLLM process group that serves one role."""

    role: Role
    ordinal: int  # within its role
    node: int  # ordinal of the machine
    address: str  # what peers and the gateway connect to
    gpu_ids: tuple[int, ...]  # on that machine; empty on CPU
    api_port: int
    admin_port: int
    side_channel_port: int

    @property
    def name(self) -> str:
        return f"{self.role}-{self.ordinal}"

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.api_port}"


@dataclass(frozen=True, slots=True)
class Placement:
    """All workers of a recipe and the gateway's two ports."""

    workers: tuple[Worker, ...]
    api_port: int
    admin_port: int

    def of(self, role: Role) -> tuple[Worker, ...]:
        """The workers of one role, in order."""
        return tuple(worker for worker in self.workers if worker.role == role)

    def worker(self, name: str) -> Worker | None:
        """The worker called `name` ("prefill-0"), or None."""
        return next((worker for worker in self.workers if worker.name == name), None)


def place(recipe: Recipe, addresses: Sequence[str] = ("127.0.0.1",), ports: Ports = Ports()) -> Placement:
    """Place every worker of `recipe` over the machines at `addresses`, round robin.

    GPU ids and ports are counted per machine, so two workers never share one.
    """
    workers: list[Worker] = []
    workers_on = [0] * len(addresses)
    gpus_on = [0] * len(addresses)
    for role, spec in recipe.roles().items():
        for ordinal in range(spec.replicas):
            node = len(workers) % len(addresses)
            gpus = spec.parallel.size if recipe.accelerator == "gpu" else 0
            workers.append(
                Worker(
                    role=role,
                    ordinal=ordinal,
                    node=node,
                    address=addresses[node],
                    gpu_ids=tuple(range(gpus_on[node], gpus_on[node] + gpus)),
                    api_port=ports.worker_api + workers_on[node],
                    admin_port=ports.worker_admin + workers_on[node],
                    side_channel_port=ports.side_channel + workers_on[node],
                )
            )
            workers_on[node] += 1
            gpus_on[node] += gpus
    return Placement(workers=tuple(workers), api_port=ports.gateway_api, admin_port=ports.gateway_admin)
