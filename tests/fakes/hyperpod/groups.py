"""An instance group: what was asked for, what it has come to, and what DescribeCluster says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.fakes.hyperpod.nodes import current_and_desired, image_status

Body = dict[str, Any]
# Repeated by DescribeCluster as they were sent.
_REPEATED = (
    "InstanceType",
    "LifeCycleConfig",
    "ExecutionRole",
    "ThreadsPerCore",
    "InstanceStorageConfigs",
    "OnStartDeepHealthChecks",
    "TrainingPlanArn",
    "OverrideVpcConfig",
    "ScheduledUpdateConfig",
    "CapacityRequirements",
    "SlurmConfig",
    "NetworkInterface",
)


@dataclass(slots=True)
class Group:
    """`spec` is an InstanceGroups entry as it was sent; `served` once it was InService."""

    spec: Body
    version: str  # of the image that runs
    status: str = "Creating"
    desired_version: str = ""
    served: bool = False
    before: Body | None = None  # what a rollback goes back to; None: the group did not exist
    update_status: str = ""
    update_config: Body | None = None
    operation: str = ""  # the one that scales it

    @property
    def name(self) -> str:
        return str(self.spec["InstanceGroupName"])

    @property
    def target(self) -> int:
        return int(self.spec["InstanceCount"])

    @property
    def minimum(self) -> int:
        return int(self.spec.get("MinInstanceCount", 0))

    @property
    def types(self) -> list[str]:
        if "InstanceType" in self.spec:
            return [self.spec["InstanceType"]]
        return list(self.spec["InstanceRequirements"]["InstanceTypes"])

    @property
    def controller(self) -> bool:
        return bool(self.spec.get("SlurmConfig", {}).get("NodeType") == "Controller")

    def details(self, running: list[str], latest: str) -> Body:
        """`running`: the instance types of the nodes it has."""
        body: Body = {
            "InstanceGroupName": self.name,
            "CurrentCount": len(running),
            "TargetCount": self.target,
            "Status": self.status,
            "CurrentImageReleaseVersion": self.version,
            "DesiredImageReleaseVersion": self.desired_version or self.version,
            "ImageVersionStatus": image_status(self.version, latest),
        }
        body |= {name: self.spec[name] for name in _REPEATED if name in self.spec}
        if "MinInstanceCount" in self.spec:
            body["MinCount"] = self.minimum
        if "ImageId" in self.spec:
            body |= {"CurrentImageId": self.spec["ImageId"], "DesiredImageId": self.spec["ImageId"]}
        if "InstanceRequirements" in self.spec:
            body["InstanceRequirements"] = {"CurrentInstanceTypes": self.types, "DesiredInstanceTypes": self.types}
            body["InstanceTypeDetails"] = [
                {"InstanceType": kind, "CurrentCount": running.count(kind)} for kind in self.types
            ]
        if "KubernetesConfig" in self.spec:
            body["KubernetesConfig"] = current_and_desired(self.spec["KubernetesConfig"])
        if patch := self.spec.get("AutoPatchConfig"):
            body["AutoPatchConfig"] = {name: value for name, value in patch.items() if name != "PatchSchedule"}
        if self.operation:
            body["ActiveOperations"] = {"Scaling": 1}
        if self.update_status:
            body["SoftwareUpdateStatus"] = self.update_status
        if self.update_config:
            body["ActiveSoftwareUpdateConfig"] = self.update_config
        return body
