"""Training plans: there, for HyperPod, of the group's type, open now, and with enough machines left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from hyperpd.cluster.preflight.finding import Finding, lacking, warning, written
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object, Reading

_TARGET = "hyperpod-cluster"
_SOON_H = 24


def read(reading: Reading, nodes: list[Nodes]) -> dict[str, Object]:
    """ARN → DescribeTrainingPlan; {} where there is none; left out where it could not be read."""
    found = {}
    for arn in sorted({one.group.training_plan for one in nodes if one.group.training_plan}):
        name = arn.rpartition("/")[2]
        answer = reading.ask(f"training plan {name}", "sagemaker", "describe_training_plan", TrainingPlanName=name)
        if answer is not None:
            found[arn] = answer
    return found


def zones(plans: dict[str, Object]) -> dict[str, str]:
    """ARN → id of the zone its machines are in."""
    found = {}
    for arn, plan in plans.items():
        for part in plan.get("ReservedCapacitySummaries", ()):
            if part.get("AvailabilityZoneId"):
                found[arn] = str(part["AvailabilityZoneId"])
    return found


def check(nodes: list[Nodes], plans: dict[str, Object], now: datetime) -> Iterator[Finding]:
    """now: with its time zone."""
    for arn, plan in plans.items():
        users = [one for one in nodes if one.group.training_plan == arn]
        yield from _one(arn.rpartition("/")[2], users, plan, now)


def _one(name: str, users: list[Nodes], plan: Object, now: datetime) -> Iterator[Finding]:
    path = f"{users[0].path}.training_plan"
    place = f"SageMaker console, HyperPod, Training plans, {name}"
    drop = "\n".join(f"set {one.path}.training_plan: null" for one in users)
    if not plan:
        yield written("training-plan", f"there is no training plan {name}", path, drop)
        return
    status, start, end = str(plan["Status"]), plan.get("StartTime"), plan.get("EndTime")
    if status in ("Expired", "Failed") or (end and end <= now):
        what = f"training plan {name} is {status}" + (f", it ended {end:%Y-%m-%d %H:%M} UTC" if end else "")
        yield lacking("training-plan", what, place, drop)
        return
    if start and start > now:
        what = f"training plan {name} begins {start:%Y-%m-%d %H:%M} UTC; before that no node comes"
        yield lacking("training-plan", what, place, f"create then, or use on-demand capacity:\n{drop}")
    elif end and (hours := (end - now).total_seconds() / 3600) < _SOON_H:
        what = f"training plan {name} ends in {hours:.0f} h, {end:%Y-%m-%d %H:%M} UTC, and its nodes with it"
        yield warning("training-plan", what, place, "extend it in time: aws sagemaker search-training-plan-offerings")
    if plan.get("TargetResources") and _TARGET not in plan["TargetResources"]:
        what = f"training plan {name} is for {', '.join(plan['TargetResources'])}, not for {_TARGET}"
        yield written("training-plan", what, path, drop)
    types = {str(part["InstanceType"]) for part in plan.get("ReservedCapacitySummaries", ()) if "InstanceType" in part}
    for one in users:
        if types and not types & set(one.types):
            what = f"{one.name}: training plan {name} has {', '.join(sorted(types))}, the group wants {one.types[0]}"
            yield written(
                "training-plan", what, f"{one.path}.instance_type", f"set {one.path}.instance_type: {min(types)}"
            )
    left, wanted = plan.get("AvailableInstanceCount"), sum(one.count for one in users)
    if left is not None and wanted > left:
        of = plan.get("TotalInstanceCount", "?")
        what = f"training plan {name} has {left} of {of} machines left; {wanted} are wanted"
        share = max(0, int(left) - sum(one.count for one in users[:-1]))
        yield lacking("training-plan", what, f"{users[-1].path}.count", f"set {users[-1].path}.count: {share}")
