"""What one account and Region has, and what the operations share: finding, paging, refusing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from tests.fakes.gate import ACCOUNT, REGION, Refused
from tests.fakes.hub import Hub
from tests.fakes.hyperpod.clock import Clock
from tests.fakes.hyperpod.clusters import Cluster
from tests.fakes.hyperpod.nodes import Node, Zones, digest
from tests.fakes.hyperpod.scenario import Scenario, Trouble

Body = dict[str, Any]
PAGE = 10  # what a list gives when it is not told otherwise


@dataclass(slots=True)
class Account:
    """`quotas`: instances per type for cluster usage; a type that is not named has no limit."""

    clock: Clock = field(default_factory=Clock)
    zones: Callable[[str], tuple[str, str]] = field(default_factory=Zones)  # subnet → name and id of its zone
    quotas: dict[str, int] = field(default_factory=dict)
    latest: str = "1.4.2"  # the newest image version
    scenarios: list[Scenario] = field(default_factory=list)
    hub: Hub = field(default_factory=Hub)
    clusters: list[Cluster] = field(default_factory=list)
    plans: list[Body] = field(default_factory=list)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)  # ARN → tags
    hosting: dict[tuple[str, str], Body] = field(default_factory=dict)  # (model, endpoint…; name) → what it is

    def cluster(self, named: str, operation: str = "") -> Cluster:
        """By name or ARN. `operation`: the one that may not see it yet."""
        for each in self.clusters:
            if named in (each.name, each.arn) and not each.gone:
                if operation and self.hidden(each, operation):
                    break
                return each
        raise Refused("ResourceNotFound", f"Cluster {named} not found.")

    def hidden(self, cluster: Cluster, operation: str) -> bool:
        """Whether a call does not see it yet; counts the call."""
        age = cluster.asked.get(operation, 0)
        cluster.asked[operation] = age + 1
        return any(each.hides(operation, age) for each in self.scenarios)

    def arn_of(self, named: str) -> str:
        """The ARN of a cluster by name or ARN; for one that is not there, the one it would get."""
        if named.startswith("arn:"):
            return named
        for each in self.clusters:
            if each.name == named and not each.gone:
                return each.arn
        return arn("cluster", digest("cluster", named, len(self.clusters))[:12])

    def lacks(self, request: Body) -> list[str]:
        """What a request names, and is not there."""
        return [wrong for each in self.scenarios for wrong in each.refuses_create(request)]

    def trouble(self, group: Body, ordinal: int, attempt: int) -> Trouble | None:
        """What ends the start of a node of a group, by the group's specification."""
        name = group["InstanceGroupName"]
        if trouble := self.first(lambda each: each.trouble(name, ordinal, attempt)):
            return cast(Trouble, trouble)
        lifecycle = group.get("LifeCycleConfig", {})
        scripts = [lifecycle[kind] for kind in ("OnCreate", "OnInitComplete") if kind in lifecycle]
        source, role = lifecycle.get("SourceS3Uri", ""), group["ExecutionRole"]
        found = (each.lifecycle(source, script, role) for script in scripts for each in self.scenarios)
        return next((one for one in found if one), None)

    def printed(self, cluster: Cluster, node: Node, log: tuple[str, ...]) -> None:
        for each in self.scenarios:
            each.script_ended(cluster.arn, cluster.name, node.group, node.instance_id, log)

    def first(self, asked: Callable[[Scenario], Any]) -> Any:
        """The first scenario's answer that is one."""
        return next((found for each in self.scenarios if (found := asked(each))), None)

    def used(self, kind: str, without: Iterable[str] = ()) -> int:
        """Instances of a type that clusters asked for, the named groups of theirs left out (cluster/group)."""
        return sum(
            group.target
            for cluster in self.clusters
            if not cluster.gone
            for group in cluster.groups.values()
            if group.types[0] == kind and f"{cluster.name}/{group.name}" not in without
        )

    def within_quota(self, kind: str, used: int, more: int) -> None:
        limit = self.quotas.get(kind)
        if limit is not None and more > 0 and used + more > limit:
            raise Refused(
                "ResourceLimitExceeded",
                f"The account-level service limit '{kind} for cluster usage' is {limit} Instances, with current "
                f"utilization of {used} Instances and a request delta of {more} Instances. Please use AWS Service "
                "Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact AWS "
                "support to request an increase for this quota.",
            )


def arn(*parts: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{'/'.join(parts)}"


def page(found: list[Any], request: Body, size: int = PAGE) -> tuple[list[Any], Body]:
    """The part of a list that was asked for, and the token of the next one, if there is one."""
    start = 0
    if token := request.get("NextToken"):
        try:
            start = int(base64.b64decode(token, validate=True).decode())
        except (ValueError, binascii.Error) as wrong:
            raise Refused("ValidationException", "Invalid NextToken.") from wrong
    end = start + request.get("MaxResults", size)
    return found[start:end], {"NextToken": base64.b64encode(str(end).encode()).decode()} if end < len(found) else {}


def within(request: Body, moment_s: float, kind: str = "CreationTime") -> bool:
    """Whether a moment is in the time range of a list's request."""
    return bool(request.get(f"{kind}After", 0) < moment_s < request.get(f"{kind}Before", float("inf")))


def invalid(*problems: str) -> Refused:
    return Refused("ValidationException", "; ".join(problems))
