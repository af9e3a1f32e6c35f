"""Cluster: one HyperPod cluster, from its file or by its name.

What is there is what AWS says; nothing is kept on this machine. A run that was cut off is simply run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hyperpd.cluster import adopt, creation, described, file, patch, reader, removal, repair, rules, stacks
from hyperpd.cluster import preflight as preflight_
from hyperpd.cluster.aws import Aws, Call
from hyperpd.cluster.blueprint import Blueprint, blueprint
from hyperpd.cluster.changes import Changes, diff
from hyperpd.cluster.command import command
from hyperpd.cluster.names import Names
from hyperpd.cluster.patch import Drain
from hyperpd.cluster.preflight import Preflight
from hyperpd.cluster.progress import Step, Tell, silent
from hyperpd.cluster.spec import ClusterSpec
from hyperpd.cluster.state import Event, Node, Status
from hyperpd.cluster.watch import POLL_S, TIMEOUT_S, Wait
from hyperpd.errors import CloudError, RecipeError


@dataclass(frozen=True, slots=True)
class Plan:
    """What create or update would do. `status` is None where there is no such cluster."""

    blueprint: Blueprint
    status: Status | None
    changes: Changes | None  # None: it is created
    calls: tuple[Call, ...]  # exactly what would be sent, in order
    notes: tuple[str, ...]


class Cluster:
    """A cluster by name. It holds no connection; close is not needed."""

    def __init__(self, name: str, aws: Aws | None = None, *, region: str | None = None) -> None:
        self.name = name
        self.aws = aws or Aws(region)

    # ── from a file ──

    @classmethod
    def plan(cls, spec: ClusterSpec | str | Path) -> Plan:
        """What create, or update where the cluster is there, would do. Nothing is changed.

        Raises RecipeError, CapacityError, CloudError.
        """
        spec = _spec(spec)
        aws = Aws(spec.region, dry=True)
        plan = blueprint(spec, aws.place)
        creation.known(aws, plan)
        status, changes = creation.compare(aws, plan)
        if status is None or changes is None:
            creation.create(aws, plan, silent)
        else:
            creation.update(aws, plan, status.arn, changes, silent)
        return Plan(plan, status, changes, tuple(aws.withheld), tuple(rules.notes(spec, plan.groups)))

    @classmethod
    def preflight(
        cls, spec: ClusterSpec | str | Path, *, prices: Mapping[str, float] | None = None, offline: bool = False
    ) -> Preflight:
        """What stands in the way, all at once, and what it costs. Nothing is changed. prices: yours, by instance type,
        in dollars per hour; offline: AWS is not asked.

        Raises RecipeError where the file cannot be used, CapacityError where its recipe does not fit.
        """
        spec = _spec(spec)
        return preflight_.run(spec, None if offline else Aws(spec.region), overrides=prices)

    @classmethod
    def create(cls, spec: ClusterSpec | str | Path, progress: Tell = silent, *, check: bool = True) -> Cluster:
        """Role, bucket and lifecycle files as far as they are missing, then the cluster. Run again, it goes on where
        it was; for a cluster that is there as the file says it does nothing. It does not wait: `wait` does.

        check: look first, as `preflight` does; where a problem stands in the way nothing is made, and what is no
        problem is told.

        Raises RecipeError, CapacityError, CloudError.
        """
        spec = _spec(spec)
        if check:
            found = cls.preflight(spec)
            for one in (*found.of("unknown"), *found.of("warning")):
                progress(Step("\n".join(one.lines())))
            if error := found.error():
                raise error
        aws = Aws(spec.region)
        plan = blueprint(spec, aws.place)
        creation.known(aws, plan)
        cluster = cls(spec.name, aws)
        status, changes = creation.compare(aws, plan)
        if status is None:
            if creation.create(aws, plan, progress):
                return cluster
            # boto3 sent it twice, and the first answer was lost; or another run was faster.
            status, changes = creation.seen(aws, plan)
        if status.status in ("Failed", "Deleting"):
            raise CloudError(
                f"{spec.name} is there and {status.status}: {status.failure or 'AWS says no more'}. Delete it first:"
                f" {command('delete', spec.name, aws.place.region)}"
            )
        if changes:
            told = "\n".join(f"  {line}" for line in changes.lines())
            raise CloudError(f"{spec.name} is there and differs from the file; use hyperpd cluster update:\n{told}")
        progress(Step(f"cluster {spec.name}: there already, as the file says"))
        return cluster

    def update(self, spec: ClusterSpec | str | Path, progress: Tell = silent) -> Changes:
        """Make the cluster what the file says; what was sent. It does not wait: wait(expect=changes.counts) does.

        Raises RecipeError where the file asks for what cannot be changed, CapacityError, CloudError.
        """
        spec = _spec(spec)
        if spec.name != self.name:
            raise RecipeError(f"cluster {self.name}", [f"name: the file is of {spec.name}"])
        plan = blueprint(spec, self.aws.place)
        creation.known(self.aws, plan)
        status, changes = creation.compare(self.aws, plan)
        if status is None or changes is None:
            raise CloudError(f"there is no cluster {spec.name}; hyperpd cluster create makes it")
        if changes.impossible:
            raise RecipeError(f"cluster {spec.name}", [f"{one} (cannot be changed)" for one in changes.impossible])
        creation.update(self.aws, plan, status.arn, changes, progress)
        return changes

    # ── by name ──

    @property
    def names(self) -> Names:
        """Names that follow from the cluster's. Raises CloudError."""
        return Names(self.name, self.aws.place)

    def status(self) -> Status:
        """Raises CloudError, also where there is no such cluster."""
        if found := reader.status(self.aws, self.name):
            return found
        told = f"there is no cluster {self.name} in {self.aws.place.region}: wrong name, Region or account, or deleted"
        lines = [told, *stacks.causes(self.aws, stacks.of_cluster(self.name))]
        raise CloudError("\n".join(lines), operation="DescribeCluster", code="ResourceNotFound")

    def spec(self) -> tuple[ClusterSpec, list[str]]:
        """Its file, whoever made it, and what a file cannot say. Raises RecipeError, CloudError."""
        arn = self.status().arn
        answer = {"ClusterName": self.name, **(reader.described(self.aws, self.name) or {})}
        found = adopt.spec(answer, reader.tags(self.aws, arn), self.aws.place.region)
        return found, adopt.unsaid(answer)

    def wait(
        self,
        progress: Tell = silent,
        *,
        expect: Mapping[str, int] | None = None,
        timeout_s: float = TIMEOUT_S,
        poll_s: float = POLL_S,
        new: bool = False,
    ) -> Status:
        """Until it is in service with its nodes. expect: nodes by group that an update asked for; new: it was created
        a moment ago. Raises NotReady with the causes, CloudError.
        """
        doing = "create" if new else ""
        return Wait(self.aws, self.names, progress, timeout_s, poll_s, new, doing).ready(expect)

    def nodes(self, group: str | None = None) -> list[Node]:
        """Its nodes. Raises CloudError."""
        found = reader.nodes(self.aws, self.status())
        return [node for node in found if group in (None, node.group)]

    def events(self, *, after: datetime | None = None, group: str = "", node: str = "") -> list[Event]:
        """Its events, the oldest first. Raises CloudError, also where a cluster has none for want of Continuous."""
        status = self.status()
        if not status.continuous:
            raise CloudError(f"{self.name} has no events: HyperPod keeps them with continuous: true alone")
        return reader.events(self.aws, status, after=after, group=group, node=node)

    def scale(self, counts: Mapping[str, int], progress: Tell = silent) -> Changes:
        """Other numbers of nodes; all else of the groups stays. What was sent. It does not wait.

        Raises RecipeError for groups that are not there, CloudError.
        """
        answer = reader.described(self.aws, self.name) or {}
        status = self.status()
        problems = [
            f"{name}: no such group; there are {', '.join(group.name for group in status.groups)}"
            for name in counts
            if status.group(name) is None
        ]
        for group in status.groups:
            if group.name in counts and counts[group.name] < group.minimum:
                problems.append(f"{group.name}: {counts[group.name]} is below its min_count {group.minimum}")
        if problems:
            raise RecipeError(f"cluster {self.name}", problems)
        have = described.request({"ClusterName": self.name, **answer})
        groups = [
            {**group, "InstanceCount": counts.get(group["InstanceGroupName"], group["InstanceCount"])}
            for group in have["InstanceGroups"]
        ]
        changes = diff({**have, "InstanceGroups": groups}, have)
        if changes.request:
            self.aws.call("sagemaker", "update_cluster", **changes.request)
            progress(Step(f"cluster {self.name}: update sent"))
        return changes

    def repair(self, nodes: Sequence[str], action: repair.Action, progress: Tell = silent, **given: Any) -> list[Node]:
        """Reboot or replace nodes; see repair.repair."""
        return repair.repair(self.aws, self.names, nodes, action, progress, **given)

    def patch(
        self, groups: Sequence[str] = (), progress: Tell = silent, *, drain: Drain = patch.no_endpoint, **given: Any
    ) -> list[patch.Patched]:
        """Newer software, group by group; see patch.patch."""
        return patch.patch(self.aws, self.names, groups, progress, drain=drain, **given)

    def removal(self, bucket: str = "") -> removal.Removal:
        """What delete would remove, and what it would keep. Raises CloudError."""
        return removal.find(self.aws, self.names, bucket)

    def delete(
        self,
        progress: Tell = silent,
        *,
        bucket: str = "",
        timeout_s: float = TIMEOUT_S,
        poll_s: float = POLL_S,
    ) -> None:
        """The cluster, then role, bucket and files that were made for it. Run again, it goes on where it was.

        bucket: the one that the cluster's file names; nothing else tells of it when the cluster is gone. Raises
        NotReady, CloudError.
        """
        removal.remove(self.aws, self.names, progress, given=bucket, timeout_s=timeout_s, poll_s=poll_s)


def _spec(spec: ClusterSpec | str | Path) -> ClusterSpec:
    return spec if isinstance(spec, ClusterSpec) else file.load(spec)
