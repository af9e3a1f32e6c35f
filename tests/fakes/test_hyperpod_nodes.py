"""Nodes added, deleted, rebooted and replaced; and the calls that answer 200 whatever failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.hyperpod import BatchFailure, Control, NoCapacity, example

NO_NODE = "i-00000000000000000"


@pytest.fixture
def control() -> Iterator[Control]:
    with Control(zones={"subnet-0a": ("us-east-2a", "use2-az1")}) as control:
        control.client().create_cluster(**example.eks())
        control.advance(3600)
        yield control


@pytest.fixture
def client(control: Control) -> Any:
    return control.client()


def ids(control: Control) -> list[str]:
    return [node.instance_id for node in control.nodes("pd")]


def test_nodes_are_added_once_for_a_token(control: Control, client: Any) -> None:
    wanted = [{"InstanceGroupName": "prefill", "IncrementTargetCountBy": 2}]
    first = client.batch_add_cluster_nodes(ClusterName="pd", NodesToAdd=wanted, ClientToken="a")
    again = client.batch_add_cluster_nodes(ClusterName="pd", NodesToAdd=wanted, ClientToken="a")
    names = [node["NodeLogicalId"] for node in first["Successful"]]
    assert [node["NodeLogicalId"] for node in again["Successful"]] == names
    assert client.describe_cluster_node(ClusterName="pd", NodeLogicalId=names[0])["NodeDetails"]["InstanceStatus"] == {
        "Status": "Pending"
    }
    with pytest.raises(client.exceptions.ClientError, match="ClientToken"):
        client.batch_add_cluster_nodes(
            ClusterName="pd",
            NodesToAdd=[{"InstanceGroupName": "prefill", "IncrementTargetCountBy": 1}],
            ClientToken="a",
        )
    control.advance(3600)
    (prefill,) = client.describe_cluster(ClusterName="pd")["InstanceGroups"]
    assert (prefill["CurrentCount"], prefill["TargetCount"]) == (4, 4)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"InstanceGroupName": "no"}, "InstanceGroupNotFound"),
        ({"AvailabilityZones": ["us-east-2c"]}, "IncompatibleAvailabilityZones"),
        ({"InstanceTypes": ["ml.p4d.24xlarge"]}, "IncompatibleInstanceTypes"),
    ],
)
def test_some_are_added_and_some_are_not(client: Any, changed: dict[str, Any], code: str) -> None:
    one = {"InstanceGroupName": "prefill", "IncrementTargetCountBy": 1}
    answer = client.batch_add_cluster_nodes(ClusterName="pd", NodesToAdd=[one, {**one, **changed}])
    assert len(answer["Successful"]) == 1
    assert [(failed["ErrorCode"], failed["FailedCount"]) for failed in answer["Failed"]] == [(code, 1)]


def test_adding_has_bounds() -> None:
    with Control(quotas={"ml.p5.48xlarge": 2, "ml.m5.xlarge": 1}) as control:
        client = control.client()
        client.create_cluster(**example.eks("pd"))
        client.create_cluster(**example.slurm("slurm", example.group(count=0, SlurmConfig={"NodeType": "Compute"})))
        control.advance(3600)
        one = {"InstanceGroupName": "prefill", "IncrementTargetCountBy": 26}
        with pytest.raises(client.exceptions.ClientError, match="52 nodes are above 50"):
            client.batch_add_cluster_nodes(ClusterName="pd", NodesToAdd=[one, one])
        with pytest.raises(client.exceptions.ResourceLimitExceeded):
            client.batch_add_cluster_nodes(ClusterName="pd", NodesToAdd=[one])
        with pytest.raises(client.exceptions.ClientError, match="Continuous"):
            client.batch_add_cluster_nodes(ClusterName="slurm", NodesToAdd=[one])
        with pytest.raises(client.exceptions.ClientError, match="NodeLogicalIds are only supported"):
            client.batch_reboot_cluster_nodes(ClusterName="slurm", NodeLogicalIds=["ab"])
        with pytest.raises(client.exceptions.ClientError, match="at least one of"):
            client.batch_reboot_cluster_nodes(ClusterName="pd")


def test_a_deleted_node_is_not_replaced(control: Control, client: Any) -> None:
    first = ids(control)[0]
    answer = client.batch_delete_cluster_nodes(ClusterName="pd", NodeIds=[first, NO_NODE])
    assert answer["Successful"] == [first]
    assert [one["Code"] for one in answer["Failed"]] == ["NodeIdNotFound"]
    control.advance(3600)
    assert first not in ids(control)
    (prefill,) = client.describe_cluster(ClusterName="pd")["InstanceGroups"]
    assert (prefill["CurrentCount"], prefill["TargetCount"]) == (1, 1)


def test_a_replaced_node_is_another_machine_of_the_same_name(control: Control, client: Any) -> None:
    node = control.nodes("pd")[0]
    before = (node.instance_id, node.logical_id)
    control.sicken(node)
    listed = client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"]
    assert {"Status": "Failure", "Message": node.message} in [one["InstanceStatus"] for one in listed]
    assert client.batch_replace_cluster_nodes(ClusterName="pd", NodeIds=[node.instance_id])["Successful"] == [before[0]]
    assert node.status == "ShuttingDown"
    failed = client.batch_replace_cluster_nodes(ClusterName="pd", NodeIds=[before[0]])["Failed"]
    assert [one["ErrorCode"] for one in failed] == ["InstanceIdInUse"]
    control.advance(3600)
    assert (node.status, node.logical_id) == ("Running", before[1])
    assert node.instance_id != before[0]


def test_a_machine_that_does_not_come_leaves_the_node_failed() -> None:
    with Control() as control:
        client = control.client()
        client.create_cluster(**example.slurm())
        control.advance(3600)
        control.account.scenarios.append(NoCapacity("prefill"))
        node = control.nodes("pd", "prefill")[0]
        client.batch_replace_cluster_nodes(ClusterName="pd", NodeIds=[node.instance_id])
        control.advance(3600)
        assert (node.status, "capacity" in node.message) == ("Failure", True)
        assert client.describe_cluster(ClusterName="pd")["ClusterStatus"] == "InService"


def test_a_rebooted_node_is_the_same(control: Control, client: Any) -> None:
    node = control.nodes("pd")[0]
    before = node.instance_id
    answer = client.batch_reboot_cluster_nodes(ClusterName="pd", NodeLogicalIds=[node.logical_id, "no-such"])
    assert answer["SuccessfulNodeLogicalIds"] == [node.logical_id]
    assert [one["ErrorCode"] for one in answer["FailedNodeLogicalIds"]] == ["InstanceIdNotFound"]
    assert node.status == "Pending"
    control.advance(600)
    assert (node.status, node.instance_id) == ("Running", before)


def test_nothing_is_replaced_while_the_cluster_is_busy_and_the_answer_is_200(control: Control, client: Any) -> None:
    client.update_cluster_software(ClusterName="pd")
    answer = client.batch_replace_cluster_nodes(ClusterName="pd", NodeIds=ids(control))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert "Successful" not in answer
    assert {one["ErrorCode"] for one in answer["Failed"]} == {"InvalidInstanceStatus"}


def test_a_scenario_fails_some() -> None:
    with Control() as control:
        client = control.client()
        client.create_cluster(**example.eks())
        control.advance(3600)
        first, second = ids(control)
        control.account.scenarios.append(BatchFailure("BatchReboot*", first, "InternalServerError"))
        control.account.scenarios.append(BatchFailure("BatchAdd*", "prefill", "InvalidInstanceGroupStatus"))
        answer = client.batch_reboot_cluster_nodes(ClusterName="pd", NodeIds=[first, second])
        assert (answer["Successful"], answer["Failed"][0]["ErrorCode"]) == ([second], "InternalServerError")
        one = {"InstanceGroupName": "prefill", "IncrementTargetCountBy": 3}
        answer = client.batch_add_cluster_nodes(ClusterName="pd", NodesToAdd=[one])
        assert (answer["Successful"], answer["Failed"][0]["FailedCount"]) == ([], 3)


def test_nodes_are_listed_in_pages_and_by_group(control: Control, client: Any) -> None:
    decode = example.group("decode", 13)
    client.update_cluster(ClusterName="pd", InstanceGroups=[decode])
    control.advance(3600)
    assert len(client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"]) == 10
    pages = client.get_paginator("list_cluster_nodes").paginate(ClusterName="pd")
    listed = [node["InstanceId"] for page in pages for node in page["ClusterNodeSummaries"]]
    assert sorted(listed) == sorted(ids(control))
    assert len(listed) == 15
    only = client.list_cluster_nodes(ClusterName="pd", InstanceGroupNameContains="dec", MaxResults=100)
    assert len(only["ClusterNodeSummaries"]) == 13


def test_health_is_checked_on_request(control: Control, client: Any) -> None:
    first, second = control.nodes("pd")
    wanted = {"InstanceGroupName": "prefill", "DeepHealthChecks": ["InstanceStress"]}
    client.start_cluster_health_check(
        ClusterName="pd", DeepHealthCheckConfigurations=[{**wanted, "InstanceIds": [first.instance_id]}]
    )
    assert (first.status, second.status) == ("DeepHealthCheckInProgress", "Running")
    control.advance(7200)
    assert first.status == "Running"


def test_addresses_are_every_nodes_own(control: Control, client: Any) -> None:
    client.update_cluster(ClusterName="pd", InstanceGroups=[example.group("decode", 60)])
    control.advance(7200)
    found = [
        client.describe_cluster_node(ClusterName="pd", NodeId=one)["NodeDetails"]["PrivatePrimaryIp"]
        for one in ids(control)
    ]
    assert len(set(found)) == 62
