"""What is done to a right account or cluster file so that it is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

from hyperpd.cluster import rights
from hyperpd.cluster.preflight.quotas import VOLUME
from tests.cluster.files import merged
from tests.cluster.preflight.account import (
    ACCOUNT,
    BUCKET,
    CPU,
    EKS,
    GPU,
    OTHER_ZONE,
    REGION,
    ZONE,
    Account,
    Document,
    accounted,
    allowed,
    make_subnet,
)
from tests.fakes.aws.stage import KEY
from tests.fakes.hyperpod import example

Break = Callable[[Account, Document, Path], Document | None]


def _ec2(aws: Account) -> Any:
    return aws.stage.client("ec2")


def _subnet(document: Document) -> str:
    return str(document["network"]["subnets"][0])


def _group(document: Document) -> str:
    return str(document["network"]["security_groups"][0])


def _vpc(aws: Account, document: Document) -> str:
    return str(_ec2(aws).describe_subnets(SubnetIds=[_subnet(document)])["Subnets"][0]["VpcId"])


def nothing(aws: Account, document: Document, folder: Path) -> None:
    """The account's faults or policy are what is wrong."""


# ── capacity ──


def other_cluster(aws: Account, document: Document, folder: Path) -> None:
    aws.stage.client("iam").create_role(RoleName="hyperpod", AssumeRolePolicyDocument="{}")
    aws.client("sagemaker").create_cluster(**example.slurm("other", example.group("compute", 6, SlurmConfig=COMPUTE)))


COMPUTE = {"NodeType": "Compute"}


def quota(name: str, value: float) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> None:
        if name in aws.quotas.clusters:
            aws.quotas.clusters[name] = int(value)
        else:
            aws.quotas.others["sagemaker", name] = value

    return breaks


def volume(aws: Account, document: Document, folder: Path) -> Document:
    aws.quotas.others["sagemaker", VOLUME] = 1024
    return merged(document, {"groups": {"prefill": {"volumes": [{"size_gb": 2000}]}}})


def far_zone(aws: Account, document: Document, folder: Path) -> Document:
    far = make_subnet(aws, _vpc(aws, document), "10.0.64.0/20", "use2-az3")
    aws.quotas.clusters["ml.g7e.8xlarge"] = 8
    aws.prices.hourly["ml.g7e.8xlarge"] = 7.5
    types = {"instance_type": "ml.g7e.8xlarge"}
    change = {"network": {"subnets": [far]}, "groups": {"prefill": types, "decode": types}}
    return allowed(aws, merged(document, change))


def apart(aws: Account, document: Document, folder: Path) -> Document:
    far = make_subnet(aws, _vpc(aws, document), "10.0.64.0/20", OTHER_ZONE)
    return allowed(aws, merged(document, {"groups": {"decode": {"network": {"subnets": [far]}}}}))


def spread(aws: Account, document: Document, folder: Path) -> Document:
    far = make_subnet(aws, _vpc(aws, document), "10.0.64.0/20", OTHER_ZONE)
    return allowed(aws, merged(document, {"network": {"subnets": [_subnet(document), far]}}))


def small(aws: Account, document: Document, folder: Path) -> Document:
    small = make_subnet(aws, _vpc(aws, document), "10.0.16.0/24", ZONE)
    return allowed(aws, merged(document, {"network": {"subnets": [small]}}))


def training(kind: str = GPU, count: int = 2, zone: str = ZONE, **given: Any) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> Document:
        aws.quotas.clusters["ml.p5en.48xlarge"], aws.prices.hourly["ml.p5en.48xlarge"] = 8, 70.0
        arn = aws.control.training_plan("may", kind, count, ("us-east-2a", zone), **given)
        return merged(document, {"groups": {"prefill": {"training_plan": arn}}})

    return breaks


def no_plan(aws: Account, document: Document, folder: Path) -> Document:
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-plan/june"
    return merged(document, {"groups": {"prefill": {"training_plan": arn}}})


# ── network ──


def rule(way: str, *, gone: bool) -> Break:
    """Takes away, or adds, the rule for all traffic with itself."""

    def breaks(aws: Account, document: Document, folder: Path) -> None:
        group = _group(document)
        rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
        verb = "revoke" if gone else "authorize"
        getattr(_ec2(aws), f"{verb}_security_group_{way}")(GroupId=group, IpPermissions=rule)

    return breaks


def no_way_out(aws: Account, document: Document, folder: Path) -> None:
    anywhere = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    _ec2(aws).revoke_security_group_egress(GroupId=_group(document), IpPermissions=anywhere)


def opened(aws: Account, document: Document, folder: Path) -> None:
    anybody = [{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    _ec2(aws).authorize_security_group_ingress(GroupId=_group(document), IpPermissions=anybody)


def no_group(aws: Account, document: Document, folder: Path) -> Document:
    return allowed(aws, merged(document, {"network": {"security_groups": ["sg-0123456789abcdef0"]}}))


def no_subnet(aws: Account, document: Document, folder: Path) -> Document:
    gone = [_subnet(document), "subnet-0123456789abcdef0"]
    return allowed(aws, merged(document, {"network": {"subnets": gone}}))


def _endpoint(aws: Account) -> str:
    return str(_ec2(aws).describe_vpc_endpoints()["VpcEndpoints"][0]["VpcEndpointId"])


def no_endpoint(aws: Account, document: Document, folder: Path) -> None:
    _ec2(aws).delete_vpc_endpoints(VpcEndpointIds=[_endpoint(aws)])


def other_table(aws: Account, document: Document, folder: Path) -> None:
    table = _ec2(aws).create_route_table(VpcId=_vpc(aws, document))["RouteTable"]["RouteTableId"]
    _ec2(aws).associate_route_table(RouteTableId=table, SubnetId=_subnet(document))


def nat(aws: Account, document: Document, folder: Path) -> None:
    no_endpoint(aws, document, folder)
    vpc = _vpc(aws, document)
    tables = _ec2(aws).describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    nat = _ec2(aws).create_nat_gateway(SubnetId=_subnet(document), ConnectivityType="private")["NatGateway"]
    _ec2(aws).create_route(
        RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat["NatGatewayId"]
    )


def other_vpc(aws: Account, document: Document, folder: Path) -> Document:
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
    return allowed(aws, merged(document, {"network": {"subnets": [subnet], "security_groups": [group]}}))


# ── storage and roles ──


def no_bucket(aws: Account, document: Document, folder: Path) -> None:
    aws.stage.client("s3").delete_bucket(Bucket=BUCKET)


def elsewhere(aws: Account, document: Document, folder: Path) -> Document:
    ireland = boto3.client("s3", "eu-west-1", endpoint_url=aws.url, aws_access_key_id=KEY, aws_secret_access_key=KEY)
    where: Any = {"LocationConstraint": "eu-west-1"}
    ireland.create_bucket(Bucket="sagemaker-ireland", CreateBucketConfiguration=where)
    return allowed(aws, merged(document, {"bucket": "sagemaker-ireland"}))


def in_s3(bucket: str, content: bytes | None) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> Document:
        s3 = aws.stage.client("s3")
        if bucket != BUCKET:
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        if content is not None:
            s3.put_object(Bucket=bucket, Key="own/on_create.sh", Body=content)
        own = {"source": f"s3://{bucket}/own/", "on_create": "on_create.sh"}
        return allowed(aws, merged(document, {"lifecycle": own}))

    return breaks


def folder(name: str, content: bytes) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> Document:
        (folder / "on_create.sh").write_bytes(b"#!/bin/sh\n")
        (folder / name).write_bytes(content)
        return merged(document, {"lifecycle": {"source": str(folder)}})

    return breaks


def no_role(aws: Account, document: Document, folder: Path) -> Document:
    return merged(document, {"role": f"arn:aws:iam::{ACCOUNT}:role/nobody"})


def trust(aws: Account, document: Document, folder: Path) -> None:
    ec2 = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [ec2]})
    aws.stage.client("iam").update_assume_role_policy(RoleName="nodes", PolicyDocument=policy)


def narrow(aws: Account, document: Document, folder: Path) -> None:
    """As AWS's managed policy does: no network interfaces in the VPC."""
    kept = [one for one in rights.policy(aws.plan(document))["Statement"] if "Interfaces" not in one["Sid"]]
    policy = json.dumps({"Version": "2012-10-17", "Statement": kept})
    aws.stage.client("iam").put_role_policy(RoleName="nodes", PolicyName="nodes", PolicyDocument=policy)


def narrow_pass(aws: Account, document: Document, folder: Path) -> Document:
    """A role for Karpenter. That it may be passed to one service alone is the caller's policy to say."""
    iam, trusted = aws.stage.client("iam"), json.loads(json.dumps(rights.trust()))
    trusted["Statement"][0]["Principal"]["Service"] = "hyperpod.sagemaker.amazonaws.com"
    iam.create_role(RoleName="scaler", AssumeRolePolicyDocument=json.dumps(trusted))
    scale = {"Effect": "Allow", "Action": "sagemaker:Batch*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [scale]})
    iam.put_role_policy(RoleName="scaler", PolicyName="scale", PolicyDocument=policy)
    scaling = {"role": f"arn:aws:iam::{ACCOUNT}:role/scaler"}
    return allowed(aws, merged(document, {"continuous": True, "autoscaling": scaling}))


def forgotten(aws: Account, document: Document, folder: Path) -> Document:
    document = accounted(aws, document)
    secret = document["orchestrator"]["slurm"]["accounting"]["secret"]
    aws.stage.client("secretsmanager").delete_secret(SecretId=secret)
    return document


def taken_role(aws: Account, document: Document, folder: Path) -> Document:
    change = merged(document, {"role": None})
    name = aws.plan(change).names.role
    trust = json.dumps(rights.trust())
    aws.stage.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust)
    policy = json.dumps(rights.policy(aws.plan(change)))
    aws.stage.client("iam").put_role_policy(RoleName=name, PolicyName="nodes", PolicyDocument=policy)
    return change


def taken_name(aws: Account, document: Document, folder: Path) -> Document:
    aws.stage.client("iam").create_role(RoleName="hyperpod", AssumeRolePolicyDocument="{}")
    controller = example.group("compute", 1, InstanceType=CPU, SlurmConfig=COMPUTE)
    aws.client("sagemaker").create_cluster(**example.slurm("pd", controller))
    # The files of the new name are below another prefix.
    allowed(aws, merged(document, {"name": "pd-2"}))
    return document


# ── EKS ──


def typo(aws: Account, document: Document, folder: Path) -> Document:
    return allowed(aws, merged(document, {"orchestrator": {"eks": "prd"}}))


def on_eks(**differs: Any) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> None:
        aws.eks.clusters[EKS] |= differs

    return breaks


def addon(name: str, version: str | None, status: str = "ACTIVE", **values: Any) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> None:
        del aws.eks.addons[EKS, name]
        if version:
            aws.eks.addon(EKS, name, version, **values)["status"] = status

    return breaks


def no_plugin(word: str) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> None:
        aws.daemonsets = [one for one in aws.daemonsets if word not in one]

    return breaks


def typed(name: str) -> Break:
    def breaks(aws: Account, document: Document, folder: Path) -> Document:
        return merged(document, {"groups": {"prefill": {"instance_type": name}}})

    return breaks
