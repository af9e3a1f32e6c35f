"""Waiting: what is told, what ends a wait, and what it says of the cause."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hyperpd.cluster import Cluster
from hyperpd.cluster.file import parse
from hyperpd.cluster.progress import Happened, Seen
from hyperpd.errors import CloudError, NotReady
from tests.fakes.hyperpod import (
    ClusterFailure,
    Expire,
    HealthCheckFailure,
    LifecycleFailure,
    NoCapacity,
    Throttle,
)

CONTINUOUS = {"continuous": True}


def created(here: Any, document: Any) -> Cluster:
    return Cluster.create(parse(document, "c"))


def failed(cluster: Cluster, timeout_s: float = 60) -> str:
    with pytest.raises(NotReady) as error:
        cluster.wait(poll_s=0, new=True, timeout_s=timeout_s)
    assert error.value.exit_code == 4
    return str(error.value)


@pytest.mark.parametrize("change", [{}, CONTINUOUS], ids=["all or none", "continuous"])
def test_groups_and_nodes_move_until_all_are_there(account, change):
    here = account()
    told: list[Any] = []
    status = created(here, here.eks(**change)).wait(told.append, poll_s=0, new=True)
    assert status.ready
    assert [group.current for group in status.groups] == [2, 1]
    seen = [one.status.line() for one in told if isinstance(one, Seen)]
    assert seen[0].startswith("pd Creating")
    assert seen[-1] == "pd InService  prefill 2/2  decode 1/1"
    assert len(seen) == len(set(seen))
    assert {one.typical_min for one in told if isinstance(one, Seen)} == {(15, 25)}
    happened = [one.event.text for one in told if isinstance(one, Happened)]
    assert ("Lifecycle scripts ran." in happened) == bool(change)
    assert len(happened) == (len(here.control.cluster("pd").events.kept) if change else 0)


def test_slurm(account):
    here = account()
    assert created(here, here.slurm()).wait(poll_s=0, new=True).orchestrator == "slurm"


def test_a_lifecycle_failure_shows_message_and_log(account):
    """Without Continuous one node's failure is everyone's: RollingBack ends the wait. No event names the node then."""
    here = account(LifecycleFailure("decode", log=tuple(f"line {n}" for n in range(30))))
    said = failed(created(here, here.eks()))
    assert "pd is RollingBack after" in said
    assert "FailureMessage: Instance group 'decode': Lifecycle scripts did not run successfully: exit code 1." in said
    assert re.search(r"lifecycle log /aws/sagemaker/Clusters/pd/\w{12} LifecycleConfig/decode/i-\w+, last lines:", said)
    assert said.rstrip().endswith("line 29")


def test_created_but_events_show_a_lifecycle_failure(account):
    """With Continuous the cluster is InService meanwhile, and HyperPod tries for ever."""
    here = account(LifecycleFailure("prefill", nodes=(1,), log=tuple(f"line {n}" for n in range(30))))
    cluster = created(here, here.eks(**CONTINUOUS))
    said = failed(cluster)
    node = here.control.nodes("pd", "prefill")[1].instance_id
    assert f"the lifecycle script of prefill/{node} failed" in said
    assert "[lifecycle: Failed]" in said
    assert f"LifecycleConfig/prefill/{node}, last lines:" in said  # of the node that failed, not of its neighbours
    assert said.rstrip().endswith("line 29")
    assert "line 17" not in said
    assert cluster.status().status == "InService"


def test_a_script_that_never_ran_left_no_log(account):
    here = account(LifecycleFailure("prefill", log=()))
    assert "no stream LifecycleConfig/prefill/i-0" in failed(created(here, here.eks(**CONTINUOUS)))


def test_capacity_never_comes(account, hurried):
    """InService with no nodes is not success; the causes come with the end of patience."""
    here = account(NoCapacity("prefill"))
    cluster = created(here, here.eks(**CONTINUOUS))
    here.control.advance(1200)
    said = failed(cluster, timeout_s=0)
    assert cluster.status().status == "InService"
    assert "prefill 0/2" in said
    assert "sufficient capacity" in said
    assert "often: no capacity in that zone now" in said
    assert "go on with hyperpd cluster watch pd" in said


def test_capacity_never_comes_and_hyperpod_gives_up(account, hurried):
    here = account(NoCapacity("prefill", nodes=1), step_s=900)
    document = here.eks(**CONTINUOUS, groups={"prefill": {"min_count": 2}})
    said = failed(created(here, document))
    assert "prefill failed" in said
    assert "MinInstanceCount 2 was not met within 3 hours" in said


def test_a_minimum_is_enough(account, hurried):
    here = account(NoCapacity("prefill", nodes=1))
    status = created(here, here.eks(**CONTINUOUS, groups={"prefill": {"min_count": 1}})).wait(poll_s=0, new=True)
    assert [group.current for group in status.groups] == [1, 1]


def test_capacity_never_comes_without_continuous(account):
    here = account(NoCapacity("decode"))
    assert "RollingBack" in failed(created(here, here.eks()))


def test_other_failures_name_their_cause(account):
    here = account(HealthCheckFailure("prefill"))
    assert "the security group has to be open to itself" in failed(created(here, here.eks()))
    here = account(ClusterFailure("The embedded stack failed"))
    said = failed(created(here, here.eks(**CONTINUOUS)))
    assert "pd is Failed" in said
    assert "FailureMessage: The embedded stack failed" in said


def test_a_failed_cluster_is_not_created_over(account):
    here = account(ClusterFailure("no"))
    document = here.eks()
    failed(created(here, document))
    with pytest.raises(CloudError, match="hyperpd cluster delete pd"):
        created(here, document)


def test_throttling_is_waited_out(account, hurried):
    here = account(Throttle(20, "DescribeCluster", at=3))
    told: list[Any] = []
    assert created(here, here.eks()).wait(told.append, poll_s=0, new=True).ready
    assert "AWS throttles the calls" in [getattr(one, "text", "") for one in told]


def test_expired_credentials_say_how_to_go_on(account):
    here = account(Expire(6, "DescribeCluster"))
    cluster = created(here, here.eks())
    with pytest.raises(CloudError) as error:
        cluster.wait(poll_s=0, new=True)
    said = str(error.value)
    assert (error.value.code, error.value.exit_code) == ("ExpiredTokenException", 4)
    assert "log in again" in said
    assert "last seen: pd Creating" in said
    assert "hyperpd cluster watch pd --region us-east-2" in said
    here.gate.faults.clear()
    assert cluster.wait(poll_s=0).ready


def test_a_wait_for_what_is_being_deleted_ends(account):
    here = account()
    cluster = created(here, here.eks())
    here.aws.client("sagemaker").delete_cluster(ClusterName="pd")
    assert "pd is being deleted" in failed(cluster)


def test_causes_that_cannot_be_read_are_said(account):
    here = account(LifecycleFailure())
    cluster = created(here, here.eks())
    here.gate.allow = ["sagemaker:DescribeCluster", "sagemaker:ListClusterNodes", "sts:GetCallerIdentity"]
    said = failed(cluster)
    assert "FailureMessage" in said
    assert "tags, which name a stack, cannot be read" in said
    assert "lifecycle log: cannot be read" in said
    assert "AccessDenied" in said
