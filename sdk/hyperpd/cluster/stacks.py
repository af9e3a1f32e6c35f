"""Why a CloudFormation stack failed: through nested stacks ("Embedded stack … was not successfully created") down to
the resource that did. hyp, the console and hyperpd's own templates make clusters by stacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hyperpd.cluster.aws import Aws
from hyperpd.errors import CloudError

STACK_TAG = "aws:cloudformation:stack-name"  # CloudFormation's, on what it makes
_STARTS = ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
_STACK = "AWS::CloudFormation::Stack"


def of_cluster(name: str, tags: Iterable[Mapping[str, str]] = ()) -> str:
    """The stack that made a cluster: by its tag, else perhaps one of the cluster's own name."""
    return next((tag["Value"] for tag in tags if tag["Key"] == STACK_TAG), name)


def causes(aws: Aws, stack: str) -> list[str]:
    """Lines about the last operation's failed resources, the first failure first; none where there is no such stack,
    or it did not fail. What cannot be read is said."""
    try:
        return _causes(aws, stack, ())
    except CloudError as error:
        if error.code == "ValidationError":  # there is no such stack
            return []
        return [f"stack {stack}: cannot be read: {error}"]


def _causes(aws: Aws, stack: str, above: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for event in _last_operation(aws, stack):
        reason = str(event.get("ResourceStatusReason", ""))
        if not str(event.get("ResourceStatus")).endswith("_FAILED") or "cancelled" in reason.lower() or _own(event):
            continue
        logical = str(event.get("LogicalResourceId"))
        inner = str(event.get("PhysicalResourceId", ""))
        below = _causes(aws, inner, (*above, logical)) if event.get("ResourceType") == _STACK and inner else []
        where = " → ".join((*above, logical))
        found += below or [f"stack {event['StackName']}: {where} ({event.get('ResourceType')}): {reason}"]
    return found


def _last_operation(aws: Aws, stack: str) -> list[Mapping[str, Any]]:
    """Events since the last create, update or delete began, the oldest first."""
    found: list[Mapping[str, Any]] = []
    for event in aws.pages("cloudformation", "describe_stack_events", "StackEvents", StackName=stack):
        found.append(event)  # the newest first
        if _own(event) and event.get("ResourceStatus") in _STARTS:
            break
    return found[::-1]


def _own(event: Mapping[str, Any]) -> bool:
    """Whether it is of the stack itself."""
    return event.get("PhysicalResourceId") == event.get("StackId")
