"""Clusters made by CloudFormation: through nested stacks to the resource that failed."""

from __future__ import annotations

from typing import Any

import pytest
from moto.cloudformation.models import Event, cloudformation_backends

from hyperpd.cluster import Cluster, stacks
from hyperpd.cluster.aws import Aws
from hyperpd.cluster.file import parse
from hyperpd.errors import CloudError, NotReady
from tests.fakes.gate import ACCOUNT, REGION
from tests.fakes.hyperpod import ClusterFailure

_TEMPLATE = '{"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}'
_STACK = "AWS::CloudFormation::Stack"


class Stacks:
    """Stacks in moto, with events that moto would never have: it makes everything it is asked for."""

    def __init__(self, here: Any) -> None:
        self.client = here.aws.stage.client("cloudformation")

    def make(self, name: str) -> str:
        return str(self.client.create_stack(StackName=name, TemplateBody=_TEMPLATE)["StackId"])

    def happened(self, stack: str, logical: str, physical: str, kind: str, status: str, reason: str = "") -> None:
        backend = cloudformation_backends[ACCOUNT][REGION]
        found = backend.get_stack(stack)
        words = (logical, physical, kind, status, reason, None)
        found.events.append(Event(found.stack_id, found.name, *words))


@pytest.fixture
def nested(account: Any) -> tuple[Any, Stacks]:
    """pd → Hyperpod → Cluster, which failed; a sibling was cancelled for it, and an update before failed, too."""
    here = account(ClusterFailure("The embedded stack failed"))
    made = Stacks(here)
    root, middle, leaf = made.make("pd"), made.make("pd-Hyperpod-1"), made.make("pd-Hyperpod-Cluster-1")
    made.happened(root, "Old", "old", "AWS::S3::Bucket", "CREATE_FAILED", "long ago")
    for stack in (root, middle, leaf):
        name = stack.split("/")[1]
        made.happened(stack, name, stack, _STACK, "CREATE_IN_PROGRESS")
    made.happened(leaf, "Fsx", "fs-1", "AWS::FSx::FileSystem", "CREATE_FAILED", "Resource creation cancelled")
    made.happened(leaf, "Nodes", "pd", "AWS::SageMaker::Cluster", "CREATE_FAILED", "Subnet has no free addresses")
    made.happened(middle, "Cluster", leaf, _STACK, "CREATE_FAILED", "Embedded stack was not successfully created")
    made.happened(root, "Hyperpod", middle, _STACK, "CREATE_FAILED", "Embedded stack was not successfully created")
    made.happened(root, "pd", root, _STACK, "ROLLBACK_IN_PROGRESS", "The following resource(s) failed: [Hyperpod]")
    return here, made


CAUSE = (
    "stack pd-Hyperpod-Cluster-1: Hyperpod → Cluster → Nodes (AWS::SageMaker::Cluster): Subnet has no free addresses"
)


def test_the_resource_that_failed_is_found_two_stacks_down(nested):
    assert stacks.causes(Aws(), "pd") == [CAUSE]
    assert stacks.causes(Aws(), "nothing") == []


def test_a_cluster_that_never_came_is_explained_by_its_stack(nested):
    with pytest.raises(CloudError) as error:
        Cluster("pd").status()
    assert CAUSE in str(error.value)


def test_a_cluster_that_failed_names_its_stack_by_tag(nested):
    here, _ = nested
    cluster = Cluster.create(parse(here.eks(name="other"), "c"))
    here.control.account.tags[cluster.status().arn]["aws:cloudformation:stack-name"] = "pd"
    with pytest.raises(NotReady) as error:
        cluster.wait(poll_s=0)
    assert CAUSE in str(error.value)


def test_what_may_not_be_read_is_said(nested):
    here, _ = nested
    here.gate.allow = ["sts:GetCallerIdentity"]
    assert "cannot be read: cloudformation DescribeStackEvents: AccessDenied" in stacks.causes(Aws(), "pd")[0]
