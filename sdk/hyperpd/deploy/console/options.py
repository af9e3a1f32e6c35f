"""What the recipe does not say: where in which account."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hyperpd.cluster.groups import GATEWAY_TYPE, VOLUME_GB
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX, Label
from hyperpd.recipe import Block


def _id(kind: str) -> str:
    """Pattern of EC2's IDs, as in vpc-0123456789abcdef0."""
    return rf"^{kind}-[0-9a-f]{{8,17}}$"


class Options(Block):
    """Options of the target console. What a stack asks on its own page may be left out; it is prefilled with these."""

    region: str | None = Field(
        None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", description="Region, as in us-east-1; needed"
    )
    bucket: str | None = Field(
        None,
        pattern=r"^sagemaker-[a-z0-9][-a-z0-9]{1,51}[a-z0-9]$",
        description="Bucket for lifecycle scripts, templates and the recipe; begins with sagemaker-; needed",
    )
    image: str | None = Field(
        None,
        pattern=r"^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/\S+$",
        max_length=255,
        description="Container image in ECR, instead of the recipe's; needed where the recipe names none. With a digest"
        " it is there; with a tag, as in …/hyperpd:0.1.0, a stack builds it",
    )
    efa_sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Where a stack builds the image: SHA-256 of the EFA installer that container/Dockerfile downloads",
    )
    orchestrator: Literal["eks", "slurm"] = Field("eks", description="What runs on the cluster: eks or slurm")
    stack_name: str = Field(
        "hyperpd",
        pattern=r"^[a-zA-Z][a-zA-Z0-9]*(-[a-zA-Z0-9]+)*$",
        max_length=32,
        description="Name of the cluster and its stack; the other stacks' names begin with it",
    )
    prefix: str = Field(
        "hyperpd",
        pattern=r"^[A-Za-z0-9][-A-Za-z0-9_]*(/[-A-Za-z0-9_]+)*$",
        max_length=128,
        description="Folder of the bucket that everything is uploaded to",
    )
    account: str | None = Field(
        None,
        pattern=r"^[0-9]{12}$",
        description="Account that the stacks are made in, for the instance groups to paste; default: the image's",
    )
    instance_type: str | None = Field(
        None, pattern=r"^ml\.\S+$", description="Nodes of roles for which the recipe names none"
    )
    gateway_instance_type: str = Field(
        GATEWAY_TYPE,
        pattern=r"^ml\.[a-z0-9]+\.\S+$",
        description="Nodes of the gateway, and of the controller with Slurm",
    )
    volume_gb: int = Field(
        VOLUME_GB, ge=1, le=16384, description="EBS volume of a worker's node, in GB, for images and what has no NVMe"
    )
    training_plan_arn: str | None = Field(
        None,
        pattern=r"^arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:training-plan/\S+$",
        description="Training plan with the capacity of the workers; default: on demand",
    )
    vpc_id: str | None = Field(
        None,
        pattern=_id("vpc"),
        description="VPC; with eks that of the EKS cluster, with slurm made if empty",
    )
    subnet_id: str | None = Field(
        None,
        pattern=_id("subnet"),
        description="Private subnet of it, in the capacity's availability zone",
    )
    availability_zone: str | None = Field(
        None,
        pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$",
        description="slurm: availability zone of the VPC that is made; that of the capacity",
    )
    route_table_id: str | None = Field(
        None,
        pattern=_id("rtb"),
        description="Route table of subnet_id that gets the S3 gateway endpoint; leave out where it has one",
    )
    s3_prefix_list_id: str | None = Field(
        None, pattern=_id("pl"), description="Managed prefix list of S3 in the Region: where nodes may go"
    )
    extra_security_group_id: str | None = Field(
        None,
        pattern=_id("sg"),
        description="Security group of yours with what nodes reach beyond each other and S3: a proxy, a file system",
    )
    eks_cluster_arn: str | None = Field(
        None,
        pattern=r"^arn:aws[a-z-]*:eks:[a-z0-9-]+:[0-9]{12}:cluster/[0-9A-Za-z][A-Za-z0-9_-]*$",
        description="eks: ARN of the EKS cluster",
    )
    eks_security_group_id: str | None = Field(
        None, pattern=_id("sg"), description="eks: the EKS cluster's own security group"
    )
    leader_worker_set: bool = Field(
        False,
        description="eks: the cluster has LeaderWorkerSet's controller, which workers over several nodes need and no"
        " click installs",
    )
    namespace: Label = Field(
        "hyperpd",
        max_length=63 - len(ENGINES_SUFFIX),
        description="eks: namespace of the gateway, as for the target kubernetes",
    )


def pattern(option: str, *, empty: bool = False) -> str:
    """An option's pattern, for the field of a stack's page that it fills in; empty: or nothing."""
    (found,) = [one.pattern for one in Options.model_fields[option].metadata if hasattr(one, "pattern")]
    return f"^$|{found}" if empty else str(found)
