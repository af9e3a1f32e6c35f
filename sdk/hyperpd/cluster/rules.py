"""What the blocks of a cluster file demand of each other, once its groups are complete. Offline.

Source of each rule: the texts of botocore's model of SageMaker, and AWS' HyperPod guide (pages on Spot, autoscaling,
continuous provisioning, customer managed keys, Slurm). Where the two differ, the rule lets pass what one of them takes,
and `notes` says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from hyperpd import instances
from hyperpd.cluster.spec import ClusterSpec, InstanceGroup
from hyperpd.errors import RecipeError

Groups = Mapping[str, InstanceGroup]


def problems(spec: ClusterSpec, groups: Groups) -> Iterator[str]:
    """Every problem, with its path."""
    if not groups:
        yield "groups: there is no group; name a recipe, or write groups"
    if len(groups) > 100:
        yield f"groups: {len(groups)} of them; a cluster has at most 100"
    for name, group in groups.items():
        near = difflib.get_close_matches(name, groups.keys() - spec.groups.keys(), 1) if name in spec.groups else []
        yield from (f"groups.{name}.{problem}" for problem in _group(spec, group, near))
    yield from _eks(spec, groups) if spec.orchestrator.eks else _slurm(spec, groups)
    yield from _continuous(spec, groups)
    yield from _network(spec, groups)
    yield from _regions(spec, groups)


def notes(spec: ClusterSpec, groups: Groups) -> Iterator[str]:
    """What is not wrong, and worth a look."""
    if spec.continuous and spec.orchestrator.slurm:
        yield (
            "continuous: with Slurm AWS' texts differ on whether it is taken; unverified on a live account. A refusal"
            " costs nothing: remove it then"
        )
    if spec.continuous:
        yield "continuous: the cluster is InService before its nodes are; wait for the nodes"
    for name, group in groups.items():
        if group.count and group.min_count == 0:
            yield f"groups.{name}.min_count: 0: the group is in service with no node"


def _group(spec: ClusterSpec, group: InstanceGroup, near: list[str]) -> Iterator[str]:
    types = (group.instance_type,) if group.instance_type else group.instance_types
    if not types:
        hint = f"did you mean groups.{near[0]}, which the recipe gives? Else " if near else ""
        yield f"instance_type: missing; {hint}write it here, or in the recipe's role of this name"
    if group.count is None:
        yield "count: missing; the recipe gives none for this group"
    if group.interface:
        yield from _interface(group.interface, [name for name in types if name])
    if (
        (lifecycle := group.lifecycle)
        and lifecycle.source == "none"
        and group.slurm is None
        and spec.orchestrator.slurm
    ):
        yield "lifecycle.source: none: without slurm.node, nothing makes these nodes part of Slurm"


def _interface(wanted: str, types: list[str]) -> Iterator[str]:
    """efa-only carries no IP, and the primary interface has to."""
    for name in types:
        try:
            devices = instances.find(name).efa
        except RecipeError:
            continue  # preflight names types nothing is known of
        if not devices:
            yield f"interface: {wanted}, and {name} has no EFA device; remove it"
        elif wanted == "efa-only" and devices == 1:
            yield f"interface: efa-only carries no IP, and the one interface of {name} has to; use efa"


def _eks(spec: ClusterSpec, groups: Groups) -> Iterator[str]:
    for name, group in groups.items():
        if group.slurm:
            yield f"groups.{name}.slurm: has no meaning with orchestrator.eks; remove it"
    if spec.autoscaling and not spec.continuous:
        yield "autoscaling: Karpenter needs continuous: true"


def _slurm(spec: ClusterSpec, groups: Groups) -> Iterator[str]:
    for name, group in groups.items():
        for field in ("labels", "taints"):
            if getattr(group, field):
                yield f"groups.{name}.{field}: Kubernetes' alone; remove it, or use orchestrator.eks"
    for field in ("tiered_storage", "autoscaling"):
        if getattr(spec, field):
            yield f"{field}: HyperPod has it on EKS alone; remove it"
    kinds = {name: group.slurm.node for name, group in groups.items() if group.slurm}
    if not kinds:  # the classic way: a script starts Slurm, by provisioning_parameters.json
        if not any((group.lifecycle or spec.lifecycle).on_create for group in groups.values()):
            yield "groups: none has slurm.node; give each its kind, or a lifecycle.on_create that starts Slurm"
        return
    for name in groups.keys() - kinds.keys():
        yield f"groups.{name}.slurm: missing; other groups have it: controller, login or compute"
    controllers = [name for name, kind in kinds.items() if kind == "controller"]
    if len(controllers) != 1:
        found = ", ".join(sorted(controllers)) or "none"
        yield f"groups: Slurm needs exactly one group with slurm.node: controller (found: {found})"
    for name in controllers:
        if groups[name].count not in (None, 1):
            yield f"groups.{name}.count: a controller is one node (found {groups[name].count})"
    if "compute" not in kinds.values():
        yield "groups: none has slurm.node: compute; nothing could run"
    if (slurm := spec.orchestrator.slurm) and slurm.accounting and not spec.continuous:
        yield "orchestrator.slurm.accounting: an external database needs continuous: true"


def _continuous(spec: ClusterSpec, groups: Groups) -> Iterator[str]:
    for name, group in groups.items():
        if group.capacity == "spot" and not spec.continuous:
            yield f"groups.{name}.capacity: spot needs continuous: true, which puts nodes back that are taken away"
        if any(volume.kms_key for volume in group.volumes) and not spec.continuous:
            yield f"groups.{name}.volumes.kms_key: HyperPod takes keys of one's own with continuous: true alone; add it"


def _network(spec: ClusterSpec, groups: Groups) -> Iterator[str]:
    for field in ("subnets", "security_groups"):
        if not getattr(spec.network, field) and (spec.orchestrator.eks or spec.network != type(spec.network)()):
            yield (
                f"network.{field}: missing; add those of the EKS cluster's VPC"
                if spec.orchestrator.eks
                else (f"network.{field}: missing; one goes with the other")
            )
    for name, group in groups.items():
        if not (own := group.network):
            continue
        if not own.subnets:
            yield f"groups.{name}.network.subnets: missing; they are what a network of its own is for"
        if not (own.security_groups or spec.network.security_groups):
            yield f"groups.{name}.network.security_groups: missing, and the cluster has none"


def _regions(spec: ClusterSpec, groups: Groups) -> Iterator[str]:
    if not spec.region:
        return
    arns = {f"groups.{name}.training_plan": group.training_plan for name, group in groups.items()}
    arns["orchestrator.eks"] = spec.orchestrator.eks if str(spec.orchestrator.eks).startswith("arn:") else None
    for path, arn in arns.items():
        if arn and arn.split(":")[3] not in ("", spec.region):
            yield f"{path}: is in {arn.split(':')[3]}, the cluster is in {spec.region}"
