"""Deleting: what goes, what stays, and deletes that were cut off."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpd.cluster import Cluster
from hyperpd.cluster.file import parse
from hyperpd.errors import CloudError
from tests.fakes.gate import REGION
from tests.fakes.hyperpod import NoDeleteWhile

NOTHING = {"clusters": [], "roles": [], "buckets": [], "keys": []}


def texts(told: list[Any]) -> list[str]:
    return [one.text for one in told if hasattr(one, "text")]


def test_all_that_was_made_goes(account):
    here = account()
    cluster = Cluster.create(parse(here.eks(), "c"))
    cluster.wait(poll_s=0, new=True)
    removal = cluster.removal()
    assert (removal.nodes, removal.role, removal.bucket) == (3, cluster.names.role, cluster.names.bucket)
    assert set(removal.kept) == {
        here.subnets[0],
        here.security_group,
        "EKS cluster arn:aws:eks:us-east-2:111122223333:cluster/prod",
    }
    told: list[Any] = []
    cluster.delete(told.append, poll_s=0)
    assert here.made() == NOTHING
    order = [call.operation for call in here.gate.calls]
    assert order.index("DeleteCluster") < order.index("DeleteRole")
    assert not cluster.removal()
    cluster.delete(told.append, poll_s=0)  # nothing left, and no complaint


def test_what_others_made_stays(account):
    here = account()
    s3, iam = here.aws.stage.client("s3"), here.aws.stage.client("iam")
    s3.create_bucket(Bucket="sagemaker-ours", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="sagemaker-ours", Key="hyperpd/pd2/lifecycle/x", Body=b"of another cluster")
    arn = iam.create_role(RoleName="ours", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    cluster = Cluster.create(parse(here.eks(role=arn, bucket="sagemaker-ours"), "c"))
    removal = cluster.removal()
    assert f"role {arn}" in removal.kept
    assert "bucket sagemaker-ours" in removal.kept
    cluster.delete(poll_s=0)
    assert here.made() == {
        **NOTHING,
        "roles": ["ours"],
        "buckets": ["sagemaker-ours"],
        "keys": ["hyperpd/pd2/lifecycle/x"],
    }


def test_a_bucket_with_files_of_others_stays(account):
    here = account()
    cluster = Cluster.create(parse(here.eks(), "c"))
    here.aws.stage.client("s3").put_object(Bucket=cluster.names.bucket, Key="notes", Body=b"mine")
    told: list[Any] = []
    cluster.delete(told.append, poll_s=0)
    assert here.made() == {**NOTHING, "buckets": [cluster.names.bucket], "keys": ["notes"]}
    assert any("kept, since there are files of others" in one for one in texts(told))


def test_a_role_of_the_same_name_that_is_not_ours_stays(account):
    here = account()
    here.aws.stage.client("iam").create_role(RoleName="hyperpd-pd-us-east-2", AssumeRolePolicyDocument="{}")
    cluster = Cluster("pd")
    assert cluster.removal().role == ""
    cluster.delete(poll_s=0)
    assert here.made()["roles"] == ["hyperpd-pd-us-east-2"]


@pytest.mark.parametrize("faults", [[], [NoDeleteWhile()]], ids=["taken", "a conflict"])
def test_delete_while_creating(account, faults):
    here = account(*faults)
    cluster = Cluster.create(parse(here.eks(), "c"))
    told: list[Any] = []
    cluster.delete(told.append, poll_s=0)
    assert here.made() == NOTHING
    assert any("does not delete a cluster that is Creating" in one for one in texts(told)) == bool(faults)


def test_two_deletes_at_once(account):
    here = account()
    cluster = Cluster.create(parse(here.eks(), "c"))
    here.aws.client("sagemaker").delete_cluster(ClusterName="pd")
    told: list[Any] = []
    cluster.delete(told.append, poll_s=0)
    assert "cluster pd: being deleted already" in texts(told)
    assert here.made() == NOTHING


def test_other_refusals_pass(account):
    here = account()
    cluster = Cluster.create(parse(here.eks(), "c"))
    here.gate.allow = ["s3:*", "iam:*", "sagemaker:Describe*", "sagemaker:List*"]
    with pytest.raises(CloudError, match="DeleteCluster: AccessDenied"):
        cluster.delete(poll_s=0)
    assert here.made()["clusters"] == ["pd"]
    assert here.made()["keys"] != []
