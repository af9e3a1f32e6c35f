"""What happened in a cluster, as ListClusterEvents and DescribeClusterEvent tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.fakes.hyperpod.nodes import Node, digest

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    event_id: str
    time_s: float
    resource_type: str  # Cluster, InstanceGroup, Instance
    level: str  # Info, Warn, Error
    description: str
    metadata: Body
    group: str = ""
    instance_id: str = ""
    operation_id: str = ""


@dataclass(slots=True)
class Events:
    """In the order in which they happened."""

    arn: str
    cluster: str
    kept: list[Event] = field(default_factory=list)

    def add(
        self,
        now_s: float,
        resource: str,
        level: str,
        description: str,
        metadata: Body,
        *,
        group: str = "",
        node: Node | None = None,
        operation: str = "",
    ) -> None:
        words = digest(self.arn, len(self.kept))
        event_id = f"{words[:8]}-{words[8:12]}-{words[12:16]}-{words[16:20]}-{words[20:32]}"
        instance = node.instance_id if node else ""
        group = node.group if node else group
        self.kept.append(Event(event_id, now_s, resource, level, description, metadata, group, instance, operation))

    def summary(self, event: Event) -> Body:
        body: Body = {
            "EventId": event.event_id,
            "ClusterArn": self.arn,
            "ClusterName": self.cluster,
            "ResourceType": event.resource_type,
            "EventTime": event.time_s,
            "Description": event.description,
            "EventLevel": event.level,
        }
        named = {"InstanceGroupName": event.group, "InstanceId": event.instance_id, "OperationId": event.operation_id}
        return body | {name: value for name, value in named.items() if value}

    def details(self, event: Event) -> Body:
        return self.summary(event) | {"EventDetails": {"EventMetadata": event.metadata}}
