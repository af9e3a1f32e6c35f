"""What the endpoint's execution role needs, narrowed to this endpoint wherever AWS takes a resource or a condition.

Bucket, subnets and security groups are taken to be of the role's account; those that another account shares need
their ARNs and aws:ResourceAccount changed. Unverified on a live account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hyperpd.deploy.sagemaker_endpoint.endpoint import Endpoint, Object

PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
# Of a container in a VPC: network interfaces have no name before they are made.
_OWN_INTERFACES = (
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
)
_DESCRIBE = (
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)


def trust(endpoint: Endpoint) -> Object:
    """SageMaker, for endpoints of this account."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": _account(endpoint)}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def policy(endpoint: Endpoint) -> Object:
    """What hosting needs, the model's files, and with a VPC its network interfaces."""
    registry, account = endpoint.registry, _account(endpoint)
    where = Where(str(endpoint.options.role_arn).split(":")[1], registry["region"], account)
    statements = hosting(where, endpoint.name, registry)
    if place := endpoint.bucket_and_prefix:
        statements += files(where, "Model", place[0], place[1].rstrip("/"))
    if endpoint.options.subnets:
        interface = where.arn("ec2", "network-interface/*")
        subnets = [where.arn("ec2", f"subnet/{one}") for one in endpoint.options.subnets]
        groups = [where.arn("ec2", f"security-group/{one}") for one in endpoint.options.security_groups]
        statements += [
            allow("MakeInterfaces", ("ec2:CreateNetworkInterface",), [interface, *subnets, *groups]),
            allow("OwnInterfaces", _OWN_INTERFACES, [interface]),
            allow("Describe", _DESCRIBE, "*"),  # EC2 describes all or none
        ]
    return {"Version": "2012-10-17", "Statement": statements}


@dataclass(frozen=True, slots=True)
class Where:
    """Whose endpoint it is. In a template these are CloudFormation's words for them, as in ${AWS::Region}."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, name: str) -> str:
        """Of something of this account and Region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{name}"


def hosting(where: Where, name: str, registry: Mapping[str, str]) -> list[Object]:
    """Write the log and the metrics of the endpoint `name`, pull its image."""
    log = where.arn("logs", f"log-group:/aws/sagemaker/Endpoints/{name}")
    image = replace(where, region=registry["region"], account=registry["account"])
    own = {"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Endpoints"}}
    write = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
    return [
        allow("Logs", write, [log, f"{log}:log-stream:*"]),
        allow("Metrics", ("cloudwatch:PutMetricData",), "*", own),  # it has no resource, but a namespace
        allow("RegistryLogin", ("ecr:GetAuthorizationToken",), "*"),  # it has no resource
        allow("PullImage", PULL, [image.arn("ecr", f"repository/{registry['repository']}")]),
    ]


def files(where: Where, sid: str, bucket: str, folder: str) -> list[Object]:
    """Read one folder of a bucket, and list that only.

    A bucket of the same name in another account, were this one deleted, is not read."""
    arn, own = f"arn:{where.partition}:s3:::{bucket}", {"aws:ResourceAccount": where.account}
    listed = {"StringEquals": own, "StringLike": {"s3:prefix": [f"{folder}/*"]}}
    return [
        allow(f"{sid}Read", ("s3:GetObject",), [f"{arn}/{folder}/*"], {"StringEquals": own}),
        allow(f"{sid}List", ("s3:ListBucket",), [arn], listed),
    ]


def allow(sid: str, actions: Iterable[str], resources: Any, condition: Object | None = None) -> Object:
    """One statement."""
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": resources,
        **({"Condition": condition} if condition else {}),
    }


def _account(endpoint: Endpoint) -> str:
    return str(endpoint.options.role_arn).split(":")[4]
