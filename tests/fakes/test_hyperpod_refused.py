"""The stand-in refuses what the service refuses: malformed, and well-formed but wrong."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx
import pytest
from botocore.config import Config

from tests.deploy import botocore_shapes
from tests.fakes.hyperpod import Control, example

CONTROLLER = {"NodeType": "Controller"}
COMPUTE = {"NodeType": "Compute", "PartitionNames": ["a"]}


def post(url: str, operation: str, body: Any, sender: Any = httpx) -> httpx.Response:
    """As it is: no client that would refuse or mend it."""
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    answer: httpx.Response = sender.post(url, content=json.dumps(body), headers=headers)
    return answer


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (example.eks(Orchestrator={}), "exactly one orchestrator"),
        (example.eks(Orchestrator={"Eks": {"ClusterArn": example.EKS}, "Slurm": {}}), "exactly one orchestrator"),
        (example.eks(VpcConfig=None), "VpcConfig is required"),
        (example.eks(AutoScaling={"Mode": "Enable"}), "ClusterRole is required"),
        (
            example.eks(NodeProvisioningMode=None, ClusterRole=example.ROLE, AutoScaling={"Mode": "Enable"}),
            "NodeProvisioningMode Continuous",
        ),
        (example.eks("pd", example.group(), example.group()), "2 groups are named prefill"),
        (example.eks("pd", example.group(InstanceType=None)), "exactly one of InstanceType and InstanceRequirements"),
        (example.eks("pd", example.group(count=1, MinInstanceCount=2)), "MinInstanceCount 2 is above InstanceCount 1"),
        (example.eks("pd", example.group(SlurmConfig=COMPUTE)), "SlurmConfig is for Slurm"),
        (example.slurm("pd", example.group(SlurmConfig=COMPUTE, KubernetesConfig={})), "KubernetesConfig is for EKS"),
        (example.slurm(InstanceGroups=[example.group(SlurmConfig=COMPUTE)]), "NodeType Controller, found 0"),
        (example.slurm("pd", example.group(count=1, SlurmConfig=CONTROLLER)), "NodeType Controller, found 2"),
        (example.slurm(InstanceGroups=[example.group(SlurmConfig=CONTROLLER)]), "a Controller group has one"),
        (example.slurm("pd", example.group()), "on every instance group or on none"),
        (example.slurm(InstanceGroups=None), "needs at least one"),
        (
            example.slurm("pd", example.group(SlurmConfig={"NodeType": "Login", "PartitionNames": ["a"]})),
            "PartitionNames are for NodeType Compute",
        ),
        (
            example.eks("pd", example.group(LifeCycleConfig={"SourceS3Uri": "s3://mine/a", "OnCreate": "a"})),
            "has to start with s3://sagemaker-",
        ),
        (example.eks("pd", example.group(LifeCycleConfig={"OnCreate": "a"})), "LifeCycleConfig: SourceS3Uri"),
        (
            example.eks(
                "pd", example.group(InstanceType="ml.g6.8xlarge", NetworkInterface={"InterfaceType": "efa-only"})
            ),
            "ml.g6.8xlarge has one network card",
        ),
        (example.eks("pd", example.group(CapacityRequirements={})), "exactly one of Spot and OnDemand"),
        (
            example.eks(
                "pd", example.group(TrainingPlanArn="arn:aws:sagemaker:us-east-2:111122223333:training-plan/no")
            ),
            "no training plan",
        ),
    ],
)
def test_fields_that_do_not_go_together(request_: dict[str, Any], said: str) -> None:
    with Control() as control:
        client = control.client()
        with pytest.raises(client.exceptions.ClientError) as refused:
            client.create_cluster(**request_)
        assert refused.value.response["Error"]["Code"] == "ValidationException"
        assert said in refused.value.response["Error"]["Message"]
        assert client.list_clusters()["ClusterSummaries"] == []


def test_every_mutation_of_a_request_is_refused() -> None:
    """Sent over HTTP by something that checks nothing: each member misspelt, dropped, out of its bounds, mistyped."""
    tried: Counter[str] = Counter()
    with Control() as control, httpx.Client() as sender:
        for request in (example.slurm(), example.eks(Tags=[{"Key": "a", "Value": "b"}], NodeRecovery="Automatic")):
            for each in botocore_shapes.mutations("sagemaker", "CreateCluster", request):
                answer = post(control.url, "CreateCluster", each.request, sender)
                tried[each.what] += 1
                assert (answer.status_code, answer.json()["__type"]) == (400, "ValidationException"), str(each)
        assert control.account.clusters == []
    assert min(tried.values()) > 5, tried


def test_an_operation_that_is_not_there() -> None:
    with Control() as control:
        assert post(control.url, "CreateClutser", {}).json()["__type"] == "UnknownOperationException"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"VpcConfig": example.VPC}, "no member VpcConfig"),
        ({"Tags": []}, "no member Tags"),
        ({"InstanceGroups": [example.group(InstanceType="ml.p4d.24xlarge")]}, "InstanceType cannot be changed"),
        ({"InstanceGroups": [example.group(LifeCycleConfig=None)]}, "LifeCycleConfig missing"),
        ({"InstanceGroups": [example.group(), example.group()]}, "a name twice"),
        ({"InstanceGroupsToDelete": ["no"]}, "no instance group no"),
        ({"InstanceGroups": [example.group()], "InstanceGroupsToDelete": ["prefill"]}, "both updated and deleted"),
        ({"Orchestrator": {"Slurm": {}}}, "Orchestrator cannot be changed"),
    ],
)
def test_an_update_that_is_none(asked: dict[str, Any], said: str) -> None:
    with Control() as control:
        control.client().create_cluster(**example.eks())
        control.advance(3600)
        answer = post(control.url, "UpdateCluster", {"ClusterName": "pd", **asked}).json()
        assert answer["__type"] == "ValidationException"
        assert said in answer["message"]


def test_a_controller_stays() -> None:
    with Control() as control:
        client = control.client()
        client.create_cluster(**example.slurm())
        control.advance(3600)
        with pytest.raises(client.exceptions.ClientError, match="NodeType Controller, found 0"):
            client.update_cluster(ClusterName="pd", InstanceGroupsToDelete=["controller"])
        (controller,) = control.nodes("pd", "controller")
        failed = client.batch_delete_cluster_nodes(ClusterName="pd", NodeIds=[controller.instance_id])["Failed"]
        assert [one["Code"] for one in failed] == ["InvalidNodeStatus"]


@pytest.mark.parametrize(
    "operation", ["describe_cluster", "delete_cluster", "list_cluster_nodes", "list_cluster_events"]
)
def test_what_is_not_there(operation: str) -> None:
    with Control() as control:
        client = control.client()
        with pytest.raises(client.exceptions.ResourceNotFound, match="no-such"):
            getattr(client, operation)(ClusterName="no-such")


def test_a_wrong_answer_of_ours_is_an_error_of_the_test() -> None:
    control = Control()
    with control:
        client = control.client(config=Config(retries={"total_max_attempts": 1}))
        client.create_cluster(**example.eks())
        control.cluster("pd").status = "Wrong"
        with pytest.raises(client.exceptions.ClientError, match="the stand-in's answer"):
            client.describe_cluster(ClusterName="pd")
        (wrong,), control.broken = control.broken, []
    assert wrong.startswith("DescribeCluster: ClusterStatus: 'Wrong' is none of")
