"""Roles that the file names: there, trusting SageMaker, and allowed what nodes need; and the name of one to be made."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from hyperpd.cluster import rights
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.names import OWNER_TAG
from hyperpd.cluster.preflight import simulation
from hyperpd.cluster.preflight.finding import Finding, refused, warning, written
from hyperpd.cluster.preflight.reading import Object, Reading

_NODES, _SCALER = "sagemaker.amazonaws.com", "hyperpod.sagemaker.amazonaws.com"
_SCALING = [
    {
        "Effect": "Allow",
        "Action": ["sagemaker:BatchAddClusterNodes", "sagemaker:BatchDeleteClusterNodes"],
        "Resource": "*",
    }
]


@dataclass(frozen=True, slots=True)
class Role:
    """A role that is named, or would be made (`path` empty)."""

    arn: str
    path: str  # in the cluster file
    service: str  # that has to be able to take it on
    described: Object  # {}: there is none
    needed: list[Object]  # statements of what it has to be allowed
    denied: list[Object]  # of these, what it is not

    @property
    def name(self) -> str:
        return self.arn.rpartition("/")[2]


def read(reading: Reading, plan: Blueprint) -> Iterator[Role]:
    """Those that could be read."""
    wanted = rights.policy(plan)["Statement"]
    named: dict[str, tuple[str, str, list[Object]]] = {}
    for name, group in plan.groups.items():
        if arn := group.role or plan.spec.role:
            named.setdefault(arn, (f"groups.{name}.role" if group.role else "role", _NODES, wanted))
    if plan.spec.autoscaling:
        named[plan.spec.autoscaling.role] = ("autoscaling.role", _SCALER, _SCALING)
    if plan.makes_role:
        named[plan.names.role_arn] = ("", _NODES, [])
    for arn, (path, service, statements) in named.items():
        purpose = f"role {arn.rpartition('/')[2]}"
        found = reading.ask(purpose, "iam", "get_role", RoleName=arn.rpartition("/")[2])
        if found is None:
            continue
        denied = simulation.lacking(reading, f"what {purpose} may do", arn, statements) if found else []
        yield Role(arn, path, service, found.get("Role", {}), statements, denied or [])


def check(plan: Blueprint, roles: list[Role]) -> Iterator[Finding]:
    """Every role."""
    for role in roles:
        place = f"IAM console, Roles, {role.name}"
        if not role.path:
            if role.described and not _ours(role.described, plan):
                what = f"a role {role.name} is there, and was not made for this cluster"
                yield refused("role", what, place, f"set role: {role.arn}")
            continue
        if not role.described:
            make = shlex.quote(json.dumps(_trust(role.service)))
            fix = f"aws iam create-role --role-name {role.name} --assume-role-policy-document {make}"
            if role.path != "autoscaling.role":
                fix = f"set {role.path}: null"  # one is made then, as narrow as may be
            yield written("role", f"{role.path}: there is no role {role.name}", role.path, fix)
            continue
        if not _trusts(role.described, role.service):
            what = f"role {role.name} does not let {role.service} take it on"
            document = shlex.quote(json.dumps(_joined(role.described, role.service)))
            fix = f"aws iam update-assume-role-policy --role-name {role.name} --policy-document {document}"
            yield refused("role-trust", what, f"{place}, Trust relationships", fix)
        if role.denied:
            actions = sorted({action for one in role.denied for action in one["Action"]})
            what = f"role {role.name} may not: {', '.join(actions)}"
            document = shlex.quote(json.dumps({"Version": "2012-10-17", "Statement": role.needed}))
            fix = f"aws iam put-role-policy --role-name {role.name} --policy-name hyperpd-nodes"
            yield refused("role-policy", what, f"{place}, Permissions", f"{fix} --policy-document {document}")
        if boundary := role.described.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn"):
            what = f"role {role.name} has the permissions boundary {boundary}, which may take away what policies give"
            yield warning("role-policy", what, f"{place}, Permissions", "compare it with what hyperpd iam prints")


def _ours(role: Object, plan: Blueprint) -> bool:
    return {tag["Key"]: tag["Value"] for tag in role.get("Tags", ())}.get(OWNER_TAG) == plan.spec.name


def _document(role: Object) -> Object:
    """The trust policy; boto3 decodes it, most of the time."""
    found = role.get("AssumeRolePolicyDocument") or {}
    return json.loads(found) if isinstance(found, str) else found


def _trusts(role: Object, service: str) -> bool:
    for one in _several(_document(role).get("Statement", [])):
        principal = one.get("Principal", {})
        services = _several(principal.get("Service", [])) if isinstance(principal, dict) else [principal]
        actions = _several(one.get("Action", []))
        if one.get("Effect") == "Allow" and service in services and {"sts:AssumeRole", "sts:*", "*"} & set(actions):
            return True
    return False


def _trust(service: str) -> Object:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _joined(role: Object, service: str) -> Object:
    """What is there, and this service."""
    there = _document(role)
    added = _trust(service)
    return {**added, **there, "Statement": [*_several(there.get("Statement", [])), *added["Statement"]]}


def _several(value: object) -> list[Object]:
    return list(value) if isinstance(value, list | tuple) else [value]  # type: ignore[list-item]
