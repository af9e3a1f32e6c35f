"""What SageMaker gets, held to botocore's shapes with enumerations, patterns and bounds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hyperpd.cluster import requests
from hyperpd.cluster import spec as spec_
from tests.cluster.files import EKS, EKS_FULL, SLURM, SLURM_FULL, plan
from tests.deploy import botocore_shapes

ALL = {"eks": EKS, "slurm": SLURM, "eks, every field": EKS_FULL, "slurm, every field": SLURM_FULL}
SHAPE = botocore_shapes.shape("sagemaker", "CreateCluster")


@pytest.mark.parametrize("name", ALL)
def test_requests_are_what_the_api_takes(name):
    request = requests.create(plan(ALL[name]))
    assert botocore_shapes.problems("sagemaker", "CreateCluster", request) == []
    assert list(requests.unknown(SHAPE, request)) == []


def test_a_request_in_full():
    request = requests.create(plan(EKS_FULL))
    prefill, decode = request.pop("InstanceGroups")
    assert request == {
        "ClusterName": "pd",
        "VpcConfig": {"SecurityGroupIds": ["sg-0123456789abcdef0"], "Subnets": ["subnet-0123456789abcdef0"]},
        "Orchestrator": {"Eks": {"ClusterArn": "arn:aws:eks:us-east-1:123456789012:cluster/prod"}},
        "NodeRecovery": "None",
        "NodeProvisioningMode": "Continuous",
        "TieredStorageConfig": {"Mode": "Enable", "InstanceMemoryAllocationPercentage": 20},
        "AutoScaling": {"Mode": "Enable", "AutoScalerType": "Karpenter"},
        "ClusterRole": "arn:aws:iam::123456789012:role/scaler",
        "Tags": [
            {"Key": "team", "Value": "serving"},
            {"Key": "cost centre", "Value": "4+2"},
            {"Key": "hyperpd:cluster", "Value": "pd"},
        ],
    }
    # The group's own subnets with the cluster's security groups.
    assert prefill["OverrideVpcConfig"] == {
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
        "Subnets": ["subnet-0fedcba9876543210"],
    }
    assert prefill["ExecutionRole"].endswith(":role/path/prefill")
    assert prefill["NetworkInterface"] == {"InterfaceType": "efa-only"}
    assert prefill["InstanceRequirements"] == {"InstanceTypes": ["ml.p5.48xlarge", "ml.p5en.48xlarge"]}
    assert [next(iter(one)) for one in prefill["InstanceStorageConfigs"]] == [
        "EbsVolumeConfig",
        "EbsVolumeConfig",
        "FsxLustreConfig",
        "FsxOpenZfsConfig",
    ]
    assert "LifeCycleConfig" not in decode
    assert decode["CapacityRequirements"] == {"Spot": {}}
    used = set(prefill) | set(decode) | {"SlurmConfig"}
    left_out = set(SHAPE.members["InstanceGroups"].member.members) - used
    assert left_out == {"ScheduledUpdateConfig", "AutoPatchConfig"}  # an update carries them over


def test_what_an_older_boto3_does_not_know_is_named():
    """A model without a member stands for an older boto3; a word that no enumeration has, for a slip."""
    shape = copy.deepcopy(SHAPE)
    del shape.members["InstanceGroups"].member.members["NetworkInterface"]
    request = requests.create(plan(EKS_FULL))
    found = list(requests.unknown(shape, request))
    assert [one.split(":")[0] for one in found] == [
        "InstanceGroups.0.NetworkInterface",
        "InstanceGroups.1.NetworkInterface",
    ]
    assert requests.BOTOCORE in found[0]
    slip = requests.create(plan(EKS, groups={"prefill": {"instance_type": "ml.p5en.49xlarge"}}))
    assert [one.split(" A newer")[0] for one in requests.unknown(SHAPE, slip)] == [
        "InstanceGroups.0.InstanceType: this boto3 does not know ml.p5en.49xlarge; did you mean ml.p5en.48xlarge?"
    ]


# A type of the file → the shape it becomes.
TYPES: dict[str, str] = {
    "GroupName": "ClusterInstanceGroupName",
    "RoleArn": "RoleArn",
    "Subnet": "SubnetId",
    "SecurityGroup": "SecurityGroupId",
    "LabelKey": "ClusterKubernetesLabelKey",
    "LabelValue": "ClusterKubernetesLabelValue",
    "TagKey": "TagKey",
    "TagValue": "TagValue",
    "Dns": "ClusterDnsName",
    "MountPath": "ClusterFsxMountPath",
    "FileName": "ClusterLifeCycleConfigFileName",
}


def _taken(kind: Any, value: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_the_file_takes_the_api_takes(name, data):
    kind = getattr(spec_, name)
    pattern = next(part for part in kind.__metadata__ if getattr(part, "pattern", None)).pattern
    value = data.draw(st.from_regex(pattern))
    if _taken(kind, value):
        assert botocore_shapes.of_shape("sagemaker", TYPES[name], value) == []


BOUNDS = [
    # (path in the file, just beyond what botocore takes)
    (("name",), "a" * 64),
    (("groups", "prefill", "count"), 6759),
    (("groups", "prefill", "min_count"), -1),
    (("groups", "prefill", "threads_per_core"), 3),
    (("groups", "prefill", "volumes"), [{"size_gb": 16385}]),
    (("groups", "prefill", "instance_types"), ["ml.p5.48xlarge"] * 21),
    (("groups", "prefill", "health_checks"), ["instance_stress", "nothing"]),
    (("groups", "prefill", "labels"), {f"k{n}": "v" for n in range(51)}),
    (("groups", "prefill", "taints"), [{"key": "a", "effect": "Never"}]),
    (("groups", "prefill", "image"), "ami-1"),
    (("groups", "prefill", "image_release"), "1.2"),
    (("network", "subnets"), ["subnet-0123456789abcdef0"] * 17),
    (("network", "security_groups"), ["sg-0123456789abcdef0"] * 6),
    (("tiered_storage",), {"memory_percent": 101}),
    (("tags",), {f"k{n}": "v" for n in range(50)}),
    (("tags",), {"k": "v" * 257}),
    (("node_recovery",), "sometimes"),
]


@pytest.mark.parametrize(("path", "value"), BOUNDS, ids=lambda one: ".".join(one) if isinstance(one, tuple) else "")
def test_what_the_api_refuses_the_file_refuses(path, value):
    change: Any = value
    for key in reversed(path):
        change = {key: change}
    with pytest.raises(Exception, match=r"cluster\.yaml"):
        plan(EKS, **change)
