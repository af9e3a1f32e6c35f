"""Creating: what is made, what is found again, what is refused, and what a dry run says."""

from __future__ import annotations

import json

import pytest

from hyperpd.cluster import Cluster
from hyperpd.cluster.file import parse
from hyperpd.errors import CloudError, NotReady, RecipeError
from tests.fakes.hyperpod import Cut, Fail, Unseen


def test_everything_is_made_once_and_found_again(account):
    here = account()
    spec = parse(here.eks(), "c")
    told = []
    cluster = Cluster.create(spec, told.append)
    names = cluster.names
    made = here.made()
    assert made["clusters"] == ["pd"]
    assert made["roles"] == [names.role] == ["hyperpd-pd-us-east-2"]
    assert made["buckets"] == [names.bucket]
    folder = f"{names.prefix}/{Cluster.plan(spec).blueprint.scripts['hyperpd'].digest}/"
    assert f"{folder}on_create.sh" in made["keys"]
    assert f"{folder}steps/10-storage.sh" in made["keys"]
    assert [one.text.split(":")[0].split(" (")[0] for one in told] == [
        f"role {names.role}",
        f"bucket {names.bucket}",
        "lifecycle files",
        "cluster pd",
    ]
    writes = [
        call.operation for call in here.gate.calls if not call.operation.startswith(("Get", "List", "Head", "Desc"))
    ]
    Cluster.create(spec, told.append)
    again = [
        call.operation for call in here.gate.calls if not call.operation.startswith(("Get", "List", "Head", "Desc"))
    ]
    assert again == writes
    assert told[-1].text == "cluster pd: there already, as the file says"
    assert cluster.wait(poll_s=0, new=True).ready


@pytest.mark.parametrize("orchestrator", ["eks", "slurm"])
def test_a_recipe_becomes_a_cluster(account, orchestrator):
    here = account()
    network = {"network": here.network, "recipe": "qwen3-32b-p5-4p2d"}
    document = {**(here.eks() if orchestrator == "eks" else here.slurm()), "groups": {}, **network}
    spec = parse(document, "c")
    status = Cluster.create(spec).wait(poll_s=0, new=True)
    names = ["prefill", "decode", "gateway"] + (["controller"] if orchestrator == "slurm" else [])
    assert [group.name for group in status.groups] == names
    assert [group.role for group in status.groups] == names
    assert not Cluster.plan(spec).changes


def test_what_is_made_is_private_tagged_and_narrow(account):
    here = account()
    names = Cluster.create(parse(here.eks(tags={"team": "a"}), "c")).names
    s3, iam = here.aws.stage.client("s3"), here.aws.stage.client("iam")
    wanted = [{"Key": "team", "Value": "a"}, {"Key": "hyperpd:cluster", "Value": "pd"}]
    assert s3.get_bucket_tagging(Bucket=names.bucket)["TagSet"] == wanted
    assert iam.get_role(RoleName=names.role)["Role"]["Tags"] == wanted
    block = s3.get_public_access_block(Bucket=names.bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    policy = json.loads(s3.get_bucket_policy(Bucket=names.bucket)["Policy"])
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    trust = iam.get_role(RoleName=names.role)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert [one["Principal"] for one in trust] == [{"Service": "sagemaker.amazonaws.com"}]


def test_what_the_file_names_is_used_and_not_made(account):
    here = account()
    s3, iam = here.aws.stage.client("s3"), here.aws.stage.client("iam")
    s3.create_bucket(Bucket="sagemaker-ours", CreateBucketConfiguration={"LocationConstraint": "us-east-2"})
    arn = iam.create_role(RoleName="ours", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    Cluster.create(parse(here.eks(role=arn, bucket="sagemaker-ours"), "c"))
    made = here.made()
    assert (made["roles"], made["buckets"]) == (["ours"], ["sagemaker-ours"])
    assert all(key.startswith("hyperpd/pd/lifecycle/") for key in made["keys"])
    group = here.control.cluster("pd").spec["InstanceGroups"][0]
    assert (group["ExecutionRole"], group["LifeCycleConfig"]["SourceS3Uri"][:17]) == (arn, "s3://sagemaker-ou")


def test_files_that_are_in_s3_already_are_read_by_the_role_that_is_made(account):
    here = account()
    s3, iam = here.aws.stage.client("s3"), here.aws.stage.client("iam")
    s3.create_bucket(Bucket="sagemaker-ours", CreateBucketConfiguration={"LocationConstraint": "us-east-2"})
    s3.put_object(Bucket="sagemaker-ours", Key="own/on_create.sh", Body=b"#!/bin/sh\n")
    own = {"source": "s3://sagemaker-ours/own/", "on_create": "on_create.sh"}
    cluster = Cluster.create(parse(here.eks(lifecycle=own), "c"))
    assert cluster.wait(poll_s=0, new=True).ready
    # Without its policy it is a role like any other, and nodes that start with it fail.
    iam.delete_role_policy(RoleName=cluster.names.role, PolicyName="hyperpd")
    changes = cluster.scale({"decode": 2})
    with pytest.raises(NotReady, match="the role may not s3:ListBucket and s3:GetObject"):
        cluster.wait(poll_s=0, expect=changes.counts)


def test_a_changed_file_says_use_update(account):
    here = account()
    Cluster.create(parse(here.eks(), "c"))
    with pytest.raises(CloudError) as error:
        Cluster.create(parse(here.eks(groups={"prefill": {"count": 3}}), "c"))
    assert "use hyperpd cluster update" in str(error.value)
    assert "groups.prefill.count: 2 → 3" in str(error.value)


def test_a_plan_says_exactly_what_create_sends(account):
    here = account()
    spec = parse(here.eks(), "c")
    planned = Cluster.plan(spec)
    assert here.made() == {"clusters": [], "roles": [], "buckets": [], "keys": []}
    wanted = [
        (call.service, "".join(part.capitalize() for part in call.operation.split("_"))) for call in planned.calls
    ]
    begin = len(here.gate.calls)
    Cluster.create(spec)
    writes = [
        (call.service, call.operation)
        for call in here.gate.calls[begin:]
        if not call.operation.startswith(("Get", "List", "Head", "Describe"))
    ]
    assert writes == wanted
    sent = here.gate.named("CreateCluster")[0].request
    assert sent == planned.calls[-1].parameters
    again = Cluster.plan(spec)
    assert (again.calls, bool(again.changes)) == ((), False)


def test_a_role_or_name_of_somebody_elses_is_not_touched(account):
    here = account()
    here.aws.stage.client("iam").create_role(RoleName="hyperpd-pd-us-east-2", AssumeRolePolicyDocument="{}")
    with pytest.raises(CloudError, match="was not made for this cluster"):
        Cluster.create(parse(here.eks(), "c"))
    assert here.made()["clusters"] == []


def test_a_role_that_is_not_known_everywhere_yet(account, hurried):
    here = account(Fail("ValidationException", "Could not assume role", times=2, operation="CreateCluster"))
    told = []
    Cluster.create(parse(here.eks(), "c"), told.append)
    assert here.made()["clusters"] == ["pd"]
    assert "the new role is not known everywhere yet" in [one.text for one in told]
    other = account(Fail("ValidationException", "Nonsense", operation="CreateCluster"))
    with pytest.raises(CloudError, match="CreateCluster: ValidationException: Nonsense"):
        Cluster.create(parse(other.eks(), "c"))


@pytest.mark.parametrize("operation", ["CreateCluster", "CreateRole", "CreateBucket", "PutObject"])
def test_an_answer_that_was_lost(account, hurried, operation):
    """boto3 sends it again; the second time it is there already."""
    here = account(Cut(1, operation, after_effect=True))
    Cluster.create(parse(here.eks(), "c"))
    made = here.made()
    assert (made["clusters"], len(made["roles"]), len(made["buckets"])) == (["pd"], 1, 1)


def test_a_cluster_that_is_not_seen_at_once(account, hurried):
    here = account(Unseen(describes=3, lists=3))
    assert Cluster.create(parse(here.eks(), "c")).wait(poll_s=0, new=True).ready
    with pytest.raises(CloudError, match="there is no cluster nowhere"):
        Cluster("nowhere").wait(poll_s=0)


def test_a_name_taken_by_who_cannot_be_seen_yet(account, hurried):
    """Created by another run a moment ago, with another file."""
    here = account(Unseen(describes=3))
    Cluster.create(parse(here.eks(groups={"prefill": {"count": 5}}), "c"))
    with pytest.raises(CloudError, match=r"groups.prefill.count: 5 → 2"):
        Cluster.create(parse(here.eks(), "c"))


def test_no_rights_no_region_no_boto3(account, monkeypatch):
    here = account(allow=["sts:GetCallerIdentity", "sagemaker:DescribeCluster"])
    with pytest.raises(CloudError) as error:
        Cluster.create(parse(here.eks(), "c"))
    assert (error.value.code, error.value.operation) == ("AccessDenied", "GetRole")
    assert "hyperpd iam" in str(error.value)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    with pytest.raises(CloudError, match="Write region: in the cluster file"):
        Cluster.plan(parse(here.eks(), "c"))


def test_a_type_that_nobody_knows_is_found_before_anything_is_sent(account):
    here = account()
    with pytest.raises(RecipeError, match=r"did you mean ml.p5en.48xlarge"):
        Cluster.create(parse(here.eks(groups={"prefill": {"instance_type": "ml.p5en.49xlarge"}}), "c"))
    assert here.made()["roles"] == []
