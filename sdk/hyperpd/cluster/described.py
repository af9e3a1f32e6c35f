"""DescribeCluster's answer in the words of CreateCluster: what a cluster would have to be asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hyperpd.cluster.requests import Object

# Kept by AWS under the same name and in the same form.
_SAME = (
    *("InstanceType", "ExecutionRole", "LifeCycleConfig", "ThreadsPerCore", "InstanceStorageConfigs"),
    *("OnStartDeepHealthChecks", "TrainingPlanArn", "OverrideVpcConfig", "ScheduledUpdateConfig"),
    *("CapacityRequirements", "NetworkInterface", "SlurmConfig"),
)
_CLUSTER_SAME = ("VpcConfig", "Orchestrator", "NodeRecovery", "NodeProvisioningMode", "TieredStorageConfig")
# A cluster file cannot say these; an update carries them over.
UNSAID = ("ScheduledUpdateConfig", "AutoPatchConfig")


def request(answer: Mapping[str, Any], tags: Iterable[Mapping[str, str]] = ()) -> Object:
    """CreateCluster's request for what is described; empty blocks and lists are left out."""
    found: Object = {
        "ClusterName": answer["ClusterName"],
        "InstanceGroups": [group(one) for one in answer.get("InstanceGroups", ())],
        **_same(answer, _CLUSTER_SAME),
    }
    if (scaling := answer.get("AutoScaling", {})).get("Mode") == "Enable":
        found["AutoScaling"] = _same(scaling, ("Mode", "AutoScalerType"))
        found |= _same(answer, ("ClusterRole",))
    if found.get("TieredStorageConfig", {}).get("Mode") == "Disable":
        del found["TieredStorageConfig"]
    if told := [{"Key": tag["Key"], "Value": tag["Value"]} for tag in tags]:
        found["Tags"] = told
    return found


def group(answer: Mapping[str, Any]) -> Object:
    """An entry of InstanceGroups, wanted values before current ones."""
    found: Object = {
        "InstanceGroupName": answer["InstanceGroupName"],
        "InstanceCount": answer.get("TargetCount", answer.get("CurrentCount", 0)),
        **_same(answer, _SAME),
    }
    if answer.get("MinCount"):
        found["MinInstanceCount"] = answer["MinCount"]
    if types := answer.get("InstanceRequirements", {}).get("DesiredInstanceTypes"):
        found["InstanceRequirements"] = {"InstanceTypes": list(types)}
        found.pop("InstanceType", None)
    kubernetes = answer.get("KubernetesConfig", {})
    labels, taints = kubernetes.get("DesiredLabels"), kubernetes.get("DesiredTaints")
    if labels or taints:
        found["KubernetesConfig"] = {**({"Labels": labels} if labels else {}), **({"Taints": taints} if taints else {})}
    if release := answer.get("DesiredImageReleaseVersion"):
        found["ImageReleaseVersion"] = release
    elif image := answer.get("DesiredImageId"):  # one's own: HyperPod's have a release. Unverified on a live account
        found["ImageId"] = image
    if patch := answer.get("AutoPatchConfig"):
        # The schedule is described as two and asked for as one.
        kept = {name: value for name, value in patch.items() if not name.endswith("PatchSchedule")}
        when = patch.get("DesiredPatchSchedule", patch.get("CurrentPatchSchedule"))
        found["AutoPatchConfig"] = kept | ({"PatchSchedule": when} if when else {})
    return found


def _same(answer: Mapping[str, Any], names: Iterable[str]) -> Object:
    return {name: answer[name] for name in names if answer.get(name) not in (None, [], {})}
