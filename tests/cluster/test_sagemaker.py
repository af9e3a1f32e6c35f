"""Clusters between hyperpd and the SageMaker SDK; with the real one in an environment of its own (make sdk-test)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyperpd import sagemaker
from hyperpd.cluster import Cluster
from hyperpd.errors import NotReady, RecipeError
from tests.cluster.files import written
from tests.fakes.gate import ACCOUNT, REGION

SDK = Path(__file__).resolve().parents[2] / "sdk"
ARN = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:cluster/abcdefghijkl"

_OVER = """
import sys, warnings
warnings.simplefilter("error", UserWarning)
from hyperpd import sagemaker
from hyperpd.cluster import Cluster
from sagemaker.core.resources import Cluster as Resource

cluster = Cluster.create(sys.argv[1])
cluster.wait(poll_s=0, new=True)
seen = sagemaker.resource(cluster)
assert type(seen) is Resource
assert (seen.cluster_name, seen.cluster_status) == ("pd", "InService")
assert {one.instance_group_name: one.current_count for one in seen.instance_groups} == {"prefill": 2, "decode": 1}
assert seen.cluster_arn == cluster.status().arn
seen.refresh()
assert [one.instance_status.status for one in seen.get_all_nodes()] == ["Running"] * 3
again = sagemaker.cluster(seen)
assert (again.name, again.aws.place) == ("pd", cluster.aws.place)
seen.delete()
seen.wait_for_delete(poll=0, timeout=60)
"""

_BACK = """
import sys
import boto3
from sagemaker.core.resources import Cluster as Resource
from sagemaker.core.shapes import (
    ClusterInstanceGroupSpecification, ClusterLifeCycleConfig, ClusterOrchestrator, ClusterOrchestratorEksConfig,
    VpcConfig,
)
from hyperpd import sagemaker
from hyperpd.cluster import Cluster, dump

role, subnet, security_group, eks, out = sys.argv[1:]
session = boto3.Session(region_name="us-east-2")
group = ClusterInstanceGroupSpecification(
    instance_group_name="prefill", instance_count=2, instance_type="ml.p5.48xlarge", execution_role=role,
    life_cycle_config=ClusterLifeCycleConfig(source_s3_uri="s3://sagemaker-ours/scripts", on_create="on_create.sh"),
)
made = Resource.create(
    cluster_name="theirs", instance_groups=[group], node_provisioning_mode="Continuous", session=session,
    vpc_config=VpcConfig(security_group_ids=[security_group], subnets=[subnet]),
    orchestrator=ClusterOrchestrator(eks=ClusterOrchestratorEksConfig(cluster_arn=eks)),
)
cluster = sagemaker.cluster(made)
assert cluster.aws.session is session
cluster.wait(poll_s=0, new=True)
spec, unsaid = cluster.spec()
assert unsaid == []
with open(out, "w") as file:
    file.write(dump(spec))
plan = Cluster.plan(out)
assert plan.changes is not None and not plan.changes, plan.changes.lines()
cluster.scale({"prefill": 3})
cluster.wait(poll_s=0, expect={"prefill": 3})
assert sagemaker.resource(cluster).instance_groups[0].current_count == 3
assert sagemaker.cluster(Resource(cluster_name=made.cluster_arn)).name == "theirs"
"""


def run(code: str, *argv: object) -> None:
    """In the SDK's environment, with hyperpd beside it; whatever boto3 that pins."""
    environment = {**os.environ, "PYTHONPATH": str(SDK)}
    command = [os.environ["SAGEMAKER_SDK_PYTHON"], "-c", code, *map(str, argv)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]


needs_sdk = pytest.mark.skipif(
    "SAGEMAKER_SDK_PYTHON" not in os.environ, reason="SAGEMAKER_SDK_PYTHON: none with sagemaker-core"
)


@needs_sdk
def test_what_hyperpd_created_the_real_sdk_sees(account: Any, tmp_path: Path) -> None:
    here = account()
    run(_OVER, written(tmp_path, here.eks(continuous=True)))
    called = [call.operation for call in here.gate.calls]
    assert called.count("CreateCluster") == called.count("DeleteCluster") == 1


@needs_sdk
def test_what_the_real_sdk_created_hyperpd_adopts(account: Any, tmp_path: Path) -> None:
    here = account()
    iam = here.aws.stage.client("iam")
    role = iam.create_role(RoleName="ours", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    reads = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    iam.put_role_policy(
        RoleName="ours",
        PolicyName="scripts",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [reads]}),
    )
    s3 = here.aws.stage.client("s3")
    s3.create_bucket(Bucket="sagemaker-ours", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="sagemaker-ours", Key="scripts/on_create.sh", Body=b"#!/bin/sh\n")
    eks = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/prod"
    run(_BACK, role, here.subnets[0], here.security_group, eks, tmp_path / "theirs.yaml")
    (update,) = here.gate.named("UpdateCluster")
    assert [group["InstanceCount"] for group in update.request["InstanceGroups"]] == [3]


def test_a_resource_is_known_by_name_region_and_session() -> None:
    session = object()
    found = sagemaker.cluster(SimpleNamespace(cluster_name="pd", cluster_arn=ARN, _session=session))
    assert (found.name, found.aws._region, found.aws.session) == ("pd", "eu-west-1", session)
    found = sagemaker.cluster(SimpleNamespace(cluster_name="pd", _region="eu-west-2"))
    assert (found.aws._region, found.aws.session) == ("eu-west-2", None)
    with pytest.raises(RecipeError, match=r"str has no cluster_name; give a sagemaker\.core\.resources\.Cluster"):
        sagemaker.cluster("pd")


def test_what_the_sdk_drops_is_named() -> None:
    class Unassigned:
        pass

    answer = {"ClusterName": "pd", "NewField": 1, "Groups": [{"Name": "a", "Newer": {"X": 1}}, {"Name": "b"}]}
    groups = [SimpleNamespace(name="a", newer=Unassigned()), SimpleNamespace(name="b")]
    found = SimpleNamespace(cluster_name="pd", groups=groups)
    assert list(sagemaker.dropped(answer, found)) == ["NewField", "Groups.0.Newer"]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sagemaker.core.resources", None)
    with pytest.raises(NotReady, match=r"pip install 'hyperpd\[sagemaker\]'"):
        sagemaker.resource(Cluster("pd", region=REGION))
