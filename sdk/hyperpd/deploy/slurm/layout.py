"""Which nodes a job has, and which worker runs on which of them."""

from __future__ import annotations

from dataclasses import dataclass

from hyperpd import instances
from hyperpd.instances import InstanceType
from hyperpd.recipe import Recipe, Role

_CPU_GIB = 4  # of memory for each process of an engine on a CPU, a modest round figure
_CPU_PROCESSES = 2  # of an engine beside its ranks: the API, and the core


@dataclass(frozen=True, slots=True)
class Component:
    """One component of the job: the nodes of a role, or of all roles with the fabric `local`.

    Its workers are laid out in order: `per_node` of them share the same `nodes_each` nodes.
    """

    name: Role | str
    number: int  # Slurm's het-group
    workers: int
    nodes_each: int
    per_node: int
    first_index: int  # of the first worker on a node, where workers of another component may be there, too
    gpus: int | None  # of a node, all ours; None: not known. 0: a CPU recipe
    cpus: int  # for one worker on one node, of a CPU recipe
    memory_gib: int

    @property
    def nodes(self) -> int:
        return -(-self.workers // self.per_node) * self.nodes_each


def local(recipe: Recipe) -> bool:
    """Whether everything runs in one step on one node: CUDA IPC does not leave a container."""
    return recipe.fabric == "local" and not recipe.aggregated


def machine(recipe: Recipe, role: Role) -> InstanceType | None:
    """What is known of the role's machines. Raises RecipeError for an unknown type."""
    name = recipe.role(role).instance_type
    return instances.find(name) if name and recipe.accelerator == "gpu" else None


def components(recipe: Recipe) -> tuple[Component, ...]:
    """The components of the job; their numbers are Slurm's. The first node of the first has the gateway."""
    if local(recipe):
        found = machine(recipe, "prefill")
        return (Component("node", 0, 1, 1, 1, 0, found.gpus if found else None, 0, 0),)
    parts: list[Component] = []
    for number, (role, spec) in enumerate(recipe.roles().items()):
        each = spec.parallel.per_node
        found = machine(recipe, role)
        gpu = recipe.accelerator == "gpu"
        per_node = max(1, found.gpus // each) if found else 1
        parts.append(
            Component(
                name=role,
                number=number,
                workers=spec.replicas,
                nodes_each=spec.parallel.nodes,
                per_node=min(per_node, spec.replicas),
                # Without GPUs both roles may be given the same node: decode leaves prefill the first ports.
                first_index=0 if gpu else number,
                gpus=(found.gpus if found else None) if gpu else 0,
                cpus=_CPU_PROCESSES + each,
                memory_gib=_CPU_GIB * each,
            )
        )
    return tuple(parts)
