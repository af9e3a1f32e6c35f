"""Lifecycle files into their bucket: what is missing, and nothing else."""

from __future__ import annotations

from hyperpd.cluster.aws import MISSING, Aws
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.progress import Step, Tell
from hyperpd.errors import CloudError


def upload(aws: Aws, plan: Blueprint, tell: Tell) -> None:
    """Put what is missing of `plan`'s lifecycle files into the bucket. Raises CloudError.

    Objects are whole or not there, and their folder is named by their contents: what is there in its size stays.
    """
    for source, scripts in plan.scripts.items():
        prefix = f"{plan.names.prefix}/{scripts.digest}/"
        there = objects(aws, plan.bucket, prefix)
        missing = [name for name, content in scripts.files.items() if there.get(prefix + name) != len(content)]
        for name in missing:
            aws.call(
                "s3",
                "put_object",
                Bucket=plan.bucket,
                Key=prefix + name,
                Body=scripts.files[name],
                ExpectedBucketOwner=plan.place.account,
            )
        kept = len(scripts.files) - len(missing)
        tell(Step(f"lifecycle files ({source}) in s3://{plan.bucket}/{prefix}: {len(missing)} sent, {kept} were there"))


def objects(aws: Aws, bucket: str, prefix: str) -> dict[str, int]:
    """Key → bytes below a prefix; none where there is no such bucket yet and nothing is sent. Raises CloudError."""
    found: dict[str, int] = {}
    more: dict[str, str] = {}
    while True:
        try:
            answer = aws.call("s3", "list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        except CloudError as error:
            if aws.dry and error.code in MISSING:
                return {}
            raise
        found |= {one["Key"]: one["Size"] for one in answer.get("Contents", ())}
        if not answer.get("IsTruncated"):
            return found
        more = {"ContinuationToken": answer["NextContinuationToken"]}
