"""What AWS says of a cluster, as values: its status, groups, nodes and events. Lenient: new fields and words pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hyperpd.cluster.groups import ROLE_LABEL

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GroupState:
    """An instance group. Counts in nodes; `minimum` 0: none was asked for."""

    name: str
    role: str  # whose workers run there: by label, else the group's name
    status: str
    current: int
    target: int
    minimum: int
    instance_types: tuple[str, ...]
    release: str  # of the image its nodes run; "" where AWS says none
    image_status: str  # UpToDate, UpdateAvailable, …
    update: str  # of the last software update: Succeeded, RollbackComplete, …

    @property
    def enough(self) -> int:
        """Nodes with which it is in service; one at least, unless none is wanted."""
        return min(self.target, max(1, self.minimum)) if self.minimum else self.target

    @property
    def served(self) -> bool:
        """In service, with the nodes for it: HyperPod says InService before there is one."""
        return self.status == "InService" and self.current >= self.enough


@dataclass(frozen=True, slots=True)
class Status:
    """A cluster."""

    name: str
    arn: str
    status: str
    failure: str
    continuous: bool
    orchestrator: str  # eks, slurm
    groups: tuple[GroupState, ...]

    @property
    def ready(self) -> bool:
        """In service with its nodes."""
        return self.status == "InService" and all(group.served for group in self.groups)

    @property
    def id(self) -> str:
        """The last word of its ARN, which log groups are named by."""
        return self.arn.rpartition("/")[2]

    def group(self, name: str) -> GroupState | None:
        return next((group for group in self.groups if group.name == name), None)

    def line(self) -> str:
        """In one line."""
        groups = "  ".join(
            f"{group.name} {group.current}/{group.target}"
            + (f" (min {group.minimum})" if group.minimum else "")
            + ("" if group.status == self.status else f" {group.status}")
            for group in self.groups
        )
        return f"{self.name} {self.status}  {groups}".rstrip()


@dataclass(frozen=True, slots=True)
class Node:
    """A node. `id` is empty until there is a machine."""

    id: str
    logical_id: str
    group: str
    instance_type: str
    status: str
    message: str
    release: str

    @property
    def healthy(self) -> bool:
        return self.status == "Running"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a cluster, a group or a node."""

    id: str
    time: datetime
    level: str  # Info, Warn, Error; "" where AWS says none
    what: str  # Cluster, InstanceGroup, Instance
    group: str
    node: str
    text: str

    def line(self) -> str:
        """In one line."""
        where = "/".join(part for part in (self.group, self.node) if part) or self.what
        return f"{self.time:%Y-%m-%d %H:%M:%S} {self.level or '-':5} {where}: {self.text}"


def status(described: Object) -> Status:
    """Of DescribeCluster's answer."""
    return Status(
        name=str(described.get("ClusterName", "")),
        arn=str(described["ClusterArn"]),
        status=str(described["ClusterStatus"]),
        failure=str(described.get("FailureMessage", "")),
        continuous=described.get("NodeProvisioningMode") == "Continuous",
        orchestrator="eks" if "Eks" in described.get("Orchestrator", {}) else "slurm",
        groups=tuple(_group(group) for group in described.get("InstanceGroups", ())),
    )


def _group(group: Object) -> GroupState:
    types = group.get("InstanceRequirements", {}).get("DesiredInstanceTypes", ())
    labels = group.get("KubernetesConfig", {})
    name = str(group.get("InstanceGroupName", ""))
    return GroupState(
        name=name,
        role=str(labels.get("CurrentLabels", labels.get("DesiredLabels", {})).get(ROLE_LABEL, name)),
        status=str(group.get("Status", "")),
        current=int(group.get("CurrentCount", 0)),
        target=int(group.get("TargetCount", 0)),
        minimum=int(group.get("MinCount", 0)),
        instance_types=tuple(types) or (str(group.get("InstanceType", "")),),
        release=str(group.get("CurrentImageReleaseVersion", "")),
        image_status=str(group.get("ImageVersionStatus", "")),
        update=str(group.get("SoftwareUpdateStatus", "")),
    )


def node(summary: Object) -> Node:
    """Of one entry of ListClusterNodes."""
    said = summary.get("InstanceStatus", {})
    return Node(
        id=str(summary.get("InstanceId", "")),
        logical_id=str(summary.get("NodeLogicalId", "")),
        group=str(summary.get("InstanceGroupName", "")),
        instance_type=str(summary.get("InstanceType", "")),
        status=str(said.get("Status", "")),
        message=str(said.get("Message", "")),
        release=str(summary.get("CurrentImageReleaseVersion", "")),
    )


def event(summary: Object) -> Event:
    """Of one entry of ListClusterEvents."""
    return Event(
        id=str(summary["EventId"]),
        time=summary["EventTime"],
        level=str(summary.get("EventLevel", "")),
        what=str(summary.get("ResourceType", "")),
        group=str(summary.get("InstanceGroupName", "")),
        node=str(summary.get("InstanceId", "")),
        text=" ".join(str(summary.get("Description", "")).split()),
    )
