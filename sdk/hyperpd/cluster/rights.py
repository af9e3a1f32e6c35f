"""What the nodes of a cluster may do: the policy of the role that is made for them. Pure.

Sources: the managed policy AmazonSageMakerClusterInstanceRolePolicy, and what "Prerequisites for using SageMaker
HyperPod" and its EKS page add for a VPC and for EKS; each is narrowed here to the cluster's own bucket folder, subnets,
security groups and logs where AWS takes a resource; for keys, "Customer managed AWS KMS key encryption for SageMaker
HyperPod". Unverified on a live account. tests/cluster/test_rights.py keeps it and the console's stack alike.
"""

from __future__ import annotations

import re
from typing import Any

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.recipe import load

Object = dict[str, Any]
_PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
_SESSIONS = [
    f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")
]  # AWS takes no resource for them, nor for what begins with ec2:Describe
_DESCRIBES = ["DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs"]
_DESCRIBES_EKS = ["Instances", "InstanceTypes", "Tags"]
_ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^@:]+)")


def trust() -> Object:
    """Who takes the role on: SageMaker, and only who may pass the role can make it do so (iam:PassRole)."""
    statement = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def policy(plan: Blueprint) -> Object:
    """The role's policy."""
    place, eks = plan.place, bool(plan.spec.orchestrator.eks)
    arn, here = f"arn:{place.partition}:", f"{place.region}:{place.account}"
    networks = [plan.spec.network, *(group.network for group in plan.groups.values() if group.network)]
    subnets = sorted({f"{arn}ec2:{here}:subnet/{one}" for network in networks for one in network.subnets})
    groups = sorted(
        {f"{arn}ec2:{here}:security-group/{one}" for network in networks for one in network.security_groups}
    )
    interface = f"{arn}ec2:{here}:network-interface/*"
    # HyperPod's machines are in an account of AWS, so their ARNs have another account than this one.
    instance = f"{arn}ec2:{place.region}:*:instance/*"
    logs = f"{arn}logs:{here}:log-group:{plan.names.logs}*"
    own = {"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Clusters"}}
    statements = [
        *_files(plan),
        *_keys(plan),
        *_accounting(plan),
        _allow(
            "Logs",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [logs],
        ),
        _allow("Metrics", ["cloudwatch:PutMetricData"], "*", own),
        _allow("SessionManager", _SESSIONS, "*"),
    ]
    if subnets:
        described = sorted(_DESCRIBES + (_DESCRIBES_EKS if eks else []))
        statements += [
            _allow("MakeInterfaces", ["ec2:CreateNetworkInterface"], [interface, *subnets, *groups]),
            _allow(
                "OwnInterfaces",
                [
                    "ec2:CreateNetworkInterfacePermission",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DeleteNetworkInterfacePermission",
                ],
                [interface],
            ),
            _allow("DetachInterfaces", ["ec2:DetachNetworkInterface"], [interface, instance]),
            _allow("TagInterfaces", ["ec2:CreateTags"], [interface]),
            _allow("Describe", [f"ec2:Describe{what}" for what in described], "*"),
        ]
    if eks:
        statements += _eks(plan, interface, instance, groups)
    return {"Version": "2012-10-17", "Statement": statements}


def _eks(plan: Blueprint, interface: str, instance: str, groups: list[str]) -> list[Object]:
    place = plan.place
    registry = f"arn:{place.partition}:ecr:{place.region}:*:repository/*"
    others = {"StringNotEquals": {"aws:ResourceAccount": place.account}}
    return [
        _allow("PodAddresses", ["ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"], [interface]),
        _allow(
            "PodInterfaces",
            ["ec2:AttachNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute"],
            [interface, instance, *groups],
        ),
        _allow("RegistryLogin", ["ecr:GetAuthorizationToken"], "*"),
        _allow("PullImage", _PULL, [_repository(plan)]),
        # Add-ons come from registries of AWS' accounts, which differ by Region. Of one's own only the image above.
        _allow("PullAddOns", _PULL, [registry], others),
        _allow("PodIdentity", ["eks-auth:AssumeRoleForPodIdentity"], [plan.eks_arn]),
    ]


def _repository(plan: Blueprint) -> str:
    """That of the recipe's image; all of the account where the file names no recipe with one in ECR."""
    image = load(plan.spec.recipe).recipe.image if plan.spec.recipe else None
    found = _ECR.match(image or "")
    account, region, path = found.groups() if found else (plan.place.account, plan.place.region, "*")
    return f"arn:{plan.place.partition}:ecr:{region}:{account}:repository/{path}"


def _files(plan: Blueprint) -> list[Object]:
    """Reads the folders of lifecycle files that are in use, and lists these only; of buckets of this account: were one
    deleted, somebody else's of the same name would not be read."""
    own: Object = {"StringEquals": {"aws:ResourceAccount": plan.place.account}}
    folders = [(f"arn:{plan.place.partition}:s3:::{bucket}", folder) for bucket, folder in plan.folders]
    if not folders:
        return []
    files = [f"{arn}/{folder}/*" if folder else f"{arn}/*" for arn, folder in folders]
    found = [_allow("LifecycleRead", ["s3:GetObject"], files, own)]
    for number, arn in enumerate(dict.fromkeys(arn for arn, _ in folders), 1):
        inside = [folder for bucket, folder in folders if bucket == arn]
        listed = {"StringLike": {"s3:prefix": [text for one in inside for text in (one, f"{one}/*")]}}
        sid = f"LifecycleList{number if number > 1 else ''}"
        found.append(_allow(sid, ["s3:ListBucket"], [arn], own | (listed if all(inside) else {})))
    return found


def _keys(plan: Blueprint) -> list[Object]:
    """HyperPod makes grants on the keys of volumes in the role's name. An alias is no resource of IAM: a condition
    names it. The key's own policy has to let the role do so, too."""
    here = f"arn:{plan.place.partition}:kms:{plan.place.region}:{plan.place.account}:key/"
    named = sorted({one.kms_key for group in plan.groups.values() for one in group.volumes if one.kms_key})
    aliases = [f"alias/{name}" for key in named if (name := key.partition("alias/")[2])]
    keys = [key if key.startswith("arn:") else here + key for key in named if "alias/" not in key]
    actions = ["kms:CreateGrant", "kms:DescribeKey"]
    by_alias = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": aliases}}
    found = [_allow("VolumeKeys", actions, keys)] if keys else []
    return found + ([_allow("VolumeKeysByAlias", actions, [f"{here}*"], by_alias)] if aliases else [])


def _accounting(plan: Blueprint) -> list[Object]:
    """Reads the secret of Slurm's accounting database. AWS does not say who reads it: that nodes do, by their role, is
    unverified on a live account."""
    if not plan.accounting_secret:
        return []
    return [_allow("AccountingSecret", ["secretsmanager:GetSecretValue"], [plan.accounting_secret])]


def _allow(sid: str, actions: list[str], resources: Any, condition: Object | None = None) -> Object:
    found: Object = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return found | ({"Condition": condition} if condition else {})
