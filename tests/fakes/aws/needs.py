"""The IAM actions and resources behind the calls to services other than SageMaker.

From AWS's service authorization reference, for what the project calls; a call without a line here needs the action of
its own name on *, which a policy that names resources does not give: add a line then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.fakes.aws.request import Identified
from tests.fakes.gate import ACCOUNT, REGION, Need

_S3 = {
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "ListBuckets": "ListAllMyBuckets",
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "UploadPartCopy": "PutObject",
    "ListObjectVersions": "ListBucketVersions",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
}
_FREE = {("sts", "GetCallerIdentity")}  # allowed to everyone, whatever a policy says
# IAM: which parameter names the resource, and its kind.
_IAM = {"RoleName": "role", "PolicyArn": "", "UserName": "user", "InstanceProfileName": "instance-profile"}
_EKS = {
    "addonName": "addon/{name}/{addonName}/*",
    "principalArn": "access-entry/{name}/*",
    "associationId": "podidentityassociation/{name}/{associationId}",
    "nodegroupName": "nodegroup/{name}/{nodegroupName}/*",
}


def of(call: Identified) -> tuple[Need, ...]:
    return () if (call.service, call.operation) in _FREE else tuple(_needs(call))


def _needs(call: Identified) -> Iterator[Need]:
    given = call.parameters
    if call.service == "s3":
        yield from _of_s3(call.operation, given)
        return
    action = f"{call.service}:{call.operation}"
    if call.service == "iam":
        yield Need(action, _of_iam(call.operation, given))
        if call.operation == "CreateRole" and any(name.startswith("Tags.") for name in given):
            yield Need("iam:TagRole", _of_iam(call.operation, given))
    elif call.service == "eks":
        yield Need(action, _of_eks(given))
    elif call.service == "logs" and (group := given.get("logGroupName")):
        stream = given.get("logStreamName")
        yield Need(action, _arn("logs", f"log-group:{group}:log-stream:{stream}" if stream else f"log-group:{group}:*"))
    elif call.service == "cloudformation" and (stack := given.get("StackName")):
        yield Need(action, stack if stack.startswith("arn:") else _arn("cloudformation", f"stack/{stack}/*"))
    elif call.service == "secretsmanager" and (secret := given.get("SecretId")):
        yield Need(action, secret if secret.startswith("arn:") else _arn("secretsmanager", f"secret:{secret}-*"))
    elif call.service == "servicequotas" and given.get("QuotaCode"):
        yield Need(action, _arn("servicequotas", f"{given.get('ServiceCode')}/{given['QuotaCode']}"))
    elif call.service == "sagemaker" and (endpoint := given.get("EndpointName")):  # by the runtime
        yield Need(action, _arn("sagemaker", f"endpoint/{endpoint.lower()}"))
    else:
        yield Need(action)
    for role in sorted(str(given[name]) for name in ("RoleARN", "roleArn", "RoleArn") if name in given):
        if call.operation.startswith(("Create", "Update", "Put")):
            yield Need("iam:PassRole", role, {"iam:PassedToService": f"{call.service}.amazonaws.com"})


def _of_s3(operation: str, given: dict[str, Any]) -> Iterator[Need]:
    action = f"s3:{_S3.get(operation, operation)}"
    bucket = f"arn:aws:s3:::{given['Bucket']}" if "Bucket" in given else "*"
    if operation == "DeleteObjects":
        yield from (Need("s3:DeleteObject", f"{bucket}/{one['Key']}") for one in given["Delete"]["Objects"])
    else:
        yield Need(action, f"{bucket}/{given['Key']}" if "Key" in given else bucket)


def _of_iam(operation: str, given: dict[str, Any]) -> str:
    if operation == "SimulatePrincipalPolicy":
        return str(given.get("PolicySourceArn", "*"))
    for name, kind in _IAM.items():
        if name in given:
            path = given.get("Path", "/")
            return f"arn:aws:iam::{ACCOUNT}:{kind}{path}{given[name]}" if kind else str(given[name])
    if "PolicyName" in given:
        return f"arn:aws:iam::{ACCOUNT}:policy{given.get('Path', '/')}{given['PolicyName']}"
    return "*"


def _of_eks(given: dict[str, Any]) -> str:
    name = given.get("clusterName") or given.get("name")
    if not name:
        return "*"
    for parameter, pattern in _EKS.items():
        if parameter in given:
            return _arn("eks", re.sub(r"\{(\w+)\}", lambda one: str({**given, "name": name}[one[1]]), pattern))
    return _arn("eks", f"cluster/{name}")


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"
