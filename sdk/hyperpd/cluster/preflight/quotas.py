"""Quotas: SageMaker's for each `ml.` type in cluster usage, for all clusters and for one. Names are Service Quotas'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.preflight.clusters import Clusters
from hyperpd.cluster.preflight.finding import Finding, lacking, unknown
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object, Reading

ONE = "Maximum number instances allowed per SageMaker HyperPod cluster"
ALL = "Total number of instances allowed across SageMaker HyperPod clusters"
VOLUME = "Maximum size of EBS volume in GB for a SageMaker HyperPod cluster instance"
_PURPOSE = "quotas for cluster usage"


@dataclass(frozen=True, slots=True)
class Quotas:
    """Value and code by name."""

    region: str
    values: dict[str, tuple[float, str]]

    def increase(self, name: str, wanted: int) -> str:
        """The request for more. People at AWS look at it: it takes hours to days."""
        return (
            "aws service-quotas request-service-quota-increase --service-code sagemaker"
            f" --quota-code {self.values[name][1]} --desired-value {wanted} --region {self.region}"
        )


def read(reading: Reading) -> Quotas | None:
    """Values of the account, AWS's defaults where it has none of its own."""
    operations = ("list_aws_default_service_quotas", "list_service_quotas")
    pages = [reading.pages(_PURPOSE, "service-quotas", one, "Quotas", ServiceCode="sagemaker") for one in operations]
    if None in pages:
        return None
    values = {
        one["QuotaName"]: (float(one["Value"]), one["QuotaCode"]) for page in pages for one in page or () if _ours(one)
    }
    return Quotas(reading.caller.where.region, values)


def _ours(quota: Object) -> bool:
    name = quota["QuotaName"]
    return " for cluster " in name or "HyperPod" in name


def check(plan: Blueprint, nodes: list[Nodes], quotas: Quotas, clusters: Clusters | None) -> Iterator[Finding]:
    """clusters: what others use; None where it could not be read, and nothing is counted for them."""
    wanted: dict[tuple[tuple[str, ...], bool], int] = {}
    for one in nodes:
        key = (one.types, one.group.capacity == "spot")
        wanted[key] = wanted.get(key, 0) + one.count
    for (types, spot), count in wanted.items():
        yield from _of_types(plan, types, spot, count, quotas, clusters)
    total = sum(one.count for one in nodes)
    others = clusters.nodes(beside=plan.spec.name) if clusters else 0
    for name, used in ((ONE, 0), (ALL, others)):
        value = quotas.values.get(name, (float("inf"), ""))[0]
        if total + used > value:
            what = f"{name}: {value:.0f}; {total} are wanted" + (f", {used} are in other clusters" if used else "")
            yield lacking("quota-nodes", what, _place(), quotas.increase(name, total + used))
    largest = max((volume.size_gb or 0 for one in nodes for volume in one.group.volumes), default=0)
    if largest > quotas.values.get(VOLUME, (float("inf"), ""))[0]:
        what = f"{VOLUME}: {quotas.values[VOLUME][0]:.0f}; a group wants {largest}"
        yield lacking("quota-volume", what, _place(), quotas.increase(VOLUME, largest))


def _of_types(
    plan: Blueprint, types: tuple[str, ...], spot: bool, count: int, quotas: Quotas, clusters: Clusters | None
) -> Iterator[Finding]:
    names = {one: f"{one} for cluster {'spot instance ' if spot else ''}usage" for one in types}
    there = {one: name for one, name in names.items() if name in quotas.values}
    if not there and count:
        what = f"Service Quotas names no quota “{next(iter(names.values()))}”: is the type sold in {quotas.region}?"
        yield unknown("quota", what, _place(), "take a type or Region that has one")
        return
    free = {
        one: quotas.values[name][0] - (clusters.used(one, spot=spot, beside=plan.spec.name) if clusters else 0)
        for one, name in there.items()
    }
    if not free or sum(max(0, value) for value in free.values()) >= count:
        return
    best = max(free, key=lambda one: free[one])
    value = quotas.values[there[best]][0]
    used = value - free[best]
    what = f"quota “{there[best]}” is {value:.0f}; {count} are wanted"
    what += f", {used:.0f} are in other clusters" if used else ""
    yield lacking("quota", what, _place(), quotas.increase(there[best], int(used + count)))


def _place() -> str:
    return "Service Quotas console, Amazon SageMaker"
