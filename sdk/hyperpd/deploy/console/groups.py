"""Instance groups: which nodes, how many, and what is run on them as they start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hyperpd.cluster.groups import THREADS_PER_CORE, WORKERLESS, machines
from hyperpd.cluster.spec import HOOKS
from hyperpd.deploy.console.site import LIFECYCLE, Object, Site, chosen, ref, sub


def nodes(site: Site) -> Iterator[tuple[str, str, int]]:
    """(group, instance type, nodes), workers first."""
    options = site.options
    for name, kind, count in machines(site.recipe, options.orchestrator, options.gateway_instance_type):
        if kind and count:  # else refused before: refusals.py
            yield name, kind, count


def groups(site: Site, role: Any, folder: Any, plan: Object | None) -> list[Object]:
    """SageMaker's InstanceGroups.

    role: the execution role's ARN; folder: SourceS3Uri; plan: what workers get beside that
    (TrainingPlanArn). Texts, or a template's functions.
    """
    made = []
    for name, instance_type, count in nodes(site):
        group: Object = {
            "InstanceGroupName": name,
            "InstanceType": instance_type,
            "InstanceCount": count,
            "ExecutionRole": role,
            "ThreadsPerCore": THREADS_PER_CORE,
            "LifeCycleConfig": {"SourceS3Uri": folder, **_hook(site)},
        }
        if name not in WORKERLESS:
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
    return {"OnCreate": HOOKS["eks"]} if site.eks else {"OnInitComplete": HOOKS["slurm"]}


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
