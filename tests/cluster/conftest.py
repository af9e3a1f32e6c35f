"""An account with a network and an EKS cluster, behind the stand-ins of AWS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest

from hyperpd.cluster import Cluster
from tests.cluster.files import EKS, SLURM, merged
from tests.fakes.aws import Aws

Start = Callable[..., "Account"]


class Account:
    """The stand-ins, and cluster files that fit them."""

    def __init__(self, aws: Aws) -> None:
        self.aws, self.control, self.gate = aws, aws.control, aws.gate
        ec2, eks = aws.stage.client("ec2"), aws.stage.client("eks")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        made = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n * 16}.0/20") for n in range(2)]
        self.subnets = [one["Subnet"]["SubnetId"] for one in made]
        self.security_group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)["GroupId"]
        # As preflight wants it: nodes reach each other, and S3.
        itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.security_group}]}]
        ec2.authorize_security_group_ingress(GroupId=self.security_group, IpPermissions=itself)
        ec2.authorize_security_group_egress(GroupId=self.security_group, IpPermissions=itself)
        tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        ec2.create_vpc_endpoint(
            VpcId=vpc,
            ServiceName="com.amazonaws.us-east-2.s3",
            RouteTableIds=[table["RouteTableId"] for table in tables],
        )
        eks.create_cluster(
            name="prod",
            version="1.33",
            accessConfig={"authenticationMode": "API"},
            roleArn="arn:aws:iam::111122223333:role/eks",
            resourcesVpcConfig={"subnetIds": self.subnets},
        )

    @property
    def network(self) -> dict[str, list[str]]:
        return {"subnets": self.subnets[:1], "security_groups": [self.security_group]}

    def eks(self, **change: Any) -> dict[str, Any]:
        """A cluster file's document for EKS."""
        return merged({**EKS, "network": self.network}, change)

    def slurm(self, **change: Any) -> dict[str, Any]:
        """One for Slurm."""
        return merged(SLURM, change)

    def made(self) -> dict[str, list[str]]:
        """What is in the account: names of clusters, roles and buckets, and keys."""
        s3, iam = self.aws.stage.client("s3"), self.aws.stage.client("iam")
        buckets = [one["Name"] for one in s3.list_buckets()["Buckets"]]
        keys = [key["Key"] for name in buckets for key in s3.list_objects_v2(Bucket=name).get("Contents", ())]
        return {
            "clusters": [one.name for one in self.control.account.clusters if not one.gone],
            "roles": [one["RoleName"] for one in iam.list_roles()["Roles"]],
            "buckets": buckets,
            "keys": keys,
        }


class _Loader(botocore.loaders.Loader):
    """S3's model anew each time: clients rewrite its paths, which the stand-ins read."""

    def load_service_model(self, service_name: str, *given: Any, **named: Any) -> Any:
        loader = botocore.loaders.Loader() if service_name == "s3" else super()
        return loader.load_service_model(service_name, *given, **named)


@cache
def _loader() -> botocore.loaders.Loader:
    return _Loader()


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore reads eight services' models anew for each session: two seconds of each test."""
    monkeypatch.setattr(botocore.session, "create_loader", lambda search_path_string=None: _loader())
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # as in a process of its own
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # a second of each test, and no image is asked for


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cluster.create makes no preflight unless a test says check=True: it asks much, and has tests of its own."""
    monkeypatch.setitem(Cluster.create.__kwdefaults__, "check", False)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts an account; faults, `allow` and others are Aws' own."""
    with ExitStack() as stack:

        def start(*faults: Any, **given: Any) -> Account:
            aws = stack.enter_context(Aws(*faults, **given))
            for name, value in aws.environment.items():
                monkeypatch.setenv(name, value)
            return Account(aws)

        yield start


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause is waited for: time in the stand-in passes with each look."""
    pause = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: pause(0))
