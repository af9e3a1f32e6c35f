"""Differences between objects, field by field; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Object = dict[str, Any]
What = Literal["created", "changed", "unchanged", "deleted", "left out"]

_OF_SERVER = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
_VERB = {"created": "create", "changed": "change", "unchanged": "keep", "deleted": "delete", "left out": "leave out"}
_LONG = 72  # characters of a value that are shown


class Ref(NamedTuple):
    """What names an object."""

    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" in {self.namespace}" if self.namespace else "")


@dataclass(frozen=True, slots=True)
class Field:
    """One field that differs; None where it is not there."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path}: {_short(self.after)}"
        if self.after is None:
            return f"- {self.path}: {_short(self.before)}"
        return f"~ {self.path}: {_short(self.before)} → {_short(self.after)}"


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one object. why: where that is not plain."""

    ref: Ref
    what: What
    fields: tuple[Field, ...] = ()
    why: str = ""

    def lines(self) -> Iterator[str]:
        yield f"{_VERB[self.what]} {self.ref}" + (f" ({self.why})" if self.why else "")
        yield from (f"  {field}" for field in self.fields)


def ref(body: Mapping[str, Any]) -> Ref:
    meta = body["metadata"]
    return Ref(body["kind"], meta.get("namespace"), meta["name"])


def compare(before: Iterable[Object], after: Iterable[Object]) -> list[Change]:
    """What it takes from one list of objects to another: in the order of `after`, then what goes."""
    old, new = {ref(one): one for one in before}, {ref(one): one for one in after}
    changes = []
    for at, body in new.items():
        found = tuple(fields(old[at], body)) if at in old else ()
        changes.append(Change(at, "created" if at not in old else "changed" if found else "unchanged", found))
    return changes + [Change(at, "deleted") for at in old if at not in new]


def fields(before: Any, after: Any, path: str = "") -> Iterator[Field]:
    """Fields that differ, but for the server's own. Lists whose entries have names are compared by name."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            if (path == "" and key == "status") or (path == "metadata" and key in _OF_SERVER):
                continue
            dotted = str(key) if "." not in str(key) else f"[{key}]"
            yield from fields(before.get(key), after.get(key), f"{path}.{dotted}" if path else dotted)
    elif isinstance(before, list) and isinstance(after, list) and (before or after):
        old, new = _entries(before), _entries(after)
        for name in dict.fromkeys([*old, *new]):
            yield from fields(old.get(name), new.get(name), f"{path}[{name}]")
    elif before != after:
        yield Field(path, before, after)


def _entries(values: list[Any]) -> dict[Any, Any]:
    names = [value.get("name") if isinstance(value, Mapping) else None for value in values]
    if None in names or len(set(names)) != len(names):
        return dict(enumerate(values))
    return dict(zip(names, values, strict=True))


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else value
    if "\n" in text:
        return f"({text.count(chr(10)) + 1} lines)"
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
