"""ListClusterEvents, DescribeClusterEvent, ListClusterOperations."""

from __future__ import annotations

from tests.fakes.gate import Refused
from tests.fakes.hyperpod.account import Account, Body, invalid, page, within
from tests.fakes.hyperpod.clusters import Cluster


def list_(account: Account, request: Body) -> Body:
    cluster = _told(account, request)
    wanted = {"group": "InstanceGroupName", "instance_id": "NodeId", "resource_type": "ResourceType"}
    wanted["operation_id"] = "OperationId"
    found = [
        event
        for event in cluster.events.kept
        if within(request, event.time_s, "EventTime")
        and all(getattr(event, ours) == request[theirs] for ours, theirs in wanted.items() if theirs in request)
    ]
    if request.get("SortOrder", "Descending") == "Descending":
        found.reverse()
    part, token = page(found, request)
    return {"Events": [cluster.events.summary(event) for event in part]} | token


def describe(account: Account, request: Body) -> Body:
    cluster = _told(account, request)
    for event in cluster.events.kept:
        if event.event_id == request["EventId"]:
            return {"EventDetails": cluster.events.details(event)}
    raise Refused("ResourceNotFound", f"Event {request['EventId']} not found.")


def operations(account: Account, request: Body) -> Body:
    cluster = account.cluster(request["ClusterName"])
    found = [
        one
        for one in cluster.operations
        if within(request, one["CreationTime"])
        and all(one[name] == request[name] for name in ("Status", "Type") if name in request)
    ]
    if request.get("SortOrder", "Descending") == "Descending":
        found.reverse()
    part, token = page(found, request)
    return {"ClusterOperationSummaries": part} | token


def _told(account: Account, request: Body) -> Cluster:
    cluster = account.cluster(request["ClusterName"])
    if not cluster.continuous:
        raise invalid("cluster events are only supported for clusters with NodeProvisioningMode Continuous")
    return cluster


OPERATIONS = {
    "ListClusterEvents": list_,
    "DescribeClusterEvent": describe,
    "ListClusterOperations": operations,
}
