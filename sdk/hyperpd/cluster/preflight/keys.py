"""KMS keys of volumes: a key's own policy decides too, and nothing here reads it. Pure.

Source: AWS' page "Customer managed AWS KMS key encryption for SageMaker HyperPod"; unverified on a live account.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.preflight.finding import Finding, unknown

_NEEDED = "kms:CreateGrant and kms:DescribeKey"


def check(plan: Blueprint) -> Iterator[Finding]:
    """One for each key, with the roles that have to be let in."""
    roles: dict[str, list[str]] = {}
    for group in plan.groups.values():
        for key in {volume.kms_key for volume in group.volumes if volume.kms_key}:
            roles.setdefault(key, []).append(plan.role_arn(group))
    for key, holders in roles.items():
        allowed = ", ".join(dict.fromkeys(holders))
        what = f"whether the policy of KMS key {key} gives {_NEEDED} to {allowed} is not checked"
        place = f"KMS console, Customer managed keys, {key.rpartition('/')[2]}, Key policy"
        account = f"arn:{plan.place.partition}:iam::{plan.place.account}:root"
        fix = f"read it there: it names the role, or {account}, so that IAM policies count"
        yield unknown("key-policy", what, place, fix)
