"""What the service refuses though every field is well-formed: fields that do not go together.

From botocore 1.44's descriptions and the user guide; what is guessed says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.fakes.hyperpod.clusters import Cluster

Body = dict[str, Any]
# Families with several network cards: an EFA-only interface can stand beside the primary one.
_SEVERAL_CARDS = (
    "ml.p4d.",
    "ml.p4de.",
    "ml.p5.48",
    "ml.p5e.",
    "ml.p5en.",
    "ml.p6",
    "ml.trn1.32",
    "ml.trn1n.",
    "ml.trn2.",
)
# What a group cannot change once it exists.
_FIXED = ("InstanceType", "ExecutionRole", "OverrideVpcConfig", "SlurmConfig")


def of_create(request: Body) -> Iterator[str]:
    orchestrator = request.get("Orchestrator")
    eks = "Eks" in (orchestrator or {})
    continuous = request.get("NodeProvisioningMode") == "Continuous"
    groups = request.get("InstanceGroups", [])
    if orchestrator is not None and len(orchestrator) != 1:
        yield "Orchestrator: provide exactly one orchestrator configuration: either Eks or Slurm"
    if "RestrictedInstanceGroups" in request:
        yield "RestrictedInstanceGroups: the stand-in has none"
    if not groups and not eks:
        yield "InstanceGroups: a Slurm cluster needs at least one"
    if eks and "VpcConfig" not in request:
        yield "VpcConfig is required for an EKS orchestrated cluster"
    if request.get("AutoScaling", {}).get("Mode") == "Enable":
        if not (eks and continuous):
            yield "AutoScaling is supported for EKS clusters with NodeProvisioningMode Continuous"
        if "ClusterRole" not in request:
            yield "ClusterRole is required when AutoScaling is enabled"
    if "AccountingDatabase" in (orchestrator or {}).get("Slurm", {}) and not continuous:
        yield "AccountingDatabase is only supported with NodeProvisioningMode Continuous"
    yield from _of_groups(groups, eks=eks)


def _of_groups(groups: list[Body], *, eks: bool) -> Iterator[str]:
    for name, times in Counter(group["InstanceGroupName"] for group in groups).items():
        if times > 1:
            yield f"InstanceGroups: {times} groups are named {name}"
    for group in groups:
        yield from (f"instance group {group['InstanceGroupName']}: {wrong}" for wrong in of_group(group, eks=eks))
    yield from _of_slurm(groups)


def _of_slurm(groups: list[Body]) -> Iterator[str]:
    kinds = [group["SlurmConfig"]["NodeType"] for group in groups if "SlurmConfig" in group]
    if kinds and kinds.count("Controller") != 1:
        yield f"SlurmConfig: exactly one instance group has NodeType Controller, found {kinds.count('Controller')}"
    if kinds and len(kinds) != len(groups):
        yield "SlurmConfig: on every instance group or on none"


def of_group(group: Body, *, eks: bool) -> Iterator[str]:
    """Of one InstanceGroups entry."""
    if ("InstanceType" in group) == ("InstanceRequirements" in group):
        yield "exactly one of InstanceType and InstanceRequirements"
    if group.get("MinInstanceCount", 0) > group["InstanceCount"]:
        yield f"MinInstanceCount {group['MinInstanceCount']} is above InstanceCount {group['InstanceCount']}"
    if eks and "SlurmConfig" in group:
        yield "SlurmConfig is for Slurm orchestrated clusters"
    if not eks and "KubernetesConfig" in group:
        yield "KubernetesConfig is for EKS orchestrated clusters"
    slurm = group.get("SlurmConfig", {})
    if slurm.get("NodeType") == "Controller" and group["InstanceCount"] > 1:
        yield "a Controller group has one instance"
    if slurm.get("PartitionNames") and slurm["NodeType"] != "Compute":
        yield "PartitionNames are for NodeType Compute"
    lifecycle = group.get("LifeCycleConfig")
    if lifecycle is not None:
        if not lifecycle.keys() & {"OnCreate", "OnInitComplete"} or "SourceS3Uri" not in lifecycle:
            yield "LifeCycleConfig: SourceS3Uri with OnCreate or OnInitComplete"
        elif not lifecycle["SourceS3Uri"].startswith("s3://sagemaker-"):
            yield "LifeCycleConfig.SourceS3Uri has to start with s3://sagemaker-"
    if len(group.get("CapacityRequirements", {"OnDemand": {}})) != 1:
        yield "CapacityRequirements: exactly one of Spot and OnDemand"
    if "Spot" in group.get("CapacityRequirements", {}) and "TrainingPlanArn" in group:
        yield "TrainingPlanArn does not go together with Spot"
    if group.get("NetworkInterface", {}).get("InterfaceType") == "efa-only":
        kinds = [group["InstanceType"]] if "InstanceType" in group else group["InstanceRequirements"]["InstanceTypes"]
        for kind in kinds:
            if not kind.startswith(_SEVERAL_CARDS):
                yield f"{kind} has one network card, and an efa-only interface cannot be the primary one"
    if (
        sum(1 for one in group.get("InstanceStorageConfigs", ()) if one.get("EbsVolumeConfig", {}).get("RootVolume"))
        > 1
    ):
        yield "InstanceStorageConfigs: one root volume at most"


def of_update(cluster: Cluster, request: Body) -> Iterator[str]:
    named = {group["InstanceGroupName"]: group for group in request.get("InstanceGroups", ())}
    away = request.get("InstanceGroupsToDelete", [])
    if "Orchestrator" in request and ("Eks" in request["Orchestrator"]) != bool(cluster.eks):
        yield "Orchestrator cannot be changed"
    if "RestrictedInstanceGroups" in request:
        yield "RestrictedInstanceGroups: the stand-in has none"
    if "ClusterRole" in request and cluster.spec.get("AutoScaling", {}).get("Mode") == "Enable":
        yield "ClusterRole cannot be updated while autoscaling is enabled"
    yield from (f"InstanceGroupsToDelete: no instance group {name}" for name in away if name not in cluster.groups)
    yield from (f"instance group {name} is both updated and deleted" for name in away if name in named)
    for name, group in named.items():
        yield from (f"instance group {name}: {wrong}" for wrong in of_group(group, eks=bool(cluster.eks)))
        if name in cluster.groups:
            yield from (f"instance group {name}: {wrong}" for wrong in _of_change(cluster.groups[name].spec, group))
    if len(named) != len(request.get("InstanceGroups", ())):
        yield "InstanceGroups: a name twice"
    after = {name: group.spec for name, group in cluster.groups.items() if name not in away} | named
    yield from _of_slurm(list(after.values()))
    if not after and not cluster.eks:
        yield "a Slurm cluster keeps at least one instance group"


def _of_change(before: Body, after: Body) -> Iterator[str]:
    """A named group is replaced as a whole. That the service refuses a lost field instead of losing it is a guess."""
    for name in _FIXED:
        if name in before and name in after and before[name] != after[name]:
            yield f"{name} cannot be changed"
    lost = sorted(before.keys() - after.keys() - {"MinInstanceCount"})
    if lost:
        yield f"an update carries everything of the groups it names; {', '.join(lost)} missing"
