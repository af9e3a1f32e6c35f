"""CloudFormation stacks that failed levels below, a stand-in: in moto every stack succeeds, and none is nested.

    aws.stacks.fail("hyperpod-pd", ("HyperPodClusterStack",), "AWS::SageMaker::Cluster", "what the service said")

What moto has is asked of moto.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes.gate import ACCOUNT, REGION

Body = dict[str, Any]


@dataclass(slots=True)
class Stack:
    """`events` and `resources` as CloudFormation tells them; events from the first on."""

    name: str
    arn: str
    began: datetime
    reason: str = ""
    events: list[Body] = field(default_factory=list)
    resources: list[Body] = field(default_factory=list)

    def say(self, logical: str, physical: str, kind: str, status: str, reason: str = "") -> None:
        at = self.began + timedelta(seconds=10 * len(self.events))
        body = {
            "StackId": self.arn,
            "EventId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.arn}/{len(self.events)}")),
            "StackName": self.name,
            "LogicalResourceId": logical,
            "PhysicalResourceId": physical,
            "ResourceType": kind,
            "Timestamp": at,
            "ResourceStatus": status,
        }
        self.events.append(body | ({"ResourceStatusReason": reason} if reason else {}))


class Stacks:
    """Those that a test says there are."""

    def __init__(self) -> None:
        self.kept: list[Stack] = []

    def fail(self, name: str, below: Sequence[str], kind: str, message: str, logical: str = "Cluster") -> str:
        """A stack that rolled back, and why: the resource that failed is as many levels down as `below` has; its ARN.

        Each level says of the next only that it was not created; after the cause, neighbours are cancelled.
        """
        stack = self._new(name)
        resource = stack
        for level, nested in enumerate(below):
            resource = self._new(f"{name[:60]}-{nested}-{level}")
            self._failed(
                stack,
                nested,
                resource.arn,
                "AWS::CloudFormation::Stack",
                f"Embedded stack {resource.arn} was not successfully created: "
                f"The following resource(s) failed to create: [{(*below, logical)[level + 1]}].",
            )
            stack = resource
        self._failed(stack, logical, "", kind, message)
        return next(one.arn for one in self.kept if one.name == name)

    def _new(self, name: str) -> Stack:
        arn = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/{uuid.uuid5(uuid.NAMESPACE_URL, name)}"
        began = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        made = Stack(name, arn, began)
        made.say(name, arn, "AWS::CloudFormation::Stack", "CREATE_IN_PROGRESS", "User Initiated")
        self.kept.append(made)
        return made

    @staticmethod
    def _failed(stack: Stack, logical: str, physical: str, kind: str, reason: str) -> None:
        stack.say(logical, physical, kind, "CREATE_IN_PROGRESS")
        stack.say(logical, physical, kind, "CREATE_FAILED", reason)
        stack.say("Neighbour", "", "AWS::EC2::Subnet", "CREATE_FAILED", "Resource creation cancelled")
        stack.reason = (
            f"The following resource(s) failed to create: [{logical}, Neighbour]. Rollback requested by user."
        )
        stack.say(stack.name, stack.arn, "AWS::CloudFormation::Stack", "ROLLBACK_IN_PROGRESS", stack.reason)
        stack.say(stack.name, stack.arn, "AWS::CloudFormation::Stack", "ROLLBACK_COMPLETE")
        body: Body = {"LogicalResourceId": logical, "ResourceType": kind, "ResourceStatus": "CREATE_FAILED"}
        body |= {"LastUpdatedTimestamp": stack.began, "ResourceStatusReason": reason}
        stack.resources.append(body | ({"PhysicalResourceId": physical} if physical else {}))

    def _events(self, stack: Stack) -> Body:
        return {"StackEvents": stack.events[::-1]}  # the newest first

    def _describe(self, stack: Stack) -> Body:
        body: Body = {
            "StackId": stack.arn,
            "StackName": stack.name,
            "CreationTime": stack.began,
            "StackStatus": "ROLLBACK_COMPLETE",
        }
        return {"Stacks": [body | ({"StackStatusReason": stack.reason} if stack.reason else {})]}

    def _resources(self, stack: Stack) -> Body:
        return {"StackResourceSummaries": stack.resources}

    def _of(self, tells: Callable[[Stack], Body]) -> Callable[[Body], Body | None]:
        def answer(asked: Body) -> Body | None:
            found = (one for one in self.kept if asked.get("StackName") in (one.name, one.arn))
            return next((tells(one) for one in found), None)

        return answer

    def operations(self) -> dict[str, Callable[[Body], Body | None]]:
        return {
            "DescribeStackEvents": self._of(self._events),
            "DescribeStacks": self._of(self._describe),
            "ListStackResources": self._of(self._resources),
        }
