"""Training plans: DescribeTrainingPlan and ListTrainingPlans; what there is, a test says with `plan`."""

from __future__ import annotations

from typing import Any

from tests.fakes.gate import Refused
from tests.fakes.hyperpod.account import Account, Body, arn, page

DAY_S = 86_400


def plan(
    account: Account,
    name: str,
    instance_type: str,
    instances: int,
    zone: tuple[str, str],
    *,
    status: str = "Active",
    starts_s: float = -DAY_S,
    days: int = 30,
    **changed: Any,
) -> Body:
    """A plan's description. `starts_s`: from now; `zone`: its name and id."""
    start_s = account.clock.now_s + starts_s
    window = {"StartTime": start_s, "EndTime": start_s + days * DAY_S, "DurationHours": days * 24}
    capacity = {
        "ReservedCapacityArn": arn("reserved-capacity", name),
        "ReservedCapacityType": "Instance",
        "InstanceType": instance_type,
        "TotalInstanceCount": instances,
        "Status": status,
        "AvailabilityZone": zone[0],
        "AvailabilityZoneId": zone[1],
        **window,
    }
    return {
        "TrainingPlanArn": arn("training-plan", name),
        "TrainingPlanName": name,
        "Status": status,
        "CurrencyCode": "USD",
        "TotalInstanceCount": instances,
        "TargetResources": ["hyperpod-cluster"],
        "ReservedCapacitySummaries": [capacity],
        **window,
        **changed,
    }


def _now(account: Account, one: Body) -> Body:
    used = sum(
        group.target
        for cluster in account.clusters
        if not cluster.gone
        for group in cluster.groups.values()
        if group.spec.get("TrainingPlanArn") == one["TrainingPlanArn"]
    )
    left = {"InUseInstanceCount": used, "AvailableInstanceCount": max(0, one["TotalInstanceCount"] - used)}
    return left | one


def describe(account: Account, request: Body) -> Body:
    for one in account.plans:
        if request["TrainingPlanName"] in (one["TrainingPlanName"], one["TrainingPlanArn"]):
            return _now(account, one)
    raise Refused("ResourceNotFound", f"Training plan {request['TrainingPlanName']} not found.")


def list_(account: Account, request: Body) -> Body:
    wanted = {one["Value"] for one in request.get("Filters", ())}
    found = [
        _now(account, one)
        for one in account.plans
        if (not wanted or one["Status"] in wanted)
        and request.get("StartTimeAfter", 0) < one["StartTime"] < request.get("StartTimeBefore", float("inf"))
    ]
    sort = request.get("SortBy", "StartTime")
    found.sort(key=lambda one: one[sort], reverse=request.get("SortOrder", "Descending") == "Descending")
    part, token = page(found, request)
    return {"TrainingPlanSummaries": part} | token


OPERATIONS = {"DescribeTrainingPlan": describe, "ListTrainingPlans": list_}
