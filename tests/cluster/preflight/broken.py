"""Broken accounts and cluster files: what is done to a right one, and the finding that has to come of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from hyperpd.cluster import rights
from hyperpd.cluster.preflight.quotas import ALL, ONE, VOLUME
from tests.cluster.files import merged
from tests.cluster.preflight.account import (
    ACCOUNT,
    BUCKET,
    CPU,
    EKS,
    GPU,
    OTHER_ZONE,
    REGION,
    ROLE,
    ZONE,
    Account,
    Document,
    make_subnet,
)
from tests.fakes.aws.stage import _account
from tests.fakes.gate import Expire
from tests.fakes.hyperpod import example

Break = Callable[[Account, Document, Path], Document | None]
# What the plan itself reads with, and the right to give oneself more; what creates is left out.
READS = [
    *("ec2:Describe*", "eks:Describe*", "eks:List*", "iam:Get*", "iam:Simulate*", "iam:PutUserPolicy"),
    *("pricing:*", "s3:Get*", "s3:List*", "sagemaker:Describe*", "sagemaker:List*", "servicequotas:*"),
]


@dataclass(frozen=True, slots=True)
class Broken:
    """says: part of the finding. faults, allow: of the account's gate. first: the finding that is fixed first, where
    one cause is behind several."""

    name: str
    check: str
    says: str
    breaks: Break
    level: str = "problem"
    code: int = 4  # exit code
    faults: tuple[Any, ...] = ()
    allow: Any = None
    also: frozenset[str] = field(default_factory=frozenset)  # other checks that speak of the same


def _ec2(aws: Account) -> Any:
    return aws.stage.client("ec2")


def _subnet(document: Document) -> str:
    return str(document["network"]["subnets"][0])


def _group(document: Document) -> str:
    return str(document["network"]["security_groups"][0])


def _vpc(aws: Account, document: Document) -> str:
    return str(_ec2(aws).describe_subnets(SubnetIds=[_subnet(document)])["Subnets"][0]["VpcId"])


def _nothing(aws: Account, document: Document, folder: Path) -> None:
    """The account's faults or policy are what is wrong."""


# ── capacity ──


def _other_cluster(aws: Account, document: Document, folder: Path) -> None:
    aws.stage.client("iam").create_role(RoleName="hyperpod", AssumeRolePolicyDocument="{}")
    aws.client("sagemaker").create_cluster(**example.slurm("other", example.group("compute", 6, SlurmConfig=COMPUTE)))


COMPUTE = {"NodeType": "Compute"}


def _quota(name: str, value: float) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> None:
        if name in aws.quotas.clusters:
            aws.quotas.clusters[name] = int(value)
        else:
            aws.quotas.others["sagemaker", name] = value

    return breaks


def _volume(aws: Account, document: Document, folder: Path) -> Document:
    aws.quotas.others["sagemaker", VOLUME] = 1024
    return merged(document, {"groups": {"prefill": {"volumes": [{"size_gb": 2000}]}}})


def _zone(aws: Account, document: Document, folder: Path) -> Document:
    far = make_subnet(aws, _vpc(aws, document), "10.0.64.0/20", "use2-az3")
    aws.quotas.clusters["ml.g7e.8xlarge"] = 8
    aws.prices.hourly["ml.g7e.8xlarge"] = 7.5
    types = {"instance_type": "ml.g7e.8xlarge"}
    change = {"network": {"subnets": [far]}, "groups": {"prefill": types, "decode": types}}
    return _allowed(aws, merged(document, change))


def _allowed(aws: Account, document: Document) -> Document:
    """The role may do what nodes of this document need."""
    policy = json.dumps(rights.policy(aws.plan(document)))
    aws.stage.client("iam").put_role_policy(RoleName="nodes", PolicyName="more", PolicyDocument=policy)
    return document


def _apart(aws: Account, document: Document, folder: Path) -> Document:
    far = make_subnet(aws, _vpc(aws, document), "10.0.64.0/20", OTHER_ZONE)
    return _allowed(aws, merged(document, {"groups": {"decode": {"network": {"subnets": [far]}}}}))


def _spread(aws: Account, document: Document, folder: Path) -> Document:
    far = make_subnet(aws, _vpc(aws, document), "10.0.64.0/20", OTHER_ZONE)
    return _allowed(aws, merged(document, {"network": {"subnets": [_subnet(document), far]}}))


def _small(aws: Account, document: Document, folder: Path) -> Document:
    small = make_subnet(aws, _vpc(aws, document), "10.0.16.0/24", ZONE)
    return _allowed(aws, merged(document, {"network": {"subnets": [small]}}))


def _plan(kind: str = GPU, count: int = 2, zone: str = ZONE, **given: Any) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> Document:
        aws.quotas.clusters["ml.p5en.48xlarge"], aws.prices.hourly["ml.p5en.48xlarge"] = 8, 70.0
        arn = aws.control.training_plan("may", kind, count, ("us-east-2a", zone), **given)
        return merged(document, {"groups": {"prefill": {"training_plan": arn}}})

    return breaks


def _no_plan(aws: Account, document: Document, folder: Path) -> Document:
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-plan/june"
    return merged(document, {"groups": {"prefill": {"training_plan": arn}}})


# ── network ──


def _rule(way: str, *, gone: bool) -> Break:
    """Takes away, or adds, the rule for all traffic with itself."""

    def breaks(aws: Account, document: Document, folder: Path) -> None:
        group = _group(document)
        rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
        verb = "revoke" if gone else "authorize"
        getattr(_ec2(aws), f"{verb}_security_group_{way}")(GroupId=group, IpPermissions=rule)

    return breaks


def _no_way_out(aws: Account, document: Document, folder: Path) -> None:
    anywhere = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    _ec2(aws).revoke_security_group_egress(GroupId=_group(document), IpPermissions=anywhere)


def _open(aws: Account, document: Document, folder: Path) -> None:
    anybody = [{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    _ec2(aws).authorize_security_group_ingress(GroupId=_group(document), IpPermissions=anybody)


def _no_group(aws: Account, document: Document, folder: Path) -> Document:
    return _allowed(aws, merged(document, {"network": {"security_groups": ["sg-0123456789abcdef0"]}}))


def _no_subnet(aws: Account, document: Document, folder: Path) -> Document:
    gone = [_subnet(document), "subnet-0123456789abcdef0"]
    return _allowed(aws, merged(document, {"network": {"subnets": gone}}))


def _endpoint(aws: Account) -> str:
    return str(_ec2(aws).describe_vpc_endpoints()["VpcEndpoints"][0]["VpcEndpointId"])


def _no_endpoint(aws: Account, document: Document, folder: Path) -> None:
    _ec2(aws).delete_vpc_endpoints(VpcEndpointIds=[_endpoint(aws)])


def _other_table(aws: Account, document: Document, folder: Path) -> None:
    table = _ec2(aws).create_route_table(VpcId=_vpc(aws, document))["RouteTable"]["RouteTableId"]
    _ec2(aws).associate_route_table(RouteTableId=table, SubnetId=_subnet(document))


def _nat(aws: Account, document: Document, folder: Path) -> None:
    _no_endpoint(aws, document, folder)
    vpc = _vpc(aws, document)
    tables = _ec2(aws).describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    nat = _ec2(aws).create_nat_gateway(SubnetId=_subnet(document), ConnectivityType="private")["NatGateway"]
    _ec2(aws).create_route(
        RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat["NatGatewayId"]
    )


def _other_vpc(aws: Account, document: Document, folder: Path) -> Document:
    vpc = _ec2(aws).create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnet = make_subnet(aws, vpc, "10.8.0.0/20", ZONE)
    group = _ec2(aws).create_security_group(GroupName="b", Description="b", VpcId=vpc)["GroupId"]
    itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    _ec2(aws).authorize_security_group_ingress(GroupId=group, IpPermissions=itself)
    _ec2(aws).authorize_security_group_egress(GroupId=group, IpPermissions=itself)
    table = _ec2(aws).describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]
    _ec2(aws).create_vpc_endpoint(
        VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[table["RouteTableId"]]
    )
    return _allowed(aws, merged(document, {"network": {"subnets": [subnet], "security_groups": [group]}}))


# ── storage and roles ──


def _no_bucket(aws: Account, document: Document, folder: Path) -> None:
    aws.stage.client("s3").delete_bucket(Bucket=BUCKET)


def _elsewhere(aws: Account, document: Document, folder: Path) -> Document:
    ireland = boto3.client(
        "s3", "eu-west-1", endpoint_url=aws.moto_url, aws_access_key_id="stage", aws_secret_access_key="stage"
    )
    ireland.meta.events.register("before-send", _account)
    where: Any = {"LocationConstraint": "eu-west-1"}
    ireland.create_bucket(Bucket="sagemaker-ireland", CreateBucketConfiguration=where)
    return _allowed(aws, merged(document, {"bucket": "sagemaker-ireland"}))


def _in_s3(bucket: str, content: bytes | None) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> Document:
        s3 = aws.stage.client("s3")
        if bucket != BUCKET:
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        if content is not None:
            s3.put_object(Bucket=bucket, Key="own/on_create.sh", Body=content)
        return merged(document, {"lifecycle": {"source": f"s3://{bucket}/own/", "on_create": "on_create.sh"}})

    return breaks


def _folder(name: str, content: bytes) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> Document:
        (folder / "on_create.sh").write_bytes(b"#!/bin/sh\n")
        (folder / name).write_bytes(content)
        return merged(document, {"lifecycle": {"source": str(folder)}})

    return breaks


def _no_role(aws: Account, document: Document, folder: Path) -> Document:
    return merged(document, {"role": f"arn:aws:iam::{ACCOUNT}:role/nobody"})


def _trust(aws: Account, document: Document, folder: Path) -> None:
    ec2 = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [ec2]})
    aws.stage.client("iam").update_assume_role_policy(RoleName="nodes", PolicyDocument=policy)


def _narrow(aws: Account, document: Document, folder: Path) -> None:
    """As AWS's managed policy does: no network interfaces in the VPC."""
    kept = [one for one in rights.policy(aws.plan(document))["Statement"] if "Interfaces" not in one["Sid"]]
    policy = json.dumps({"Version": "2012-10-17", "Statement": kept})
    aws.stage.client("iam").put_role_policy(RoleName="nodes", PolicyName="nodes", PolicyDocument=policy)


def _taken_role(aws: Account, document: Document, folder: Path) -> Document:
    change = merged(document, {"role": None})
    name = aws.plan(change).names.role
    trust = json.dumps(rights.trust())
    aws.stage.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust)
    policy = json.dumps(rights.policy(aws.plan(change)))
    aws.stage.client("iam").put_role_policy(RoleName=name, PolicyName="nodes", PolicyDocument=policy)
    return change


def _taken_name(aws: Account, document: Document, folder: Path) -> Document:
    aws.stage.client("iam").create_role(RoleName="hyperpod", AssumeRolePolicyDocument="{}")
    controller = example.group("compute", 1, InstanceType=CPU, SlurmConfig=COMPUTE)
    aws.client("sagemaker").create_cluster(**example.slurm("pd", controller))
    # The files of the new name are below another prefix.
    _allowed(aws, merged(document, {"name": "pd-2"}))
    return document


# ── EKS ──


def _typo(aws: Account, document: Document, folder: Path) -> Document:
    return _allowed(aws, merged(document, {"orchestrator": {"eks": "prd"}}))


def _eks(what: str, value: str) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> None:
        getattr(aws, what)[EKS] = value

    return breaks


def _addon(name: str, version: str | None, status: str = "ACTIVE", **values: Any) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> None:
        del aws.eks.addons[EKS, name]
        if version:
            aws.eks.addon(EKS, name, version, **values)["status"] = status

    return breaks


def _no_plugin(word: str) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> None:
        aws.daemonsets = [one for one in aws.daemonsets if word not in one]

    return breaks


def _type(name: str) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> Document:
        return merged(document, {"groups": {"prefill": {"instance_type": name}}})

    return breaks


OPERATOR = "amazon-sagemaker-hyperpod-inference"
CASES = (
    Broken(
        "credentials have expired",
        "credentials",
        "expired",
        _nothing,
        faults=(Expire(at=1),),
        also=frozenset({"offline", "price"}),
    ),
    Broken("the caller may not create", "permissions", "sagemaker:CreateCluster", _nothing, allow=READS),
    Broken(
        "the caller may not read quotas",
        "permission",
        "quotas for cluster usage could not be checked: no permission for servicequotas:ListAWS",
        _nothing,
        "unknown",
        0,
        allow=["ec2:*", "eks:*", "iam:*", "pricing:*", "s3:*", "sagemaker:*"],
    ),
    Broken("quota of the type", "quota", f"“{GPU} for cluster usage” is 2; 3 are wanted", _quota(GPU, 2), code=3),
    Broken("quota used by another cluster", "quota", "6 are in other clusters", _other_cluster, code=3),
    Broken("quota of one cluster", "quota-nodes", f"{ONE}: 4; 5 are wanted", _quota(ONE, 4), code=3),
    Broken("quota of all clusters", "quota-nodes", f"{ALL}: 0; 5", _quota(ALL, 0), code=3),
    Broken("quota of a volume", "quota-volume", "1024; a group wants 2000", _volume, code=3),
    Broken(
        "no capacity in the subnet's zone",
        "zone",
        "is in use2-az1, use2-az2, the subnets are in use2-az3",
        _zone,
        code=3,
    ),
    Broken("prefill and decode in two zones", "one-zone", "could exchange no KV cache", _apart, code=2),
    Broken("nodes may come in two zones", "one-zone", "may come in several", _spread, "warning", 0),
    Broken("too few free addresses", "addresses", "273 addresses are needed", _small, code=3),
    Broken(
        "training plan in another zone",
        "zone",
        f"its training plan is in {OTHER_ZONE}, its subnets in {ZONE}",
        _plan(zone=OTHER_ZONE),
        code=3,
    ),
    Broken(
        "training plan has ended", "training-plan", "may is Expired", _plan(starts_s=-9e6, status="Expired"), code=3
    ),
    Broken("training plan of another type", "training-plan", "has ml.p5en.48xlarge", _plan("ml.p5en.48xlarge"), code=2),
    Broken("training plan too small", "training-plan", "has 1 of 1 machines left; 2 are", _plan(count=1), code=3),
    Broken("no such training plan", "training-plan", "there is no training plan june", _no_plan, code=2),
    Broken(
        "no rule in from itself",
        "security-group",
        "no ingress rule for all traffic from itself",
        _rule("ingress", gone=True),
    ),
    Broken(
        "no rule out to itself",
        "security-group",
        "no egress rule for all traffic to itself",
        _rule("egress", gone=True),
    ),
    Broken("no rule out to S3", "security-group-s3", "no egress rule to S3", _no_way_out),
    Broken("open to the world", "security-group-open", "lets 0.0.0.0/0 in (tcp 8080)", _open, "warning", 0),
    Broken("no such security group", "security-group", "there is no such security group", _no_group, code=2),
    Broken("no such subnet", "subnet", "there is no such subnet", _no_subnet, code=2),
    Broken("no S3 endpoint, no way out", "s3-endpoint", "lifecycle files do not reach the nodes", _no_endpoint),
    Broken("S3 endpoint in another route table", "s3-endpoint", "no S3 gateway endpoint and no way out", _other_table),
    Broken("S3 by way of a NAT gateway", "s3-endpoint", "billed by the NAT gateway", _nat, "warning", 0),
    Broken("subnets outside the EKS cluster's VPC", "eks-vpc", "nodes would not reach its API", _other_vpc, code=2),
    Broken("no such bucket", "bucket", f"there is no bucket {BUCKET}", _no_bucket),
    Broken("bucket in another Region", "bucket", "is in eu-west-1, the cluster in us-east-2", _elsewhere, code=2),
    Broken(
        "bucket that nodes may not read",
        "bucket-name",
        "begins with sagemaker-",
        _in_s3("our-files", b"#!/bin/sh\n"),
        code=2,
        also=frozenset({"role-policy"}),
    ),
    Broken(
        "lifecycle file not in S3", "lifecycle-files", "own/on_create.sh is not there", _in_s3(BUCKET, None), code=2
    ),
    Broken("CRLF in S3", "lifecycle-files", "carriage return", _in_s3(BUCKET, b"#!/bin/sh\r\n"), code=2),
    Broken(
        "CRLF in a lifecycle folder",
        "lifecycle-files",
        "carriage return",
        _folder("b.sh", b"#!/bin/sh\r\n:\r\n"),
        code=2,
    ),
    Broken("name of a lifecycle file", "lifecycle-files", "more than 128", _folder("x" * 126 + ".sh", b":\n"), code=2),
    Broken("no such role", "role", "there is no role nobody", _no_role, code=2),
    Broken("role that SageMaker cannot take on", "role-trust", "does not let sagemaker.amazonaws.com", _trust),
    Broken("role without network interfaces", "role-policy", "ec2:CreateNetworkInterface", _narrow),
    Broken("role of the name that would be made", "role", "was not made for this cluster", _taken_role),
    Broken("name of a cluster that is taken", "name", "a cluster pd is there", _taken_name, code=2),
    Broken("no such EKS cluster", "eks", "there is no EKS cluster prd", _typo, code=2),
    Broken("EKS version too old", "eks-version", "Kubernetes 1.26", _eks("versions", "1.26")),
    Broken("EKS access by ConfigMap alone", "eks-access", "is CONFIG_MAP", _eks("modes", "CONFIG_MAP")),
    Broken(
        "VPC CNI too old",
        "vpc-cni",
        "v1.18.1-eksbuild.1",
        _addon("vpc-cni", "v1.18.1-eksbuild.1", **{"enableNetworkPolicy": "true"}),
    ),
    Broken(
        "network policies not enforced",
        "network-policy",
        "enforces no",
        _addon("vpc-cni", "v1.20.4-eksbuild.2"),
        "warning",
        0,
    ),
    Broken(
        "add-on degraded",
        "add-on",
        "vpc-cni is DEGRADED",
        _addon("vpc-cni", "v1.20.4-eksbuild.2", "DEGRADED", enableNetworkPolicy="true"),
    ),
    Broken("no EFA device plugin", "efa-plugin", "prefill, decode would have no EFA devices", _no_plugin("efa")),
    Broken("no NVIDIA device plugin", "nvidia-plugin", "prefill, decode would have no GPUs", _no_plugin("nvidia")),
    Broken(
        "inference operator without pdSpec",
        "inference-operator",
        "v2.1.1",
        _addon(OPERATOR, "v2.1.1-eksbuild.1"),
        "warning",
        0,
    ),
    Broken("misspelled instance type", "instance-type", "ml.p5.48xlagre", _type("ml.p5.48xlagre"), code=2),
)

__all__ = ["CASES", "ROLE", "Broken"]
