"""What nodes, endpoints, pods, functions and the image's build may do: nothing that their work does not need.

Sources: the managed policy AmazonSageMakerClusterInstanceRolePolicy, and what "Prerequisites for using SageMaker
HyperPod" and its EKS page add for a VPC and for EKS; each is narrowed here to this stack's bucket, subnet, security
group and log group where AWS takes a resource. Unverified on a live account.
"""

from __future__ import annotations

from typing import Any

from hyperpd.deploy.console import hosted
from hyperpd.deploy.console.site import LIFECYCLE, RECIPE, Object, Site, chosen, literal, ref, sub
from hyperpd.deploy.sagemaker_endpoint import permissions
from hyperpd.deploy.sagemaker_endpoint.permissions import PULL, allow

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
# That a service acts for this account and not, the confused deputy, for another. Documented of SageMaker's endpoints,
# CodeBuild, Lambda and EKS' pod identities. Of HyperPod nothing is, and a key that it does not send would keep every
# node from starting: its role goes without.
OURS = {"aws:SourceAccount": ref("AWS::AccountId")}
_ARN = "arn:${AWS::Partition}:"
_HERE = "${AWS::Region}:${AWS::AccountId}"
_STACK = permissions.Where("${AWS::Partition}", "${AWS::Region}", "${AWS::AccountId}")
_SSM = tuple(action for action in EVERYTHING if action.startswith("ssmmessages:"))


def role(
    name: Any, service: str, statements: list[Object], tags: list[Object], demanded: Object | None = None
) -> Object:
    """A role that `service` takes on. Only who may pass it can make the service do so (iam:PassRole).

    demanded: what the service has to say as it takes it on, as OURS; "aws:RequestTag/…": tags of its sessions.
    """
    tagged = any(key.startswith("aws:RequestTag/") for key in demanded or {})
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": ["sts:AssumeRole", "sts:TagSession"] if tagged else "sts:AssumeRole",
        **({"Condition": {"StringEquals": demanded}} if demanded else {}),
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


def node(site: Site) -> list[Object]:
    """What a cluster's nodes may do."""
    group, subnet = f"{_ARN}ec2:{_HERE}:security-group/", f"{_ARN}ec2:{_HERE}:subnet/"
    interface = f"{_ARN}ec2:{_HERE}:network-interface/*"
    # HyperPod's nodes are in an account of AWS, so their ARNs have another account than this one.
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
            allow("PullImage", PULL, [sub(repository(site))]),
            # Add-ons come from registries of AWS' accounts, which differ by Region. Of one's own only the image above.
            allow(
                "PullAddOns",
                PULL,
                [sub(f"{_ARN}ecr:${{AWS::Region}}:*:repository/*")],
                {"StringNotEquals": {"aws:ResourceAccount": ref("AWS::AccountId")}},
            ),
            allow("PodIdentity", ["eks-auth:AssumeRoleForPodIdentity"], [ref("EksClusterArn")]),
        ]
    return statements


_EKS_DESCRIBES = ("ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeTags")


def subnet_id(site: Site) -> Object:
    """The subnet of all nodes: given, or made where none is."""
    return ref("SubnetId") if site.eks else {"Fn::If": ["MakeSubnet", ref("Subnet"), ref("SubnetId")]}


def endpoint(site: Site) -> list[Object]:
    """What the container of an endpoint, and SageMaker as it starts it, may do: as the target sagemaker_endpoint says
    it; and read the recipe, where that is in the stacks' bucket."""
    found = permissions.hosting(_STACK, "${AWS::StackName}", site.registry)
    if hosted.alone(site):
        found += permissions.files(_STACK, "Recipe", "${Bucket}", f"${{Prefix}}/{RECIPE}")
    if place := hosted.endpoint(site).bucket_and_prefix:
        found += permissions.files(_STACK, "Model", literal(place[0]), literal(place[1].rstrip("/")))
    return [_substituted(one) for one in found]


def model(place: tuple[str, str] | None) -> list[Object]:
    """Reads the model's files: bucket and prefix, if it is in S3."""
    return _files("Model", literal(place[0]), literal(place[1].rstrip("/"))) if place else []


def builder(key: str) -> list[Object]:
    """What the build of the image may do: read its one file (`key` of the prefix), write its log, fill its repository.
    It pulls from there, too: a push asks which layers are there already."""
    filled = ("ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart")
    return [
        allow("Source", ["s3:GetObject"], [sub(f"{_ARN}s3:::${{Bucket}}/${{Prefix}}/{key}")], _own()),
        allow("Logs", ["logs:CreateLogStream", "logs:PutLogEvents"], [{"Fn::GetAtt": ["Log", "Arn"]}]),
        allow("RegistryLogin", ["ecr:GetAuthorizationToken"], "*"),
        allow("Push", [*PULL, *filled], [{"Fn::GetAtt": ["Repository", "Arn"]}]),
    ]


def repository(site: Site) -> str:
    """ARN of the image's repository."""
    image = site.registry
    return f"{_ARN}ecr:{image['region']}:{image['account']}:repository/{image['repository']}"


def _own() -> Object:
    """A bucket of the same name in another account, were this one deleted, is not read."""
    return {"StringEquals": {"aws:ResourceAccount": ref("AWS::AccountId")}}


def _files(sid: str, bucket: str, folder: str) -> list[Object]:
    """Reads one folder of a bucket of this account, and lists that only; by its name without a slash, too."""
    reads, lists = permissions.files(_STACK, sid, bucket, folder)
    lists["Condition"]["StringLike"]["s3:prefix"].insert(0, folder)
    return [_substituted(reads), _substituted(lists)]


def _substituted(value: Any) -> Any:
    """Texts with CloudFormation's words in them, as it takes them."""
    if isinstance(value, dict):
        return {key: _substituted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substituted(inner) for inner in value]
    return sub(value) if isinstance(value, str) and "${" in value else value
