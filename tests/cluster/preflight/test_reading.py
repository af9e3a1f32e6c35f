"""What a plan reads: known, harmless, and each without which it goes on and says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hyperpd.cluster.actions import COMMANDS
from hyperpd.cluster.aws import Aws
from hyperpd.cluster.preflight import Preflight, run
from hyperpd.cluster.preflight.reading import action
from tests.cluster.files import merged, spec
from tests.cluster.preflight.account import BUCKET, GPU, ZONE, Account, Document, accounted, allowed, healthy
from tests.fakes.gate import Cut, Throttle

EVERYTHING = ["ec2:*", "eks:*", "iam:*", "pricing:*", "s3:*", "sagemaker:*", "servicequotas:*"]


def planned(aws: Account, document: Document) -> Preflight:
    now = datetime.fromtimestamp(aws.control.account.clock.now_s, UTC)
    return run(spec(document), Aws(document["region"]), now=now)


@pytest.fixture
def aws(enter: Callable[[Account], None]) -> Iterator[Account]:
    with Account() as aws:
        enter(aws)
        yield aws


@pytest.fixture
def document(aws: Account) -> Document:
    """With everything that a plan may have to read."""
    document = healthy(aws)
    arn = aws.control.training_plan("may", GPU, 2, ("us-east-2a", ZONE))
    aws.stage.client("s3").put_object(Bucket=BUCKET, Key="own/on_create.sh", Body=b"#!/bin/sh\n")
    own = {"source": f"s3://{BUCKET}/own/", "on_create": "on_create.sh"}
    more = {"groups": {"prefill": {"training_plan": arn}, "gateway": {"lifecycle": own}}}
    return allowed(aws, merged(document, more))


def test_no_read_changes_anything_and_every_one_is_listed(aws: Account, document: Document) -> None:
    planned(aws, document)
    planned(aws, merged(document, {"orchestrator": {"eks": "prd"}}))  # names of others
    aws.eks.addons["prod", "vpc-cni"]["addonVersion"] = "v1.18.0-eksbuild.1"
    (old,) = planned(aws, document).of("problem")  # reads the versions that there are
    assert "--addon-version v9.0.0-eksbuild.1" in old.fix  # what EKS would install, not its newest
    planned(aws, accounted(aws, document))
    client = aws.client("sagemaker")
    client.create_cluster(
        ClusterName="pd",
        InstanceGroups=[
            {"InstanceGroupName": "a", "InstanceType": GPU, "InstanceCount": 1, "ExecutionRole": document["role"]}
        ],
    )
    made = len(aws.calls)
    planned(aws, document)  # whose is it?
    needs = {need.action for call in [*aws.calls[: made - 1], *aws.calls[made:]] for need in call.needs}
    reads = {one.action for one in COMMANDS["cluster plan"]}
    # What create looks at before it makes something; a preflight reads all else.
    assert reads - needs == {"iam:GetRolePolicy", "s3:GetBucketTagging"}
    assert needs <= reads
    assert all(re.match(r"\w+:(Describe|Get|List|Simulate)", one) for one in reads)


def test_each_denied_read_is_said_and_stops_nothing_else(aws: Account, document: Document) -> None:
    planned(aws, document)
    used = {need.action for call in aws.calls for need in call.needs}
    for denied in sorted(used):
        aws.gate.allow = [
            {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": denied, "Resource": "*"}]},
            *EVERYTHING,
        ]
        found = planned(aws, document)
        said = [one for one in found.findings if denied in one.what]
        if denied == "s3:ListBucket":  # S3 does not say whether it is that or somebody else's bucket
            assert {one.check for one in said} == {"bucket", "permissions"}
            continue
        assert [(one.level, one.check) for one in said if one.check == "permission"] == [("unknown", "permission")], (
            denied
        )
        assert denied in said[0].fix
        assert {one.check for one in found.findings} <= {"permission", "permissions", "price"}, denied
        assert found.error() is None or denied in ("iam:GetRole", "eks:DescribeCluster", "sagemaker:DescribeCluster")


def test_what_fails_otherwise_is_said_too(aws: Account, document: Document) -> None:
    aws.gate.faults.append(Cut(1, "eks:ListAddons", times=99))
    found = planned(aws, document)
    (one,) = found.findings
    assert (one.level, one.check) == ("unknown", "reading")
    assert one.what == "add-ons could not be checked: eks:ListAddons: ConnectionClosedError"


def test_a_busy_minute_is_waited_out(aws: Account, document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # botocore's pauses
    aws.gate.faults.append(Throttle(3, "ec2:*"))
    assert planned(aws, document).findings == ()


def test_offline_asks_nothing_and_says_so(aws: Account, document: Document, tmp_path: Path) -> None:
    found = run(spec(document), None)
    assert aws.calls == []
    assert [(one.level, one.check) for one in found.findings if one.check != "price"] == [("unknown", "offline")]
    for word in ("quotas", "security groups", "network policies", "permissions"):
        assert word in found.findings[0].what
    assert found.place is None
    assert "quotas" not in found.checked


def test_words_of_iam() -> None:
    assert action("service-quotas", "list_aws_default_service_quotas") == "servicequotas:ListAWSDefaultServiceQuotas"
    assert action("s3", "head_bucket") == "s3:ListBucket"
    assert action("sagemaker", "describe_cluster") == "sagemaker:DescribeCluster"
