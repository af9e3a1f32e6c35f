"""What pods ask of their machines, and which machines they go to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from hyperpd.deploy.kubernetes.fleet import Component, Fleet, Object, selector
from hyperpd.fabric import HUGEPAGES_MIB
from hyperpd.instances import InstanceType
from hyperpd.recipe import Role

GPU, EFA, HUGEPAGES = "nvidia.com/gpu", "vpc.amazonaws.com/efa", "hugepages-2Mi"
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
EFA_HUGEPAGES_MIB = 10240  # EFA's driver sets 5,128 pages of 2 MiB aside; they are no memory any more
# Left to the system, its daemons and gateways: a tenth of a machine's memory never reaches pods.
_MEMORY_KEPT, _CPUS_KEPT = 0.15, 0.1
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Share:
    """Part of a machine. memory_limited: where the machine is known, its share of memory is a limit too."""

    cpus: int
    memory_gib: int
    memory_limited: bool
    gpus: int = 0
    efa: int = 0
    hugepages_mib: int = 0
    disk_gib: int = 0

    def resources(self) -> Object:
        """No CPU limit: an engine that starts or tokenises may take what nobody uses."""
        devices: Object = {}
        if self.gpus:
            devices[GPU] = self.gpus
        if self.efa:
            devices[EFA] = self.efa
        if self.hugepages_mib:
            devices[HUGEPAGES] = f"{self.hugepages_mib}Mi"
        limits = {"memory": f"{self.memory_gib}Gi"} if self.memory_limited else {}
        disk = {"ephemeral-storage": f"{self.disk_gib}Gi"} if self.disk_gib else {}
        requests = {"cpu": str(self.cpus), "memory": f"{self.memory_gib}Gi", **disk, **devices}
        return {"requests": requests, **({"limits": {**limits, **devices}} if limits or devices else {})}

    @property
    def note(self) -> str:
        if not self.memory_limited:
            return "A modest guess, and no limits: the recipe names no machine with known memory."
        aside = f"{_CPUS_KEPT:.0%} of the CPUs and {_MEMORY_KEPT:.0%} of the memory"
        note = f"The share of its machine that goes with the GPUs, after {aside} are set aside."
        if self.efa:
            note += " EFA devices cannot be shared."
        if self.hugepages_mib:
            note += " Huge pages are no part of the memory, here as on the machine."
        elif self.efa:
            note += f" No huge pages: EFA uses {HUGEPAGES_MIB} MiB of them or none, and its share is smaller."
        return note


def share(fleet: Fleet, role: Role) -> Share:
    """What one pod of a worker asks for."""
    gpus = fleet.recipe.role(role).parallel.per_node
    machine = fleet.machine(role)
    if machine is None or not fleet.efa(role):
        return _share(machine, gpus, fleet.recipe.accelerator == "gpu")
    enough = EFA_HUGEPAGES_MIB * gpus // machine.gpus >= HUGEPAGES_MIB
    pages = fleet.options.hugepages_mib or (HUGEPAGES_MIB if enough else 0)
    return _share(machine, gpus, True, efa=efa_devices(machine, gpus), hugepages_mib=pages)


def efa_devices(machine: InstanceType, gpus: int) -> int:
    """The EFA devices that go with some of a machine's GPUs, whole ones: as capacity.RoleCapacity counts them."""
    return machine.efa * gpus // machine.gpus


def most_pods(fleet: Fleet) -> dict[str, int]:
    """Instance type → the most workers' pods that one machine of it takes, by its GPUs."""
    sizes: dict[tuple[InstanceType, str], list[int]] = {}
    for role, spec in fleet.recipe.roles().items():
        if machine := fleet.machine(role):
            pods = max(spec.replicas, spec.autoscaling.max if spec.autoscaling else 0) * spec.parallel.nodes
            sizes.setdefault((machine, role if fleet.efa(role) else ""), []).extend([spec.parallel.per_node] * pods)
    found: dict[str, int] = {}
    for (machine, _), gpus in sizes.items():
        taken = list(accumulate(sorted(gpus)))
        found[machine.name] = max(found.get(machine.name, 0), sum(total <= machine.gpus for total in taken))
    return dict.fromkeys(found, 1) if fleet.local else found


def share_of_all(fleet: Fleet) -> Share:
    """What the pod with all workers asks for."""
    gpus = sum(len(worker.gpu_ids) for worker in fleet.on_one_machine().workers)
    return _share(fleet.machine(next(iter(fleet.recipe.roles()))), gpus, True)


def _share(machine: InstanceType | None, ranks: int, gpu: bool, efa: int = 0, hugepages_mib: int = 0) -> Share:
    gpus = ranks if gpu else 0
    if machine is None:
        each_cpus, each_gib = (4, 16) if gpu else (1, 4)
        return Share(each_cpus * ranks, each_gib * ranks, False, gpus)
    part = gpus / machine.gpus
    cpus = int(machine.vcpus * (1 - _CPUS_KEPT) * part)
    pages_gib = EFA_HUGEPAGES_MIB / 1024 if machine.efa else 0
    memory_gib = int((machine.ram_gib * (1 - _MEMORY_KEPT) - pages_gib) * part)
    return Share(max(1, cpus), max(1, memory_gib), True, gpus, efa, hugepages_mib)


def scheduling(fleet: Fleet, component: Component, role: Role) -> tuple[Object, dict[str, str]]:
    """Where pods of `role` go (called `component` where all are in one), and why: (part of a pod's spec, notes)."""
    recipe, instance_type = fleet.recipe, fleet.recipe.role(role).instance_type
    hyperpod = fleet.options.platform == "hyperpod"
    nodes: dict[str, str] = {}
    if instance_type:  # HyperPod's label has the prefix, EC2's has not
        nodes["node.kubernetes.io/instance-type"] = instance_type if hyperpod else instance_type.removeprefix("ml.")
    if recipe.accelerator == "cpu":
        return {"nodeSelector": nodes} if nodes else {}, {}
    if hyperpod:  # a node that is about to be rebooted or replaced takes no new worker
        nodes["sagemaker.amazonaws.com/node-health-status"] = "Schedulable"
    affinity, notes = _affinity(fleet, component, role)
    return {
        **({"nodeSelector": nodes} if nodes else {}),
        "tolerations": tolerations(),
        **({"affinity": affinity} if affinity else {}),
    }, notes


def _affinity(fleet: Fleet, component: Component, role: Role) -> tuple[Object, dict[str, str]]:
    together: Object = {}
    affinity: Object = {}
    notes: dict[str, str] = {}
    if fleet.recipe.placement.same_zone and component != "node":
        together[_REQUIRED] = [_near(selector(), ZONE)]
        notes["affinity.podAffinity"] = "placement.same_zone: the first worker chooses the zone of all."
    if component != "node":
        together[_PREFERRED] = [{"weight": 100, "podAffinityTerm": _near(selector(role), HOSTNAME)}]
        at = f"affinity.podAffinity.{_PREFERRED}"
        notes[at] = "A machine is filled before another is begun: spread over all, small workers leave large ones none."
    if fleet.efa(role) and role != "aggregated":
        other: Role = "decode" if role == "prefill" else "prefill"
        affinity["podAntiAffinity"] = {_REQUIRED: [_near(selector(other), HOSTNAME)]}
        notes["affinity.podAntiAffinity"] = "EFA has no way back into its own machine: not where the other role runs."
    return {**({"podAffinity": together} if together else {}), **affinity}, notes


def tolerations() -> list[Object]:
    """The taints that keep other pods off machines with GPUs and EFA."""
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in (GPU, EFA)]


def _near(labels: dict[str, str], topology: str) -> Object:
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": topology}
