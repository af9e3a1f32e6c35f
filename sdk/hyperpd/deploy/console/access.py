"""What machines, endpoints and functions may do: nothing that their work does not need.

Sources: the managed policy AmazonSageMakerClusterInstanceRolePolicy, and what "Prerequisites for using SageMaker
HyperPod" and its EKS page add for a VPC and for EKS; each is narrowed here to this stack's bucket, subnet, security
group and log group where AWS takes a resource. Unverified on a live account.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hyperpd.deploy.console import hosted
from hyperpd.deploy.console.site import LIFECYCLE, RECIPE, Object, Site, chosen, literal, ref, sub

_NONE = "AWS takes no resource for it"
# Every action that has the resource "*", and why.
EVERYTHING = {
    "cloudwatch:PutMetricData": f"{_NONE}; the condition leaves one namespace",
    "ec2:DescribeDhcpOptions": _NONE,
    "ec2:DescribeInstances": _NONE,
    "ec2:DescribeInstanceTypes": _NONE,
    "ec2:DescribeNetworkInterfaces": _NONE,
    "ec2:DescribeSecurityGroups": _NONE,
    "ec2:DescribeSubnets": _NONE,
    "ec2:DescribeTags": _NONE,
    "ec2:DescribeVpcs": _NONE,
    "ecr:GetAuthorizationToken": _NONE,
    "ssmmessages:CreateControlChannel": _NONE,
    "ssmmessages:CreateDataChannel": _NONE,
    "ssmmessages:OpenControlChannel": _NONE,
    "ssmmessages:OpenDataChannel": _NONE,
}
_ARN = "arn:${AWS::Partition}:"
_HERE = "${AWS::Region}:${AWS::AccountId}"
_PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_SSM = tuple(action for action in EVERYTHING if action.startswith("ssmmessages:"))


def role(name: Any, service: str, statements: list[Object], tags: list[Object]) -> Object:
    """A role that `service` takes on. Only who may pass it can make the service do so (iam:PassRole)."""
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    policy = {"Version": "2012-10-17", "Statement": statements}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            **({"RoleName": name} if name else {}),
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [{"PolicyName": "hyperpd", "PolicyDocument": policy}],
            "Tags": tags,
        },
    }


def machine(site: Site) -> list[Object]:
    """What a cluster's machines may do."""
    group, subnet = f"{_ARN}ec2:{_HERE}:security-group/", f"{_ARN}ec2:{_HERE}:subnet/"
    interface = f"{_ARN}ec2:{_HERE}:network-interface/*"
    # HyperPod's machines are in an account of AWS, so their ARNs have another account than this one.
    instance = f"{_ARN}ec2:${{AWS::Region}}:*:instance/*"
    logs = f"{_ARN}logs:{_HERE}:log-group:/aws/sagemaker/Clusters/${{AWS::StackName}}/*"
    extra = chosen("HasExtraGroup", sub(group + "${ExtraSecurityGroupId}"), ref("AWS::NoValue"))
    eks = [sub(group + "${EksSecurityGroupId}")] if site.eks else []
    groups = [sub(group + "${SecurityGroup.GroupId}"), *eks, extra]
    subnet_arn = {"Fn::Sub": [subnet + "${Chosen}", {"Chosen": subnet_id(site)}]}
    described = [one for one in EVERYTHING if one.startswith("ec2:")]
    if not site.eks:
        described = [one for one in described if one not in _EKS_DESCRIBES]
    statements = [
        *_files("Lifecycle", "${Bucket}", f"${{Prefix}}/{LIFECYCLE}"),
        allow(
            "Logs",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [sub(logs)],
        ),
        allow(
            "Metrics",
            ["cloudwatch:PutMetricData"],
            "*",
            {"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Clusters"}},
        ),
        allow("SessionManager", _SSM, "*"),
        allow("MakeInterfaces", ["ec2:CreateNetworkInterface"], [sub(interface), subnet_arn, *groups]),
        allow(
            "OwnInterfaces",
            [
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            ],
            [sub(interface)],
        ),
        allow("DetachInterfaces", ["ec2:DetachNetworkInterface"], [sub(interface), sub(instance)]),
        allow("TagInterfaces", ["ec2:CreateTags"], [sub(interface)]),
        allow("Describe", described, "*"),
    ]
    if site.eks:
        statements += [
            allow("PodAddresses", ["ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"], [sub(interface)]),
            allow(
                "PodInterfaces",
                ["ec2:AttachNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute"],
                [sub(interface), sub(instance), *groups],
            ),
            allow("RegistryLogin", ["ecr:GetAuthorizationToken"], "*"),
            allow("PullImage", _PULL, [sub(repository(site))]),
            # Add-ons come from registries of AWS' accounts, which differ by Region. Of one's own only the image above.
            allow(
                "PullAddOns",
                _PULL,
                [sub(f"{_ARN}ecr:${{AWS::Region}}:*:repository/*")],
                {"StringNotEquals": {"aws:ResourceAccount": ref("AWS::AccountId")}},
            ),
            allow("PodIdentity", ["eks-auth:AssumeRoleForPodIdentity"], [ref("EksClusterArn")]),
        ]
    return statements


_EKS_DESCRIBES = ("ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeTags")


def subnet_id(site: Site) -> Object:
    """The subnet of all machines: given, or made where none is."""
    return ref("SubnetId") if site.eks else {"Fn::If": ["MakeSubnet", ref("Subnet"), ref("SubnetId")]}


def endpoint(site: Site) -> list[Object]:
    """What the container of an endpoint, and SageMaker as it starts it, may do."""
    logs = f"{_ARN}logs:{_HERE}:log-group:/aws/sagemaker/Endpoints/${{AWS::StackName}}"
    statements = [
        *(_files("Recipe", "${Bucket}", f"${{Prefix}}/{RECIPE}") if hosted.alone(site) else []),
        allow(
            "Logs",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [sub(logs), sub(f"{logs}:log-stream:*")],
        ),
        allow(
            "Metrics",
            ["cloudwatch:PutMetricData"],
            "*",
            {"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Endpoints"}},
        ),
        allow("RegistryLogin", ["ecr:GetAuthorizationToken"], "*"),
        allow("PullImage", _PULL, [sub(repository(site))]),
    ]
    if place := hosted.endpoint(site).bucket_and_prefix:
        bucket, key = place
        statements += _files("Model", literal(bucket), literal(key.rstrip("/")), own=False)
    return statements


def function() -> list[Object]:
    """What the function that applies the objects may do in AWS; in Kubernetes its access entry says."""
    return [
        allow("FindCluster", ["eks:DescribeCluster"], [ref("EksClusterArn")]),
        allow("Logs", ["logs:CreateLogStream", "logs:PutLogEvents"], [{"Fn::GetAtt": ["Log", "Arn"]}]),
    ]


def repository(site: Site) -> str:
    """ARN of the image's repository."""
    host, _, path = site.image.partition("/")
    account, region = host.split(".")[0], host.split(".")[3]
    return f"{_ARN}ecr:{region}:{account}:repository/{literal(path.partition('@')[0].partition(':')[0])}"


def _files(sid: str, bucket: str, folder: str, *, own: bool = True) -> list[Object]:
    """Reads one folder of a bucket, and lists that only. own: the bucket is of this account."""
    arn = f"{_ARN}s3:::{bucket}"
    # A bucket of the same name in another account, were this one deleted, would not be read.
    where = {"StringEquals": {"aws:ResourceAccount": ref("AWS::AccountId")}} if own else {}
    folders = [folder, f"{folder}/*"]
    listed = {"StringLike": {"s3:prefix": [sub(one) if "${" in one else one for one in folders]}}
    return [
        allow(f"{sid}Read", ["s3:GetObject"], [sub(f"{arn}/{folder}/*")], where),
        allow(f"{sid}List", ["s3:ListBucket"], [sub(arn)], where | listed),
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
