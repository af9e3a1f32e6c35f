"""An IAM policy document, judged as IAM does: does it allow an action on a resource?

Identity policies only: Effect, Action, NotAction, Resource, NotResource, and the conditions that the project's
policies use. An operator of conditions that is not known here is an error of the test, never a silent yes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

Document = Mapping[str, Any]
_CONDITIONS = {
    "StringEquals": lambda found, wanted: found == wanted,
    "ForAnyValue:StringEquals": lambda found, wanted: found == wanted,  # of one value
    "StringNotEquals": lambda found, wanted: found != wanted,  # of one value, and a key that is there
    "StringLike": lambda found, wanted: bool(_pattern(wanted).fullmatch(found)),
    "ArnEquals": lambda found, wanted: bool(_pattern(wanted).fullmatch(found)),
    "ArnLike": lambda found, wanted: bool(_pattern(wanted).fullmatch(found)),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Statements, of one document or several: what none of them allows is denied, and so is what one denies."""

    statements: tuple[Document, ...]

    @classmethod
    def of(cls, given: Document | Sequence[Document | str]) -> Policy:
        """From a document, several, or a list of actions that are allowed on everything."""
        if isinstance(given, Mapping):
            return cls(tuple(_several(given["Statement"])))
        documents = [one for one in given if isinstance(one, Mapping)]
        actions = [one for one in given if isinstance(one, str)]
        statements = [statement for one in documents for statement in _several(one["Statement"])]
        if actions:
            statements.append({"Effect": "Allow", "Action": actions, "Resource": "*"})
        return cls(tuple(statements))

    def allows(self, action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
        """Whether `action` (s3:GetObject) is allowed on `resource` (an ARN, or * where the action has none)."""
        effects = {each["Effect"] for each in self._fitting(action, resource, context or {})}
        return effects == {"Allow"}

    def _fitting(self, action: str, resource: str, context: Mapping[str, str]) -> Iterator[Document]:
        for each in self.statements:
            named = _fits(each, "Action", action.lower(), str.lower) and _fits(each, "Resource", resource, str)
            if named and _holds(each.get("Condition", {}), context):
                yield each


def _fits(statement: Document, key: str, value: str, spelled: Any) -> bool:
    if f"Not{key}" in statement:
        return not any(_pattern(spelled(one)).fullmatch(value) for one in _several(statement[f"Not{key}"]))
    return any(_pattern(spelled(one)).fullmatch(value) for one in _several(statement[key]))


def _holds(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    for operator, wanted in conditions.items():
        if operator not in _CONDITIONS:
            raise NotImplementedError(f"condition operator {operator} is not known to the stand-in")
        for key, values in wanted.items():
            if key not in context or not any(_CONDITIONS[operator](context[key], one) for one in _several(values)):
                return False
    return True


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in text), re.DOTALL)
