"""What goes wrong inside the service: small objects, given to Control one beside the other.

What goes wrong on the way to it (throttled, expired, cut off) is in tests/fakes/gate.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True, slots=True)
class Trouble:
    """What ends one node's start: at which stage, and what the service says."""

    stage: str  # capacity, lifecycle, health
    message: str
    log: tuple[str, ...] = ()  # what the lifecycle script printed


class Scenario:
    """A healthy service; each fault overrides one answer."""

    def trouble(self, group: str, ordinal: int, attempt: int) -> Trouble | None:
        """What ends the start of a group's node, counted from 0; attempts too."""
        return None

    def refuses_create(self, request: Mapping[str, Any]) -> Iterable[str]:
        """What CreateCluster or UpdateCluster names, and the account does not have."""
        return ()

    def lifecycle(self, source: str, script: str, role: str) -> Trouble | None:
        """What ends a node's start by the script of its group: an S3 folder, a file within, and who reads them."""
        return None

    def script_ended(self, cluster_arn: str, cluster: str, group: str, instance: str, log: tuple[str, ...]) -> None:
        """A lifecycle script ended on an instance, and printed this."""

    def cluster_fails(self, cluster: str) -> str:
        """The message with which the cluster's own resources fail, before any node; "" if they do not."""
        return ""

    def update_rolls_back(self, group: str) -> bool:
        """Whether a software update of the group ends where it began, and nobody says so."""
        return False

    def refuses(self, operation: str, key: str) -> tuple[str, str] | None:
        """Code and message for one node (its id or logical id) or group within a batch call."""
        return None

    def hides(self, operation: str, age_calls: int) -> bool:
        """Whether a cluster that was asked for `age_calls` times by this operation cannot be seen yet."""
        return False

    def deletes_while(self, status: str) -> bool:
        """Whether DeleteCluster is taken in that state of the cluster."""
        return True


@dataclass(slots=True)
class LifecycleFailure(Scenario):
    """Nodes of a group whose lifecycle script ends with an error; `attempts` of each, then it goes well."""

    group: str = "*"
    nodes: tuple[int, ...] = ()  # ordinals; all if empty
    message: str = "Lifecycle scripts did not run successfully: exit code 1."
    attempts: int = 1_000_000
    log: tuple[str, ...] = ("[start] on_create.sh", "[error] no route to the file system", "[stop] exit code 1")

    def trouble(self, group: str, ordinal: int, attempt: int) -> Trouble | None:
        hit = fnmatchcase(group, self.group) and (not self.nodes or ordinal in self.nodes) and attempt < self.attempts
        return Trouble("lifecycle", self.message, self.log) if hit else None


@dataclass(slots=True)
class NoCapacity(Scenario):
    """Capacity for the first `nodes` of a group, and no more."""

    group: str = "*"
    nodes: int = 0
    message: str = (
        "We currently do not have sufficient capacity in the requested Availability Zone. "
        "Our system will be working on provisioning additional capacity."
    )

    def trouble(self, group: str, ordinal: int, attempt: int) -> Trouble | None:
        hit = fnmatchcase(group, self.group) and ordinal >= self.nodes
        return Trouble("capacity", self.message) if hit else None


@dataclass(slots=True)
class HealthCheckFailure(Scenario):
    """The first `attempts` starts of the nodes named fail their check: the commonest failure, a security group's."""

    group: str = "*"
    nodes: tuple[int, ...] = ()
    message: str = "EFA health checks did not run successfully. Ensure that your VPC and security groups are properly "
    attempts: int = 1_000_000

    def trouble(self, group: str, ordinal: int, attempt: int) -> Trouble | None:
        hit = fnmatchcase(group, self.group) and (not self.nodes or ordinal in self.nodes) and attempt < self.attempts
        return (
            Trouble("health", f"{self.message}configured before attempting to create a new cluster.") if hit else None
        )


@dataclass(slots=True)
class ClusterFailure(Scenario):
    """The cluster's own resources cannot be made."""

    message: str

    def script_ended(self, cluster_arn: str, cluster: str, group: str, instance: str, log: tuple[str, ...]) -> None:
        """A lifecycle script ended on an instance, and printed this."""

    def cluster_fails(self, cluster: str) -> str:
        return self.message


@dataclass(slots=True)
class SilentRollback(Scenario):
    """UpdateClusterSoftware is taken, works, and ends with the version that was there: InService, no message."""

    group: str = "*"

    def update_rolls_back(self, group: str) -> bool:
        return fnmatchcase(group, self.group)


@dataclass(slots=True)
class BatchFailure(Scenario):
    """A batch call that answers 200 and fails for these: node ids, logical ids or groups, with * and ?."""

    operation: str
    key: str
    code: str
    message: str = "An internal error occurred."

    def refuses(self, operation: str, key: str) -> tuple[str, str] | None:
        hit = fnmatchcase(operation, self.operation) and fnmatchcase(key, self.key)
        return (self.code, self.message) if hit else None


@dataclass(slots=True)
class Unseen(Scenario):
    """A new cluster is not found by the first `describes`, and absent from the first `lists`."""

    describes: int = 2
    lists: int = 2

    def hides(self, operation: str, age_calls: int) -> bool:
        return age_calls < (self.lists if operation.startswith("List") else self.describes)


@dataclass(slots=True)
class NoDeleteWhile(Scenario):
    """DeleteCluster is a conflict in these states."""

    statuses: tuple[str, ...] = ("Creating", "Updating", "SystemUpdating", "RollingBack")

    def deletes_while(self, status: str) -> bool:
        return status not in self.statuses
