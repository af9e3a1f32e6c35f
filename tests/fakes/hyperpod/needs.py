"""What each call asks of the caller's policy.

The action of the call itself, and what the service does in the caller's name: it passes roles, tags, and, for a
cluster on EKS, looks at the EKS cluster and writes its access entries (user guide, "IAM users for cluster admin").
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.fakes.gate import Need
from tests.fakes.hyperpod.account import Account, Body, arn

# Taken together these are what the user guide wants of whoever creates a cluster on EKS.
_ON_EKS = (
    "eks:DescribeCluster",
    "eks:CreateAccessEntry",
    "eks:DescribeAccessEntry",
    "eks:DeleteAccessEntry",
    "eks:AssociateAccessPolicy",
)
_NAMED = {
    "TrainingPlanName": "training-plan",
    "ModelName": "model",
    "EndpointConfigName": "endpoint-config",
    "EndpointName": "endpoint",
}


def of(account: Account, operation: str, request: Body) -> tuple[Need, ...]:
    return tuple(_needs(account, operation, request))


def _needs(account: Account, operation: str, request: Body) -> Iterator[Need]:
    yield Need(f"sagemaker:{operation}", _resource(account, operation, request))
    if operation == "ImportHubContent":
        yield Need("sagemaker:ImportHubContent", arn("hub", str(request.get("HubName"))))
    if operation == "CreateEndpoint":
        yield Need("sagemaker:CreateEndpoint", arn("endpoint-config", str(request.get("EndpointConfigName")).lower()))
    if operation.startswith("Create") and request.get("Tags"):
        yield Need("sagemaker:AddTags", _resource(account, operation, request))
    for role in sorted(_roles(request)):
        yield Need("iam:PassRole", role, {"iam:PassedToService": "sagemaker.amazonaws.com"})
    if operation == "CreateCluster" and (eks := _eks(request)):
        yield from (Need(action, eks) for action in _ON_EKS)


def _resource(account: Account, operation: str, request: Body) -> str:
    if "Cluster" in operation and isinstance(request.get("ClusterName"), str):
        return account.arn_of(request["ClusterName"])
    if "ResourceArn" in request:
        return str(request["ResourceArn"])
    if operation.startswith("List"):
        return "*"
    if "HubContent" in operation and request.get("HubContentName"):
        parts = (request.get(f"Hub{name}") for name in ("Name", "ContentType", "ContentName", "ContentVersion"))
        return arn("hub-content", "/".join(str(part) for part in parts if part))
    for name, kind in _NAMED.items():
        if isinstance(request.get(name), str) and kind.replace("-", "") in operation.lower():
            return arn(kind, request[name].rpartition("/")[2].lower())
    return "*"


def _roles(request: Body) -> set[str]:
    groups = request.get("InstanceGroups", [])
    found = {one.get("ExecutionRole") for one in groups if isinstance(one, dict)} if isinstance(groups, list) else set()
    found |= {request.get("ClusterRole"), request.get("ExecutionRoleArn")}
    return {role for role in found if isinstance(role, str)}


def _eks(request: Body) -> str:
    orchestrator = request.get("Orchestrator")
    eks = orchestrator.get("Eks") if isinstance(orchestrator, dict) else None
    return str(eks.get("ClusterArn", "")) if isinstance(eks, dict) else ""
