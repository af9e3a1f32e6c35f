"""Who the caller is and what he may: STS's GetCallerIdentity and IAM's policy simulation, stand-ins.

moto's caller is another one, and it simulates nothing; here the answer is the one that the gate would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fakes.gate import ACCOUNT, CALLER, Gate
from tests.fakes.policy import Policy

Body = dict[str, Any]


class Identity:
    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def simulate(self, asked: Body) -> Body:
        return {"EvaluationResults": list(self._results(asked)), "IsTruncated": False}

    def _results(self, asked: Body) -> Iterator[Body]:
        policy = None if self.gate.allow is None else Policy.of(self.gate.allow)
        context = {
            asked[f"ContextEntries.member.{n}.ContextKeyName"]: asked[
                f"ContextEntries.member.{n}.ContextKeyValues.member.1"
            ]
            for n in range(1, 20)
            if f"ContextEntries.member.{n}.ContextKeyName" in asked
        }
        for action in _members(asked, "ActionNames"):
            for resource in _members(asked, "ResourceArns") or ["*"]:
                allowed = policy is None or policy.allows(action, resource, context)
                yield {
                    "EvalActionName": action,
                    "EvalResourceName": resource,
                    "EvalDecision": "allowed" if allowed else "implicitDeny",
                    "MatchedStatements": [],
                    "MissingContextValues": [],
                }

    def caller(self, asked: Body) -> Body:
        return {"UserId": "AIDASTANDIN", "Account": ACCOUNT, "Arn": CALLER}


def _members(asked: Body, name: str) -> list[str]:
    return [value for key, value in asked.items() if key.startswith(f"{name}.member.")]
