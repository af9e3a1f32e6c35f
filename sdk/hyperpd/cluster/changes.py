"""diff(wanted, have) → Changes: what an update would do, what it cannot, the UpdateCluster request and tags. Pure.

Both are requests of CreateCluster: the file's, and described.request of what is there. What the file does not say and
AWS fills in (threads per core, minimum, interface, image) stays as it is, and so do what a file cannot say and tags of
others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hyperpd.cluster.described import UNSAID
from hyperpd.cluster.requests import Object
from hyperpd.cluster.spec import OWN_TAGS

_WORDS = {  # AWS' word → the file's
    "InstanceType": "instance_type",
    "InstanceRequirements": "instance_types",
    "InstanceCount": "count",
    "MinInstanceCount": "min_count",
    "ExecutionRole": "role",
    "LifeCycleConfig": "lifecycle",
    "ThreadsPerCore": "threads_per_core",
    "InstanceStorageConfigs": "volumes, lustre, openzfs",
    "OnStartDeepHealthChecks": "health_checks",
    "TrainingPlanArn": "training_plan",
    "OverrideVpcConfig": "network",
    "ImageId": "image",
    "ImageReleaseVersion": "image_release",
    "KubernetesConfig": "labels, taints",
    "SlurmConfig": "slurm",
    "CapacityRequirements": "capacity",
    "NetworkInterface": "interface",
    "NodeRecovery": "node_recovery",
    "NodeProvisioningMode": "continuous",
    "TieredStorageConfig": "tiered_storage",
    "AutoScaling": "autoscaling",
    "ClusterRole": "autoscaling.role",
}
# A release, too: new nodes of a group get the newest where none is named (botocore 1.44), and roles are better alike.
_KEPT = ("ThreadsPerCore", "MinInstanceCount", "NetworkInterface", "ImageId", "ImageReleaseVersion")
_OFF = {"TieredStorageConfig": {"Mode": "Disable"}, "AutoScaling": {"Mode": "Disable"}}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, in the file's words; None: not there."""

    path: str
    was: Any
    becomes: Any

    def line(self) -> str:
        return f"{self.path}: {_text(self.was)} → {_text(self.becomes)}"


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs. `request` is None, and `tags` empty, where nothing of it can or has to be sent."""

    changes: tuple[Change, ...]
    impossible: tuple[str, ...]
    deleted: tuple[str, ...]  # groups that go, with their nodes
    request: Object | None
    tags: Mapping[str, str]  # that the cluster lacks, or has with another value

    def __bool__(self) -> bool:
        return bool(self.changes or self.impossible)

    @property
    def counts(self) -> dict[str, int]:
        """Nodes that the groups sent will have."""
        groups = self.request.get("InstanceGroups", ()) if self.request else ()
        return {group["InstanceGroupName"]: group["InstanceCount"] for group in groups}

    def lines(self) -> list[str]:
        return [*(change.line() for change in self.changes), *(f"cannot be changed: {one}" for one in self.impossible)]


def diff(wanted: Object, have: Object) -> Changes:
    """What to do to `have` for it to be `wanted`."""
    request: Object = {"ClusterName": wanted["ClusterName"]}
    changes: list[Change] = []
    impossible = list(_impossible(wanted, have))
    before, after = _by_name(have), _by_name(wanted)
    groups = []
    for name, group in after.items():
        if name not in before:
            changes.append(Change(f"groups.{name}", None, _brief(group)))
            groups.append(group)
            continue
        found = list(_of_group(group, before[name]))
        impossible += [
            f"groups.{name}.image_release: {one.was} to {one.becomes}; hyperpd cluster patch --release does that"
            for one in found
            if one.path == "image_release"
        ]
        impossible += [f"groups.{name}.{one}" for one in _other_keys(group, before[name])]
        found = [one for one in found if one.path != "image_release"]
        if found:
            changes += [Change(f"groups.{name}.{one.path}", one.was, one.becomes) for one in found]
            groups.append({**carried(before[name]), **group})
    deleted = [name for name in before if name not in after]
    changes += [Change(f"groups.{name}", _brief(before[name]), None) for name in deleted]
    settings = dict(_settings(wanted, have))
    changes += [Change(_WORDS.get(key, key), have.get(key), wanted.get(key)) for key in settings]
    ours, theirs = (one.get("Orchestrator", {}).get("Slurm", {}) for one in (wanted, have))
    if any(theirs.get(key, ours[key]) != ours[key] for key in ours):  # what AWS does not repeat is not compared
        changes.append(Change("orchestrator.slurm", theirs, ours))
        settings["Orchestrator"] = wanted["Orchestrator"]
    mine, there = _tags(wanted), _tags(have)
    tags = {key: value for key, value in mine.items() if there.get(key) != value}
    updated = bool(changes)  # by UpdateCluster, which has no tags
    changes += [Change(f"tags.{key}", there.get(key), value) for key, value in tags.items()]
    request |= {"InstanceGroups": groups} if groups else {}
    request |= settings
    request |= {"InstanceGroupsToDelete": deleted} if deleted else {}
    if impossible:
        return Changes(tuple(changes), tuple(impossible), tuple(deleted), None, {})
    return Changes(tuple(changes), (), tuple(deleted), request if updated else None, tags)


def carried(group: Object) -> Object:
    """What an update of a group has to repeat though the file is silent on it."""
    return {name: group[name] for name in (*_KEPT, *UNSAID) if name in group}


def _impossible(wanted: Object, have: Object) -> Iterator[str]:
    """What UpdateCluster has no field for, or refuses."""
    other = "make another cluster and move over"
    if _plain(wanted.get("VpcConfig")) != _plain(have.get("VpcConfig")):
        yield f"network: {_text(have.get('VpcConfig'))} to {_text(wanted.get('VpcConfig'))}; {other}"
    ours, theirs = wanted.get("Orchestrator", {}), have.get("Orchestrator", {})
    if set(ours) != set(theirs) or ours.get("Eks") != theirs.get("Eks"):
        yield f"orchestrator: {_text(theirs)} to {_text(ours)}; {other}"
    if "AccountingDatabase" in theirs.get("Slurm", {}) and "AccountingDatabase" not in ours.get("Slurm", {}):
        yield f"orchestrator.slurm.accounting: an update has no word for none; {other}"
    if "NodeProvisioningMode" in have and "NodeProvisioningMode" not in wanted:
        yield f"continuous: true to false; {other}"
    if {"AutoScaling"} <= have.keys() & wanted.keys() and have.get("ClusterRole") != wanted.get("ClusterRole"):
        yield "autoscaling.role: not while autoscaling is on; take autoscaling out, update, and put it in again"


def _other_keys(wanted: Object, have: Object) -> Iterator[str]:
    """Keys of volumes that differ. AWS says of none whether it describes it as it was given; unverified."""
    ours, theirs = _keys(wanted), _keys(have)
    for volume in sorted(ours.keys() & theirs.keys()):
        was, becomes = theirs[volume], ours[volume]
        if was != becomes and not str(was).endswith(f":key/{becomes}") and not str(becomes).endswith(f":key/{was}"):
            yield (
                f"volumes.kms_key of the {volume} volume: {_text(was)} to {_text(becomes)}; HyperPod keeps a volume's"
                " key: add a group with the other one, and take this group out"
            )


def _keys(group: Object) -> dict[str, str | None]:
    """Key by volume; None: AWS' own, which the root volume has where nothing is said of it."""
    found: dict[str, str | None] = {"root": None}
    for one in group.get("InstanceStorageConfigs", ()):
        if volume := one.get("EbsVolumeConfig"):
            found["root" if volume.get("RootVolume") else "second"] = volume.get("VolumeKmsKeyId")
    return found


def _settings(wanted: Object, have: Object) -> Iterator[tuple[str, Any]]:
    for key in ("NodeRecovery", "NodeProvisioningMode", "TieredStorageConfig", "AutoScaling", "ClusterRole"):
        ours, theirs = wanted.get(key), have.get(key)
        if key == "NodeRecovery":
            theirs = theirs or "Automatic"
        if key == "TieredStorageConfig" and ours and theirs:
            theirs = {name: theirs[name] for name in ours if name in theirs}
        if _plain(ours) == _plain(theirs):
            continue
        if ours is not None:
            yield key, ours
        elif key in _OFF:
            yield key, _OFF[key]


def _of_group(wanted: Object, have: Object) -> Iterator[Change]:
    """Differences of one group; paths in the file's words, below the group."""
    for key in dict.fromkeys((*wanted, *have)):
        ours, theirs = wanted.get(key), have.get(key)
        if key in UNSAID or (ours is None and key in _KEPT):
            continue
        if key == "ImageId" and ours == "default":
            continue  # HyperPod's own, and which that is, it says by the release
        if key == "SlurmConfig" and ours and "PartitionNames" not in ours:
            theirs = {"NodeType": (theirs or {}).get("NodeType")}
        if key == "CapacityRequirements" and ours is None and theirs == {"OnDemand": {}}:
            continue
        if _plain(ours, key) != _plain(theirs, key):
            yield Change(_WORDS.get(key, key), theirs, ours)


def _plain(value: Any, key: str = "") -> Any:
    """For comparison: without what says nothing, and lists whose order says nothing sorted."""
    if key == "InstanceRequirements":
        return value  # the order is that of preference
    if isinstance(value, Mapping):
        if key == "CapacityRequirements":
            return sorted(value)
        return {name: _plain(inner) for name, inner in value.items() if inner not in (None, False, [], {})}
    if isinstance(value, list | tuple):
        return sorted((_plain(inner) for inner in value), key=lambda one: json.dumps(one, sort_keys=True, default=str))
    return value


def _by_name(request: Object) -> dict[str, Object]:
    return {group["InstanceGroupName"]: group for group in request.get("InstanceGroups", ())}


def _tags(request: Object) -> dict[str, str]:
    tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
    return {key: value for key, value in tags.items() if not key.startswith((OWN_TAGS, "aws:"))}


def _brief(group: Object) -> str:
    kinds = group.get("InstanceType") or " or ".join(group.get("InstanceRequirements", {}).get("InstanceTypes", ()))
    return f"{group.get('InstanceCount')} x {kinds}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
