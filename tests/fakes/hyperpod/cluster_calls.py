"""CreateCluster, DescribeCluster, ListClusters, UpdateCluster, UpdateClusterSoftware, DeleteCluster."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

from tests.fakes.gate import Refused
from tests.fakes.hyperpod import described, refusals
from tests.fakes.hyperpod.account import Account, Body, invalid, page, within
from tests.fakes.hyperpod.clusters import RESOURCES_S, Cluster
from tests.fakes.hyperpod.groups import Group

BATCH_S = 900.0  # one batch of a software update


def create(account: Account, request: Body) -> Body:
    name = request["ClusterName"]
    if found := [*refusals.of_create(request), *account.lacks(request)]:
        raise invalid(*found)
    if any(each.name == name and not each.gone for each in account.clusters):
        raise Refused("ResourceInUse", f"Cluster name {name} is already in use. Choose a different name.")
    groups = request.get("InstanceGroups", [])
    _reserve(account, groups, ())
    spec = copy.deepcopy(request)
    tags = spec.pop("Tags", [])
    cluster = Cluster(
        spec,
        account.arn_of(name),
        account.clock,
        account.zones,
        lambda: account.latest,
        account.trouble,
        account.printed,
    )
    account.clusters.append(cluster)
    account.tags[cluster.arn] = {tag["Key"]: tag["Value"] for tag in tags}
    cluster.create(account.first(lambda each: each.cluster_fails(name)) or "")
    return {"ClusterArn": cluster.arn}


def describe(account: Account, request: Body) -> Body:
    return described.details(account.cluster(request["ClusterName"], "DescribeCluster"))


def list_(account: Account, request: Body) -> Body:
    found = [
        each
        for each in account.clusters
        if not each.gone
        and not account.hidden(each, "ListClusters")
        and request.get("NameContains", "") in each.name
        and within(request, each.created_s)
        and request.get("TrainingPlanArn") in (None, *described.plans(each))
    ]
    by_name = request.get("SortBy") == "NAME"
    found.sort(
        key=lambda each: each.name if by_name else each.created_s,
        reverse=request.get("SortOrder", "Descending") == "Descending",
    )
    part, token = page(found, request)
    return {"ClusterSummaries": [described.summary(each) for each in part]} | token


def update(account: Account, request: Body) -> Body:
    cluster = account.cluster(request["ClusterName"])
    settled(cluster)
    if found := [*refusals.of_update(cluster, request), *account.lacks(request)]:
        raise invalid(*found)
    groups = request.get("InstanceGroups", [])
    _reserve(account, groups, [f"{cluster.name}/{group['InstanceGroupName']}" for group in groups])
    own = ("NodeRecovery", "TieredStorageConfig", "NodeProvisioningMode", "ClusterRole", "AutoScaling", "Orchestrator")
    cluster.spec |= {name: request[name] for name in own if name in request}
    cluster.failure = ""
    if not cluster.continuous:
        cluster.status = "Updating"
    for spec in groups:
        group = _put(account, cluster, copy.deepcopy(spec))
        cluster.scale(group)
    for name in request.get("InstanceGroupsToDelete", ()):
        _delete_group(cluster, name)
    cluster.clock.after(RESOURCES_S, cluster.settle)  # also where no node moves
    return {"ClusterArn": cluster.arn}


def _put(account: Account, cluster: Cluster, spec: Body) -> Group:
    group = cluster.groups.get(spec["InstanceGroupName"])
    if group is None:
        version = spec.get("ImageReleaseVersion", account.latest)
        group = cluster.groups[spec["InstanceGroupName"]] = Group(spec, version)
        return group
    group.before, group.spec = group.spec, spec
    if not cluster.continuous or group.status == "Failed":
        group.status = "Updating"
    return group


def _delete_group(cluster: Cluster, name: str) -> None:
    group = cluster.groups[name]
    group.status = "Deleting"
    for node in cluster.of(name):
        cluster.remove(node)

    def gone() -> None:
        cluster.groups.pop(name, None)
        cluster.settle()

    cluster.clock.after(RESOURCES_S - 1, gone)


def update_software(account: Account, request: Body) -> Body:
    """All groups, or those named, in batches; a scenario may take everything back, and nobody is told."""
    cluster = account.cluster(request["ClusterName"])
    settled(cluster)
    named = {one["InstanceGroupName"]: one for one in request.get("InstanceGroups", ())}
    if missing := [name for name in named if name not in cluster.groups]:
        raise invalid(*(f"no instance group {name}" for name in missing))
    cluster.status, cluster.failure = "SystemUpdating", ""
    groups = [group for name, group in cluster.groups.items() if not named or name in named]
    for group in groups:
        wanted = named.get(group.name, {}).get("ImageReleaseVersion", account.latest)
        _update_group(account, cluster, group, wanted, request.get("DeploymentConfig", {}))
    return {"ClusterArn": cluster.arn}


def _update_group(account: Account, cluster: Cluster, group: Group, version: str, config: Body) -> None:
    before = group.version
    group.status, group.desired_version, group.update_status = "SystemUpdating", version, "InProgress"
    group.update_config = config or None
    nodes = cluster.of(group.name)
    size = _batch(config, len(nodes))
    batches = [nodes[start : start + size] for start in range(0, len(nodes), size)] or [[]]
    back = bool(account.first(lambda each: each.update_rolls_back(group.name)))

    def patch(number: int) -> None:
        if cluster.status != "SystemUpdating":
            return
        if number == len(batches):
            group.version, group.update_status = version, "Succeeded"
            _updated(cluster, group)
            return
        for node in batches[number]:
            node.status = "SystemUpdating"

        def patched() -> None:
            if cluster.status != "SystemUpdating":
                return
            if back:
                group.update_status = "RollbackInProgress"
                cluster.clock.after(BATCH_S, lambda: restored(number))
                return
            for node in batches[number]:
                node.status, node.version, node.updated_s = "Running", version, cluster.clock.now_s
            cluster.clock.after(config.get("WaitIntervalInSeconds", 0), lambda: patch(number + 1))

        cluster.clock.after(BATCH_S, patched)

    def restored(number: int) -> None:
        if cluster.status != "SystemUpdating":
            return
        for node in batches[number]:
            node.status = "Running"
        # botocore 1.44, TargetStateCount: at a rollback current and desired image swap values.
        group.version, group.desired_version, group.update_status = before, before, "RollbackComplete"
        _updated(cluster, group)

    patch(0)


def _updated(cluster: Cluster, group: Group) -> None:
    group.status, group.update_config = "InService", None
    if all(each.status != "SystemUpdating" for each in cluster.groups.values()):
        cluster.status = "InService"


def _batch(config: Body, nodes: int) -> int:
    """How many nodes at once; all, if nothing was said."""
    size: Any = config.get("RollingUpdatePolicy", {}).get("MaximumBatchSize")
    if size is None:
        return max(1, nodes)
    part: int = size["Value"] if size["Type"] == "INSTANCE_COUNT" else math.ceil(nodes * size["Value"] / 100)
    return max(1, min(part, nodes))


def delete(account: Account, request: Body) -> Body:
    cluster = account.cluster(request["ClusterName"])
    refused = not all(each.deletes_while(cluster.status) for each in account.scenarios)
    if refused or cluster.status == "Deleting":
        raise _conflict(cluster)
    cluster.delete()
    return {"ClusterArn": cluster.arn}


def settled(cluster: Cluster) -> None:
    """Raises unless the cluster takes changes."""
    if cluster.status != "InService":
        raise _conflict(cluster)


def _conflict(cluster: Cluster) -> Refused:
    return Refused("ConflictException", f"Cluster {cluster.name} is in {cluster.status} state and cannot be changed.")


def _reserve(account: Account, groups: Iterable[Body], replaced: Iterable[str]) -> None:
    """Training plans that exist, and quotas that suffice."""
    replaced = list(replaced)
    wanted: dict[str, int] = {}
    for group in groups:
        kinds = [group["InstanceType"]] if "InstanceType" in group else group["InstanceRequirements"]["InstanceTypes"]
        wanted[kinds[0]] = wanted.get(kinds[0], 0) + group["InstanceCount"]
        if "TrainingPlanArn" in group:
            _planned(account, group)
            wanted[kinds[0]] -= group["InstanceCount"]  # reserved capacity has quotas of its own
    for kind, more in wanted.items():
        account.within_quota(kind, account.used(kind, replaced), more)


def _planned(account: Account, group: Body) -> None:
    plan = next((one for one in account.plans if one["TrainingPlanArn"] == group["TrainingPlanArn"]), None)
    name = group["InstanceGroupName"]
    if plan is None:
        raise invalid(f"instance group {name}: no training plan {group['TrainingPlanArn']}")
    if plan["Status"] not in ("Active", "Scheduled"):
        raise invalid(f"instance group {name}: training plan {plan['TrainingPlanName']} is {plan['Status']}")
    kinds = {one["InstanceType"] for one in plan.get("ReservedCapacitySummaries", ())}
    if kinds and group.get("InstanceType") not in kinds:
        raise invalid(f"instance group {name}: the training plan is for {', '.join(sorted(kinds))}")
    if "hyperpod-cluster" not in plan.get("TargetResources", ["hyperpod-cluster"]):
        raise invalid(f"instance group {name}: the training plan is not for HyperPod clusters")


OPERATIONS = {
    "CreateCluster": create,
    "DescribeCluster": describe,
    "ListClusters": list_,
    "UpdateCluster": update,
    "UpdateClusterSoftware": update_software,
    "DeleteCluster": delete,
}
