"""place(recipe) → Placement: which worker runs where. Every port number of hyperpd is on this page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import accumulate

from hyperpd.errors import CapacityError, RecipeError
from hyperpd.recipe import Recipe, Role


@dataclass(frozen=True, slots=True)
class Ports:
    """First port of each kind; worker n of a machine adds n. `shifted` moves a whole fleet aside."""

    gateway_api: int = 8080  # SageMaker expects the container's API here
    gateway_admin: int = 8081
    worker_api: int = 8100
    worker_admin: int = 8300
    routing_sidecar: int = 8000  # llm-d's own default, beside a decode worker
    side_channel: int = 5600  # vLLM's own default for NIXL; it adds the data-parallel index
    kv_events: int = 5557  # vLLM's own default; it adds the data-parallel index
    kv_replay: int = 5577  # where events that were missed are asked for
    data_parallel: int = 29550  # vLLM's own default; on the machine with a worker's API

    def shifted(self, by: int) -> Ports:
        """The same ports, each `by` higher: for a second fleet on one machine."""
        return Ports(*(port + by for port in astuple(self)))


# Jobs of Slurm that may share a machine (none that has GPUs): each takes its ports aside by its id, JOBS of them at
# once. The distance keeps 16 workers of each apart, and off the ports of Slurm, Prometheus and its exporters.
JOBS = 16
JOB_STRIDE = 530


@dataclass(frozen=True, slots=True)
class Machine:
    """What a placement has to know of one node. `cpus` and `gpus` are None where nobody has looked."""

    address: str = "127.0.0.1"
    cpus: tuple[int, ...] | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """One vLLM process group that serves one role: the whole of it, or its part on one of several machines."""

    role: Role
    ordinal: int  # within its role
    node: int  # ordinal of the machine
    address: str  # what peers and the gateway connect to
    gpu_ids: tuple[int, ...]  # on that machine; empty on CPU
    cpu_ids: tuple[int, ...]  # its own; empty where there are too few, and workers share all
    api_port: int
    admin_port: int
    side_channel_port: int  # of its first data-parallel rank; the others follow
    data_parallel_port: int
    kv_events_port: int
    kv_replay_port: int
    rank: int = 0  # which machine of the worker this is; 0 has the API
    leader: str = ""  # where rank 0 is; empty: here

    @property
    def name(self) -> str:
        return f"{self.role}-{self.ordinal}" + (f".{self.rank}" if self.rank else "")

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


def place(recipe: Recipe, machines: Sequence[Machine] = (Machine(),), ports: Ports = Ports()) -> Placement:
    """Place every worker of `recipe`: machines with known GPUs are filled one by one, others taken in turn.

    The parts of a worker are on different machines, and on EFA so are prefill and decode, since it has no
    way back into its own machine. GPU ids, CPU ids and ports are counted per machine, so two workers never
    share one. Raises CapacityError when a worker fits on no machine.
    """
    parts = [
        (role, ordinal, rank)
        for role, spec in recipe.roles().items()
        for ordinal in range(spec.replicas)
        for rank in range(spec.parallel.nodes)
    ]
    return _place(recipe, parts, machines, ports)


def place_one(
    recipe: Recipe,
    role: Role,
    ordinal: int,
    machine: Machine,
    ports: Ports = Ports(),
    *,
    rank: int = 0,
    leader: str = "",
    local_index: int = 0,
) -> Placement:
    """One worker, or its part `rank`, with a machine of its own: a container; or beside others of its machine.

    leader: where rank 0 is. local_index: how many workers of this recipe are before it on the machine: it leaves
    them the first ports and GPUs. Raises RecipeError when the recipe has no such worker.
    """
    spec = recipe.roles().get(role)
    if not spec or ordinal >= spec.replicas or rank >= spec.parallel.nodes:
        have = ", ".join(
            f"{role} 0 to {spec.replicas - 1}"
            + (f" on {spec.parallel.nodes} machines each" * (spec.parallel.nodes > 1))
            for role, spec in recipe.roles().items()
        )
        part = f" part {rank}" if rank else ""
        raise RecipeError("settings", [f"recipe {recipe.name} has no {role} worker {ordinal}{part}; it has {have}"])
    if rank and not leader:
        raise RecipeError("settings", [f"node-rank {rank}: give leader, the address of the worker's machine 0"])
    (worker,) = (placed := _place(recipe, [(role, ordinal, rank)], [machine], ports)).workers
    first_gpu = local_index * len(worker.gpu_ids)
    worker = replace(
        worker,
        leader=leader,
        gpu_ids=tuple(first_gpu + gpu for gpu in worker.gpu_ids),
        api_port=worker.api_port + local_index,
        admin_port=worker.admin_port + local_index,
        side_channel_port=worker.side_channel_port
        + local_index * max(spec.parallel.data for spec in recipe.roles().values()),
        data_parallel_port=worker.data_parallel_port + local_index,
        kv_events_port=worker.kv_events_port + local_index,
        kv_replay_port=worker.kv_replay_port + local_index,
    )
    return replace(placed, workers=(worker,))


def _place(
    recipe: Recipe, parts: Sequence[tuple[Role, int, int]], machines: Sequence[Machine], ports: Ports
) -> Placement:
    workers: list[Worker] = []
    workers_on = [0] * len(machines)
    ranks_on = [0] * len(machines)  # data-parallel ranks, each with a side channel
    gpus_on = [0] * len(machines)
    role_on: list[Role | None] = [None] * len(machines)
    turn, leader, used = 0, "", set[int]()
    for role, ordinal, rank in parts:
        parallel = recipe.role(role).parallel
        gpus = parallel.per_node if recipe.accelerator == "gpu" else 0
        if rank == 0:
            used = set()
        free = [None if m.gpus is None else m.gpus - taken for m, taken in zip(machines, gpus_on, strict=True)]
        order = [(turn + step) % len(machines) for step in range(len(machines))]
        if recipe.fabric == "efa":
            order = sorted((n for n in order if role_on[n] in (None, role)), key=lambda n: role_on[n] is None)
        if all(machine.gpus is not None for machine in machines):
            order.sort()
        fits = (n for n in order if n not in used and ((room := free[n]) is None or room >= gpus))
        node = next(fits, None)
        if node is None:
            rooms = ", ".join(
                f"{m.address} {'?' if room is None else room}" for m, room in zip(machines, free, strict=True)
            )
            needs = f"{gpus} GPUs of one machine" + f" on each of {parallel.nodes}" * (parallel.nodes > 1)
            if recipe.fabric == "efa" and role != "aggregated":
                needs += ", without the other role (EFA has no way back into a machine; fabric: local has)"
            raise CapacityError(f"{role}-{ordinal} needs {needs}; free: {rooms}")
        turn = node + 1
        role_on[node] = role
        used.add(node)
        leader = machines[node].address if rank == 0 else leader
        workers.append(
            Worker(
                role=role,
                ordinal=ordinal,
                node=node,
                address=machines[node].address,
                gpu_ids=tuple(range(gpus_on[node], gpus_on[node] + gpus)),
                cpu_ids=(),
                api_port=ports.worker_api + workers_on[node],
                admin_port=ports.worker_admin + workers_on[node],
                side_channel_port=ports.side_channel + ranks_on[node],
                data_parallel_port=ports.data_parallel + workers_on[node],
                kv_events_port=ports.kv_events + workers_on[node],
                kv_replay_port=ports.kv_replay + workers_on[node],
                rank=rank,
                leader=leader if rank else "",
            )
        )
        workers_on[node] += 1
        ranks_on[node] += parallel.data
        gpus_on[node] += gpus
    for node, machine in enumerate(machines):
        _give_cpus(recipe, workers, node, machine.cpus or ())
    return Placement(workers=tuple(workers), api_port=ports.gateway_api, admin_port=ports.gateway_admin)


def _give_cpus(recipe: Recipe, workers: list[Worker], node: int, cpus: Sequence[int]) -> None:
    """Split `cpus` among the workers of a machine by the processes they have, if each process gets one.

    An engine is an API process, a core and one process per rank. Sharing a core between prefill and
    decode stalled decode for 31 s (cpu_engine.py says how).
    """
    here = [index for index, worker in enumerate(workers) if worker.node == node]
    processes = [2 + recipe.role(workers[index].role).parallel.per_node for index in here]
    total = sum(processes)
    if len(here) < 2 or len(cpus) < total:
        return
    ends = [len(cpus) * upto // total for upto in accumulate(processes)]
    for index, start, end in zip(here, [0, *ends], ends, strict=False):
        workers[index] = replace(workers[index], cpu_ids=tuple(cpus[start:end]))
