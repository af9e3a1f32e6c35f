"""Blueprint → the requests that SageMaker gets, exactly as they are sent. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.spec import InstanceGroup, Network

Object = dict[str, Any]
BOTOCORE = "1.44.8"  # knows all that is sent here; the tests hold the requests to its shapes


def create(plan: Blueprint) -> Object:
    """CreateCluster."""
    spec = plan.spec
    request: Object = {"ClusterName": spec.name, "InstanceGroups": instance_groups(plan)}
    if spec.network.subnets:
        request["VpcConfig"] = _vpc(spec.network, spec.network)
    request["Orchestrator"] = _orchestrator(plan)
    request |= _settings(plan)
    request["Tags"] = [{"Key": key, "Value": value} for key, value in plan.tags.items()]
    return request


def instance_groups(plan: Blueprint) -> list[Object]:
    """InstanceGroups of CreateCluster and UpdateCluster."""
    return [_group(plan, name, group) for name, group in plan.groups.items()]


def _settings(plan: Blueprint) -> Object:
    """What CreateCluster and UpdateCluster share beside groups and orchestrator."""
    spec = plan.spec
    found: Object = {"NodeRecovery": camel(spec.node_recovery)}
    if spec.continuous:
        found["NodeProvisioningMode"] = "Continuous"
    if tiers := spec.tiered_storage:
        found["TieredStorageConfig"] = {
            "Mode": "Enable",
            **_given(InstanceMemoryAllocationPercentage=tiers.memory_percent),
        }
    if scaling := spec.autoscaling:
        found["AutoScaling"] = {"Mode": "Enable", "AutoScalerType": "Karpenter"}
        found["ClusterRole"] = scaling.role
    return found


def _orchestrator(plan: Blueprint) -> Object:
    slurm = plan.spec.orchestrator.slurm
    if slurm is None:
        return {"Eks": {"ClusterArn": plan.eks_arn}}
    # With slurm.node in each group the image sets Slurm up, by AWS' API; it has to know whose slurm.conf is.
    given = any(group.slurm for group in plan.groups.values())
    strategy = slurm.strategy or ("managed" if given else None)
    found: Object = {"SlurmConfigStrategy": camel(strategy)} if strategy else {}
    if base := slurm.accounting:
        found["AccountingDatabase"] = {
            "Endpoint": base.endpoint,
            **_given(Port=base.port, Name=base.database),
            "SecretArn": base.secret,
        }
    return {"Slurm": found}


def _group(plan: Blueprint, name: str, group: InstanceGroup) -> Object:
    lifecycle = plan.lifecycle(group)
    found: Object = {"InstanceGroupName": name}
    if group.instance_type:
        found["InstanceType"] = group.instance_type
    else:
        found["InstanceRequirements"] = {"InstanceTypes": list(group.instance_types)}
    found |= {"InstanceCount": group.count, **_given(MinInstanceCount=group.min_count)}
    found["ExecutionRole"] = plan.role_arn(group)
    if lifecycle.source != "none":
        found["LifeCycleConfig"] = {
            "SourceS3Uri": plan.folder(lifecycle),
            **_given(OnCreate=lifecycle.on_create, OnInitComplete=lifecycle.on_init_complete),
        }
    found |= _given(
        ThreadsPerCore=group.threads_per_core,
        InstanceStorageConfigs=_storage(group) or None,
        OnStartDeepHealthChecks=[camel(check) for check in group.health_checks] or None,
        TrainingPlanArn=group.training_plan,
        OverrideVpcConfig=_vpc(group.network, plan.spec.network) if group.network else None,
        ImageId=group.image,
        ImageReleaseVersion=group.image_release,
        KubernetesConfig=_kubernetes(group) or None,
        CapacityRequirements={camel(group.capacity): {}} if group.capacity else None,
        NetworkInterface={"InterfaceType": group.interface} if group.interface else None,
    )
    if group.slurm:
        partitions = [group.slurm.partition] if group.slurm.partition else None
        found["SlurmConfig"] = {"NodeType": camel(group.slurm.node), **_given(PartitionNames=partitions)}
    return found


def _storage(group: InstanceGroup) -> list[Object]:
    found: list[Object] = [
        {
            "EbsVolumeConfig": {
                **_given(VolumeSizeInGB=volume.size_gb, VolumeKmsKeyId=volume.kms_key),
                **({"RootVolume": True} if volume.root else {}),
            }
        }
        for volume in group.volumes
    ]
    found += [
        {
            "FsxLustreConfig": {
                "DnsName": one.dns,
                "MountName": one.mount_name,
                **_given(MountPath=one.mount_path),
            }
        }
        for one in group.lustre
    ]
    found += [{"FsxOpenZfsConfig": {"DnsName": one.dns, **_given(MountPath=one.mount_path)}} for one in group.openzfs]
    return found


def _kubernetes(group: InstanceGroup) -> Object:
    taints = [{"Key": taint.key, **_given(Value=taint.value), "Effect": taint.effect} for taint in group.taints]
    return _given(Labels=dict(group.labels) or None, Taints=taints or None)


def _vpc(network: Network, default: Network) -> Object:
    groups = network.security_groups or default.security_groups
    return {"SecurityGroupIds": list(groups), "Subnets": list(network.subnets)}


def camel(word: str) -> str:
    """The file's word as AWS spells it: instance_stress → InstanceStress."""
    return "".join(part.capitalize() for part in word.split("_"))


def _given(**fields: Any) -> Object:
    return {name: value for name, value in fields.items() if value is not None}


def unknown(shape: Any, value: Any, path: str = "") -> Iterator[str]:
    """What the installed botocore does not know of a request, with its path: members, and words of enumerations.

    shape: botocore's input shape of the operation.
    """
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for name, inner in value.items():
            where = f"{path}.{name}" if path else name
            if name not in shape.members:
                yield f"{where}: this boto3 does not know it; needs botocore ≥ {BOTOCORE} (pip install -U boto3)"
            else:
                yield from unknown(shape.members[name], inner, where)
    elif shape.type_name == "list" and isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from unknown(shape.member, inner, f"{path}.{number}")
    elif (words := shape.metadata.get("enum")) and value not in words:
        near = difflib.get_close_matches(str(value), words, 1)
        hint = f"did you mean {near[0]}?" if near else f"it knows {len(words)} others."
        yield f"{path}: this boto3 does not know {value}; {hint} A newer one may (botocore ≥ {BOTOCORE})"
