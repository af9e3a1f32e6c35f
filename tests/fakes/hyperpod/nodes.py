"""One node of a cluster: from wanted to running, and what the API says of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.gate import REGION

Body = dict[str, Any]
# Of the group's specification, what DescribeClusterNode repeats.
_REPEATED = ("LifeCycleConfig", "OverrideVpcConfig", "ThreadsPerCore", "InstanceStorageConfigs", "NetworkInterface")


@dataclass(slots=True)
class Node:
    """A place in a group; `instance_id` is empty until a machine was found for it, and another after a replacement."""

    logical_id: str
    group: str
    ordinal: int
    instance_type: str
    zone: str
    zone_id: str
    subnet: str
    instance_id: str = ""
    status: str = "Pending"
    message: str = ""
    launched_s: float = 0.0
    updated_s: float = 0.0
    version: str = ""
    attempt: int = 0
    machines: int = 0  # how many it has had
    gone: bool = False

    def launch(self, now_s: float, version: str) -> None:
        self.machines += 1
        self.instance_id = f"i-0{digest(self.logical_id, self.machines)[:16]}"
        self.launched_s = now_s
        self.version = version

    @property
    def address(self) -> str:
        """Within 10.0.0.0/16, by the machine."""
        number = int(digest(self.instance_id)[:4], 16)
        return f"10.0.{number >> 8}.{number & 255}"

    @property
    def hostname(self) -> str:
        return f"ip-{self.address.replace('.', '-')}.{REGION}.compute.internal"

    def enis(self, efa: int) -> Body:
        """The customer's ENI and the EFA ones, as an event's metadata has them."""
        named = [f"eni-0{digest(self.instance_id, n)[:16]}" for n in range(efa + 1)]
        return {"CustomerEni": named[0]} | ({"AdditionalEnis": {"EfaEnis": named[1:]}} if efa else {})

    def status_details(self) -> Body:
        return {"Status": self.status} | ({"Message": self.message} if self.message else {})

    def summary(self, latest: str, *, logical: bool) -> Body:
        body: Body = {
            "InstanceGroupName": self.group,
            "InstanceId": self.instance_id,  # required, also where there is none yet: live?
            "InstanceType": self.instance_type,
            "LaunchTime": self.launched_s,
            "InstanceStatus": self.status_details(),
        }
        return body | self._machine(latest) | ({"NodeLogicalId": self.logical_id} if logical else {})

    def details(self, group: Body, latest: str) -> Body:
        body: Body = {
            "InstanceGroupName": self.group,
            "NodeLogicalId": self.logical_id,
            "InstanceStatus": self.status_details(),
            "InstanceType": self.instance_type,
            "Placement": {"AvailabilityZone": self.zone, "AvailabilityZoneId": self.zone_id},
            "CapacityType": "Spot" if "Spot" in group.get("CapacityRequirements", {}) else "OnDemand",
        }
        body |= {name: group[name] for name in _REPEATED if name in group}
        if labels := group.get("KubernetesConfig"):
            body["KubernetesConfig"] = current_and_desired(labels)
        if self.instance_id:
            body |= {"InstanceId": self.instance_id, "LaunchTime": self.launched_s, "PrivatePrimaryIp": self.address}
            body |= {"DesiredImageReleaseVersion": self.version}
        return body | self._machine(latest)

    def _machine(self, latest: str) -> Body:
        if not self.instance_id:
            return {}
        body: Body = {
            "PrivateDnsHostname": self.hostname,
            "CurrentImageReleaseVersion": self.version,
            "ImageVersionStatus": image_status(self.version, latest),
        }
        return body | ({"LastSoftwareUpdateTime": self.updated_s} if self.updated_s else {})


def image_status(version: str, latest: str) -> str:
    return "UpToDate" if version == latest else "UpdateAvailable"


def current_and_desired(config: Body) -> Body:
    """Labels and taints of a specification as an answer has them."""
    return {f"{when}{name}": value for name, value in config.items() for when in ("Current", "Desired")}


def digest(*words: object) -> str:
    """Hexadecimal digits that are the same in every run."""
    return hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Zones:
    """Where subnets are: name and id of each one's availability zone; those nobody named are spread by their id."""

    of: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __call__(self, subnet: str) -> tuple[str, str]:
        if subnet in self.of:
            return self.of[subnet]
        number = int(digest(subnet)[:2], 16) % 3
        return f"{REGION}{'abc'[number]}", f"use2-az{number + 1}"
