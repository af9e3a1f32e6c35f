"""The account's HyperPod clusters: what they use of its quotas, and names and EKS clusters that are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.command import command
from hyperpd.cluster.names import OWNER_TAG
from hyperpd.cluster.preflight.finding import Finding, refused, warning, written
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object, Reading


@dataclass(frozen=True, slots=True)
class Clusters:
    """Those that are there, described; `tags` of the one that has our name."""

    described: tuple[Object, ...]
    tags: dict[str, str] | None

    def used(self, instance_type: str, *, spot: bool, beside: str) -> int:
        """Nodes of a type that clusters other than `beside` hold or ask for."""
        return sum(
            _held(group)
            for one in self.described
            if one["ClusterName"] != beside
            for group in one.get("InstanceGroups", ())
            if group.get("InstanceType") == instance_type and ("Spot" in group.get("CapacityRequirements", {})) == spot
        )

    def nodes(self, *, beside: str) -> int:
        """All nodes of clusters other than `beside`."""
        return sum(
            _held(group)
            for one in self.described
            if one["ClusterName"] != beside
            for group in one.get("InstanceGroups", ())
        )


def read(reading: Reading, plan: Blueprint) -> Clusters | None:
    """None where they could not be listed."""
    purpose = "what other clusters use of the quotas, and whether the name is taken"
    listed = reading.pages(purpose, "sagemaker", "list_clusters", "ClusterSummaries")
    if listed is None:
        return None
    described = []
    for one in listed:
        found = reading.ask(purpose, "sagemaker", "describe_cluster", ClusterName=one["ClusterName"])
        if found is None:
            return None
        if found:  # else it went away meanwhile
            described.append(found)
    tags = None
    if ours := next((one for one in described if one["ClusterName"] == plan.spec.name), None):
        given = reading.pages(
            "whose cluster of this name it is", "sagemaker", "list_tags", "Tags", ResourceArn=ours["ClusterArn"]
        )
        tags = {tag["Key"]: tag["Value"] for tag in given or ()}
    return Clusters(tuple(described), tags)


def coming(plan: Blueprint, nodes: list[Nodes], clusters: Clusters) -> list[Nodes]:
    """Nodes that were not asked for yet: those that are there or on their way have their addresses and their share of a
    training plan."""
    ours = next((one for one in clusters.described if one["ClusterName"] == plan.spec.name), {})
    there = {one["InstanceGroupName"]: _held(one) for one in ours.get("InstanceGroups", ())}
    return [replace(one, count=max(0, one.count - there.get(one.name, 0))) for one in nodes]


def check(plan: Blueprint, clusters: Clusters) -> Iterator[Finding]:
    """Collisions of names; an EKS cluster takes one HyperPod cluster."""
    name = plan.spec.name
    for one in clusters.described:
        status, eks = one["ClusterStatus"], one.get("Orchestrator", {}).get("Eks", {}).get("ClusterArn")
        place = f"SageMaker console, HyperPod clusters, {one['ClusterName']}"
        if one["ClusterName"] == name:
            if (clusters.tags or {}).get(OWNER_TAG) == name:
                if status == "Failed":
                    what = f"{name} was begun and is Failed: {one.get('FailureMessage', 'no message')}"
                    yield refused("name", what, place, command("delete", name, plan.place.region))
                else:
                    what = f"{name} is there already ({status}), made by hyperpd: create goes on with it"
                    yield warning("name", what, place, "hyperpd cluster update changes it")
            else:
                what = f"a cluster {name} is there ({status}), not made by hyperpd"
                yield written("name", what, "name", f"set name: {_other(name, clusters)}")
        elif eks and plan.spec.orchestrator.eks and eks == plan.eks_arn and status != "Deleting":
            what = f"the EKS cluster {eks} has the HyperPod cluster {one['ClusterName']}; it takes one"
            import_ = command("import", one["ClusterName"], plan.place.region)
            fix = f"{import_}: add the groups to that one, or name another EKS cluster"
            yield refused("eks-taken", what, place, fix)


def _held(group: Object) -> int:
    """Nodes that a group has or asks for."""
    return max(int(group.get("CurrentCount", 0)), int(group.get("TargetCount", 0)))


def _other(name: str, clusters: Clusters) -> str:
    taken = {one["ClusterName"] for one in clusters.described}
    return next(other for n in range(2, 1000) if (other := f"{name[:59]}-{n}") not in taken)
