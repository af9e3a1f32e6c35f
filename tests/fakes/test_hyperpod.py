"""The stand-in's clusters live as HyperPod's do: seen by stock boto3."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.hyperpod import (
    ClusterFailure,
    Control,
    HealthCheckFailure,
    LifecycleFailure,
    NoCapacity,
    SilentRollback,
    Throttle,
    example,
)

HOUR_S = 3600.0


def status(client: Any, name: str = "pd") -> str:
    return str(client.describe_cluster(ClusterName=name)["ClusterStatus"])


def groups(client: Any, name: str = "pd") -> dict[str, Any]:
    found = client.describe_cluster(ClusterName=name)["InstanceGroups"]
    return {group["InstanceGroupName"]: group for group in found}


def seen(client: Any, name: str = "pd", looks: int = 30) -> list[str]:
    """The statuses that one look after the other sees, each once."""
    found = [status(client, name) for _ in range(looks)]
    return [one for at, one in enumerate(found) if at == 0 or one != found[at - 1]]


def events(client: Any, **asked: Any) -> list[dict[str, Any]]:
    pages = client.get_paginator("list_cluster_events").paginate(ClusterName="pd", SortOrder="Ascending", **asked)
    return [event for page in pages for event in page["Events"]]


def test_a_slurm_cluster_comes_at_once_or_not_at_all() -> None:
    with Control() as control:
        client = control.client()
        arn = client.create_cluster(**example.slurm())["ClusterArn"]
        assert seen(client) == ["Creating", "InService"]
        nodes = client.list_cluster_nodes(ClusterName=arn)["ClusterNodeSummaries"]
        assert [node["InstanceStatus"]["Status"] for node in nodes] == ["Running"] * 3
        assert [group["CurrentCount"] for group in groups(client).values()] == [1, 2]


def test_one_failed_script_rolls_a_slurm_cluster_back() -> None:
    with Control(LifecycleFailure("prefill", nodes=(1,), message="exit code 3")) as control:
        client = control.client()
        client.create_cluster(**example.slurm())
        assert seen(client) == ["Creating", "RollingBack", "Failed"]
        described = client.describe_cluster(ClusterName="pd")
        assert described["FailureMessage"] == "Instance group 'prefill': exit code 3"
        assert client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"] == []
        with pytest.raises(client.exceptions.ClientError, match="Continuous"):
            client.list_cluster_events(ClusterName="pd")


def test_a_continuous_cluster_is_in_service_before_its_nodes() -> None:
    with Control() as control:
        client = control.client()
        client.create_cluster(**example.eks())
        assert seen(client, looks=2) == ["Creating", "InService"]
        prefill = groups(client)["prefill"]
        assert (prefill["Status"], prefill["CurrentCount"], prefill["TargetCount"]) == ("InService", 0, 2)
        assert prefill["ActiveOperations"] == {"Scaling": 1}
        assert client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"] == []
        pending = client.list_cluster_nodes(ClusterName="pd", IncludeNodeLogicalIds=True)["ClusterNodeSummaries"]
        assert len({node["NodeLogicalId"] for node in pending}) == 2
        control.advance(HOUR_S)
        prefill = groups(client)["prefill"]
        assert (prefill["CurrentCount"], "ActiveOperations" in prefill) == (2, False)


@pytest.mark.parametrize("fault", [LifecycleFailure(), NoCapacity(), HealthCheckFailure()])
def test_in_service_with_no_nodes_is_told_by_events_alone(fault: Any) -> None:
    with Control(fault) as control:
        client = control.client()
        client.create_cluster(**example.eks())
        control.advance(12 * HOUR_S)
        described = client.describe_cluster(ClusterName="pd")
        assert (described["ClusterStatus"], "FailureMessage" in described) == ("InService", False)
        assert described["InstanceGroups"][0]["CurrentCount"] == 0
        errors = [event for event in events(client) if event["EventLevel"] == "Error"]
        assert len(errors) > 20  # it tries again and again
        metadata = client.describe_cluster_event(ClusterName="pd", EventId=errors[0]["EventId"])
        (told,) = metadata["EventDetails"]["EventDetails"]["EventMetadata"].values()
        assert told["FailureMessage"]


def test_the_events_of_a_node_tell_its_way() -> None:
    with Control(LifecycleFailure(attempts=1, message="exit code 1")) as control:
        client = control.client()
        client.create_cluster(**example.eks("pd", example.group(count=1, NetworkInterface={"InterfaceType": "efa"})))
        control.advance(2 * HOUR_S)
        assert groups(client)["prefill"]["CurrentCount"] == 1
        told = events(client, ResourceType="Instance", MaxResults=2)
        assert [event["EventLevel"] for event in told] == ["Info", "Error", "Info", "Info", "Info"]
        assert len({event["InstanceId"] for event in told}) == 2
        times = [event["EventTime"] for event in told]
        assert times == sorted(times)
        operation = told[0]["OperationId"]
        assert client.list_cluster_operations(ClusterName="pd")["ClusterOperationSummaries"][0]["Status"] == "Done"
        assert len(events(client, OperationId=operation)) > len(told)
        detail = client.describe_cluster_event(ClusterName="pd", EventId=told[1]["EventId"])["EventDetails"]
        instance = detail["EventDetails"]["EventMetadata"]["Instance"]
        assert (instance["LcsExecutionState"], instance["FailureMessage"]) == ("Failed", "exit code 1")
        assert instance["AdditionalEnis"]["EfaEnis"]


def test_a_minimum_that_is_not_met_gives_up_after_three_hours() -> None:
    with Control(NoCapacity(nodes=1)) as control:
        client = control.client()
        client.create_cluster(**example.eks("pd", example.group(count=3, MinInstanceCount=2)))
        control.advance(2.9 * HOUR_S)
        assert groups(client)["prefill"]["Status"] == "Creating"
        control.advance(0.3 * HOUR_S)
        prefill = groups(client)["prefill"]
        assert (prefill["Status"], prefill["CurrentCount"], prefill["TargetCount"]) == ("Failed", 0, 0)


def test_a_minimum_that_is_met_serves() -> None:
    with Control(NoCapacity(nodes=2)) as control:
        client = control.client()
        client.create_cluster(**example.eks("pd", example.group(count=3, MinInstanceCount=2)))
        control.advance(6 * HOUR_S)
        prefill = groups(client)["prefill"]
        assert (prefill["Status"], prefill["CurrentCount"], prefill["MinCount"]) == ("InService", 2, 2)


def test_the_clusters_own_resources_may_fail() -> None:
    with Control(ClusterFailure("EKS cluster authentication mode must be API")) as control:
        client = control.client()
        client.create_cluster(**example.eks())
        assert seen(client) == ["Creating", "Failed"]
        assert "authentication mode" in client.describe_cluster(ClusterName="pd")["FailureMessage"]


def test_deep_health_checks_take_their_time() -> None:
    with Control() as control:
        client = control.client()
        client.create_cluster(**example.eks("pd", example.group(OnStartDeepHealthChecks=["InstanceStress"])))
        control.advance(900)
        (node, _) = client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"]
        assert node["InstanceStatus"]["Status"] == "DeepHealthCheckInProgress"
        control.advance(HOUR_S)
        assert {node.status for node in control.nodes("pd")} == {"Running"}


def test_a_group_grows_shrinks_comes_and_goes() -> None:
    with Control() as control:
        client = control.client()
        client.create_cluster(**example.slurm())
        control.advance(HOUR_S)
        compute = {"NodeType": "Compute", "PartitionNames": ["prefill"]}
        decode = {"NodeType": "Compute", "PartitionNames": ["decode"]}
        named = [example.group(count=4, SlurmConfig=compute), example.group("decode", 1, SlurmConfig=decode)]
        client.update_cluster(ClusterName="pd", InstanceGroups=named)
        assert seen(client) == ["Updating", "InService"]
        assert {name: group["CurrentCount"] for name, group in groups(client).items()} == {
            "controller": 1,
            "prefill": 4,
            "decode": 1,
        }
        smaller = [example.group(count=1, SlurmConfig=compute)]
        client.update_cluster(ClusterName="pd", InstanceGroups=smaller, InstanceGroupsToDelete=["decode"])
        with pytest.raises(client.exceptions.ConflictException):
            client.update_cluster(ClusterName="pd", NodeRecovery="None")
        assert seen(client) == ["Updating", "InService"]
        assert {name: group["CurrentCount"] for name, group in groups(client).items()} == {
            "controller": 1,
            "prefill": 1,
        }


def test_a_failed_update_goes_back() -> None:
    with Control(LifecycleFailure("prefill", nodes=(3,))) as control:
        client = control.client()
        client.create_cluster(**example.slurm())
        control.advance(HOUR_S)
        compute = {"NodeType": "Compute", "PartitionNames": ["prefill"]}
        client.update_cluster(ClusterName="pd", InstanceGroups=[example.group(count=4, SlurmConfig=compute)])
        assert seen(client) == ["Updating", "RollingBack", "InService"]
        prefill = groups(client)["prefill"]
        assert (prefill["CurrentCount"], prefill["TargetCount"], prefill["Status"]) == (2, 2, "InService")
        assert "FailureMessage" in client.describe_cluster(ClusterName="pd")


def test_a_group_may_ask_for_an_older_image() -> None:
    with Control() as control:
        client = control.client()
        older = [example.group(count=1, ImageReleaseVersion="1.0.1")]
        client.create_cluster(**example.eks(InstanceGroups=older))
        control.advance(HOUR_S)
        client.update_cluster(
            ClusterName="pd", InstanceGroups=[example.group("decode", 1, ImageReleaseVersion="1.0.2")]
        )
        control.advance(HOUR_S)
        nodes = client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"]
        assert {node["CurrentImageReleaseVersion"] for node in nodes} == {"1.0.1", "1.0.2"}
        assert {node["ImageVersionStatus"] for node in nodes} == {"UpdateAvailable"}


def test_software_is_updated_in_batches() -> None:
    with Control() as control:
        client = control.client()
        client.create_cluster(**example.eks("pd", example.group(count=3)))
        control.advance(HOUR_S)
        control.account.latest = "1.5.0"
        config = {"RollingUpdatePolicy": {"MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1}}}
        client.update_cluster_software(ClusterName="pd", DeploymentConfig=config)
        versions = set()
        while status(client) == "SystemUpdating":
            nodes = client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"]
            versions.add(tuple(sorted(node["CurrentImageReleaseVersion"] for node in nodes)))
            assert sum(node["InstanceStatus"]["Status"] == "SystemUpdating" for node in nodes) <= 1
        assert len(versions) == 3
        prefill = groups(client)["prefill"]
        assert (prefill["CurrentImageReleaseVersion"], prefill["SoftwareUpdateStatus"]) == ("1.5.0", "Succeeded")


def test_a_software_update_rolls_back_in_silence() -> None:
    with Control(SilentRollback()) as control:
        client = control.client()
        client.create_cluster(**example.eks())
        control.advance(HOUR_S)
        before = len(events(client))
        control.account.latest = "1.5.0"
        client.update_cluster_software(ClusterName="pd")
        assert seen(client, looks=40) == ["SystemUpdating", "InService"]
        described = client.describe_cluster(ClusterName="pd")
        prefill = described["InstanceGroups"][0]
        assert "FailureMessage" not in described
        assert len(events(client)) == before
        assert (prefill["Status"], prefill["CurrentImageReleaseVersion"]) == ("InService", "1.4.2")
        assert (prefill["ImageVersionStatus"], prefill["SoftwareUpdateStatus"]) == (
            "UpdateAvailable",
            "RollbackComplete",
        )


@pytest.mark.parametrize("request_", [example.slurm(), example.eks()])
@pytest.mark.parametrize("age_s", [0, 300, HOUR_S])
def test_deleted_at_any_age_it_is_gone(request_: dict[str, Any], age_s: float) -> None:
    with Control() as control:
        client = control.client()
        client.create_cluster(**request_)
        control.advance(age_s)
        client.delete_cluster(ClusterName="pd")
        assert status(client) == "Deleting"
        control.advance(24 * HOUR_S)
        with pytest.raises(client.exceptions.ResourceNotFound):
            client.describe_cluster(ClusterName="pd")
        assert client.list_clusters()["ClusterSummaries"] == []
        client.create_cluster(**request_)  # the name is free again
        assert len(client.list_clusters()["ClusterSummaries"]) == 1


def test_lists_are_in_pages() -> None:
    with Control(Throttle(2, "ListClusters")) as control:
        client = control.client()
        for number in range(23):
            client.create_cluster(**example.slurm(f"pd-{number:02}"))
        assert len(client.list_clusters()["ClusterSummaries"]) == 10
        pages = client.get_paginator("list_clusters").paginate(SortBy="NAME", SortOrder="Ascending")
        names = [one["ClusterName"] for page in pages for one in page["ClusterSummaries"]]
        assert names == [f"pd-{number:02}" for number in range(23)]
        assert len(client.list_clusters(NameContains="-1")["ClusterSummaries"]) == 10
        with pytest.raises(client.exceptions.ClientError, match="NextToken"):
            client.list_clusters(NextToken="!")


def test_names_are_taken_and_quotas_end() -> None:
    with Control(quotas={"ml.p5.48xlarge": 3, "ml.m5.xlarge": 5}) as control:
        client = control.client()
        client.create_cluster(**example.slurm())
        with pytest.raises(client.exceptions.ResourceInUse):
            client.create_cluster(**example.slurm())
        with pytest.raises(client.exceptions.ResourceLimitExceeded, match=r"'ml.p5.48xlarge for cluster usage' is 3"):
            client.create_cluster(**example.slurm("other"))
        assert [one["ClusterName"] for one in client.list_clusters()["ClusterSummaries"]] == ["pd"]


def test_training_plans_reserve() -> None:
    with Control(quotas={"ml.p5.48xlarge": 0}) as control:
        client = control.client()
        arn = control.training_plan("pd", "ml.p5.48xlarge", 2, ("us-east-2b", "use2-az2"))
        control.training_plan("over", "ml.p5.48xlarge", 2, ("us-east-2b", "use2-az2"), status="Expired")
        client.create_cluster(**example.eks("pd", example.group(TrainingPlanArn=arn)))
        plan = client.describe_training_plan(TrainingPlanName="pd")
        assert (plan["InUseInstanceCount"], plan["AvailableInstanceCount"]) == (2, 0)
        active = client.list_training_plans(Filters=[{"Name": "Status", "Value": "Active"}])["TrainingPlanSummaries"]
        assert [one["TrainingPlanName"] for one in active] == ["pd"]
        assert client.list_clusters()["ClusterSummaries"][0]["TrainingPlanArns"] == [arn]
        expired = client.describe_training_plan(TrainingPlanName="over")["TrainingPlanArn"]
        with pytest.raises(client.exceptions.ClientError, match="over is Expired"):
            client.create_cluster(**example.eks("x", example.group(TrainingPlanArn=expired)))


def test_tags_are_kept() -> None:
    with Control() as control:
        client = control.client()
        arn = client.create_cluster(**example.eks(Tags=[{"Key": "team", "Value": "a"}]))["ClusterArn"]
        client.add_tags(ResourceArn=arn, Tags=[{"Key": "made-by", "Value": "hyperpd"}])
        client.delete_tags(ResourceArn=arn, TagKeys=["team"])
        assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "made-by", "Value": "hyperpd"}]


def test_what_was_asked_for_is_described() -> None:
    asked = example.eks(
        NodeRecovery="Automatic",
        TieredStorageConfig={"Mode": "Enable", "InstanceMemoryAllocationPercentage": 30},
        AutoScaling={"Mode": "Enable", "AutoScalerType": "Karpenter"},
        ClusterRole=example.ROLE,
        InstanceGroups=[
            example.group(
                InstanceType=None,
                InstanceRequirements={"InstanceTypes": ["ml.p5.48xlarge", "ml.p5e.48xlarge"]},
                KubernetesConfig={"Labels": {"role": "prefill"}, "Taints": [{"Key": "pd", "Effect": "NoSchedule"}]},
                InstanceStorageConfigs=[{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}],
                CapacityRequirements={"Spot": {}},
                ThreadsPerCore=1,
                ImageId="default",
                AutoPatchConfig={"PatchingStrategy": "WhenIdle"},
                OverrideVpcConfig={"SecurityGroupIds": ["sg-0a"], "Subnets": ["subnet-0b"]},
            )
        ],
    )
    with Control(zones={"subnet-0b": ("us-east-2c", "use2-az3")}) as control:
        client = control.client()
        client.create_cluster(**asked)
        control.advance(HOUR_S)
        described = client.describe_cluster(ClusterName="pd")
        for name in ("NodeRecovery", "TieredStorageConfig", "ClusterRole", "Orchestrator", "VpcConfig"):
            assert described[name] == asked[name]
        assert described["AutoScaling"]["Status"] == "InService"
        (found,) = described["InstanceGroups"]
        assert found["KubernetesConfig"]["DesiredLabels"] == {"role": "prefill"}
        assert found["InstanceTypeDetails"][0] == {"InstanceType": "ml.p5.48xlarge", "CurrentCount": 2}
        node = client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"][0]
        details = client.describe_cluster_node(ClusterName="pd", NodeId=node["InstanceId"])["NodeDetails"]
        assert details["Placement"] == {"AvailabilityZone": "us-east-2c", "AvailabilityZoneId": "use2-az3"}
        assert (
            details["PrivateDnsHostname"]
            == f"ip-{details['PrivatePrimaryIp'].replace('.', '-')}.us-east-2.compute.internal"
        )
        assert details["CapacityType"] == "Spot"
