"""Broken accounts and cluster files, and the finding that has to come of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hyperpd.cluster.preflight.quotas import ALL, ONE
from tests.cluster.preflight.account import ACCOUNT, BUCKET, GPU, OTHER_ZONE, ZONE
from tests.cluster.preflight.breaks import (
    Break,
    addon,
    apart,
    elsewhere,
    far_zone,
    folder,
    forgotten,
    in_s3,
    narrow,
    narrow_pass,
    nat,
    no_bucket,
    no_endpoint,
    no_group,
    no_plan,
    no_plugin,
    no_role,
    no_subnet,
    no_way_out,
    nothing,
    on_eks,
    opened,
    other_cluster,
    other_table,
    other_vpc,
    quota,
    rule,
    small,
    spread,
    taken_name,
    taken_role,
    training,
    trust,
    typed,
    typo,
    volume,
)
from tests.fakes.gate import Expire

# What the plan itself reads with, and the right to give oneself more; what creates is left out.
READS = [
    *("ec2:Describe*", "eks:Describe*", "eks:List*", "iam:Get*", "iam:Simulate*", "iam:PutUserPolicy"),
    *("pricing:*", "s3:Get*", "s3:List*", "sagemaker:Describe*", "sagemaker:List*", "servicequotas:*"),
]
# All that creates, but to pass roles.
CREATES = [*READS, "eks:*", "iam:Create*", "iam:Put*", "iam:Tag*", "logs:*", "s3:*", "sagemaker:*"]
SCALER = "hyperpod.sagemaker.amazonaws.com"


def passes(role: str, service: str) -> dict[str, Any]:
    """A policy: may pass this role to this service."""
    condition = {"StringEquals": {"iam:PassedToService": service}}
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    allow = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": arn, "Condition": condition}
    return {"Version": "2012-10-17", "Statement": [allow]}


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


OPERATOR = "amazon-sagemaker-hyperpod-inference"
CASES = (
    Broken(
        "credentials have expired",
        "credentials",
        "expired",
        nothing,
        faults=(Expire(at=1),),
        also=frozenset({"offline", "price"}),
    ),
    Broken("the caller may not create", "permissions", "sagemaker:CreateCluster", nothing, allow=READS),
    Broken(
        "the caller may pass Karpenter's role to one service alone",
        "permissions",
        "may not: iam:PassRole",
        narrow_pass,
        allow=[*CREATES, passes("scaler", SCALER), passes("nodes", "sagemaker.amazonaws.com")],
    ),
    Broken(
        "the caller may not read quotas",
        "permission",
        "quotas for cluster usage could not be checked: no permission for servicequotas:ListAWS",
        nothing,
        "unknown",
        0,
        allow=["ec2:*", "eks:*", "iam:*", "pricing:*", "s3:*", "sagemaker:*"],
    ),
    Broken("quota of the type", "quota", f"“{GPU} for cluster usage” is 2; 3 are wanted", quota(GPU, 2), code=3),
    Broken("quota used by another cluster", "quota", "6 are in other clusters", other_cluster, code=3),
    Broken("quota of one cluster", "quota-nodes", f"{ONE}: 4; 5 are wanted", quota(ONE, 4), code=3),
    Broken("quota of all clusters", "quota-nodes", f"{ALL}: 0; 5", quota(ALL, 0), code=3),
    Broken("quota of a volume", "quota-volume", "1024; a group wants 2000", volume, code=3),
    Broken(
        "no capacity in the subnet's zone",
        "zone",
        "is in use2-az1, use2-az2, the subnets are in use2-az3",
        far_zone,
        code=3,
    ),
    Broken("prefill and decode in two zones", "one-zone", "could exchange no KV cache", apart, code=2),
    Broken("nodes may come in two zones", "one-zone", "may come in several", spread, "warning", 0),
    Broken("too few free addresses", "addresses", "273 addresses are needed", small, code=3),
    Broken(
        "training plan in another zone",
        "zone",
        f"its training plan is in {OTHER_ZONE}, its subnets in {ZONE}",
        training(zone=OTHER_ZONE),
        code=3,
    ),
    Broken(
        "training plan has ended", "training-plan", "may is Expired", training(starts_s=-9e6, status="Expired"), code=3
    ),
    Broken(
        "training plan of another type", "training-plan", "has ml.p5en.48xlarge", training("ml.p5en.48xlarge"), code=2
    ),
    Broken("training plan too small", "training-plan", "has 1 of 1 machines left; 2 are", training(count=1), code=3),
    Broken("no such training plan", "training-plan", "there is no training plan june", no_plan, code=2),
    Broken(
        "no rule in from itself",
        "security-group",
        "no ingress rule for all traffic from itself",
        rule("ingress", gone=True),
    ),
    Broken(
        "no rule out to itself",
        "security-group",
        "no egress rule for all traffic to itself",
        rule("egress", gone=True),
    ),
    Broken("no rule out to S3", "security-group-s3", "no egress rule to S3", no_way_out),
    Broken("open to the world", "security-group-open", "lets 0.0.0.0/0 in (tcp 8080)", opened, "warning", 0),
    Broken("no such security group", "security-group", "there is no such security group", no_group, code=2),
    Broken("no such subnet", "subnet", "there is no such subnet", no_subnet, code=2),
    Broken("no S3 endpoint, no way out", "s3-endpoint", "lifecycle files do not reach the nodes", no_endpoint),
    Broken("S3 endpoint in another route table", "s3-endpoint", "no S3 gateway endpoint and no way out", other_table),
    Broken("S3 by way of a NAT gateway", "s3-endpoint", "billed by the NAT gateway", nat, "warning", 0),
    Broken("subnets outside the EKS cluster's VPC", "eks-vpc", "nodes would not reach its API", other_vpc, code=2),
    Broken("no such bucket", "bucket", f"there is no bucket {BUCKET}", no_bucket),
    Broken("bucket in another Region", "bucket", "is in eu-west-1, the cluster in us-east-2", elsewhere, code=2),
    Broken(
        "bucket that nodes may not read",
        "bucket-name",
        "begins with sagemaker-",
        in_s3("our-files", b"#!/bin/sh\n"),
        code=2,
    ),
    Broken("lifecycle file not in S3", "lifecycle-files", "own/on_create.sh is not there", in_s3(BUCKET, None), code=2),
    Broken("CRLF in S3", "lifecycle-files", "carriage return", in_s3(BUCKET, b"#!/bin/sh\r\n"), code=2),
    Broken(
        "CRLF in a lifecycle folder",
        "lifecycle-files",
        "carriage return",
        folder("b.sh", b"#!/bin/sh\r\n:\r\n"),
        code=2,
    ),
    Broken("name of a lifecycle file", "lifecycle-files", "more than 128", folder("x" * 126 + ".sh", b":\n"), code=2),
    Broken("no such role", "role", "there is no role nobody", no_role, code=2),
    Broken("role that SageMaker cannot take on", "role-trust", "does not let sagemaker.amazonaws.com", trust),
    Broken("role without network interfaces", "role-policy", "ec2:CreateNetworkInterface", narrow),
    Broken("accounting secret that is being deleted", "accounting-secret", "scheduled for deletion", forgotten),
    Broken("role of the name that would be made", "role", "was not made for this cluster", taken_role),
    Broken("name of a cluster that is taken", "name", "a cluster pd is there", taken_name, code=2),
    Broken("no such EKS cluster", "eks", "there is no EKS cluster prd", typo, code=2),
    Broken("EKS version too old", "eks-version", "Kubernetes 1.26", on_eks(version="1.26")),
    Broken(
        "EKS access by ConfigMap alone",
        "eks-access",
        "is CONFIG_MAP",
        on_eks(accessConfig={"authenticationMode": "CONFIG_MAP"}),
    ),
    Broken(
        "VPC CNI too old",
        "vpc-cni",
        "v1.18.1-eksbuild.1",
        addon("vpc-cni", "v1.18.1-eksbuild.1", **{"enableNetworkPolicy": "true"}),
    ),
    Broken(
        "network policies not enforced",
        "network-policy",
        "enforces no",
        addon("vpc-cni", "v1.20.4-eksbuild.2"),
        "warning",
        0,
    ),
    Broken(
        "add-on degraded",
        "add-on",
        "vpc-cni is DEGRADED",
        addon("vpc-cni", "v1.20.4-eksbuild.2", "DEGRADED", enableNetworkPolicy="true"),
    ),
    Broken("no EFA device plugin", "efa-plugin", "prefill, decode would have no EFA devices", no_plugin("efa")),
    Broken("no NVIDIA device plugin", "nvidia-plugin", "prefill, decode would have no GPUs", no_plugin("nvidia")),
    Broken(
        "inference operator without pdSpec",
        "inference-operator",
        "v2.1.1",
        addon(OPERATOR, "v2.1.1-eksbuild.1"),
        "warning",
        0,
    ),
    Broken("misspelled instance type", "instance-type", "ml.p5.48xlagre", typed("ml.p5.48xlagre"), code=2),
)
