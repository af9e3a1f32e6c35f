"""A cluster file in one account: complete groups, the files to upload, and every name that follows from these.

The names are a function of cluster, account and Region alone, so a run that was cut off finds what it made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from hyperpd.cluster import file
from hyperpd.cluster.lifecycle import Scripts, scripts
from hyperpd.cluster.spec import OWN_TAGS, ClusterSpec, InstanceGroup, Lifecycle

OWNER_TAG = f"{OWN_TAGS}cluster"  # on all that hyperpd makes: the cluster it was made for
_HOOKS = {"eks": "on_create.sh", "slurm": "on_init_complete.sh"}


@dataclass(frozen=True, slots=True)
class Place:
    """An account and a Region."""

    account: str
    region: str

    @property
    def partition(self) -> str:
        """The first word of an ARN after `arn`."""
        return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(self.region.rsplit("-", 2)[0], "aws")


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a cluster file is in one place."""

    spec: ClusterSpec
    place: Place
    groups: Mapping[str, InstanceGroup]
    scripts: Mapping[str, Scripts]  # by lifecycle source

    @property
    def role_name(self) -> str:
        """Of the role that is made where a group names none; names of roles have 64 characters at most."""
        plain = f"hyperpd-{self.spec.name}-{self.place.region}"
        return plain if len(plain) <= 64 else f"{plain[:55]}-{self._digest}"

    @property
    def makes_role(self) -> bool:
        """Whether a group uses it."""
        return any(not (group.role or self.spec.role) for group in self.groups.values())

    def role_arn(self, group: InstanceGroup) -> str:
        """The role of a group's nodes."""
        made = f"arn:{self.place.partition}:iam::{self.place.account}:role/{self.role_name}"
        return group.role or self.spec.role or made

    @property
    def bucket(self) -> str:
        """Where lifecycle files go; the made one's name is nobody else's, by account and digest."""
        made = f"sagemaker-hyperpd-{self.place.account}-{self.place.region}-{self._digest}"
        return self.spec.bucket or made

    @property
    def makes_bucket(self) -> bool:
        """Whether something is uploaded, and no bucket named for it."""
        return bool(self.scripts) and not self.spec.bucket

    @property
    def prefix(self) -> str:
        """Where in the bucket all lifecycle files of this cluster are, older ones too."""
        return f"hyperpd/{self.spec.name}/lifecycle"

    @property
    def eks_arn(self) -> str:
        """ARN of the EKS cluster."""
        given = str(self.spec.orchestrator.eks)
        if given.startswith("arn:"):
            return given
        return f"arn:{self.place.partition}:eks:{self.place.region}:{self.place.account}:cluster/{given}"

    @property
    def tags(self) -> dict[str, str]:
        """Of the cluster and of all that is made for it."""
        return {**self.spec.tags, OWNER_TAG: self.spec.name}

    def lifecycle(self, group: InstanceGroup) -> Lifecycle:
        """What runs on a group's nodes, its hook named."""
        found = group.lifecycle or self.spec.lifecycle
        if found.source == "none" or found.on_create or found.on_init_complete:
            return found
        hook = _HOOKS[self.spec.orchestrator.kind]
        return found.model_copy(update={hook.removesuffix(".sh"): hook})

    def folder(self, lifecycle: Lifecycle) -> str:
        """SourceS3Uri: of uploaded files by their digest, so that a node never reads half of two versions."""
        if not lifecycle.uploaded:
            return lifecycle.source
        return f"s3://{self.bucket}/{self.prefix}/{self.scripts[lifecycle.source].digest}/"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(f"{self.place.region}/{self.spec.name}".encode()).hexdigest()[:8]


def blueprint(spec: ClusterSpec, place: Place) -> Blueprint:
    """`spec` in `place`. Raises RecipeError with every problem, CapacityError."""
    groups = file.check(spec)
    sources = {
        (group.lifecycle or spec.lifecycle).source: group.lifecycle or spec.lifecycle for group in groups.values()
    }
    found = {source: scripts(source) for source, lifecycle in sources.items() if lifecycle.uploaded}
    return Blueprint(spec, place, groups, found)
