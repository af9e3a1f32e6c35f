"""groups(spec) → the instance groups of a cluster: those a recipe gives, those written out, or both.

The sizes are capacity's. The console's templates have the same machines.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd import capacity
from hyperpd.cluster.spec import ClusterSpec, InstanceGroup, SlurmNode, Volume
from hyperpd.recipe import Recipe, load

ROLE_LABEL = "hyperpd.io/role"  # on nodes of EKS: the role whose workers the group is for
# Two threads a core: hyperpd counts CPUs as EC2 does, so with one a worker's share would not fit its machine.
THREADS_PER_CORE = 2
GATEWAYS_MAX = 2  # one that ends leaves one; more would relay no more than a large one
# Of the small types, one whose network is encrypted in transit between nodes: prompts pass the gateway.
GATEWAY_TYPE = "ml.c6i.2xlarge"
VOLUME_GB = 500  # for images and what has no NVMe
WORKERLESS = ("gateway", "controller")


def resolve(spec: ClusterSpec) -> dict[str, InstanceGroup]:
    """Name → group, the recipe's first. What is written of a group the recipe gives wins, field by field; labels are
    added to its own.

    Raises RecipeError when the recipe cannot be read, CapacityError when it does not fit.
    """
    found = dict(derived(load(spec.recipe).recipe, spec.orchestrator.kind)) if spec.recipe else {}
    for name, written in spec.groups.items():
        found[name] = _over(found[name], written) if name in found else written
    return found


def derived(recipe: Recipe, orchestrator: str) -> Iterator[tuple[str, InstanceGroup]]:
    """The groups that `recipe` needs, workers first. Roles without an instance type come without one here, and
    without a count; it is for the file to name them.

    Raises CapacityError.
    """
    for name, instance_type, count in machines(recipe, orchestrator):
        slurm = None
        if orchestrator == "slurm":
            worker = name != "controller"
            slurm = SlurmNode(node="compute", partition=name) if worker else SlurmNode(node="controller")
        yield (
            name,
            InstanceGroup(
                instance_type=instance_type,
                count=count,
                threads_per_core=THREADS_PER_CORE,
                volumes=() if name in WORKERLESS else (Volume(size_gb=VOLUME_GB),),
                labels={ROLE_LABEL: name} if orchestrator == "eks" else {},
                slurm=slurm,
            ),
        )


def machines(
    recipe: Recipe, orchestrator: str, gateway_type: str = GATEWAY_TYPE
) -> Iterator[tuple[str, str | None, int | None]]:
    """(group, instance type, nodes), workers first; None where the recipe says none. Raises CapacityError."""
    taken = capacity.check(recipe)
    if recipe.fabric == "local" and not recipe.aggregated:  # everything, the gateway too, on one machine
        known = taken.roles[0].instance.name if taken.roles else None
        yield "node", known, 1
    else:
        parts = {part.role: part for part in taken.roles}
        for role in recipe.roles():
            part = parts.get(role)
            yield role, part.instance.name if part else None, part.nodes if part else None
        yield "gateway", gateway_type, min(GATEWAYS_MAX, recipe.gateway.replicas)
    if orchestrator == "slurm":
        yield "controller", gateway_type, 1


def _over(given: InstanceGroup, written: InstanceGroup) -> InstanceGroup:
    """`given` with what is written. The result is validated anew, since both halves may be right and not go together;
    pydantic's ValidationError names what does not."""
    fields = {name: getattr(given, name) for name in given.model_fields_set}
    more = {name: getattr(written, name) for name in written.model_fields_set}
    if more.get("instance_types"):
        fields.pop("instance_type", None)
    if "labels" in more:
        more["labels"] = {**given.labels, **written.labels}
    return InstanceGroup.model_validate({**fields, **more})
