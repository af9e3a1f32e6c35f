"""spec(answer, tags) → ClusterSpec: the file of a cluster that was made elsewhere. Pure.

What the file says is what is there: a plan of it shows no difference.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from hyperpd.cluster import described, file
from hyperpd.cluster.requests import Object
from hyperpd.cluster.spec import OWN_TAGS, ClusterSpec


def spec(answer: Mapping[str, Any], tags: Iterable[Mapping[str, str]], region: str) -> ClusterSpec:
    """Of DescribeCluster's answer and ListTags'. Raises RecipeError where a file cannot say what is there."""
    request = described.request(answer)
    groups = {one["InstanceGroupName"]: _group(one) for one in request["InstanceGroups"]}
    document: Object = {
        "version": 1,
        "name": request["ClusterName"],
        "region": region,
        "orchestrator": _orchestrator(request),
    }
    if vpc := request.get("VpcConfig"):
        document["network"] = _network(vpc)
    for field in ("role", "lifecycle"):
        if common := _common(groups, field):
            document[field] = common
            for group in groups.values():
                if group.get(field) == common:
                    del group[field]
    if request.get("NodeRecovery") == "None":
        document["node_recovery"] = "none"
    if "NodeProvisioningMode" in request:
        document["continuous"] = True
    if tiers := request.get("TieredStorageConfig"):
        document["tiered_storage"] = _given(memory_percent=tiers.get("InstanceMemoryAllocationPercentage"))
    if "AutoScaling" in request:
        document["autoscaling"] = {"role": request.get("ClusterRole")}
    own = {tag["Key"]: tag["Value"] for tag in tags if not tag["Key"].startswith((OWN_TAGS, "aws:"))}
    document |= {"tags": own} if own else {}
    document["groups"] = groups
    return file.parse(document, f"cluster {request['ClusterName']}")


def unsaid(answer: Mapping[str, Any]) -> list[str]:
    """What is there and no file can say; updates leave it as it is."""
    groups = [described.group(one) for one in answer.get("InstanceGroups", ())]
    found = [f"{one['InstanceGroupName']}: {name}" for one in groups for name in described.UNSAID if name in one]
    found += [f"{name} of the cluster" for name in ("RestrictedInstanceGroups",) if answer.get(name)]
    return found


def _orchestrator(request: Object) -> Object:
    given = request.get("Orchestrator", {})
    if "Eks" in given:
        return {"eks": given["Eks"]["ClusterArn"]}
    slurm = given.get("Slurm", {})
    found = _given(strategy=snake(slurm.get("SlurmConfigStrategy")))
    if base := slurm.get("AccountingDatabase"):
        found["accounting"] = _given(
            endpoint=base["Endpoint"], port=base.get("Port"), database=base.get("Name"), secret=base["SecretArn"]
        )
    return {"slurm": found}


def _network(vpc: Object) -> Object:
    return {"subnets": vpc["Subnets"], "security_groups": vpc["SecurityGroupIds"]}


def _group(one: Object) -> Object:
    storage = one.get("InstanceStorageConfigs", ())
    kubernetes, slurm = one.get("KubernetesConfig", {}), one.get("SlurmConfig")
    life = one.get("LifeCycleConfig")
    lifecycle = {"source": "none"}
    if life:
        lifecycle = _given(
            source=life.get("SourceS3Uri"), on_create=life.get("OnCreate"), on_init_complete=life.get("OnInitComplete")
        )
    return _given(
        instance_type=one.get("InstanceType"),
        instance_types=one.get("InstanceRequirements", {}).get("InstanceTypes"),
        count=one["InstanceCount"],
        min_count=one.get("MinInstanceCount"),
        role=one.get("ExecutionRole"),
        lifecycle=lifecycle,
        threads_per_core=one.get("ThreadsPerCore"),
        interface=one.get("NetworkInterface", {}).get("InterfaceType"),
        training_plan=one.get("TrainingPlanArn"),
        capacity=snake(next(iter(one.get("CapacityRequirements", {})), None)),
        network=_network(one["OverrideVpcConfig"]) if "OverrideVpcConfig" in one else None,
        volumes=[_volume(entry["EbsVolumeConfig"]) for entry in storage if "EbsVolumeConfig" in entry] or None,
        lustre=[_mount(entry["FsxLustreConfig"]) for entry in storage if "FsxLustreConfig" in entry] or None,
        openzfs=[_mount(entry["FsxOpenZfsConfig"]) for entry in storage if "FsxOpenZfsConfig" in entry] or None,
        health_checks=[snake(check) for check in one.get("OnStartDeepHealthChecks", ())] or None,
        labels=kubernetes.get("Labels"),
        taints=[
            _given(key=taint["Key"], value=taint.get("Value"), effect=taint["Effect"])
            for taint in kubernetes.get("Taints", ())
        ]
        or None,
        slurm=_given(node=snake(slurm["NodeType"]), partition=next(iter(slurm.get("PartitionNames", ())), None))
        if slurm
        else None,
        image=one.get("ImageId"),
    )


def _volume(given: Object) -> Object:
    return _given(
        size_gb=given.get("VolumeSizeInGB"), kms_key=given.get("VolumeKmsKeyId"), root=given.get("RootVolume") or None
    )


def _mount(given: Object) -> Object:
    return _given(dns=given["DnsName"], mount_name=given.get("MountName"), mount_path=given.get("MountPath"))


def _common(groups: Mapping[str, Object], field: str) -> Any:
    """What most groups have of a field; None where that is fewer than two."""
    values = [group[field] for group in groups.values() if field in group]
    if not values:
        return None
    text, times = Counter(map(repr, values)).most_common(1)[0]
    return next(one for one in values if repr(one) == text) if times > 1 or len(values) == 1 else None


def snake(word: str | None) -> str | None:
    """AWS' word as the file spells it: InstanceStress → instance_stress."""
    return None if word is None else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower()


def _given(**fields: Any) -> Object:
    return {name: value for name, value in fields.items() if value is not None}
