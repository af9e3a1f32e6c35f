"""What has to come of a recipe's pods on clusters of several kinds: problems(objects, file)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from hyperpd import instances, models
from hyperpd.recipe import Recipe, RecipeFile
from tests.deploy import simulator
from tests.deploy.objects import Object, Pod, pods, quantity
from tests.deploy.simulator import DISK, EFA, GPU, HOSTNAME, ZONE, Node

CACHE = "/tmp/cache"  # where the image keeps what it downloads
DEFAULT_TYPE = "ml.p5en.48xlarge"  # for GPU recipes that name no machine


def problems(objects: Sequence[Object], file: RecipeFile, *, hyperpod: bool = True) -> list[str]:
    """Every problem of every check below."""
    recipe, every = file.recipe, pods(objects)
    found = [*homeless(every, recipe, hyperpod), *apart(every, recipe, hyperpod), *zones(every, recipe, hyperpod)]
    found += [*fitting(every, recipe, hyperpod), *devices(every, recipe), *downloads(every, recipe)]
    return [*found, *local(every, recipe, hyperpod), *(unhealthy(every, recipe) if hyperpod else ())]


def machines(recipe: Recipe) -> dict[str, str]:
    """Role → instance type; empty for a recipe that runs on CPUs."""
    if recipe.accelerator == "cpu":
        return {}
    return {role: spec.instance_type or DEFAULT_TYPE for role, spec in recipe.roles().items()}


def roomy(recipe: Recipe, hyperpod: bool, zones: Sequence[str] = ("use2-az1",), **labels: str) -> list[Node]:
    """A cluster with one machine for each part of a worker, and some for gateways."""
    made = []
    for zone in zones:
        made += simulator.cpu_nodes(8, zone, hyperpod=hyperpod)
        counts: dict[str, int] = {}
        kinds = machines(recipe)
        for role, spec in recipe.roles().items() if kinds else ():
            kind = kinds[role]
            counts[kind] = counts.get(kind, 0) + spec.replicas * spec.parallel.nodes
        for kind, count in counts.items():
            made += simulator.nodes(kind, count, zone, hyperpod=hyperpod, **labels)
    return made


def bottomless(recipe: Recipe, hyperpod: bool, zones: Sequence[str] = ("use2-az1",)) -> list[Node]:
    """One machine of each type in each zone, that never fills: only affinities keep pods off it."""
    made = []
    for zone in zones:
        made += simulator.cpu_nodes(1, zone, hyperpod=hyperpod)
        for kind in sorted(set(machines(recipe).values())):
            made += simulator.nodes(kind, 1, zone, hyperpod=hyperpod)
    for node in made:
        node.allocatable = {what: has * 10_000 for what, has in node.allocatable.items()}
    return made


def homeless(every: Sequence[Pod], recipe: Recipe, hyperpod: bool) -> Iterator[str]:
    """Pods that run nowhere in a cluster with room."""
    for pod, reasons in simulator.place(every, roomy(recipe, hyperpod)).pending.items():
        yield f"{pod} is pending: " + "; ".join(f"{count} nodes: {why}" for why, count in reasons.items())


def fitting(every: Sequence[Pod], recipe: Recipe, hyperpod: bool) -> Iterator[str]:
    """Pods that run nowhere in a cluster with as many machines as their GPUs fill, and no more."""
    cluster = simulator.cpu_nodes(8, hyperpod=hyperpod)
    needs: dict[tuple[str, str], Fraction] = {}
    apart = recipe.fabric == "efa" and not recipe.aggregated
    kinds = machines(recipe)
    for pod in every:
        if kinds and pod.serves:  # a pod with all workers is where the first role is
            key = (kinds.get(pod.role, next(iter(kinds.values()))), pod.role if apart else "")
            needs[key] = needs.get(key, Fraction(0)) + pod.requests.get(GPU, Fraction(0))
    counts: dict[str, int] = {}
    for (kind, _), gpus in needs.items():
        counts[kind] = counts.get(kind, 0) + math.ceil(gpus / instances.find(kind).gpus)
    for kind, count in counts.items():
        cluster += simulator.nodes(kind, count, hyperpod=hyperpod)
    total = " and ".join(f"{count} {kind}" for kind, count in counts.items())
    for order, arriving in (("in order", list(every)), ("in reverse", list(every)[::-1])):
        for node in cluster:
            node.pods.clear()
        for called, reasons in simulator.place(arriving, cluster).pending.items():
            yield f"{called} finds no room on {total} ({order}): {', '.join(reasons)}"


def apart(every: Sequence[Pod], recipe: Recipe, hyperpod: bool) -> Iterator[str]:
    """EFA has no path within a machine: prefill and decode on one could not exchange KV."""
    if recipe.fabric != "efa" or recipe.aggregated:
        return
    for arriving in (list(every), list(every)[::-1]):
        outcome = simulator.place(arriving, bottomless(recipe, hyperpod))
        roles: dict[str, set[str]] = {}
        for pod in every:
            if pod.serves and pod.name in outcome.placed:
                roles.setdefault(outcome.placed[pod.name].name, set()).add(pod.role)
        yield from (f"prefill and decode share the EFA node {node}" for node, have in roles.items() if len(have) > 1)


def zones(every: Sequence[Pod], recipe: Recipe, hyperpod: bool) -> Iterator[str]:
    """Workers of a recipe with placement.same_zone are in one."""
    if not recipe.placement.same_zone or recipe.accelerator == "cpu":
        return
    where = ("use2-az1", "use2-az2")
    for cluster in (bottomless(recipe, hyperpod, where), roomy(recipe, hyperpod, where)):
        placed = simulator.place(every, cluster).placed
        used = {placed[pod.name].labels[ZONE] for pod in every if pod.serves and pod.name in placed}
        if len(used) != 1:
            yield f"workers are in {' and '.join(sorted(used)) or 'no zone'}"


def local(every: Sequence[Pod], recipe: Recipe, hyperpod: bool) -> Iterator[str]:
    """With the fabric `local`, all workers are on one machine."""
    if recipe.fabric == "local" and not recipe.aggregated:
        placed = simulator.place(every, roomy(recipe, hyperpod)).placed
        used = {placed[pod.name].labels[HOSTNAME] for pod in every if pod.serves and pod.name in placed}
        if len(used) != 1:
            yield f"workers are on {len(used)} machines, the fabric is local"


def unhealthy(every: Sequence[Pod], recipe: Recipe) -> Iterator[str]:
    """A HyperPod node that is being replaced gets no worker."""
    placed = simulator.place(every, roomy(recipe, True, health="UnschedulablePendingReplacement")).placed
    if recipe.accelerator == "gpu":
        yield from (f"{pod.name} runs on an unhealthy node" for pod in every if pod.serves and pod.name in placed)


def downloads(every: Sequence[Pod], recipe: Recipe) -> Iterator[str]:
    """A pod that downloads its model for itself asks for the room, and its own folder has it."""
    known = models.find(recipe.model.huggingface)
    for pod in every if known else ():
        mounts = {mount["mountPath"]: mount["name"] for mount in pod.containers[0].get("volumeMounts", ())}
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        if not pod.serves or "hostPath" in volumes.get(mounts.get(CACHE, ""), ()):
            continue
        limit = volumes[mounts["/tmp"]]["emptyDir"].get("sizeLimit")
        for what, gives in (("asks for", pod.requests.get(DISK, 0)), ("limits /tmp to", limit and quantity(limit))):
            if known and gives is not None and gives < known.weights_bytes:
                yield f"{pod.name} {what} {gives} bytes of disk, its model has {known.weights_bytes}"


def devices(every: Sequence[Pod], recipe: Recipe) -> Iterator[str]:
    """A worker on EFA asks for devices, no more than its share of the machine's; others ask for none."""
    for pod in every:
        asked = pod.requests.get(EFA, Fraction(0))
        if not pod.serves or recipe.fabric != "efa":
            if asked:
                yield f"{pod.name} asks for {asked} EFA devices and needs none"
            continue
        kind = instances.find(machines(recipe)[pod.role])
        share = max(kind.efa * pod.requests.get(GPU, Fraction(0)) / kind.gpus, Fraction(min(1, kind.efa)))
        needs = recipe.aggregated is None or recipe.aggregated.parallel.nodes > 1
        if asked > share or (needs and share and not asked):
            yield f"{pod.name} asks for {asked} EFA devices, its share of {kind.name} is {share}"
