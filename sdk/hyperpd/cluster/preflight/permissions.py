"""The caller's permissions to create the cluster, asked of IAM before anything is made."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.preflight import simulation
from hyperpd.cluster.preflight.finding import Finding, refused, unknown
from hyperpd.cluster.preflight.reading import Object, Reading

_PURPOSE = "your permissions to create the cluster"
# What SageMaker does in the caller's name where nodes join an EKS cluster (user guide, "IAM users for cluster admin").
_EKS = (
    "eks:AssociateAccessPolicy",
    "eks:CreateAccessEntry",
    "eks:DeleteAccessEntry",
    "eks:DescribeAccessEntry",
    "eks:DescribeCluster",
)


def needed(plan: Blueprint) -> list[Object]:
    """Statements of a policy that lets its holder create this cluster."""
    place, names = plan.place, plan.names
    arn = f"arn:{place.partition}:"
    cluster = f"{arn}sagemaker:{place.region}:{place.account}:cluster/*"  # its id is not known before
    roles = sorted({plan.role_arn(group) for group in plan.groups.values()})
    if plan.spec.autoscaling:
        roles.append(plan.spec.autoscaling.role)
    found = [
        _allow(["sagemaker:AddTags", "sagemaker:CreateCluster", "sagemaker:DescribeCluster"], [cluster]),
        _allow(["sagemaker:ListClusterEvents", "sagemaker:ListClusterNodes"], [cluster]),
        _allow(["iam:PassRole"], roles)
        | {"Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}},
    ]
    if plan.spec.orchestrator.eks:
        found.append(_allow(list(_EKS), [plan.eks_arn]))
    if plan.makes_role:
        found.append(_allow(["iam:CreateRole", "iam:GetRole", "iam:PutRolePolicy", "iam:TagRole"], [names.role_arn]))
    if plan.scripts:
        bucket = f"{arn}s3:::{plan.bucket}"
        making = ["s3:CreateBucket", "s3:PutBucketPolicy", "s3:PutBucketPublicAccessBlock", "s3:PutBucketTagging"]
        found.append(_allow(["s3:ListBucket", *(making if plan.makes_bucket else [])], [bucket]))
        found.append(_allow(["s3:PutObject"], [f"{bucket}/{names.prefix}/*"]))
    return found


def read(reading: Reading, plan: Blueprint) -> list[Object] | None:
    """What is denied; None where IAM did not say."""
    caller = reading.caller
    if caller.kind == "root":
        return []
    if caller.kind == "other":
        return None
    principal = caller.arn
    if caller.kind == "role":
        found = reading.ask(_PURPOSE, "iam", "get_role", RoleName=caller.name)  # STS leaves the role's path out
        if not found:
            return None
        principal = found["Role"]["Arn"]
    return simulation.lacking(reading, _PURPOSE, principal, needed(plan))


def check(reading: Reading, plan: Blueprint, denied: list[Object] | None) -> Iterator[Finding]:
    """denied: what `read` gives."""
    caller = reading.caller
    if denied:
        actions = sorted({action for one in denied for action in one["Action"]})
        what = f"{caller.name} may not: {', '.join(actions)}"
        yield refused("permissions", what, caller.place, caller.grant(needed(plan), "hyperpd-create"))
    elif caller.kind == "root":
        yield Finding("warning", "permissions", "these are the root user's credentials", "IAM console", "aws configure")
    elif denied is None and caller.kind == "other":
        what = f"{_PURPOSE} could not be checked: IAM simulates users and roles, and this is {caller.arn}"
        yield unknown("permissions", what, "IAM console", "hyperpd iam cluster create prints what is needed")


def _allow(actions: list[str], resources: list[str]) -> Object:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}
