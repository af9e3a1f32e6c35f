"""What goes wrong on the way: throttled, expired, cut off, denied, not seen yet."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import botocore.exceptions
import pytest
from botocore.config import Config

from tests.fakes.gate import REGION
from tests.fakes.hyperpod import Control, Cut, Expire, Fail, NoDeleteWhile, Throttle, Unseen, example
from tests.fakes.policy import Policy

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


def code(error: Any) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_throttled_call_is_tried_again_by_botocore() -> None:
    with Control(Throttle(2, "ListClusters")) as control:
        assert control.client().list_clusters()["ClusterSummaries"] == []
        assert [call.error for call in control.calls] == ["ThrottlingException", "ThrottlingException", ""]
        control.gate.faults.append(Throttle(1))
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            control.client(config=ONCE).list_clusters()
        assert code(refused) == "ThrottlingException"


def test_an_expired_key_stays_expired_and_another_works() -> None:
    with Control(Expire(at=2, operation="DescribeCluster")) as control:
        client = control.client()
        client.create_cluster(**example.eks())
        client.describe_cluster(ClusterName="pd")
        for _ in range(2):
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                client.describe_cluster(ClusterName="pd")
            assert code(refused) == "ExpiredTokenException"
        assert control.client(aws_access_key_id="AKIAOTHER").describe_cluster(ClusterName="pd")["ClusterName"] == "pd"


def test_an_error_of_the_service_once() -> None:
    with Control(Fail("ConflictException", "busy", operation="DeleteCluster")) as control:
        client = control.client(config=ONCE)
        client.create_cluster(**example.eks())
        with pytest.raises(client.exceptions.ConflictException, match="busy"):
            client.delete_cluster(ClusterName="pd")
        client.delete_cluster(ClusterName="pd")


@pytest.mark.parametrize(("after_effect", "clusters"), [(False, 0), (True, 1)])
def test_a_connection_that_ends_before_or_after_the_effect(after_effect: bool, clusters: int) -> None:
    with Control(Cut(1, "CreateCluster", after_effect=after_effect)) as control:
        client = control.client(config=ONCE)
        with pytest.raises(botocore.exceptions.ConnectionClosedError):
            client.create_cluster(**example.eks())
        assert len(client.list_clusters()["ClusterSummaries"]) == clusters


def test_botocore_repeats_what_it_heard_nothing_of() -> None:
    """So a name that is taken may be one's own: the trap that a client has to know."""
    with Control(Cut(1, "CreateCluster", after_effect=True)) as control:
        client = control.client()
        with pytest.raises(client.exceptions.ResourceInUse):
            client.create_cluster(**example.eks())
        assert len(control.gate.named("CreateCluster")) == 2


def test_a_process_is_killed_at_a_call() -> None:
    killed: list[subprocess.Popen[bytes]] = []
    with Control(Cut(2, do=lambda: killed[0].kill())) as control:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": REGION}
        script = f"import boto3; client = boto3.client('sagemaker', endpoint_url='{control.url}', **{keys})\n"
        killed.append(subprocess.Popen([sys.executable, "-c", f"{script}while True: client.list_clusters()"]))
        assert killed[0].wait(60) == -9
        assert len(control.calls) == 2


def test_a_new_cluster_is_not_seen_at_once() -> None:
    with Control(Unseen(describes=2, lists=1)) as control:
        client = control.client()
        client.create_cluster(**example.eks())
        for _ in range(2):
            with pytest.raises(client.exceptions.ResourceNotFound):
                client.describe_cluster(ClusterName="pd")
        assert client.describe_cluster(ClusterName="pd")["ClusterName"] == "pd"
        assert client.list_clusters()["ClusterSummaries"] == []
        assert len(client.list_clusters()["ClusterSummaries"]) == 1


def test_a_delete_may_have_to_wait() -> None:
    with Control(NoDeleteWhile()) as control:
        client = control.client()
        client.create_cluster(**example.eks())
        with pytest.raises(client.exceptions.ConflictException, match="Creating"):
            client.delete_cluster(ClusterName="pd")
        control.advance(600)
        client.delete_cluster(ClusterName="pd")


PASS = {
    "Effect": "Allow",
    "Action": "iam:PassRole",
    "Resource": example.ROLE,
    "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
}
CREATE = {
    "Effect": "Allow",
    "Action": ["sagemaker:CreateCluster", "sagemaker:AddTags"],
    "Resource": "arn:aws:sagemaker:us-east-2:111122223333:cluster/*",
}
ON_EKS = {
    "Effect": "Allow",
    "Action": ["eks:DescribeCluster", "eks:*AccessEntry", "eks:AssociateAccessPolicy"],
    "Resource": example.EKS,
}
TAGGED = example.eks(Tags=[{"Key": "a", "Value": "b"}])


@pytest.mark.parametrize(
    ("statements", "missing"),
    [
        ([CREATE, PASS, ON_EKS], ""),
        ([PASS, ON_EKS], "sagemaker:CreateCluster"),
        ([CREATE, ON_EKS], "iam:PassRole"),
        ([CREATE, {**PASS, "Resource": "arn:aws:iam::111122223333:role/other"}, ON_EKS], "iam:PassRole"),
        (
            [CREATE, {**PASS, "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}}, ON_EKS],
            "iam:PassRole",
        ),
        ([{**CREATE, "Action": "sagemaker:CreateCluster"}, PASS, ON_EKS], "sagemaker:AddTags"),
        ([CREATE, PASS], "eks:DescribeCluster"),
        (
            [{"Effect": "Allow", "Action": "*", "Resource": "*"}, {**CREATE, "Effect": "Deny"}],
            "sagemaker:CreateCluster",
        ),
        ([{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}], "iam:PassRole"),
        ([{**CREATE, "Resource": "arn:aws:sagemaker:us-west-2:111122223333:cluster/*"}], "sagemaker:CreateCluster"),
    ],
)
def test_what_no_policy_allows_is_denied(statements: list[dict[str, Any]], missing: str) -> None:
    with Control(allow={"Version": "2012-10-17", "Statement": statements}) as control:
        client = control.client()
        if not missing:
            client.create_cluster(**TAGGED)
            assert control.gate.actions() >= {("iam:PassRole", example.ROLE), ("eks:DescribeCluster", example.EKS)}
            return
        with pytest.raises(client.exceptions.ClientError) as refused:
            client.create_cluster(**TAGGED)
        assert code(refused) == "AccessDeniedException"
        assert f"not authorized to perform: {missing} on" in refused.value.response["Error"]["Message"]
        assert control.account.clusters == []


def test_actions_alone_are_a_policy_too() -> None:
    with Control(allow=["sagemaker:List*"]) as control:
        client = control.client()
        client.list_clusters()
        with pytest.raises(client.exceptions.ClientError):
            client.delete_cluster(ClusterName="pd")
        assert [(call.operation, call.error) for call in control.calls] == [
            ("ListClusters", ""),
            ("DeleteCluster", "AccessDeniedException"),
        ]


def test_a_condition_that_is_not_known_is_no_silent_yes() -> None:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"aws:MultiFactor": "true"}}}
    with pytest.raises(NotImplementedError, match="Bool"):
        Policy.of({"Statement": statement}).allows("sagemaker:ListClusters", "*")
