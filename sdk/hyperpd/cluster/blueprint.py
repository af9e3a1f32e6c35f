"""A cluster file in one account: complete groups, files to upload, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hyperpd.cluster import file
from hyperpd.cluster.lifecycle import Scripts, scripts
from hyperpd.cluster.names import OWNER_TAG, Names, Place
from hyperpd.cluster.spec import HOOKS, ClusterSpec, InstanceGroup, Lifecycle


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a cluster file is in one place."""

    spec: ClusterSpec
    place: Place
    groups: Mapping[str, InstanceGroup]
    scripts: Mapping[str, Scripts]  # by lifecycle source

    @property
    def names(self) -> Names:
        return Names(self.spec.name, self.place)

    @property
    def makes_role(self) -> bool:
        """Whether a group uses the role that is made."""
        return any(not (group.role or self.spec.role) for group in self.groups.values())

    def role_arn(self, group: InstanceGroup) -> str:
        """The role of a group's nodes."""
        return group.role or self.spec.role or self.names.role_arn

    @property
    def bucket(self) -> str:
        """Where lifecycle files go."""
        return self.spec.bucket or self.names.bucket

    @property
    def makes_bucket(self) -> bool:
        """Whether something is uploaded, and no bucket named for it."""
        return bool(self.scripts) and not self.spec.bucket

    @property
    def eks_arn(self) -> str:
        """ARN of the EKS cluster."""
        given = str(self.spec.orchestrator.eks)
        if given.startswith("arn:"):
            return given
        return f"arn:{self.place.partition}:eks:{self.place.region}:{self.place.account}:cluster/{given}"

    @property
    def accounting_secret(self) -> str | None:
        """ARN of the secret of Slurm's accounting database."""
        slurm = self.spec.orchestrator.slurm
        return slurm.accounting.secret if slurm and slurm.accounting else None

    @property
    def tags(self) -> dict[str, str]:
        """Of the cluster and of all that is made for it."""
        return {**self.spec.tags, OWNER_TAG: self.spec.name}

    def lifecycle(self, group: InstanceGroup) -> Lifecycle:
        """What runs on a group's nodes, its hook named."""
        found = group.lifecycle or self.spec.lifecycle
        if found.source == "none" or found.on_create or found.on_init_complete:
            return found
        hook = HOOKS[self.spec.orchestrator.kind]
        return found.model_copy(update={hook.removesuffix(".sh"): hook})

    @property
    def folders(self) -> list[tuple[str, str]]:
        """(bucket, folder in it) of all lifecycle files that nodes read; "": the whole bucket."""
        found: dict[tuple[str, str], None] = {}
        for lifecycle in map(self.lifecycle, self.groups.values()):
            if lifecycle.uploaded:
                found[self.bucket, self.names.prefix] = None
            elif lifecycle.source != "none":
                bucket, _, folder = lifecycle.source.removeprefix("s3://").partition("/")
                found[bucket, folder.strip("/")] = None
        return list(found)

    def folder(self, lifecycle: Lifecycle) -> str:
        """SourceS3Uri: of uploaded files by their digest, so that a node never reads half of two versions."""
        if not lifecycle.uploaded:
            return lifecycle.source
        return f"s3://{self.bucket}/{self.names.prefix}/{self.scripts[lifecycle.source].digest}/"


def blueprint(spec: ClusterSpec, place: Place) -> Blueprint:
    """`spec` in `place`. Raises RecipeError with every problem, CapacityError."""
    groups = file.check(spec)
    used = [group.lifecycle or spec.lifecycle for group in groups.values()]
    found = {one.source: scripts(one.source) for one in used if one.uploaded}
    return Blueprint(spec, place, groups, found)
