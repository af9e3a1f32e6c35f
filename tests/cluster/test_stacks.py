"""Clusters made by CloudFormation: through nested stacks to the resource that failed."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpd.cluster import Cluster, stacks
from hyperpd.cluster.aws import Aws
from hyperpd.cluster.file import parse
from hyperpd.errors import CloudError, NotReady
from tests.fakes.hyperpod import ClusterFailure

CAUSE = "stack pd-Cluster-1: Hyperpod → Cluster → Nodes (AWS::SageMaker::Cluster): Subnet has no free addresses"


@pytest.fixture
def here(account: Any) -> Any:
    """pd → Hyperpod → Cluster → Nodes, which failed; an operation before failed, too."""
    found = account(ClusterFailure("The embedded stack failed"))
    made = found.aws.stacks
    made.fail("pd", ("Hyperpod", "Cluster"), "AWS::SageMaker::Cluster", "Subnet has no free addresses", "Nodes")
    made.fail("before", (), "AWS::S3::Bucket", "long ago")
    root, before = (next(one for one in made.kept if one.name == name) for name in ("pd", "before"))
    root.events[:0] = [{**one, "StackId": root.arn} for one in before.events if one["LogicalResourceId"] == "Cluster"]
    return found


def test_the_resource_that_failed_is_found_two_stacks_down(here):
    assert stacks.causes(Aws(), "pd") == [CAUSE]
    assert "long ago" in stacks.causes(Aws(), "before")[0]
    assert stacks.causes(Aws(), "nothing") == []


def test_a_cluster_that_never_came_is_explained_by_its_stack(here):
    with pytest.raises(CloudError) as error:
        Cluster("pd").status()
    assert CAUSE in str(error.value)


def test_a_cluster_that_failed_names_its_stack_by_tag(here):
    cluster = Cluster.create(parse(here.eks(name="other"), "c"))
    here.control.account.tags[cluster.status().arn]["aws:cloudformation:stack-name"] = "pd"
    with pytest.raises(NotReady) as error:
        cluster.wait(poll_s=0)
    assert CAUSE in str(error.value)


def test_what_may_not_be_read_is_said(here):
    here.gate.allow = ["sts:GetCallerIdentity"]
    assert "cannot be read: cloudformation DescribeStackEvents: AccessDenied" in stacks.causes(Aws(), "pd")[0]
