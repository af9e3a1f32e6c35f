"""Stage: what is in moto, set up and looked at behind the gate; and what the HyperPod stand-in sees of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions

from tests.fakes.gate import ACCOUNT, REGION
from tests.fakes.hyperpod.nodes import Zones
from tests.fakes.hyperpod.scenario import Scenario, Trouble
from tests.fakes.policy import Policy

KEY = "stage"  # the access key that goes behind the gate


class Stage(Scenario):
    """The services that a cluster is made from, as they are: roles, subnets, security groups, EKS, lifecycle files."""

    def __init__(self) -> None:
        self.url = ""
        self.client = cache(self._client)
        self._spread = Zones()

    def _client(self, service: str) -> Any:
        """A boto3 client that nobody refuses and nobody writes down."""
        return boto3.client(
            service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=KEY
        )

    def zone(self, subnet: str) -> tuple[str, str]:
        """Name and id of a subnet's availability zone."""
        found = self._found("ec2", "describe_subnets", SubnetIds=[subnet])
        if not found:
            return self._spread(subnet)
        return found["Subnets"][0]["AvailabilityZone"], found["Subnets"][0]["AvailabilityZoneId"]

    def refuses_create(self, request: Mapping[str, Any]) -> Iterator[str]:
        """What CreateCluster or UpdateCluster names, and is not there."""
        groups = request.get("InstanceGroups", [])
        for role in sorted({group["ExecutionRole"] for group in groups}):
            if not self._found("iam", "get_role", RoleName=role.rpartition("/")[2]):
                yield f"Could not assume role {role}: it is not there"
        vpcs = [one for one in (request.get("VpcConfig"), *(each.get("OverrideVpcConfig") for each in groups)) if one]
        for subnet in sorted({subnet for vpc in vpcs for subnet in vpc["Subnets"]}):
            if not self._found("ec2", "describe_subnets", SubnetIds=[subnet]):
                yield f"The subnet ID '{subnet}' does not exist"
        for group in sorted({group for vpc in vpcs for group in vpc["SecurityGroupIds"]}):
            if not self._found("ec2", "describe_security_groups", GroupIds=[group]):
                yield f"The security group '{group}' does not exist"
        eks = request.get("Orchestrator", {}).get("Eks", {}).get("ClusterArn", "").rpartition("/")[2]
        if eks and not self._found("eks", "describe_cluster", name=eks):
            yield f"No EKS cluster found for name: {eks}"

    def lifecycle(self, source: str, script: str, role: str) -> Trouble | None:
        """What ends a node's start when its script is not in the bucket, or its role may not list and read it."""
        where, said = urlsplit(source), f"Failed to download lifecycle scripts from {source}"
        key = f"{where.path.strip('/')}/{script}".lstrip("/")
        if not self._found("s3", "head_object", Bucket=where.netloc, Key=key):
            return Trouble("lifecycle", f"{said}: {script} is not there.")
        bucket, own = f"arn:aws:s3:::{where.netloc}", {"aws:ResourceAccount": ACCOUNT}
        rights, listed = self._policy(role.rpartition("/")[2]), own | {"s3:prefix": where.path.lstrip("/")}
        lacking = [] if rights.allows("s3:ListBucket", bucket, listed) else ["s3:ListBucket"]
        lacking += [] if rights.allows("s3:GetObject", f"{bucket}/{key}", own) else ["s3:GetObject"]
        if lacking:
            return Trouble("lifecycle", f"{said}: the role may not {' and '.join(lacking)}.")
        return None

    def _policy(self, role: str) -> Policy:
        """All that a role is allowed: by its own policies, and by those attached to it."""
        iam, found = self.client("iam"), []
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            found.append(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
        for one in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            version = iam.get_policy(PolicyArn=one["PolicyArn"])["Policy"]["DefaultVersionId"]
            answer = iam.get_policy_version(PolicyArn=one["PolicyArn"], VersionId=version)
            found.append(answer["PolicyVersion"]["Document"])
        return Policy.of(found)

    def script_ended(self, cluster_arn: str, cluster: str, group: str, instance: str, log: tuple[str, ...]) -> None:
        """To CloudWatch's log group of the cluster, in a stream per instance; nothing of a script that never ran."""
        if not log:
            return
        logs = self.client("logs")
        where = {"logGroupName": f"/aws/sagemaker/Clusters/{cluster}/{cluster_arn.rpartition('/')[2]}"}
        stream = {**where, "logStreamName": f"LifecycleConfig/{group}/{instance}"}
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(**where)
        logs.create_log_stream(**stream)
        now_ms = int(time.time() * 1000)  # the log takes nothing from the future, where virtual time may be
        logs.put_log_events(**stream, logEvents=[{"timestamp": now_ms, "message": line} for line in log])

    def _found(self, service: str, operation: str, **asked: Any) -> Any:
        try:
            return getattr(self.client(service), operation)(**asked)
        except botocore.exceptions.ClientError:
            return None
