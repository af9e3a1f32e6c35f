"""ListClusterNodes, DescribeClusterNode, and the four batch calls that answer 200 whatever failed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tests.fakes.gate import Refused
from tests.fakes.hyperpod.account import Account, Body, invalid, page, within
from tests.fakes.hyperpod.clusters import REBOOT_S, Cluster
from tests.fakes.hyperpod.nodes import Node

MOST_ADDED = 50  # nodes in one BatchAddClusterNodes


def list_(account: Account, request: Body) -> Body:
    cluster = account.cluster(request["ClusterName"], "ListClusterNodes")
    logical = request.get("IncludeNodeLogicalIds", False)
    found = [
        node
        for node in cluster.nodes
        if (node.instance_id or logical)
        and request.get("InstanceGroupNameContains", "") in node.group
        and within(request, node.launched_s or cluster.clock.now_s)
    ]
    by_name = request.get("SortBy") == "NAME"
    found.sort(
        key=lambda node: (node.instance_id if by_name else node.launched_s, node.group, node.ordinal),
        reverse=request.get("SortOrder") == "Descending",
    )
    part, token = page(found, request)
    return {"ClusterNodeSummaries": [node.summary(account.latest, logical=logical) for node in part]} | token


def describe(account: Account, request: Body) -> Body:
    cluster = account.cluster(request["ClusterName"])
    if ("NodeId" in request) == ("NodeLogicalId" in request):
        raise invalid("exactly one of NodeId and NodeLogicalId")
    named = request.get("NodeId") or request["NodeLogicalId"]
    node = _find(cluster, named)
    if node is None:
        raise Refused("ResourceNotFound", f"Node {named} not found in cluster {cluster.name}.")
    return {"NodeDetails": node.details(cluster.groups[node.group].spec, account.latest)}


def add(account: Account, request: Body) -> Body:
    cluster = account.cluster(request["ClusterName"])
    if not cluster.continuous:
        raise invalid("BatchAddClusterNodes is only supported for clusters with NodeProvisioningMode Continuous")
    wanted = request["NodesToAdd"]
    if (total := sum(one["IncrementTargetCountBy"] for one in wanted)) > MOST_ADDED:
        raise invalid(f"NodesToAdd: {total} nodes are above {MOST_ADDED} in one request")
    token = request.get("ClientToken")
    if token in cluster.tokens:
        asked, names = cluster.tokens[token]
        if asked != request:
            raise invalid("ClientToken was used with other parameters")
        again = [node for node in cluster.nodes if node.logical_id in names]
        return {"Successful": [_added(node) for node in again], "Failed": []}
    done: list[Node] = []
    failed = []
    for one in wanted:
        if refused := _cannot_add(account, cluster, one):
            code, message = refused
            failed.append(
                {
                    "InstanceGroupName": one["InstanceGroupName"],
                    "ErrorCode": code,
                    "FailedCount": one["IncrementTargetCountBy"],
                    "Message": message,
                    **{name: one[name] for name in ("AvailabilityZones", "InstanceTypes") if name in one},
                }
            )
        else:
            done += _add(cluster, one)
    if token:
        cluster.tokens[token] = (copy.deepcopy(request), [node.logical_id for node in done])
    return {"Successful": [_added(node) for node in done], "Failed": failed}


def _cannot_add(account: Account, cluster: Cluster, one: Body) -> tuple[str, str] | None:
    name = one["InstanceGroupName"]
    group = cluster.groups.get(name)
    if told := account.first(lambda each: each.refuses("BatchAddClusterNodes", name)):
        return (str(told[0]), str(told[1]))
    if group is None:
        return "InstanceGroupNotFound", f"Instance group {name} not found."
    if group.status not in ("InService", "Creating", "Updating"):
        return "InvalidInstanceGroupStatus", f"Instance group {name} is {group.status}."
    if set(one.get("InstanceTypes", [])) - set(group.types):
        return "IncompatibleInstanceTypes", f"Instance group {name} has {', '.join(group.types)}."
    vpc = group.spec.get("OverrideVpcConfig") or cluster.spec.get("VpcConfig") or {"Subnets": []}
    zones = {cluster.zones(subnet)[0] for subnet in vpc["Subnets"]}
    if zones and set(one.get("AvailabilityZones", [])) - zones:
        return "IncompatibleAvailabilityZones", f"Instance group {name} is in {', '.join(sorted(zones))}."
    account.within_quota(group.types[0], account.used(group.types[0]), one["IncrementTargetCountBy"])
    return None


def _add(cluster: Cluster, one: Body) -> list[Node]:
    group = cluster.groups[one["InstanceGroupName"]]
    group.operation = group.operation or cluster.operation("Scaling")
    taken = {node.ordinal for node in cluster.of(group.name)}
    free = (ordinal for ordinal in range(10_000) if ordinal not in taken)
    kind, zone = one.get("InstanceTypes", [""])[0], one.get("AvailabilityZones", [""])[0]
    group.spec["InstanceCount"] += one["IncrementTargetCountBy"]
    return [cluster.add(group, next(free), kind, zone) for _ in range(one["IncrementTargetCountBy"])]


def _added(node: Node) -> Body:
    return {"NodeLogicalId": node.logical_id, "InstanceGroupName": node.group, "Status": node.status}


def delete(account: Account, request: Body) -> Body:
    def gone(cluster: Cluster, node: Node) -> None:
        group = cluster.groups[node.group]
        group.spec["InstanceCount"] -= 1
        group.operation = group.operation or cluster.operation("Scaling")
        cluster.remove(node)

    codes = {"missing": "NodeIdNotFound", "status": "InvalidNodeStatus", "busy": "NodeIdInUse", "key": "Code"}
    return _batch(account, request, "BatchDeleteClusterNodes", 50, codes, gone)


_CODES = {
    "missing": "InstanceIdNotFound",
    "status": "InvalidInstanceStatus",
    "busy": "InstanceIdInUse",
    "key": "ErrorCode",
}


def reboot(account: Account, request: Body) -> Body:
    def restart(cluster: Cluster, node: Node) -> None:
        node.status, node.message, machine = "Pending", "", node.machines

        def up() -> None:
            if not node.gone and node.machines == machine and node.status == "Pending":
                node.status = "Running"
                cluster.settle()

        cluster.clock.after(REBOOT_S, up)

    return _batch(account, request, "BatchRebootClusterNodes", 25, _CODES, restart)


def replace(account: Account, request: Body) -> Body:
    def renew(cluster: Cluster, node: Node) -> None:
        node.status = "ShuttingDown"

        def again() -> None:
            if not node.gone and cluster.status != "Deleting":
                node.instance_id, node.launched_s = "", 0.0
                cluster.start(node)

        cluster.clock.after(60.0, again)

    return _batch(account, request, "BatchReplaceClusterNodes", 25, _CODES, renew)


def _batch(
    account: Account,
    request: Body,
    operation: str,
    most: int,
    codes: dict[str, str],
    does: Callable[[Cluster, Node], None],
) -> Body:
    """Each node by itself: done, or failed with a code; the answer is 200 either way."""
    cluster = account.cluster(request["ClusterName"])
    ids, logical = request.get("NodeIds", []), request.get("NodeLogicalIds", [])
    if not ids and not logical:
        raise invalid("at least one of NodeIds and NodeLogicalIds")
    if logical and not cluster.continuous:
        raise invalid("NodeLogicalIds are only supported for clusters with NodeProvisioningMode Continuous")
    if len(ids) + len(logical) > most and logical:
        raise invalid(f"{len(ids) + len(logical)} nodes are above {most}")
    answer: dict[str, list[Any]] = {
        "Successful": [],
        "Failed": [],
        "SuccessfulNodeLogicalIds": [],
        "FailedNodeLogicalIds": [],
    }
    named_by = [(one, "NodeId", "") for one in ids] + [(one, "NodeLogicalId", "NodeLogicalIds") for one in logical]
    for named, key, where in named_by:
        node = _find(cluster, named)
        if refused := _cannot(account, cluster, node, named, operation, codes):
            answer[f"Failed{where}"].append({key: named, codes["key"]: refused[0], "Message": refused[1]})
        else:
            assert node
            does(cluster, node)
            answer[f"Successful{where}"].append(named)
    return {name: value for name, value in answer.items() if value}  # an empty list of successes is no answer


def _cannot(
    account: Account, cluster: Cluster, node: Node | None, named: str, operation: str, codes: dict[str, str]
) -> tuple[str, str] | None:
    if told := account.first(lambda each: each.refuses(operation, named)):
        return (str(told[0]), str(told[1]))
    if node is None:
        return codes["missing"], f"Node {named} not found in cluster {cluster.name}."
    if cluster.status != "InService":
        return codes["status"], f"Cluster {cluster.name} is {cluster.status}."
    if cluster.groups[node.group].controller and operation != "BatchRebootClusterNodes":
        return codes["status"], f"Node {named} is a Slurm controller node."
    if node.status in ("ShuttingDown", "SystemUpdating"):
        return codes["busy"], f"Node {named} is {node.status}."
    if operation == "BatchRebootClusterNodes" and node.status not in ("Running", "Failure"):
        return codes["status"], f"Node {named} is {node.status}."
    return None


def _find(cluster: Cluster, named: str) -> Node | None:
    return next((node for node in cluster.nodes if named in (node.instance_id, node.logical_id)), None)


def check_health(account: Account, request: Body) -> Body:
    """Deep health checks on running nodes, which work on meanwhile."""
    cluster = account.cluster(request["ClusterName"])
    wanted = request["DeepHealthCheckConfigurations"]
    if missing := [one["InstanceGroupName"] for one in wanted if one["InstanceGroupName"] not in cluster.groups]:
        raise invalid(*(f"no instance group {name}" for name in missing))
    cluster.operation("DeepHealthCheck")
    for one in wanted:
        for node in cluster.of(one["InstanceGroupName"]):
            if node.status == "Running" and node.instance_id in one.get("InstanceIds", [node.instance_id]):
                cluster.check(node)
    return {"ClusterArn": cluster.arn}


OPERATIONS = {
    "StartClusterHealthCheck": check_health,
    "ListClusterNodes": list_,
    "DescribeClusterNode": describe,
    "BatchAddClusterNodes": add,
    "BatchDeleteClusterNodes": delete,
    "BatchRebootClusterNodes": reboot,
    "BatchReplaceClusterNodes": replace,
}
