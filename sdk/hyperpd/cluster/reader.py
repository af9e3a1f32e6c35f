"""Reading a cluster: status, nodes, events, tags. Every list to its end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hyperpd.cluster import state
from hyperpd.cluster.aws import MISSING, Aws
from hyperpd.cluster.state import Event, Node, Status
from hyperpd.errors import CloudError


def described(aws: Aws, name: str) -> Mapping[str, Any] | None:
    """DescribeCluster's answer; None where there is no such cluster. Raises CloudError."""
    try:
        return aws.call("sagemaker", "describe_cluster", ClusterName=name)
    except CloudError as error:
        if error.code in MISSING:
            return None
        raise


def status(aws: Aws, name: str) -> Status | None:
    """The cluster's status; None where there is no such cluster. Raises CloudError."""
    found = described(aws, name)
    return None if found is None else state.status({"ClusterName": name, **found})


def nodes(aws: Aws, cluster: Status) -> list[Node]:
    """All nodes, by group; with Continuous also those that have no machine yet. Raises CloudError."""
    logical = {"IncludeNodeLogicalIds": True} if cluster.continuous else {}
    found = aws.pages("sagemaker", "list_cluster_nodes", "ClusterNodeSummaries", ClusterName=cluster.name, **logical)
    order = {group.name: number for number, group in enumerate(cluster.groups)}
    return sorted(map(state.node, found), key=lambda one: (order.get(one.group, len(order)), one.logical_id, one.id))


def events(aws: Aws, cluster: Status, *, after: datetime | None = None, group: str = "", node: str = "") -> list[Event]:
    """Events, the oldest first; none without Continuous, which alone has them. Raises CloudError."""
    if not cluster.continuous:
        return []
    given: dict[str, Any] = {"EventTimeAfter": after} if after else {}
    given |= {"InstanceGroupName": group} if group else {}
    given |= {"NodeId": node} if node else {}
    found = aws.pages(
        *("sagemaker", "list_cluster_events", "Events"), ClusterName=cluster.name, SortOrder="Ascending", **given
    )
    return [state.event(one) for one in found]


def details(aws: Aws, cluster: Status, event: Event) -> Mapping[str, Any]:
    """What an event says beyond its text: FailureMessage, LcsExecutionState and others. Raises CloudError."""
    answer = aws.call("sagemaker", "describe_cluster_event", ClusterName=cluster.name, EventId=event.id)
    union = answer.get("EventDetails", {}).get("EventDetails", {}).get("EventMetadata", {})
    found: Mapping[str, Any] = next(iter(union.values()), {})
    return found


def tags(aws: Aws, arn: str) -> list[dict[str, str]]:
    """The tags of a cluster. Raises CloudError."""
    return list(aws.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn))
