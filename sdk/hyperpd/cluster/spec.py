"""What the author writes of a cluster: ClusterSpec and its blocks, strict like a recipe.

Names and bounds are those of SageMaker's CreateCluster (botocore 1.44.8), which the tests hold them to. What blocks
demand of each other once groups are complete, rules.py says; file.py loads and writes the file.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from hyperpd.recipe import Block

_NAME = r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*$"
_ROLE = r"^arn:aws[a-z-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@/_-]+$"
_KEY = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_VALUE = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_TYPE = r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$"
_SUBNET = r"^subnet-[0-9a-f]{8,17}$"
_SECURITY_GROUP = r"^sg-[0-9a-f]{8,17}$"
_TAG = r"^[\w\s.:/=+@-]*$"
HOOKS = {"eks": "on_create.sh", "slurm": "on_init_complete.sh"}  # what runs where a file names nothing
OWN_TAGS = "hyperpd:"  # what hyperpd tags begins with this, and what others tag does not

SPELLED = {  # pattern → an example, for who did not write it so
    _NAME: "pd-1: letters, digits and hyphens between them",
    _ROLE: "arn:aws:iam::111122223333:role/nodes, its ARN",
    _TYPE: "ml.p5en.48xlarge",
    _SUBNET: "subnet-0123456789abcdef0",
    _SECURITY_GROUP: "sg-0123456789abcdef0",
    _KEY: "example.com/kind: Kubernetes takes letters, digits and - _ . between them, and a domain before a slash",
    _VALUE: "a-1: Kubernetes takes letters, digits and - _ . between them; quote numbers",
    _TAG: "team: letters, digits, blanks and _ . : / = + - @",
}

GroupName = Annotated[str, StringConstraints(pattern=_NAME, max_length=63)]
MachineType = Annotated[str, StringConstraints(pattern=_TYPE)]
RoleArn = Annotated[str, StringConstraints(pattern=_ROLE, max_length=2048)]
Subnet = Annotated[str, StringConstraints(pattern=_SUBNET)]
SecurityGroup = Annotated[str, StringConstraints(pattern=_SECURITY_GROUP)]
LabelKey = Annotated[str, StringConstraints(pattern=_KEY, max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=_VALUE, max_length=63)]
TagKey = Annotated[str, StringConstraints(pattern=_TAG, min_length=1, max_length=128)]
TagValue = Annotated[str, StringConstraints(pattern=_TAG, max_length=256)]
Dns = Annotated[str, StringConstraints(pattern=r"^(fs|fc)i?-[0-9a-f]{8,}\..{4,253}$", min_length=16, max_length=275)]
MountPath = Annotated[str, StringConstraints(pattern=r"^/[a-zA-Z0-9._/-]+$", max_length=1024)]
FileName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+(/[\w.-]+)*$", max_length=128)]


class Network(Block):
    """Subnets and security groups of the nodes."""

    subnets: tuple[Subnet, ...] = Field((), max_length=16, description="Subnets, in the zones of the capacity")
    security_groups: tuple[SecurityGroup, ...] = Field(
        (), max_length=5, description="Security groups; one has to be open to itself, both ways, for EFA"
    )


class Lifecycle(Block):
    """What runs on a node as it starts."""

    source: str = Field(
        "hyperpd",
        description="hyperpd: the scripts it ships, uploaded; a folder of yours, uploaded; s3://sagemaker-…/…: there"
        " already; none: nothing runs",
    )
    on_create: FileName | None = Field(None, description="Runs for the whole set-up; default with eks: on_create.sh")
    on_init_complete: FileName | None = Field(
        None, description="Runs after the image set itself up; default with slurm: on_init_complete.sh"
    )

    @property
    def uploaded(self) -> bool:
        """Whether its files come from this machine."""
        return self.source != "none" and not self.source.startswith("s3:")

    @model_validator(mode="after")
    def _hooks(self) -> Lifecycle:
        found = []
        hooks = self.on_create or self.on_init_complete
        if self.source == "none" and hooks:
            found.append("source none runs nothing; remove on_create and on_init_complete")
        if self.source.startswith("s3:"):
            if not re.fullmatch(r"s3://[a-z0-9][-a-z0-9.]+(/[^\s]*)?", self.source):
                found.append(f"source: {self.source} is no prefix of a bucket; give s3://sagemaker-…/…")
            if not hooks:
                found.append("source in S3 needs on_create or on_init_complete, the file that is run")
        if found:
            raise ValueError("; ".join(found))
        return self


class Volume(Block):
    """An EBS volume of each node: a second one, or how the root volume is encrypted."""

    size_gb: int | None = Field(None, ge=1, le=16384, description="Size in GB; not for the root volume")
    kms_key: str | None = Field(
        None, pattern=r"^[a-zA-Z0-9:/_-]+$", max_length=2048, description="KMS key that encrypts it; default: AWS' own"
    )
    root: bool = Field(False, description="The root volume: kms_key alone")

    @model_validator(mode="after")
    def _one_kind(self) -> Volume:
        if self.root and (self.size_gb or not self.kms_key):
            raise ValueError("the root volume takes kms_key alone; its size is AWS' choice")
        if not self.root and not self.size_gb:
            raise ValueError("size_gb: missing; add it")
        return self


class Lustre(Block):
    """An FSx for Lustre file system, mounted on each node."""

    dns: Dns = Field(description="DNS name, as in fs-0123456789abcdef0.fsx.us-east-1.amazonaws.com")
    mount_name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,8}$", description="Lustre's mount name")
    mount_path: MountPath | None = Field(None, description="Where it is mounted")


class OpenZfs(Block):
    """An FSx for OpenZFS file system, mounted on each node."""

    dns: Dns = Field(description="DNS name, as in fs-0123456789abcdef0.fsx.us-east-1.amazonaws.com")
    mount_path: MountPath | None = Field(None, description="Where it is mounted")


class Taint(Block):
    """A Kubernetes taint."""

    key: LabelKey = Field(description="Key")
    value: LabelValue | None = Field(None, description="Value")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(description="Kubernetes' word for it")


class SlurmNode(Block):
    """What a group's nodes are to Slurm."""

    node: Literal["controller", "login", "compute"] = Field(description="Kind of node")
    partition: str | None = Field(
        None, pattern=_NAME, max_length=1024, description="Partition of compute nodes; default: Slurm's"
    )


class InstanceGroup(Block):
    """Nodes of one kind. Of a group the recipe gives, only what differs is written."""

    instance_type: MachineType | None = Field(None, description="Type, as in ml.p5en.48xlarge")
    instance_types: tuple[MachineType, ...] = Field(
        (), max_length=20, description="Instead: any of these types, the first that has capacity"
    )
    count: int | None = Field(None, ge=0, le=6758, description="Nodes")
    min_count: int | None = Field(
        None, ge=0, le=6758, description="Nodes with which the group is in service; not there in 3 h: rolled back"
    )
    role: RoleArn | None = Field(None, description="Role of the nodes; default: the cluster's")
    lifecycle: Lifecycle | None = Field(None, description="What runs on a node as it starts; default: the cluster's")
    threads_per_core: Literal[1, 2] | None = Field(None, description="1: no hyper-threads; default: the type's own")
    interface: Literal["efa", "efa-only"] | None = Field(
        None, description="Network interfaces; efa-only: devices beyond the first carry EFA and no IP"
    )
    training_plan: str | None = Field(
        None,
        pattern=r"^arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:[0-9]{12}:training-plan/\S+$",
        max_length=2048,
        description="ARN of the training plan that has the capacity; default: on demand",
    )
    capacity: Literal["on_demand", "spot"] | None = Field(None, description="Capacity to take; default: on demand")
    network: Network | None = Field(None, description="Own subnets, which pin the group to their zones; own groups")
    volumes: tuple[Volume, ...] = Field((), max_length=4, description="EBS volumes: one second, one root")
    lustre: tuple[Lustre, ...] = Field((), max_length=4, description="FSx for Lustre file systems")
    openzfs: tuple[OpenZfs, ...] = Field((), max_length=4, description="FSx for OpenZFS file systems")
    health_checks: tuple[Literal["instance_stress", "instance_connectivity", "multi_node_training_validation"], ...] = (
        Field((), max_length=3, description="Deep health checks before a node is used; they take hours")
    )
    labels: dict[LabelKey, LabelValue] = Field({}, max_length=50, description="eks: labels of the nodes")
    taints: tuple[Taint, ...] = Field((), max_length=50, description="eks: taints of the nodes")
    slurm: SlurmNode | None = Field(None, description="slurm: what the nodes are")
    image: str | None = Field(None, pattern=r"^(ami-[0-9a-fA-F]{8,17}|default)$", description="AMI, or default")
    image_release: str | None = Field(
        None, pattern=r"^\d+\.\d+\.\d+$", max_length=64, description="Release of HyperPod's own AMI, as in 1.2.3"
    )

    @model_validator(mode="after")
    def _together(self) -> InstanceGroup:
        found = []
        if self.instance_type and self.instance_types:
            found.append("give instance_type or instance_types, not both")
        if self.min_count is not None and self.count is not None and self.min_count > self.count:
            found.append(f"min_count ({self.min_count}) is above count ({self.count})")
        if self.training_plan and self.capacity:
            found.append(f"training_plan is the capacity; remove capacity: {self.capacity}")
        if self.image and self.image != "default" and self.image_release:
            found.append(f"image_release is of HyperPod's own image; remove it, or image: {self.image}")
        for root, name in ((False, "second"), (True, "root")):
            if sum(volume.root is root for volume in self.volumes) > 1:
                found.append(f"volumes: a node has one {name} volume")
        if len(self.volumes) + len(self.lustre) + len(self.openzfs) > 4:
            found.append("volumes, lustre and openzfs: HyperPod takes four of them together")
        for name in ("health_checks", "instance_types"):
            given = getattr(self, name)
            if twice := sorted({one for one in given if given.count(one) > 1}):
                found.append(f"{name}: {', '.join(twice)} is named twice")
        if self.slurm and self.slurm.partition and self.slurm.node != "compute":
            found.append(f"slurm.partition goes with node: compute, not {self.slurm.node}")
        if found:
            raise ValueError("; ".join(found))
        return self


class Accounting(Block):
    """An external database for Slurm's accounting; the cluster has to be continuous."""

    endpoint: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9.-]*$", max_length=255, description="Host name")
    secret: str = Field(
        pattern=r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]*:[0-9]{12}:secret:.+$",
        max_length=2048,
        description="ARN of the secret with its user and password",
    )
    port: int | None = Field(None, ge=1, le=65535, description="Port; default: the database's")
    database: str | None = Field(None, pattern=r"^[a-zA-Z0-9$_]+$", max_length=64, description="Database's name")


class Slurm(Block):
    """Slurm, which the cluster runs itself."""

    strategy: Literal["managed", "overwrite", "merge"] | None = Field(
        None, description="Who owns slurm.conf's partitions; default: managed, where groups have slurm.node"
    )
    accounting: Accounting | None = Field(None, description="External accounting database")


class Orchestrator(Block):
    """What runs work on the nodes: exactly one."""

    eks: str | None = Field(
        None,
        pattern=r"^(arn:aws[a-z-]*:eks:[a-z0-9-]+:[0-9]{12}:cluster/)?[0-9A-Za-z][A-Za-z0-9_-]{0,99}$",
        description="Name or ARN of the EKS cluster",
    )
    slurm: Slurm | None = Field(None, description="Slurm: {} is enough")

    @model_validator(mode="after")
    def _one(self) -> Orchestrator:
        if self.eks is None and self.slurm is None and "slurm" in self.model_fields_set:
            raise ValueError("slurm is empty; write slurm: {}")
        if (self.eks is None) == (self.slurm is None):
            raise ValueError("give exactly one of eks and slurm")
        return self

    @property
    def kind(self) -> Literal["eks", "slurm"]:
        """Which one."""
        return "eks" if self.eks else "slurm"


class TieredStorage(Block):
    """HyperPod's managed tiers of memory, for checkpoints and KV cache."""

    memory_percent: int | None = Field(None, ge=0, le=100, description="Share of a node's memory; default: AWS' own")


class ClusterAutoscaling(Block):
    """Nodes that come and go with pods, by Karpenter; the cluster has to be continuous."""

    role: RoleArn = Field(description="Role with sagemaker:BatchAddClusterNodes and sagemaker:BatchDeleteClusterNodes")


class ClusterSpec(Block):
    """Where to serve: one HyperPod cluster in one account and Region."""

    version: Literal[1] = Field(description="Version of this format")
    name: str = Field(pattern=_NAME, max_length=63, description="Name of the cluster")
    region: str | None = Field(
        None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", description="Region; default: that of your AWS configuration"
    )
    orchestrator: Orchestrator
    recipe: str | None = Field(None, description="Recipe (file, or shipped one by name) that instance groups follow")
    groups: dict[GroupName, InstanceGroup] = Field(
        {}, description="Instance groups by name: more than the recipe's, or what differs from these"
    )
    network: Network = Field(Network(), description="Subnets and security groups; needed with eks")
    role: RoleArn | None = Field(None, description="Role of the nodes; default: one is made, as narrow as may be")
    bucket: str | None = Field(
        None,
        pattern=r"^sagemaker-[a-z0-9][-a-z0-9.]{1,51}[a-z0-9]$",
        description="Bucket for lifecycle files, its name begins with sagemaker-; default: one is made",
    )
    lifecycle: Lifecycle = Field(Lifecycle(), description="What runs on a node as it starts")
    node_recovery: Literal["automatic", "none"] = Field(
        "automatic", description="automatic: HyperPod reboots or replaces nodes that fail"
    )
    continuous: bool = Field(
        False, description="Nodes are provisioned one by one, failures retried, changes made side by side"
    )
    tiered_storage: TieredStorage | None = Field(None, description="eks: managed tiered storage; {} is enough")
    autoscaling: ClusterAutoscaling | None = Field(None, description="eks: Karpenter")
    tags: dict[TagKey, TagValue] = Field({}, max_length=49, description="Tags of the cluster and of what is made")

    @model_validator(mode="after")
    def _tags(self) -> ClusterSpec:
        if taken := sorted(key for key in self.tags if key.lower().startswith(("aws:", OWN_TAGS))):
            raise ValueError(f"tags: {', '.join(taken)} begins with a word that is taken; rename it")
        return self


def schema() -> dict[str, Any]:
    """The JSON Schema of a cluster file: what editors complete and explain by. It cannot say what blocks demand of
    each other; file.load does."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ClusterSpec.model_json_schema()}
