"""Others' clients on the stand-in: the AWS CLI and SageMaker's own SDK, each in an environment of its own.

make sdk-test makes them and runs this. boto3 is in every other test of the stand-in, stock hyp in tests/hyp.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.aws import Aws
from tests.fakes.hyperpod import example


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with Aws() as aws:
        # These tests are about the control plane: whatever it names is there.
        monkeypatch.setattr(aws.stage, "refuses_create", lambda request: ())
        monkeypatch.setattr(aws.stage, "lifecycle", lambda source, script, role: None)
        yield aws


def run(aws: Aws, home: Path, *argv: str, expect: int = 0) -> str:
    """What a command prints; its errors where it is to fail."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "AWS_PAGER": "", **aws.environment}
    ran = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == expect, ran.stdout + ran.stderr
    return ran.stderr if expect else ran.stdout


@pytest.mark.skipif("AWS_CLI" not in os.environ, reason="AWS_CLI: no aws command; make sdk-test has one")
def test_the_aws_cli(aws: Aws, tmp_path: Path) -> None:
    def sagemaker(*words: str, expect: int = 0) -> Any:
        said = run(aws, tmp_path, os.environ["AWS_CLI"], "sagemaker", *words, "--output", "json", expect=expect)
        return json.loads(said) if said and not expect else said

    request = example.eks(InstanceGroups=[example.group(count=12)])
    assert sagemaker("create-cluster", "--cli-input-json", json.dumps(request))["ClusterArn"]
    status = ("describe-cluster", "--cluster-name", "pd", "--query", "ClusterStatus")
    seen = {sagemaker(*status) for _ in range(3)}
    assert seen == {"Creating", "InService"}
    aws.control.advance(3600)
    nodes = sagemaker("list-cluster-nodes", "--cluster-name", "pd")["ClusterNodeSummaries"]  # both pages
    assert len(nodes) == 12
    events = sagemaker("list-cluster-events", "--cluster-name", "pd", "--max-items", "3")
    assert (len(events["Events"]), "NextToken" in events) == (3, True)
    ids = (nodes[0]["InstanceId"], "i-00000000000000000")
    replaced = sagemaker("batch-replace-cluster-nodes", "--cluster-name", "pd", "--node-ids", *ids)
    assert (replaced["Successful"], replaced["Failed"][0]["ErrorCode"]) == ([ids[0]], "InstanceIdNotFound")
    wrong = sagemaker("update-cluster", "--cluster-name", "pd", "--instance-groups-to-delete", "no", expect=255)
    assert "(ValidationException)" in wrong
    sagemaker("delete-cluster", "--cluster-name", "pd")
    aws.control.advance(3600)
    assert "(ResourceNotFound)" in sagemaker("describe-cluster", "--cluster-name", "pd", expect=255)
    who = run(aws, tmp_path, os.environ["AWS_CLI"], "sts", "get-caller-identity", "--query", "Account")
    assert json.loads(who) == "111122223333"
    assert {call.error for call in aws.calls} == {"", "ValidationException", "ResourceNotFound"}


_SDK = f"""
from sagemaker.core.resources import Cluster
from sagemaker.core.shapes import (
    ClusterInstanceGroupSpecification, ClusterLifeCycleConfig, ClusterOrchestrator, ClusterOrchestratorEksConfig,
    VpcConfig,
)

scripts = ClusterLifeCycleConfig(source_s3_uri="s3://sagemaker-pd/lifecycle", on_create="on_create.sh")
group = ClusterInstanceGroupSpecification(
    instance_group_name="prefill", instance_count=2, instance_type="ml.p5.48xlarge",
    execution_role="{example.ROLE}", life_cycle_config=scripts,
)
cluster = Cluster.create(
    cluster_name="pd", instance_groups=[group], node_provisioning_mode="Continuous",
    vpc_config=VpcConfig(security_group_ids=["sg-0a"], subnets=["subnet-0a"]),
    orchestrator=ClusterOrchestrator(eks=ClusterOrchestratorEksConfig(cluster_arn="{example.EKS}")),
)
assert cluster.cluster_status == "Creating"
cluster.wait_for_status("InService", poll=0, timeout=60)
while cluster.instance_groups[0].current_count < 2:
    cluster.refresh()
nodes = list(cluster.get_all_nodes())
assert [node.instance_status.status for node in nodes] == ["Running"] * 2
first = nodes[0].instance_id
gone = cluster.batch_delete_nodes(node_ids=[first, "i-00000000000000000"])
assert gone.successful == [first] and [one.code for one in gone.failed] == ["NodeIdNotFound"]
# By its name alone: one that was described sends what DescribeCluster said, and botocore refuses that (2.27.0).
Cluster(cluster_name="pd").update_software()
cluster.wait_for_status("InService", poll=0, timeout=60)
cluster.update(instance_groups=[group])
assert [one.cluster_name for one in Cluster.get_all()] == ["pd"]
cluster.delete()
cluster.wait_for_delete(poll=0, timeout=60)
assert list(Cluster.get_all()) == []
"""


@pytest.mark.skipif("SAGEMAKER_SDK_PYTHON" not in os.environ, reason="SAGEMAKER_SDK_PYTHON: none with sagemaker-core")
def test_the_real_sdk(aws: Aws, tmp_path: Path) -> None:
    """sagemaker-core 2.27's Cluster, from create to delete."""
    run(aws, tmp_path, os.environ["SAGEMAKER_SDK_PYTHON"], "-c", _SDK)
    assert {call.error for call in aws.calls if call.operation != "DescribeCluster"} == {""}
    called = {call.operation for call in aws.calls}
    assert called >= {
        "CreateCluster",
        "BatchDeleteClusterNodes",
        "UpdateClusterSoftware",
        "UpdateCluster",
        "DeleteCluster",
    }
