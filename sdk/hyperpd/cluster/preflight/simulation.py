"""What a principal may do, asked of IAM's policy simulator, statement by statement. Organizations' policies count too;
policies of buckets and keys do not. Unverified on a live account."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from hyperpd.cluster.preflight.reading import Object, Reading


def lacking(reading: Reading, purpose: str, principal: str, statements: Sequence[Object]) -> list[Object] | None:
    """Of `statements` (Allow, as in a policy) those parts that `principal` is not given; None where IAM did not say.

    principal: ARN of a user or role.
    """
    found: list[Object] = []
    for statement in statements:
        actions, resources = _several(statement["Action"]), _several(statement["Resource"])
        for resource in resources:
            denied: dict[str, None] = {}
            for context in _contexts(statement.get("Condition", {})):
                one = _denied(reading, purpose, principal, actions, resource, context)
                if one is None:
                    return None
                denied |= dict.fromkeys(one)
            if denied:
                rest = {key: value for key, value in statement.items() if key not in ("Action", "Resource")}
                found.append({**rest, "Action": list(denied), "Resource": resource})
    return list(_merged(found))


def _denied(
    reading: Reading, purpose: str, principal: str, actions: list[str], resource: str, context: list[Object]
) -> list[str] | None:
    given: Object = {"ContextEntries": context} if context else {}
    if resource != "*":
        given["ResourceArns"] = [resource]
    results = reading.pages(
        purpose,
        "iam",
        "simulate_principal_policy",
        "EvaluationResults",
        PolicySourceArn=principal,
        ActionNames=actions,
        **given,
    )
    if results is None:
        return None
    return [one["EvalActionName"] for one in results if one["EvalDecision"] != "allowed"]


def _contexts(condition: Object) -> Iterator[list[Object]]:
    """Values with which a statement's conditions hold: each that it names, since each is used (iam:PassRole, to two
    services)."""
    choices = [
        [
            {
                "ContextKeyName": key,
                "ContextKeyValues": ["000000000000" if "Not" in operator else str(value)],
                "ContextKeyType": "stringList" if operator.startswith("For") else "string",
            }
            for value in (_several(values)[:1] if "Not" in operator else _several(values))
        ]
        for operator, keys in condition.items()
        for key, values in keys.items()
    ]
    yield from map(list, itertools.product(*choices))


def _merged(statements: Sequence[Object]) -> Iterator[Object]:
    """Statements that differ in their resource alone, as one."""
    kept: dict[str, Object] = {}
    for one in statements:
        key = repr([(name, value) for name, value in sorted(one.items()) if name != "Resource"])
        if key in kept:
            kept[key]["Resource"] = [*_several(kept[key]["Resource"]), one["Resource"]]
        else:
            kept[key] = dict(one)
    yield from kept.values()


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
