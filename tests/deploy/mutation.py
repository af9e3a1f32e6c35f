"""Objects made wrong in one place each: every field misspelt, every required field dropped.

A validator that notices all of them leaves no field unread. Keys of free-form maps (labels, annotations,
nodeSelector, resource names, data of a ConfigMap …) are not fields: the schema does not name them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.deploy import schema

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One wrong object: what was done, where, and the object."""

    what: str  # "misspell" or "drop"
    path: Path
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.what} {'.'.join(map(str, self.path))}"


def mutations(body: Mapping[str, Any]) -> Iterator[Mutation]:
    """Every mutation of one object."""
    checker = schema.validator(body["apiVersion"], body["kind"], schema.VERSIONS[-1])
    assert checker is not None, f"no schema of {body['kind']} in {body['apiVersion']}"
    for path, required in fields(body, checker.schema):
        changed = copy.deepcopy(dict(body))
        block = _block(changed, path)
        block[misspelt(str(path[-1]))] = block.pop(path[-1])
        yield Mutation("misspell", path, changed)
        if required:
            changed = copy.deepcopy(dict(body))
            del _block(changed, path)[path[-1]]
            yield Mutation("drop", path, changed)


def fields(value: Any, declared: Any, above: Path = ()) -> Iterator[tuple[Path, bool]]:
    """Paths of the fields in `value` that the schema names, and whether it requires them.

    A custom resource's definition does not say that apiVersion and kind are required, nor does Kubernetes' own;
    they choose the schema, so both are.
    """
    declared = schema.resolve(declared)
    if isinstance(value, dict):
        named = declared.get("properties", {})
        for key, inner in value.items():
            if key in named:
                yield (
                    (*above, key),
                    key in declared.get("required", ()) or (not above and key in ("apiVersion", "kind")),
                )
                yield from fields(inner, named[key], (*above, key))
            elif isinstance(free := declared.get("additionalProperties"), dict):
                yield from fields(inner, free, (*above, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from fields(inner, declared.get("items", {}), (*above, index))


def misspelt(name: str) -> str:
    """`name` as a hasty author writes it; no field of Kubernetes ends in its last letter three times."""
    return name + name[-1] * 2


def _block(body: dict[str, Any], path: Path) -> Any:
    block: Any = body
    for key in path[:-1]:
        block = block[key]
    return block
