"""Requests that a service takes as they are: what a test begins with."""

from __future__ import annotations

from typing import Any

from tests.fakes.gate import ACCOUNT, REGION

Body = dict[str, Any]
ROLE = f"arn:aws:iam::{ACCOUNT}:role/hyperpod"
EKS = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/pd"
VPC = {"SecurityGroupIds": ["sg-0a"], "Subnets": ["subnet-0a"]}


def group(name: str = "prefill", count: int = 2, **changed: Any) -> Body:
    """An instance group; None takes a field away."""
    body = {
        "InstanceGroupName": name,
        "InstanceType": "ml.p5.48xlarge",
        "InstanceCount": count,
        "ExecutionRole": ROLE,
        "LifeCycleConfig": {"SourceS3Uri": "s3://sagemaker-pd/lifecycle", "OnCreate": "on_create.sh"},
    }
    return {field: value for field, value in {**body, **changed}.items() if value is not None}


def eks(name: str = "pd", *groups: Body, **changed: Any) -> Body:
    """A cluster on EKS, provisioned continuously."""
    body = {
        "ClusterName": name,
        "InstanceGroups": list(groups) or [group()],
        "VpcConfig": VPC,
        "Orchestrator": {"Eks": {"ClusterArn": EKS}},
        "NodeProvisioningMode": "Continuous",
    }
    return {field: value for field, value in {**body, **changed}.items() if value is not None}


def slurm(name: str = "pd", *groups: Body, **changed: Any) -> Body:
    """A cluster on Slurm, all nodes or none."""
    controller = group("controller", 1, InstanceType="ml.m5.xlarge", SlurmConfig={"NodeType": "Controller"})
    compute = {"NodeType": "Compute", "PartitionNames": ["prefill"]}
    body = {
        "ClusterName": name,
        "InstanceGroups": [controller, *(groups or [group(SlurmConfig=compute)])],
        "Orchestrator": {"Slurm": {"SlurmConfigStrategy": "Managed"}},
    }
    return {field: value for field, value in {**body, **changed}.items() if value is not None}
