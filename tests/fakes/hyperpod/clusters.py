"""A cluster: its groups, nodes and events, and how all of them move in time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.hyperpod.clock import Clock
from tests.fakes.hyperpod.events import Events
from tests.fakes.hyperpod.groups import Group
from tests.fakes.hyperpod.nodes import Node, digest
from tests.fakes.hyperpod.scenario import Trouble

Body = dict[str, Any]

# How long things take, seconds: orders of magnitude as users report them, not measured.
RESOURCES_S = 120.0  # the cluster's own resources
LAUNCH_S, LAUNCH_APART_S = 120.0, 5.0
LIFECYCLE_S = 180.0
DEEP_CHECK_S = 3600.0
REBOOT_S = 180.0
ROLLBACK_S, DELETE_S = 180.0, 240.0
RETRY_S = 600.0  # between two attempts of Continuous provisioning
MINIMUM_S = 3 * 3600.0  # botocore 1.44: MinInstanceCount


@dataclass(slots=True)
class Cluster:
    """The state machine. `troubles(group's specification, ordinal, attempt)` says what ends a node's start."""

    spec: Body  # CreateCluster's request, and what updates made of it
    arn: str
    clock: Clock
    zones: Callable[[str], tuple[str, str]]
    latest: Callable[[], str]  # the newest image version
    troubles: Callable[[Body, int, int], Trouble | None]
    printed: Callable[[Cluster, Node, tuple[str, ...]], None]  # what a lifecycle script printed
    created_s: float = 0.0
    status: str = "Creating"
    failure: str = ""
    groups: dict[str, Group] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    events: Events = field(init=False)
    gone: bool = False
    asked: dict[str, int] = field(default_factory=dict)  # operation → how often, for what is not seen at once
    tokens: dict[str, tuple[Body, list[str]]] = field(default_factory=dict)  # ClientToken → request, logical ids
    operations: list[Body] = field(default_factory=list)
    _numbers: int = 0

    def __post_init__(self) -> None:
        self.created_s = self.clock.now_s
        self.events = Events(self.arn, self.name)
        for spec in self.spec.get("InstanceGroups", ()):
            self.groups[spec["InstanceGroupName"]] = Group(
                copy.deepcopy(spec), spec.get("ImageReleaseVersion", self.latest())
            )

    @property
    def name(self) -> str:
        return str(self.spec["ClusterName"])

    @property
    def continuous(self) -> bool:
        return self.spec.get("NodeProvisioningMode") == "Continuous"

    @property
    def eks(self) -> str:
        """The ARN of its EKS cluster; "" on Slurm."""
        return str(self.spec.get("Orchestrator", {}).get("Eks", {}).get("ClusterArn", ""))

    def of(self, group: str) -> list[Node]:
        return [node for node in self.nodes if node.group == group]

    def present(self, group: str) -> list[Node]:
        """The nodes that count: started, and not failed."""
        return [node for node in self.of(group) if node.status not in ("Pending", "Failure", "ShuttingDown")]

    # ── creation ──

    def create(self, fails: str) -> None:
        def ready() -> None:
            if self.gone or self.status != "Creating":
                return
            if fails:
                self._fail(fails)
                return
            self._say("Cluster", "Info", "Cluster resources were created.", {"Cluster": self._access()})
            if self.continuous:
                self.status = "InService"
            for group in self.groups.values():
                self.scale(group)
            self.settle()

        self._say("Cluster", "Info", "Cluster creation started.", {"Cluster": self._access()})
        self.clock.after(RESOURCES_S, ready)

    def scale(self, group: Group) -> None:
        """Nodes up to the target, or the newest away down to it."""
        here = self.of(group.name)
        group.operation = group.operation or self.operation("Scaling")
        for node in here[group.target :]:
            self.remove(node)
        ordinals = iter(sorted(set(range(group.target)) - {node.ordinal for node in here}))
        for ordinal in list(ordinals)[: max(0, group.target - len(here))]:
            self.add(group, ordinal)
        if group.minimum and not group.served and self.continuous:
            self.clock.after(MINIMUM_S, lambda: self._give_up(group))

    def add(self, group: Group, ordinal: int, kind: str = "", zone: str = "") -> Node:
        """A new node, and its way."""
        vpc = group.spec.get("OverrideVpcConfig") or self.spec.get("VpcConfig") or {"Subnets": ["subnet-0"]}
        fitting = [one for one in vpc["Subnets"] if not zone or self.zones(one)[0] == zone] or vpc["Subnets"]
        subnet = fitting[ordinal % len(fitting)] if zone else fitting[0]
        self._numbers += 1
        logical = f"{group.name[:40]}-{digest(self.arn, group.name, self._numbers)[:12]}"
        node = Node(logical, group.name, ordinal, kind or group.types[0], *self.zones(subnet), subnet)
        self.nodes.append(node)
        self.start(node)
        return node

    def start(self, node: Node) -> None:
        node.status, node.message = "Pending", ""
        machine = node.machines
        delay_s = LAUNCH_S + LAUNCH_APART_S * node.ordinal
        self.clock.after(delay_s, lambda: None if self._over(node, machine) else self._launch(node))

    def _launch(self, node: Node) -> None:
        trouble = self.troubles(self.groups[node.group].spec, node.ordinal, node.attempt)
        if trouble and trouble.stage == "capacity":
            self._trouble(node, trouble)
            return
        node.launch(self.clock.now_s, self.groups[node.group].version)
        machine = node.machines
        self._tell(node, "Info", "Instance was launched.", LcsExecutionState="NotStarted")

        def initialised() -> None:
            failed = trouble and trouble.stage == "lifecycle"
            self.printed(self, node, trouble.log if trouble and failed else ("[start]", "[stop] exit code 0"))
            if trouble and failed:
                self._trouble(node, trouble)
                return
            self._tell(node, "Info", "Lifecycle scripts ran.", LcsExecutionState="Succeeded")
            if not self.groups[node.group].spec.get("OnStartDeepHealthChecks"):
                checked()
                return
            node.status = "DeepHealthCheckInProgress"
            self.clock.after(DEEP_CHECK_S, lambda: None if self._over(node, machine) else checked())

        def checked() -> None:
            if trouble:
                self._trouble(node, trouble)
                return
            node.status, node.message = "Running", ""
            self._tell(node, "Info", "Instance is running.", LcsExecutionState="Succeeded")
            self.settle()

        self.clock.after(LIFECYCLE_S, lambda: None if self._over(node, machine) else initialised())

    def check(self, node: Node) -> None:
        """A deep health check of a running node."""
        node.status, machine = "DeepHealthCheckInProgress", node.machines

        def checked() -> None:
            node.status = "Running"

        self.clock.after(DEEP_CHECK_S, lambda: None if self._over(node, machine) else checked())

    def _over(self, node: Node, machine: int) -> bool:
        """Whether what was to happen to a node no longer concerns it."""
        return node.gone or node.machines != machine or node.status == "ShuttingDown" or self.status == "Deleting"

    def _trouble(self, node: Node, trouble: Trouble) -> None:
        state = {"lifecycle": "Failed"}.get(trouble.stage, "NotStarted" if trouble.stage == "capacity" else "Succeeded")
        group = self.groups[node.group]
        if trouble.stage == "capacity":
            counts = {"InstanceCount": len(self.present(group.name)), "TargetCount": group.target}
            if "MinInstanceCount" in group.spec:
                counts["MinCount"] = group.minimum
            self._say(
                "InstanceGroup",
                "Error",
                f"Instance group could not be scaled: {trouble.message}",
                {"InstanceGroupScaling": {**counts, "FailureMessage": trouble.message}},
                group=group,
            )
        else:
            self._tell(node, "Error", trouble.message, LcsExecutionState=state, FailureMessage=trouble.message)
        if not self.continuous:
            node.status, node.message = "Failure", trouble.message
            self._roll_back(f"Instance group '{group.name}': {trouble.message}")
            return
        if node.instance_id:
            node.status, node.message = "Failure", trouble.message
        machine = node.machines

        def again() -> None:
            if not self._over(node, machine):
                node.attempt += 1
                node.instance_id, node.launched_s = "", 0.0
                self.start(node)

        self.clock.after(RETRY_S, again)

    def _give_up(self, group: Group) -> None:
        """MinInstanceCount was not met in time: back to the settings before, or to no instances."""
        if self.gone or group.served or self.groups.get(group.name) is not group:
            return
        message = f"MinInstanceCount {group.minimum} was not met within 3 hours; rolling back."
        counts = {"InstanceCount": len(self.present(group.name)), "TargetCount": group.target}
        metadata = {"InstanceGroupScaling": {**counts, "MinCount": group.minimum, "FailureMessage": message}}
        self._say("InstanceGroup", "Error", message, metadata, group=group)
        group.spec = group.before or {**group.spec, "InstanceCount": 0, "MinInstanceCount": 0}
        for node in self.of(group.name)[group.target :]:
            self.remove(node)
        group.status, group.operation = "Failed", self._end(group)

    # ── ends and turns ──

    def settle(self) -> None:
        """Groups and cluster become what their nodes make of them."""
        for group in self.groups.values():
            if group.status in ("Failed", "Deleting", "SystemUpdating"):
                continue
            running = [node for node in self.of(group.name) if node.status == "Running"]
            complete = len(running) >= group.target and len(self.of(group.name)) == group.target
            if complete or (self.continuous and len(running) >= group.minimum) or (self.continuous and group.served):
                group.status, group.served = "InService", True
            if complete and group.operation:
                metadata = {"InstanceGroupScaling": {"InstanceCount": len(running), "TargetCount": group.target}}
                self._say("InstanceGroup", "Info", "Instance group reached its target count.", metadata, group=group)
                group.operation, group.before = self._end(group), None
        moving = self.status in ("Creating", "Updating")
        if moving and not self.continuous and all(group.status == "InService" for group in self.groups.values()):
            self._turn("InService")

    def _roll_back(self, message: str) -> None:
        """Without Continuous provisioning one node's failure is everyone's."""
        if self.status not in ("Creating", "Updating"):
            return
        creating = self.status == "Creating"
        self._turn("RollingBack")
        self.failure = message
        for group in list(self.groups.values()):
            group.operation = self._end(group)
            keep = (
                group.before["InstanceCount"] if group.before else (0 if creating or not group.served else group.target)
            )
            for node in [one for one in self.of(group.name) if one.ordinal >= keep or one.status != "Running"]:
                self.remove(node)

        def back() -> None:
            for group in list(self.groups.values()):
                if creating:
                    group.status = "Failed"
                elif group.served:
                    group.spec, group.before, group.status = group.before or group.spec, None, "InService"
                else:
                    del self.groups[group.name]
            self._turn("Failed" if creating else "InService")

        self.clock.after(ROLLBACK_S, lambda: back() if self.status == "RollingBack" else None)

    def _fail(self, message: str) -> None:
        self.failure = message
        for group in self.groups.values():
            group.status = "Failed"
        self._say("Cluster", "Error", message, {"Cluster": {**self._access(), "FailureMessage": message}})
        self.status = "Failed"

    def _turn(self, status: str) -> None:
        if status == "InService" and self.status == "Creating":
            self.failure = ""
        self.status = status
        level = "Error" if status in ("Failed", "RollingBack") else "Info"
        self._say("Cluster", level, f"Cluster is {status}.", {"Cluster": self._access()})

    def remove(self, node: Node) -> None:
        node.status, node.message = "ShuttingDown", ""
        self.clock.after(60.0, lambda: self._drop(node))

    def _drop(self, node: Node) -> None:
        node.gone = True
        if node in self.nodes:
            self.nodes.remove(node)
        self.settle()

    def delete(self) -> None:
        self._turn("Deleting")
        for group in self.groups.values():
            group.status, group.operation = "Deleting", self._end(group)
        for node in list(self.nodes):
            node.status = "ShuttingDown"
        self.clock.after(DELETE_S, lambda: setattr(self, "gone", True))

    # ── what is said ──

    def operation(self, kind: str) -> str:
        words = digest(self.arn, kind, len(self.operations))
        named = f"{words[:8]}-{words[8:12]}-{words[12:16]}-{words[16:20]}-{words[20:32]}"
        self.operations.append(
            {
                "OperationId": named,
                "ClusterArn": self.arn,
                "Type": kind,
                "Status": "InProgress",
                "CreationTime": self.clock.now_s,
            }
        )
        return named

    def _end(self, group: Group) -> str:
        for each in self.operations:
            if each["OperationId"] == group.operation:
                each["Status"] = "Done"
        return ""

    def _access(self) -> Body:
        return {"EksRoleAccessEntries": [g.spec["ExecutionRole"] for g in self.groups.values()]} if self.eks else {}

    def _say(self, resource: str, level: str, description: str, metadata: Body, *, group: Group | None = None) -> None:
        named, operation = (group.name, group.operation) if group else ("", "")
        self.events.add(self.clock.now_s, resource, level, description, metadata, group=named, operation=operation)

    def _tell(self, node: Node, level: str, description: str, **metadata: str) -> None:
        efa = 1 if self.groups[node.group].spec.get("NetworkInterface") else 0
        details = {**node.enis(efa), **metadata, "NodeLogicalId": node.logical_id}
        operation = self.groups[node.group].operation
        self.events.add(
            self.clock.now_s, "Instance", level, description, {"Instance": details}, node=node, operation=operation
        )
