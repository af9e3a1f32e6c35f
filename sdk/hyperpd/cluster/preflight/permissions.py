"""The caller's permissions to create the cluster, asked of IAM before anything is made."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.permissions import Scope, policy
from hyperpd.cluster.preflight import simulation
from hyperpd.cluster.preflight.caller import Caller
from hyperpd.cluster.preflight.finding import Finding, refused, unknown
from hyperpd.cluster.preflight.reading import Object, Reading

_PURPOSE = "your permissions to create the cluster"
_COMMAND = ("cluster create",)


def scope(plan: Blueprint, caller: Caller) -> Scope:
    """What policies that are printed here are for. The cluster's id is not known before it is there."""
    return Scope(plan.place, plan.spec.name, plan, holder=caller.name if caller.kind == "role" else "")


def read(reading: Reading, plan: Blueprint) -> list[Object] | None:
    """What is denied; None where IAM did not say."""
    caller = reading.caller
    if caller.kind == "root":
        return []
    if caller.kind == "other":
        return None
    principal = caller.arn
    if caller.kind == "role":
        found = reading.ask(_PURPOSE, "iam", "get_role", RoleName=caller.name)  # STS leaves the role's path out
        if not found:
            return None
        principal = found["Role"]["Arn"]
    # What create goes on without is not asked for here: a read that is denied says so itself.
    statements = policy(_COMMAND, scope(plan, caller), optional=False)["Statement"]
    return simulation.lacking(reading, _PURPOSE, principal, statements)


def check(reading: Reading, plan: Blueprint, denied: list[Object] | None) -> Iterator[Finding]:
    """denied: what `read` gives."""
    caller = reading.caller
    if denied:
        actions = sorted({action for one in denied for action in one["Action"]})
        what = f"{caller.name} may not: {', '.join(actions)}"
        statements = policy(_COMMAND, scope(plan, caller))["Statement"]
        yield refused("permissions", what, caller.place, caller.grant(statements, "hyperpd-create"))
    elif caller.kind == "root":
        yield Finding("warning", "permissions", "these are the root user's credentials", "IAM console", "aws configure")
    elif denied is None and caller.kind == "other":
        what = f"{_PURPOSE} could not be checked: IAM simulates users and roles, and this is {caller.arn}"
        yield unknown("permissions", what, "IAM console", "hyperpd iam cluster create prints what is needed")
