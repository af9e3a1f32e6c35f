"""The role and the bucket that are made where a cluster file names none, tagged with the cluster they are for.

Both are found by name and tag, so a run that was cut off goes on where it was, and delete takes away these two alone.
"""

from __future__ import annotations

import json
from urllib.parse import unquote

from hyperpd.cluster import rights
from hyperpd.cluster.aws import MISSING, Aws, Object
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.names import OWNER_TAG, Names
from hyperpd.cluster.progress import Step, Tell
from hyperpd.cluster.upload import objects
from hyperpd.errors import CloudError

_POLICY = "hyperpd"
_BATCH = 1000  # keys of one DeleteObjects


def make(aws: Aws, plan: Blueprint, tell: Tell) -> None:
    """Role and bucket, as far as the file names none. Raises CloudError."""
    if plan.makes_role:
        _make_role(aws, plan, tell)
    if plan.makes_bucket:
        _make_bucket(aws, plan, tell)


def _make_role(aws: Aws, plan: Blueprint, tell: Tell) -> None:
    name, wanted = plan.names.role, rights.policy(plan)
    found = role(aws, plan.names)
    if found is None:
        request: Object = {
            "RoleName": name,
            "AssumeRolePolicyDocument": json.dumps(rights.trust()),
            "Description": f"Nodes of the HyperPod cluster {plan.spec.name}",
            "Tags": _tags(plan),
        }
        try:
            aws.call("iam", "create_role", **request)
        except CloudError as error:
            # boto3 sent it twice, and the first answer was lost; or another run is at it.
            if error.code != "EntityAlreadyExists":
                raise
            found = role(aws, plan.names)
    if found is not None and not owned(found, plan.spec.name):
        raise CloudError(
            f"the role {name} is there, and not tagged {OWNER_TAG}={plan.spec.name}: it was not made for this cluster."
            " Write role: with its ARN into the file if it is to be used, or delete it"
        )
    if found is None or _policy(aws, name) != wanted:
        aws.call("iam", "put_role_policy", RoleName=name, PolicyName=_POLICY, PolicyDocument=json.dumps(wanted))
        tell(Step(f"role {name}: {'made' if found is None else 'policy brought up to date'}"))


def _policy(aws: Aws, name: str) -> Object | None:
    found = _or_none(aws, "iam", "get_role_policy", RoleName=name, PolicyName=_POLICY)
    document = found.get("PolicyDocument") if found else None
    if isinstance(document, str):
        document = json.loads(unquote(document))
    return document


def _make_bucket(aws: Aws, plan: Blueprint, tell: Tell) -> None:
    name, account = plan.bucket, plan.place.account
    there = _or_none(aws, "s3", "head_bucket", Bucket=name, ExpectedBucketOwner=account) is not None
    if not there:
        where = {"CreateBucketConfiguration": {"LocationConstraint": plan.place.region}}
        try:
            # us-east-1 is where buckets go that say nothing, and it takes no word for itself.
            aws.call("s3", "create_bucket", Bucket=name, **({} if plan.place.region == "us-east-1" else where))
        except CloudError as error:
            if error.code != "BucketAlreadyOwnedByYou":
                raise
        tell(Step(f"bucket {name}: made"))
    if not owned_bucket(aws, plan.names):
        mine = {"Bucket": name, "ExpectedBucketOwner": account}
        block = dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        )
        aws.call("s3", "put_public_access_block", **mine, PublicAccessBlockConfiguration=block)
        aws.call("s3", "put_bucket_policy", **mine, Policy=json.dumps(_encrypted_only(plan)))
        # Last: a bucket that has its tag has all the rest.
        aws.call("s3", "put_bucket_tagging", **mine, Tagging={"TagSet": _tags(plan)})


def _encrypted_only(plan: Blueprint) -> Object:
    arn = f"arn:{plan.place.partition}:s3:::{plan.bucket}"
    deny = {
        "Sid": "NeverUnencrypted",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"],
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {"Version": "2012-10-17", "Statement": [deny]}


def role(aws: Aws, names: Names) -> Object | None:
    """The role of the name that would be made, whoever made it."""
    found = _or_none(aws, "iam", "get_role", RoleName=names.role)
    return found.get("Role") if found else None


def owned(found: Object, cluster: str) -> bool:
    """Whether a role or bucket is tagged as made for this cluster."""
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}.get(OWNER_TAG) == cluster


def owned_bucket(aws: Aws, names: Names) -> bool:
    """Whether the bucket that would be made is there and tagged as made for this cluster."""
    found = _or_none(aws, "s3", "get_bucket_tagging", Bucket=names.bucket, ExpectedBucketOwner=names.place.account)
    return owned({"Tags": found.get("TagSet", ())}, names.cluster) if found else False


def remove_role(aws: Aws, names: Names) -> None:
    """The role that was made, with its policy. Raises CloudError."""
    if _policy(aws, names.role) is not None:
        aws.call("iam", "delete_role_policy", RoleName=names.role, PolicyName=_POLICY)
    aws.call("iam", "delete_role", RoleName=names.role)


def remove_files(aws: Aws, bucket: str, names: Names) -> int:
    """The lifecycle files of the cluster; how many. Raises CloudError."""
    keys = sorted(objects(aws, bucket, names.prefix + "/"))
    for start in range(0, len(keys), _BATCH):
        wanted = {"Objects": [{"Key": key} for key in keys[start : start + _BATCH]], "Quiet": True}
        answer = aws.call("s3", "delete_objects", Bucket=bucket, Delete=wanted, ExpectedBucketOwner=names.place.account)
        if failed := answer.get("Errors"):
            told = "; ".join(f"{one.get('Key')}: {one.get('Code')} {one.get('Message')}" for one in failed)
            raise CloudError(f"s3 DeleteObjects: {len(failed)} of {len(keys)} files stay: {told}")
    return len(keys)


def remove_bucket(aws: Aws, names: Names) -> bool:
    """The bucket that was made; False where it stays, since others put files into it. Raises CloudError."""
    try:
        aws.call("s3", "delete_bucket", Bucket=names.bucket, ExpectedBucketOwner=names.place.account)
    except CloudError as error:
        if error.code != "BucketNotEmpty":
            raise
        return False
    return True


def _tags(plan: Blueprint) -> list[Object]:
    return [{"Key": key, "Value": value} for key, value in plan.tags.items()]


def _or_none(aws: Aws, service: str, operation: str, **parameters: object) -> Object | None:
    try:
        return aws.call(service, operation, **parameters)
    except CloudError as error:
        if error.code in MISSING:
            return None
        raise
