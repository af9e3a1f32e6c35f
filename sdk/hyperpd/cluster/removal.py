"""Deleting: the cluster, then what was made for it, and nothing that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyperpd.cluster import reader, resources
from hyperpd.cluster.aws import MISSING, Aws
from hyperpd.cluster.names import Names
from hyperpd.cluster.progress import Step, Tell
from hyperpd.cluster.upload import objects
from hyperpd.cluster.watch import Wait
from hyperpd.errors import CloudError


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes. `kept` is for people: what the cluster used and somebody else made."""

    cluster: bool
    nodes: int
    role: str  # "" where there is none of ours
    bucket: str
    files: Mapping[str, int]  # bucket → lifecycle files of this cluster in it
    kept: tuple[str, ...]

    def lines(self) -> list[str]:
        found = [f"the cluster, with {self.nodes} nodes and what is on their disks"] if self.cluster else []
        found += [f"the role {self.role}"] if self.role else []
        found += [f"{count} lifecycle files in s3://{bucket}" for bucket, count in self.files.items() if count]
        return found + ([f"the bucket {self.bucket}, if nobody else has files in it"] if self.bucket else [])

    def __bool__(self) -> bool:
        return bool(self.lines())


def find(aws: Aws, names: Names, given: str = "") -> Removal:
    """What delete would remove, and keep. `given`: the bucket that the cluster's file names; without it a bucket that
    is not ours is known from the cluster alone, while there is one. Raises CloudError."""
    answer = reader.described(aws, names.cluster) or {}
    role = resources.role(aws, names)
    made = role is not None and resources.owned(role, names.cluster)
    bucket = names.bucket if resources.owned_bucket(aws, names) else ""
    folders = _folders(answer)
    # A bucket that somebody gave has our files in our folder.
    own = [one for one in (bucket, given) if one]
    buckets = dict.fromkeys([*own, *_own_folders(folders, names)])
    kept = [f"role {one}" for one in _roles(answer) if not (made and one == names.role_arn)]
    kept += [f"files in {one}" for one in folders if f"/{names.prefix}/" not in one]
    kept += [f"bucket {one}" for one in buckets if one != bucket]
    network = answer.get("VpcConfig", {})
    kept += [f"{one}" for one in (*network.get("Subnets", ()), *network.get("SecurityGroupIds", ()))]
    if eks := answer.get("Orchestrator", {}).get("Eks", {}).get("ClusterArn"):
        kept.append(f"EKS cluster {eks}")
    return Removal(
        cluster=bool(answer),
        nodes=sum(group.get("CurrentCount", 0) for group in answer.get("InstanceGroups", ())),
        role=names.role if made else "",
        bucket=bucket,
        files={one: _count(aws, one, names) for one in buckets},
        kept=tuple(kept),
    )


def remove(aws: Aws, names: Names, tell: Tell, *, given: str = "", timeout_s: float, poll_s: float) -> None:
    """Remove what find finds. The role stays until the nodes are gone, which use it. Raises NotReady, CloudError."""
    found = find(aws, names, given)
    if found.cluster:
        _delete_cluster(aws, names, tell, timeout_s, poll_s)
    for bucket, count in found.files.items():
        if count:
            resources.remove_files(aws, bucket, names)
            tell(Step(f"s3://{bucket}/{names.prefix}: {count} files removed"))
    if found.cluster:
        Wait(aws, names, tell, timeout_s, poll_s).gone()
        tell(Step(f"cluster {names.cluster}: deleted"))
    if found.bucket:
        gone = resources.remove_bucket(aws, names)
        tell(Step(f"bucket {found.bucket}: {'removed' if gone else 'kept, since there are files of others in it'}"))
    if found.role:
        resources.remove_role(aws, names)
        tell(Step(f"role {found.role}: removed"))


def _delete_cluster(aws: Aws, names: Names, tell: Tell, timeout_s: float, poll_s: float) -> None:
    while True:
        try:
            aws.call("sagemaker", "delete_cluster", ClusterName=names.cluster)
        except CloudError as error:
            if error.code in ("ResourceNotFound", "ResourceNotFoundException"):
                return
            status = reader.status(aws, names.cluster)
            if error.code != "ConflictException" or status is None:
                raise
            if status.status == "Deleting":
                tell(Step(f"cluster {names.cluster}: being deleted already"))
                return
            tell(Step(f"AWS does not delete a cluster that is {status.status}; waiting until it is not"))
            if Wait(aws, names, tell, timeout_s, poll_s).left(status.status) is None:
                return
            continue
        tell(Step(f"cluster {names.cluster}: deletion sent"))
        return


def _count(aws: Aws, bucket: str, names: Names) -> int:
    """Our files in a bucket; none where it is gone, too."""
    try:
        return len(objects(aws, bucket, names.prefix + "/"))
    except CloudError as error:
        if error.code in MISSING:
            return 0
        raise


def _folders(answer: Mapping[str, Any]) -> list[str]:
    groups = answer.get("InstanceGroups", ())
    return list(dict.fromkeys(uri for one in groups if (uri := one.get("LifeCycleConfig", {}).get("SourceS3Uri"))))


def _own_folders(folders: list[str], names: Names) -> list[str]:
    """Buckets of the folders that are this cluster's."""
    found = [uri.removeprefix("s3://").partition("/") for uri in folders]
    return [bucket for bucket, _, key in found if key.startswith(f"{names.prefix}/")]


def _roles(answer: Mapping[str, Any]) -> list[str]:
    groups = answer.get("InstanceGroups", ())
    return list(dict.fromkeys(role for one in groups if (role := one.get("ExecutionRole"))))
