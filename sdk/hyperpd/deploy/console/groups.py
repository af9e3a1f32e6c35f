"""Instance groups: which nodes, how many, and what is run on them as they start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hyperpd.deploy.console.site import LIFECYCLE, Object, Site, chosen, ref, sub

# Two threads a core: hyperpd counts CPUs as EC2 does, so with one a pod's share would not fit its node.
THREADS_PER_CORE = 2
GATEWAYS_MAX = 2  # one that ends leaves one; more would relay no more than a large one


def nodes(site: Site) -> Iterator[tuple[str, str, int]]:
    """(group, instance type, nodes), workers first."""
    parts = site.capacity.roles
    if site.local:
        yield "node", parts[0].instance.name, 1
    else:
        for part in parts:
            yield part.role, part.instance.name, part.nodes
        yield "gateway", site.options.gateway_instance_type, min(GATEWAYS_MAX, site.recipe.gateway.replicas)
    if not site.eks:
        yield "controller", site.options.gateway_instance_type, 1


def groups(site: Site, role: Any, folder: Any, plan: Object | None) -> list[Object]:
    """SageMaker's InstanceGroups.

    role: the execution role's ARN; folder: SourceS3Uri; plan: what workers get beside that
    (TrainingPlanArn). Texts, or a template's functions.
    """
    made = []
    for name, instance_type, count in nodes(site):
        worker = name not in ("gateway", "controller")
        group: Object = {
            "InstanceGroupName": name,
            "InstanceType": instance_type,
            "InstanceCount": count,
            "ExecutionRole": role,
            "ThreadsPerCore": THREADS_PER_CORE,
            "LifeCycleConfig": {"SourceS3Uri": folder, **_hook(site)},
        }
        if worker:
            group["InstanceStorageConfigs"] = [{"EbsVolumeConfig": {"VolumeSizeInGB": site.options.volume_gb}}]
            group |= plan or {}
        if name == "controller":
            group["SlurmConfig"] = {"NodeType": "Controller"}
        elif not site.eks:
            group["SlurmConfig"] = {"NodeType": "Compute", "PartitionNames": [name]}
        made.append(group)
    return made


def _hook(site: Site) -> Object:
    """EKS runs OnCreate. With SlurmConfig in each group the image sets Slurm up itself where OnCreate is left out."""
    return {"OnCreate": "on_create.sh"} if site.eks else {"OnInitComplete": "on_init_complete.sh"}


def templated(site: Site) -> list[Object]:
    """InstanceGroups of the cluster's template."""
    folder = sub(f"s3://${{Bucket}}/${{Prefix}}/{LIFECYCLE}/")
    plan = {"TrainingPlanArn": chosen("HasTrainingPlan", ref("TrainingPlanArn"), ref("AWS::NoValue"))}
    return groups(site, {"Fn::GetAtt": ["ExecutionRole", "Arn"]}, folder, plan)


def pasted(site: Site) -> list[Object]:
    """InstanceGroups as values, for a page or a request."""
    options = site.options
    plan = {"TrainingPlanArn": options.training_plan_arn} if options.training_plan_arn else None
    return groups(site, role_arn(site), f"s3://{options.bucket}/{site.key(LIFECYCLE)}/", plan)


def role_arn(site: Site) -> str:
    """The execution role that the cluster's stack makes."""
    return f"arn:{site.partition}:iam::{site.account}:role/{role_name(site)}"


def role_name(site: Site) -> str:
    """Its name, by a rule: known before the stack is."""
    return f"{site.stack()}-{site.options.region}-execution"
