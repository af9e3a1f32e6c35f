"""A cluster as DescribeCluster and ListClusters say it."""

from __future__ import annotations

from typing import Any

from tests.fakes.hyperpod.clusters import Cluster

Body = dict[str, Any]
# Repeated as they were sent.
_REPEATED = (
    "VpcConfig",
    "Orchestrator",
    "NodeRecovery",
    "NodeProvisioningMode",
    "ClusterRole",
    "TieredStorageConfig",
)


def plans(cluster: Cluster) -> list[str]:
    """The ARNs of its training plans."""
    return [group.spec["TrainingPlanArn"] for group in cluster.groups.values() if "TrainingPlanArn" in group.spec]


def summary(cluster: Cluster) -> Body:
    return _named(cluster) | ({"TrainingPlanArns": plans(cluster)} if plans(cluster) else {})


def details(cluster: Cluster) -> Body:
    body = _named(cluster)
    body["InstanceGroups"] = [
        group.details([node.instance_type for node in cluster.present(group.name)], cluster.latest())
        for group in cluster.groups.values()
    ]
    body |= {name: cluster.spec[name] for name in _REPEATED if name in cluster.spec}
    scaling = cluster.spec.get("AutoScaling", {})
    if scaling.get("Mode") == "Enable":
        body["AutoScaling"] = {**scaling, "Status": "InService"}
    return body | ({"FailureMessage": cluster.failure} if cluster.failure else {})


def _named(cluster: Cluster) -> Body:
    return {
        "ClusterArn": cluster.arn,
        "ClusterName": cluster.name,
        "CreationTime": cluster.created_s,
        "ClusterStatus": cluster.status,
    }
